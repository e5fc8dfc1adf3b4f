"""Find and read the sources that the settings name: `data.source`, `data.corpus`, `data.prompts` and `judge.source`."""

from typing import NamedTuple

from ..engine.errors import StageError
from ..engine.messages import warn
from ..settings.data import DataSettings, HubSettings
from .files import File, files_at, hub_files
from .intake import Intake
from .shapes import PREFERENCES


class Sources(NamedTuple):
    """The sources of a run, with each row kept or dropped with a reason.

    Attributes:
        name: the source of the tables: `synthetic`, the id of a hub data set, or a path.
        judge: the source of the judge's texts, by the same names.
        own_judge: whether the judge's texts come from a source of their own.
        intakes: the rows by the setting that names their source. The grammar has none.
    """

    name: str
    judge: str
    own_judge: bool
    intakes: dict[str, Intake]

    @property
    def shape(self) -> str:
        """The shape of the rows of `data.source`."""
        return "grammar" if self.name == "synthetic" else self.intakes["data.source"].shape

    @property
    def grown(self) -> bool:
        """Whether the grammar writes some of the tables."""
        return "synthetic" in (self.name, self.judge)


def read_sources(data: DataSettings, judge_source: str) -> Sources:
    """Read every source that the settings name.

    Args:
        data: the section `data`.
        judge_source: the setting `judge.source`.

    Raises:
        StageError: a source cannot be read, or has no labels although the judge needs them.
    """
    intakes: dict[str, Intake] = {}
    own_judge = judge_source not in ("data", data.source)
    usual = data.elsewhere()
    name, files = source_of(data)
    if name != "synthetic":
        wanted, share = (*PREFERENCES, "labelled"), 0.0 if own_judge else 0.5
        intakes["data.source"] = source = Intake(files, wanted, data, "data.source", data.prompt_words, share)
        if source.shape != "labelled" and not own_judge:
            raise StageError(f"{name} holds {source.shape} without labels, from which no judge can learn; set judge.source")
    if data.corpus:
        intakes["data.corpus"] = Intake(files_at(data.corpus, "data.corpus"), ("plain",), usual, "data.corpus", 0, 0.0)
    if data.prompts:
        intakes["data.prompts"] = Intake(files_at(data.prompts, "data.prompts"), ("prompts",), usual, "data.prompts", 0, 0.0)
    if own_judge and judge_source != "synthetic":
        intakes["judge.source"] = Intake(files_of_judge(judge_source), ("labelled",), usual, "judge.source", 0, 1.0)
    return Sources(name, judge_source if own_judge else name, own_judge, intakes)


def source_of(data: DataSettings) -> tuple[str, list[File]]:
    """Return the source of the tables, and its files. `auto` falls back to `synthetic`, with a warning, if the hub fails.

    Raises:
        StageError: the source cannot be read.
    """
    if data.source == "synthetic":
        return "synthetic", []
    if data.source not in ("hub", "auto"):
        return data.source, files_at(data.source, "data.source")
    try:
        return str(data.hub.dataset), hub_files(data.hub, "data.hub.dataset")
    except StageError as error:
        if data.source == "hub":
            raise
        warn("prepare", f"{error}; data.source auto falls back to the synthetic source")
        return "synthetic", []


def files_of_judge(source: str) -> list[File]:
    """Return the files of the judge's own source: a path, or OWNER/NAME@COMMIT on the hub.

    Raises:
        StageError: the source cannot be read.
    """
    name, _, revision = source.partition("@")
    if not revision:
        return files_at(source, "judge.source")
    hub = HubSettings(dataset=name, config=None, folder=None, revision=revision, train="train", validation=None, test="test")
    return hub_files(hub, "judge.source")
