"""From files to the records that are kept, each row accounted for, in memory that does not grow with the texts.

Each row of a file has one fate: kept; rejected (it cannot be used, and the reason is written down); a duplicate (the same
record earlier in its split); or an overlap (of a validation or test file: a text, or the prompt of preferences, that
stands in an earlier split). What is kept lies in a temporary file, and a table of numbers says what it is and where.
Warnings count the rejected rows by the kind of their reason.
"""

import itertools
import json
import re
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..engine.errors import StageError
from ..engine.messages import listed, shown, warn
from ..engine.records import Row
from ..settings.data import DataSettings
from .faults import TIE, Fault
from .files import File
from .formats import Numbered, ending_of
from .meanings import Meanings
from .shapes import PREFERENCES, SHAPES, Labelled, Plain, Ranked, Record, Shape, recognise
from .text import cut_words, digest_of, normalised, place_of, split_of, words

SPLITS = ("train", "validation", "test", "judge")
FATES = {"kept": "rows_kept", "rejected": "rows_rejected", "duplicate": "duplicates_dropped", "overlap": "overlap_dropped"}
MANY = 0.1  # share of a file's rows that are rejected, above which there is a warning
SOME = 0.03  # share of the rejected rows, from which it names a kind of reason


class Ready(NamedTuple):
    """A record as it is kept: its text (with the best response), and the digests of the record and of its prompt."""

    record: Record
    text: str
    digest: int
    prompt: int
    label: int  # 1: positive, or the second response is the better


