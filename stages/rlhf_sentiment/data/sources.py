"""Find and read the sources that the settings name: `data.source`, `data.corpus`, `data.prompts` and `judge.source`."""

from typing import NamedTuple

from ..engine.errors import StageError
from ..engine.hub import UnreachableError
from ..engine.messages import warn
from ..settings.data import DataSettings, HubSettings
from .files import File, files_at, hub_files
from .intake import Intake
from .shapes import PREFERENCES
from .sizes import for_grammar


class Sources(NamedTuple):
    """The sources of a run, with each row kept or dropped with a reason.

    Attributes:
        name: the source of the tables: `synthetic`, the id of a hub data set, or a path.
        judge: the source of the judge's texts, by the same names.
        own_judge: whether the judge's texts come from a source of their own.
        intakes: the rows by the setting that names their source. The grammar has none.
        data: the section `data` as it applies to these sources.
    """

    name: str
    judge: str
    own_judge: bool
    intakes: dict[str, Intake]
    data: DataSettings

    @property
    def shape(self) -> str:
        """The shape of the rows of `data.source`."""
        return "grammar" if self.name == "synthetic" else self.intakes["data.source"].shape

    @property
    def grown(self) -> bool:
        """Whether the grammar writes some of the tables."""
        return "synthetic" in (self.name, self.judge)


def read_sources(data: DataSettings, judge_source: str) -> Sources:
    """Read every source that the settings name. With `data.source: auto`, fall back to the grammar if the hub does not answer.

    Args:
        data: the section `data`.
        judge_source: the setting `judge.source`.

    Raises:
        StageError: a source cannot be read, or has no labels although the judge needs them.
    """
    try:
        return _read(data, judge_source)
    except UnreachableError as error:
        if data.source != "auto":
            raise
        few, lower = for_grammar(data)
        lowered = f", with fewer rows: {', '.join(lower)}" if lower else ""
        # A corpus or prompts of other texts, other licences and label noise do not belong to the grammar.
        own = {"corpus": None, "prompts": None, "licence": None, "flipped_pairs": 0.0}
        unused = ", ".join(f"data.{name}" for name in own if getattr(data, name))
        without = f"; not used: {unused}" if unused else ""
        warn("prepare", f"{error}; all texts, also the judge's, are now synthetic{lowered}{without}")
        return Sources("synthetic", "synthetic", False, {}, data.model_copy(update=own | few))


def _read(data: DataSettings, judge_source: str) -> Sources:
    intakes: dict[str, Intake] = {}
    own_judge = judge_source not in ("data", data.source)
    usual = data.elsewhere()
    name, files = source_of(data)
    # Everything that may be on the hub is found before any rows are read.
    judge_files = files_of_judge(judge_source) if own_judge and judge_source != "synthetic" else []
    if name != "synthetic":
        wanted, share = (*PREFERENCES, "labelled"), 0.0 if own_judge else 0.5
        intakes["data.source"] = source = Intake(files, wanted, data, "data.source", data.prompt_words, share)
        if source.shape != "labelled" and not own_judge:
            raise StageError(f"{name} holds {source.shape} without labels, from which no judge can learn; set judge.source")
    if data.corpus:
        intakes["data.corpus"] = Intake(files_at(data.corpus, "data.corpus"), ("plain",), usual, "data.corpus", 0, 0.0)
    if data.prompts:
        intakes["data.prompts"] = Intake(files_at(data.prompts, "data.prompts"), ("prompts",), usual, "data.prompts", 0, 0.0)
    if judge_files:
        intakes["judge.source"] = Intake(judge_files, ("labelled",), usual, "judge.source", 0, 1.0)
    return Sources(name, judge_source if own_judge else name, own_judge, intakes, data)


def source_of(data: DataSettings) -> tuple[str, list[File]]:
    """Return the source of the tables, and its files.

    Raises:
        StageError: the source cannot be read.
    """
    if data.source == "synthetic":
        return "synthetic", []
    if data.source in ("hub", "auto"):
        return str(data.hub.dataset), hub_files(data.hub, "data.hub.dataset")
    return data.source, files_at(data.source, "data.source")


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
