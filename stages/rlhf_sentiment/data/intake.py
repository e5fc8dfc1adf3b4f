"""Read the files of a source: keep, reject and count each row, in memory that does not grow with the texts.

Each row of a file has one of four fates:

- kept;
- rejected: it cannot be used, and the reason is written down;
- a duplicate: the same record is earlier in its split;
- an overlap, in a validation or test file: its text, or the prompt of preferences, is in an earlier split.

The kept records are in a temporary file. A table of numbers describes them and has their places in that file. Warnings count
the rejected rows by the kind of their reason.
"""

import itertools
import json
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
from .meanings import NAMED, Meanings
from .readers import Labelled, Plain, Ranked, Record
from .shapes import PREFERENCES, SHAPES, Shape, recognise
from .splits import split_of
from .text import cut_words, digest_of, normalised, place_of, words

SPLITS = ("train", "validation", "test", "judge")
FATES = {"kept": "rows_kept", "rejected": "rows_rejected", "duplicate": "duplicates_dropped", "overlap": "overlap_dropped"}
MANY = 0.1  # a larger share of rejected rows causes a warning
SOME = 0.03  # the warning names the kinds of reason with at least this share of the rejected rows


class Ready(NamedTuple):
    """A record before it is kept: its text (with the best response), and the digests of the record and of its prompt."""

    record: Record
    text: str
    digest: int
    prompt: int
    label: int  # 1: positive, or the second response is better