class Intake:
    """What a source became.

    Attributes:
        shape: the name of its rows' shape.
        files: for each file, how many of its rows had which fate; of preferences also how many of the rejected are ties.
        dropped: file, row and reason of every row that was not kept.
        table: a row a record. `digest` of the record and of its `prompt`; `split`; `label`; `votes`, where people voted:
            those for the first response less those for the second; `words` of prompt and (best) response, `prompt_words`;
            `at`, where it lies.
    """

    def __init__(
        self, files: Sequence[File], wanted: Sequence[str], data: DataSettings, setting: str, prompt_words: int, judge: float
    ) -> None:
        """Read `files`, which come in the order of their splits.

        Args:
            wanted: names of the shapes that will do.
            setting: what names the source, for messages.
            prompt_words: words of a labelled text that become its prompt; 0: it needs none.
            judge: share of the labelled texts of train that is the judge's alone, by a hash of the text.

        Raises:
            StageError: a file cannot be read, has no such shape, another one than the file before, values of which nothing
                says what they mean, or no row of use.
        """
        self.shape = ""
        self.files: dict[str, dict[str, int]] = {}
        self.dropped: list[Row] = []
        self._keys: dict[str, str] = {}  # name of a file -> its key in `files`
        self._data, self._prompt_words, self._judge = data, prompt_words, judge
        self._meanings = Meanings(data, setting)
        self._kinds: dict[str, Counter[str]] = {}  # name of a file -> how many rows are rejected for which kind of reason
        self._kind: Any = Plain
        self._lines = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the intake)
        self._columns = {
            "digest": array("Q"), "prompt": array("Q"), "split": array("b"), "label": array("b"), "votes": array("i"),
            "words": array("i"), "prompt_words": array("i"), "at": array("q"),
        }  # fmt: skip
        self._seen: dict[int, int] = {}  # digest of a record -> its row in the table
        self._prompts: set[int] = set()  # of the splits before
        self._voted: dict[int, tuple[str, int | str]] = {}  # row in the table -> file, and row there
        own = {file.split for file in files}
        self._shares = {name: 0.0 if name in own else 0.1 for name in ("validation", "test")}
        for _, group in itertools.groupby(files, key=lambda file: file.split):
            self._start = len(self._seen)  # what stands before it in the table is of an earlier split
            for file in group:
                self._read(file, *_recognised(file, wanted, self._meanings, setting))
            if self.shape in PREFERENCES:
                self._prompts.update(self._columns["prompt"])
        self.table = pd.DataFrame({name: np.array(column) for name, column in self._columns.items()})
        self.table["split"] = pd.Categorical.from_codes(self._columns["split"], categories=pd.Index(SPLITS))
        self._reject_ties()
        for name, kinds in self._kinds.items():
            if kinds.total() > MANY * self.files[self._keys[name]]["rows_read"]:
                warn("prepare", f"{name}: {self._why(name)}")
        self._meanings.end_of_source(files[0].name if len(files) == 1 else setting)  # rejected rows can be why it stops

    def record(self, number: int) -> Any:
        """The record in a row of the table: Labelled, Ranked or Plain, as the shape says; votes are scores."""
        self._lines.seek(self._columns["at"][number])
        record = self._kind(*json.loads(self._lines.readline()))
        votes = self._columns["votes"][number]
        return record._replace(scores=[votes, 0]) if isinstance(record, Ranked) and votes else record

    def _read(self, file: File, shape: Shape, rows: Iterator[Numbered]) -> None:
        if self.shape not in ("", shape.name):
            raise StageError(f"{file.name} holds {shape.name}, the files before it {self.shape}; bring them one at a time")
        self.shape = shape.name
        fates: Counter[str] = Counter()
        ids: set[str] = set()
        first = len(self.dropped)
        kinds = self._kinds[file.name] = Counter()
        for number, row in rows:
            fate, kind, reason = self._fate(row, shape, ids, file, number)
            fates[fate] += 1
            if fate != "kept":
                self.dropped.append({"file": file.name, "row": number, "reason": reason})
            if fate == "rejected":
                kinds[kind] += 1
        self._meanings.end_of_file(file.name)
        key = file.name.removeprefix("data/raw/").replace(".", "_")  # in a metric's key a dot means another level
        while key in self.files:
            key += "_"
        self._keys[file.name] = key
        self.files[key] = {"rows_read": fates.total(), **{name: fates[fate] for fate, name in FATES.items()}}
        if self.shape in PREFERENCES:
            self.files[key]["ties"] = kinds[TIE]
        if fates["rejected"] == fates.total():
            one = self.dropped[first]
            raise StageError(f"{file.name}: no row can be used: {self._why(file.name)} (row {one['row']}: {one['reason']})")

    def _why(self, name: str) -> str:
        """How many rows of a file are rejected, and how many of these for which kind of reason."""
        kinds = self._kinds[name]
        many = kinds.total()
        reasons = (f"{count:,} of {many:,}: {kind}" for kind, count in kinds.most_common() if count >= SOME * many)
        return f"{many:,} of {self.files[self._keys[name]]['rows_read']:,} rows are rejected; {'; '.join(reasons)}"

    def _fate(self, row: Row | str, shape: Shape, ids: set[str], file: File, number: int | str) -> tuple[str, str, str]:
        """What becomes of a row, and why: the kind of reason, and the reason."""
        if isinstance(row, str):
            return "rejected", re.sub(r"\d+", "N", row), row
        try:
            ready = self._ready(shape.read(row))
        except Fault as fault:
            return "rejected", fault.kind, str(fault)
        self._kind = type(ready.record)
        same = self._seen.get(ready.digest)
        is_old = same is not None and same < self._start
        if is_old or ready.prompt in self._prompts or same is not None:
            fate = "overlap" if is_old or ready.prompt in self._prompts else "duplicate"
            if fate == "duplicate" and same in self._voted:
                self._columns["votes"][same] += _votes(ready.record)
                return fate, fate, f"duplicate: a vote on the pair of row {self._voted[same][1]}, and counted there"
            other = same is not None and self._columns["label"][same] != ready.label
            said = f", with the other {'label' if self._kind is Labelled else 'preference'}" if other else ""
            return fate, fate, fate + said
        column = self._data.columns.get("id", "id")
        name = row.get(str(column)) if column is not None else None
        if name not in (None, "") and shape.name != "votes":
            if str(name) in ids:
                kind = "the id stands earlier in the file, with another text"
                return "rejected", kind, f"id {shown(name)} stands earlier in the file, with another text"
            ids.add(str(name))
        if shape.name == "votes":
            self._voted[len(self._seen)] = file.name, number
        self._keep(ready, file.split, _votes(ready.record) if shape.name == "votes" else 0)
        return "kept", "", ""

    def _ready(self, record: Record) -> Ready:
        """The record with a prompt, and with its responses in the order of their texts, whichever is preferred."""
        if isinstance(record, Ranked):
            both = sorted(zip(record.responses, record.scores, strict=True), key=lambda one: normalised(one[0]))
            responses, scores = [response for response, _ in both], [score for _, score in both]
            best = scores.index(max(scores))
            digests = digest_of(record.prompt, *responses), digest_of(record.prompt)
            return Ready(Ranked(record.prompt, responses, scores), record.prompt + responses[best], *digests, min(best, 1))
        if isinstance(record, Plain):
            digest = digest_of(record.text)
            return Ready(record, record.text, digest, digest, 0)
        text = record.prompt + record.response
        if self._prompt_words and not record.prompt:
            count = len(words(text))
            if count <= self._prompt_words:
                raise Fault(
                    "no more words than data.prompt_words", f"{count} words, not more than a prompt's {self._prompt_words}"
                )
            prompt = cut_words(text, self._prompt_words)
            record = Labelled(prompt, text[len(prompt) :], record.label)
        return Ready(record, text, digest_of(text), digest_of(record.prompt), record.label)

    def _keep(self, ready: Ready, split: str, votes: int) -> None:
        self._seen[ready.digest] = len(self._seen)
        if split == "train":
            text = ready.record.prompt if isinstance(ready.record, Ranked) else ready.text
            split = split_of(text, **self._shares)
            if isinstance(ready.record, Labelled) and split != "test" and place_of(text, "judge/") < self._judge:
                split = "judge"
        values = {
            "digest": ready.digest, "prompt": ready.prompt, "split": SPLITS.index(split), "label": ready.label, "votes": votes,
            "words": len(words(ready.text)), "prompt_words": len(words(ready.record[0])), "at": self._lines.tell(),
        }  # fmt: skip
        for name, value in values.items():
            self._columns[name].append(value)
        self._lines.write(json.dumps(ready.record, ensure_ascii=False).encode() + b"\n")

    def _reject_ties(self) -> None:
        """Reject the pairs on which the annotators are divided, now that all votes are in.

        Raises:
            StageError: that leaves a file none.
        """
        ties = [place for place in self._voted if self._columns["votes"][place] == 0]
        for place in ties:
            name, number = self._voted[place]
            self.dropped.append({"file": name, "row": number, "reason": "the annotators are divided, or for neither"})
            self._kinds[name][TIE] += 1
            counts = self.files[self._keys[name]]
            counts["rows_kept"] -= 1
            counts["rows_rejected"] += 1
            counts["ties"] += 1
        self.table = self.table.drop(index=ties)
        for name in dict.fromkeys(self._voted[place][0] for place in ties):
            if self.files[self._keys[name]]["rows_kept"] == 0:
                raise StageError(f"{name}: no row can be used: {self._why(name)}")


