"""Which figures of two revisions are measured in the same way.

The entries of dvc.lock have the hashes of the prompts, the held-out rows, the judge and the base model. Where the bytes are the
same, the measure is the same, whatever the settings say.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from review_changes import reruns
from revisions import Side, used

_FREE = {"seed", "device"}  # settings whose effect is noise
BASE_ANSWERS = "data/samples/base.jsonl"


class Measure(NamedTuple):
    """Something that figures are measured with.

    Attributes:
        what: its name.
        files: outs of dvc.lock that hold it.
        settings: a pattern of the settings that act in the measuring stage itself, and so change none of these files.
        metrics: a pattern of the metrics that depend on it.
    """

    what: str
    files: tuple[str, ...]
    settings: str
    metrics: str


_OF_ANSWERS = r"evaluation\..*"
MEASURES = (
    Measure(
        "prompts",
        ("data/prepared/prompts.jsonl", "data/hashes/sample.json"),
        r"evaluate\.(split|prompts_file|num_samples|samples_per_prompt)",
        _OF_ANSWERS,
    ),
    Measure("sampling of the answers", (), r"generation\.(max_new_tokens|temperature|top_p)", _OF_ANSWERS),
    Measure("base model", ("models/base",), "", r"evaluation\..*\.perplexity"),
    Measure(
        "judge",
        ("models/judge",),
        r"evaluate\.judged",
        r"evaluation\..*\.(mean_positive|std_positive|positive_ratio\w*|ci_\w+|p_value|effect_size)",
    ),
    Measure("tokens for distinct_2", (), r"evaluate\.distinct_tokens", r"evaluation\..*\.distinct_2"),
    Measure("level of the intervals", (), r"evaluate\.confidence", r".*_(low|high)"),
    Measure("labelled texts", ("data/prepared/labelled.jsonl",), "", r"judge\..*"),
    Measure("length of cut texts", (), r"judge\.cut_words", r"judge\.accuracy_cut"),
    Measure("preference pairs", ("data/prepared/preferences.jsonl",), "", r"reward\..*"),
    Measure("demonstrations", ("data/prepared/sft.jsonl",), "", r"sft\..*"),
    Measure("validation prompts", ("data/prepared/prompts.jsonl",), r"ppo\.validation_prompts", r"ppo\.validation_.*"),
)


class Difference(NamedTuple):
    """A measure that differs between two revisions.

    Attributes:
        what: its name.
        why: the files and settings that differ.
        metrics: a pattern of the metrics that depend on it.
    """

    what: str
    why: list[str]
    metrics: str


def incomparable(before: Side, after: Side) -> list[Difference]:
    """Return the measures that differ.

    A setting that only one side has differs. A file differs if its bytes do, and more than the seed or the machine of its
    stage. If the base model gave the same answers, then their prompts and their sampling were the same.
    """
    files = _other_bytes(before, after)
    old, new = used(before), used(after)
    changed = [key for key in old.keys() | new.keys() if key not in old or key not in new or old[key] != new[key]]
    same_answers = None is not _hash(before, BASE_ANSWERS) == _hash(after, BASE_ANSWERS)
    found = []
    for one in MEASURES:
        if same_answers and one.what in ("prompts", "sampling of the answers"):
            continue
        why = [name for path in one.files for name in files.get(path, ())]
        why += sorted(key for key in changed if re.fullmatch(one.settings, key))
        if why:
            found.append(Difference(one.what, list(dict.fromkeys(why)), one.metrics))
    return found


def _other_bytes(before: Side, after: Side) -> dict[str, list[str]]:
    """Return the outs whose bytes differ for a cause, each with its path and the settings among the causes."""
    found: dict[str, list[str]] = {}
    for one in reruns(before, after):
        params = [key for key in one.causes.get("params", []) if key not in _FREE]
        if params or one.causes.keys() - {"params"}:
            both = [path for path in one.outs if _hash(before, path) and _hash(after, path)]
            found |= {path: [path, *params] for path in both}
    return found


def _hash(one: Side, path: str) -> str | None:
    hashes = (out.get("md5") for entry in one.stages.values() for out in entry.get("outs", ()) if out["path"] == path)
    return next(hashes, None)


def other_judge(before: Side, after: Side) -> bool:
    """Return whether both revisions have a judge, and the two judges have different bytes."""
    hashes = [_hash(one, "models/judge") for one in (before, after)]
    return None not in hashes and hashes[0] != hashes[1]


def apart(differ: Sequence[Difference], name: str) -> bool:
    """Return whether a metric depends on a measure that differs."""
    return any(re.fullmatch(one.metrics, name) for one in differ)