class Intake:
    """The rows of a source, each kept or dropped with a reason.

    Attributes:
        shape: the name of the rows' shape.
        files: for each file, the number of rows with each fate. For preferences, also the number of ties among the rejected.
        dropped: file, row and reason of every row that was not kept.
        table: one row for each record. The columns are `digest` (of the record), `prompt` (the digest of its prompt), `split`,
            `label`, `votes` (votes for the first response minus votes for the second), `words` (of prompt and best response),
            `prompt_words`, and `at` (the record's place in the temporary file).
    """

    def __init__(
        self, files: Sequence[File], wanted: Sequence[str], data: DataSettings, setting: str, prompt_words: int, judge: float
    ) -> None:
        """Read `files`.

        Args:
            files: in the order of their splits.
            wanted: names of the shapes that are accepted.
            data: the settings for columns, labels and preferences.
            setting: the setting that names the source, for messages.
            prompt_words: number of words of a labelled text that become its prompt. 0: it needs no prompt.
            judge: share of the labelled training texts that only the judge uses, by a hash of the text.

        Raises:
            StageError: a file cannot be read, has none of these shapes, has another shape than the file before, has values
                of unknown meaning, or has no row that can be used.
        """
        self.shape = ""
        self.files: dict[str, dict[str, int]] = {}
        self.dropped: list[Row] = []
        self._keys: dict[str, str] = {}  # name of a file -> its key in `files`
        self._data, self._prompt_words, self._judge = data, prompt_words, judge
        self._meanings = Meanings(data, setting)
        self._kinds: dict[str, Counter[str]] = {}  # name of a file -> kind of reason -> number of rejected rows
        self._kind: Any = Plain
        self._lines = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the intake is used)
        self._columns = {
            "digest": array("Q"), "prompt": array("Q"), "split": array("b"), "label": array("b"), "votes": array("i"),
            "words": array("i"), "prompt_words": array("i"), "at": array("q"),
        }  # fmt: skip
        self._seen: dict[int, int] = {}  # digest of a record -> its row in the table
        self._prompts: set[int] = set()  # of earlier splits
        self._voted: dict[int, tuple[str, int | str]] = {}  # row in the table -> file, and row there
        own = {file.split for file in files}
        self._shares = {name: 0.0 if name in own else 0.1 for name in ("validation", "test")}
        for _, group in itertools.groupby(files, key=lambda file: file.split):
            self._start = len(self._seen)  # the rows of the table before it are of earlier splits
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
        self._meanings.end_of_source(files[0].name if len(files) == 1 else setting)  # after the warning, which may explain it

    def record(self, number: int) -> Any:
        """Return the record in a row of the table: Labelled, Ranked or Plain, by the shape. Votes become scores."""
        self._lines.seek(self._columns["at"][number])
        record = self._kind(*json.loads(self._lines.readline()))
        votes = self._columns["votes"][number]
        return record._replace(scores=[votes, 0]) if isinstance(record, Ranked) and votes else record

    def _read(self, file: File, shape: Shape, rows: Iterator[Numbered]) -> None:
        if self.shape not in ("", shape.name):
            raise StageError(
                f"{file.name} contains {shape.name}, but earlier files contain {self.shape}; use files of one shape"
            )
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
        key = file.name.removeprefix("data/raw/").replace(".", "_")  # a dot in a metric's key means another level
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
        """Return the number of rejected rows of a file, in all and for each frequent kind of reason."""
        kinds = self._kinds[name]
        many = kinds.total()
        reasons = (f"{count:,} of {many:,}: {kind}" for kind, count in kinds.most_common() if count >= SOME * many)
        return f"{many:,} of {self.files[self._keys[name]]['rows_read']:,} rows are rejected; {'; '.join(reasons)}"

    def _fate(self, row: Row | str, shape: Shape, ids: set[str], file: File, number: int | str) -> tuple[str, str, str]:
        """Decide the fate of a row. Return it with the kind of reason and the reason."""
        if isinstance(row, str):
            return "rejected", row.partition(" (")[0], row
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
                return fate, fate, f"duplicate of row {self._voted[same][1]}, which counts the vote"
            other = same is not None and self._columns["label"][same] != ready.label
            said = f", with the other {'label' if self._kind is Labelled else 'preference'}" if other else ""
            return fate, fate, fate + said
        column = self._data.columns.get("id", "id")
        name = row.get(str(column)) if column is not None else None
        if name not in (None, "") and shape.name != "votes":
            if str(name) in ids:
                kind = "an earlier row has the same id and another text"
                return "rejected", kind, f"an earlier row has the same id {shown(name)} and another text"
            ids.add(str(name))
        if shape.name == "votes":
            self._voted[len(self._seen)] = file.name, number
        self._keep(ready, file.split, _votes(ready.record) if shape.name == "votes" else 0)
        return "kept", "", ""

    def _ready(self, record: Record) -> Ready:
        """Give the record a prompt, and sort its responses by their texts, whichever is preferred."""
        if isinstance(record, Ranked):
            both = sorted(zip(record.responses, record.scores, strict=True), key=lambda one: normalised(one[0]))
            responses, scores = [response for response, _ in both], [score for _, score in both]
            best = scores.index(max(scores))
            digests = digest_of(record.prompt, *responses), digest_of(record.prompt)
            ranked = record._replace(responses=responses, scores=scores)
            return Ready(ranked, record.prompt + responses[best], *digests, min(best, 1))
        if isinstance(record, Plain):
            digest = digest_of(record.text)
            return Ready(record, record.text, digest, digest, 0)
        text = record.prompt + record.response
        if self._prompt_words and not record.prompt:
            count = len(words(text))
            if count <= self._prompt_words:
                detail = f"{count} words, too few for a prompt of {self._prompt_words} words and a response"
                raise Fault("too few words for a prompt of data.prompt_words and a response", detail)
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
        """Reject the pairs on which the annotators are divided, once all votes are counted.

        Raises:
            StageError: a file has no other pair.
        """
        ties = [place for place in self._voted if self._columns["votes"][place] == 0]
        for place in ties:
            name, number = self._voted[place]
            self.dropped.append({"file": name, "row": number, "reason": "a tie: both responses have the same number of votes"})
            self._kinds[name][TIE] += 1
            counts = self.files[self._keys[name]]
            counts["rows_kept"] -= 1
            counts["rows_rejected"] += 1
            counts["ties"] += 1
        self.table = self.table.drop(index=ties)
        for name in dict.fromkeys(self._voted[place][0] for place in ties):
            if self.files[self._keys[name]]["rows_kept"] == 0:
                raise StageError(f"{name}: no row can be used: {self._why(name)}")


def _recognised(file: File, wanted: Sequence[str], meanings: Meanings, setting: str) -> tuple[Shape, Iterator[Numbered]]:
    """Return the shape of most of a file's first hundred rows, and an iterator over all of its rows.

    Raises:
        StageError: the file has no rows, or none of the shapes, or a column that can be read in two ways.
    """
    rows = file.rows(meanings.data)
    first = list(itertools.islice(rows, 100))
    if not first:
        raise StageError(f"{file.name}: contains no rows")
    kinds = Counter(tuple(row) for _, row in first if isinstance(row, dict))
    if not kinds:
        raise StageError(f"{file.name}: none of the first {len(first)} rows can be used; row {first[0][0]}: {first[0][1]}")
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
        hint = "; name other columns in data.columns" if setting in NAMED else ""
        if hint and ending_of(Path(file.name)) in (".csv", ".tsv") and not meanings.data.last_column:
            hint += ", by number if the file has no header: {text: 1, label: 2}"
        raise StageError(f"{file.name}: the columns are {there}, but {setting} accepts only: {needed}{hint}")
    return known[shapes.most_common(1)[0][0]], itertools.chain(first, rows)


def _votes(record: Record) -> int:
    return int(record.scores[0] - record.scores[1]) if isinstance(record, Ranked) else 0
