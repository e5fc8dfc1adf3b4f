"""The section `evaluate`: the prompts, the judges, the level of the intervals, and the guards."""

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from ..engine.messages import listed
from ..engine.params import Settings, matching
from .counts import Asked, counting

LOCAL = "models/pretrained/"
BUILT_IN = ("classifier", "lexicon", "reward")  # the judges that `evaluation/judges.py` has itself
Share = Annotated[float, Field(ge=0, le=1)]
Times = Annotated[float, Field(ge=0, le=1e6)]


def _judges(judges: list[str]) -> list[str]:
    if judges[:1] != ["classifier"]:
        raise ValueError("should begin with classifier, from which `mean_positive` comes")
    names = [short_name(judge) for judge in judges]
    if len(set(names)) < len(names):
        raise ValueError(f"should name each judge once (got {listed(names)})")
    taken = sorted({"mean", "std", "grammar"} & set(names))
    if taken:
        raise ValueError(f"{taken[0]}_positive is another figure; rename the judge's folder")
    return judges


def short_name(judge: str) -> str:
    """Return the name of a judge in tables: the last part of its id, without revision and dots."""
    return judge.split("@")[0].rsplit("/")[-1].replace(".", "_")


class Asking(Settings):
    """The part of the section that `prepare` reads, to know how many prompts the source must have."""

    model_config = ConfigDict(extra="ignore")

    num_samples: Annotated[Asked, counting(2)]
    split: Literal["test", "validation"]
    prompts_file: (
        Annotated[str, matching(r"prompts/\w[\w.-]*\.(txt|jsonl)", "prompts/NAME.txt, prompts/NAME.jsonl or empty")] | None
    )


class Questions(Asking):
    """The part of the section that `sample` reads. A change of other settings does not sample again."""

    samples_per_prompt: Annotated[int, Field(ge=1, le=1000)]


class Guards(Settings):
    """Limits of the cost of positivity. Empty: no limit."""

    max_perplexity: Times | None
    max_kl: Times | None
    min_distinct_2: Times | None
    max_self_bleu: Share | None
    max_repetition: Share | None
    max_duplicated: Share | None
    max_cut_off: Share | None
    min_length: Times | None
    max_length: Times | None


class EvaluateSettings(Questions):
    """The section `evaluate`."""

    model_config = ConfigDict(extra="forbid")

    judged: Literal["response", "prompt and response"]
    judges: Annotated[
        list[
            Annotated[
                str,
                matching(
                    rf"{'|'.join(BUILT_IN)}|{LOCAL}\w[\w.-]*|(?!models/)\w[\w.-]*/\w[\w.-]*@[0-9a-f]{{40}}",
                    f"{', '.join(BUILT_IN)}, {LOCAL}NAME, or a hub id with its commit, OWNER/NAME@COMMIT",
                ),
            ]
        ],
        AfterValidator(_judges),
    ]
    exam_texts: Annotated[int, Field(ge=10, le=1_000_000)]
    distinct_tokens: Annotated[int, Field(ge=10, le=1_000_000_000)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    resamples: Annotated[int, Field(ge=99, le=100_000)]
    guards: Guards
    shown_samples: Annotated[int, Field(ge=1, le=100)]
    listed_prompts: Annotated[int, Field(ge=1, le=1_000_000)]
