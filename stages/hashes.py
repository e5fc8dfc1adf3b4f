"""Record the hashes of the files and folders of yours that the settings name.

Your files are below data/raw, models/pretrained and prompts. The stages that read them depend on these records, and not on the
whole folders. So a file that no setting names reruns this stage only, which takes two seconds.
"""

from rlhf_sentiment.engine.start import stage  # isort: split

import json

from pydantic import ConfigDict

from rlhf_sentiment.engine.dvc_state import hash_of, hashes_known
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.engine.inputs import BROUGHT, RECORDS, named_by, whence
from rlhf_sentiment.engine.outputs import writing
from rlhf_sentiment.engine.params import Settings
from rlhf_sentiment.settings.judge import JudgeSource

READS = ["data/checked.json", *BROUGHT]
WRITES = [f"{RECORDS}/{reader}.json" for reader in ("prepare", "base", "sample", "evaluate")]
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
    """Write a record for each stage that reads files of the user: value of a setting -> path -> hash.

    Raises:
        StageError: a setting names nothing that is there. This stage says so before DVC removes the outs of another stage.
    """
    data, evaluate = params.data, params.evaluate
    sources = {"data.source": data.source, "data.corpus": data.corpus, "data.prompts": data.prompts}
    settings: dict[str, dict[str, str | None]] = {
        "prepare": {**sources, "judge.source": params.judge.source},
        "base": {"base.model": params.base.model},
        "sample": {"evaluate.prompts_file": evaluate.prompts_file},
        "evaluate": {f"evaluate.judges, item {number}": judge for number, judge in enumerate(evaluate.judges, start=1)},
    }
    known, count = hashes_known(), 0
    for reader, values in settings.items():
        record = {}
        for setting, value in values.items():
            if value and value.startswith(BELOW):
                paths = named_by(value)
                if not paths:
                    raise StageError(f"{setting}: {value} is missing; put it there, or name another path{whence(value)}")
                record[value.rstrip("/")] = {path.as_posix(): hash_of(path, known) for path in paths}
        with writing(f"{RECORDS}/{reader}.json") as aside:
            aside.write_text(json.dumps(dict(sorted(record.items())), indent=2) + "\n", encoding="utf-8", newline="\n")
        count += sum(map(len, record.values()))
    return f"the settings name {count} of your files and folders"


if __name__ == "__main__":
    stage("hashes", __doc__, Params, main, READS, WRITES)