class Texts(Sequence[str]):
    """The texts of an intake's records in some splits, read when they are asked for; of preferences the prompt is one too."""

    def __init__(self, intake: Intake, splits: Sequence[str]) -> None:
        self._intake = intake
        rows = intake.table.index[intake.table["split"].isin(splits)]
        self._rows = [(row, part) for row in rows for part in range(self._parts(row))]

    def _parts(self, row: int) -> int:
        if self._intake.shape in ("preferences", "transcripts", "votes"):
            return 3
        return 1 + len(self._intake.record(row)[1]) if self._intake.shape == "completions" else 1

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: Any) -> Any:
        row, part = self._rows[number]
        record = self._intake.record(row)
        if isinstance(record, Ranked):
            return record.prompt + record.responses[part - 1] if part else record.prompt
        return "".join(record[:2]) if isinstance(record, Labelled) else record.text


def _recognised(file: File, wanted: Sequence[str], meanings: Meanings, setting: str) -> tuple[Shape, Iterator[Numbered]]:
    """The shape that most of a file's first hundred rows have, and all of its rows."""
    rows = file.rows(meanings.data)
    first = list(itertools.islice(rows, 100))
    if not first:
        raise StageError(f"{file.name}: holds no rows")
    kinds = Counter(tuple(row) for _, row in first if isinstance(row, dict))
    if not kinds:
        raise StageError(f"{file.name}: none of its first rows can be used; of the first, {first[0][1]}")
    shapes = Counter[str]()
    known: dict[str, Shape] = {}
    for columns, count in kinds.items():
        try:
            shape = recognise(columns, wanted, meanings)
        except Fault as fault:
            raise StageError(f"{file.name}: {fault}") from None
        if shape is not None:
            known.setdefault(shape.name, shape)
            shapes[shape.name] += count
    if not shapes:
        there = listed(next(iter(kinds)))
        needed = "; or ".join(", ".join(sorted(one)) for name in wanted for one in SHAPES[name].columns[:1])
        told = "; data.columns can say which is which" if setting == "data.source" else ""
        if told and ending_of(Path(file.name)) in (".csv", ".tsv") and not meanings.data.last_column:
            told += ", by number where there is no header: {text: 1, label: 2}"
        raise StageError(f"{file.name}: its columns ({there}) are no shape that {setting} takes: {needed}{told}")
    return known[shapes.most_common(1)[0][0]], itertools.chain(first, rows)


def _votes(record: Record) -> int:
    return int(record.scores[0] - record.scores[1]) if isinstance(record, Ranked) else 0
