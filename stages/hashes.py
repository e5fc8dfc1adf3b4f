"""Record the hashes of the files and folders of yours that the settings name.

Your files are below data/raw, models/pretrained and prompts. The stages that read them depend on these records, and not on the
whole folders. So a file that no setting names reruns this stage only, which takes two seconds.
"""

from rlhf_sentiment.engine.start import begin  # isort: split

from rlhf_sentiment.engine.inputs import BROUGHT, RECORDS

READS = ["data/checked.json", *BROUGHT]
WRITES = [f"{RECORDS}/{reader}.json" for reader in ("prepare", "base", "sample", "evaluate")]

if __name__ == "__main__":
    begun = begin("hashes", __doc__, READS, WRITES)

import json

from pydantic import ConfigDict

from rlhf_sentiment.engine.dvc_state import hash_of, hashes_known
from rlhf_sentiment.engine.inputs import named_by
from rlhf_sentiment.engine.outputs import writing
from rlhf_sentiment.engine.params import Settings
from rlhf_sentiment.engine.stage import stage
from rlhf_sentiment.settings.judge import JudgeSource

BELOW = tuple(f"{folder}/" for folder in BROUGHT)


class Part(Settings):
    """A part of a section. `check` has checked its values."""

    model_config = ConfigDict(extra="ignore")


class DataPaths(Part):
    """The part of the section `data` that this stage reads."""

    source: str
    corpus: str | None
    prompts: str | None


class ModelPath(Part):
    """The part of the section `base` that this stage reads."""

    model: str


class EvaluatePaths(Part):
    """The part of the section `evaluate` that this stage reads."""

    judges: list[str]
    prompts_file: str | None


class Params(Settings):
    """The settings that can name a file or a folder of the user."""

    data: DataPaths
    judge: JudgeSource
    base: ModelPath
    evaluate: EvaluatePaths


def main(params: Params) -> str:
    """Write a record for each stage that reads files of the user: value of a setting -> path -> hash."""
    data, evaluate = params.data, params.evaluate
    settings: dict[str, list[str | None]] = {
        "prepare": [data.source, data.corpus, data.prompts, params.judge.source],
        "base": [params.base.model],
        "sample": [evaluate.prompts_file],
        "evaluate": [*evaluate.judges],
    }
    known, count = hashes_known(), 0
    for reader, values in settings.items():
        named = sorted({value.rstrip("/") for value in values if value and value.startswith(BELOW)})
        record = {value: {path.as_posix(): hash_of(path, known) for path in named_by(value)} for value in named}
        with writing(f"{RECORDS}/{reader}.json") as aside:
            aside.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8", newline="\n")
        count += sum(map(len, record.values()))
    return f"the settings name {count} of your files and folders"


if __name__ == "__main__":
    stage(begun, Params, main)
