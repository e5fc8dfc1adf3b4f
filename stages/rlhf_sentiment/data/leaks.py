"""Prevent leaks: keep held-out texts and their near-duplicates out of all training data.

The judge's texts have no near-duplicate among the preference pairs either, so that the judge shares no training data with the
reward model.
"""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from os.path import commonprefix
from typing import Any

from ..engine.messages import shown, warn
from ..engine.records import Row
from ..settings.data import DataSettings
from .intake import Intake
from .near_duplicates import Sketched, near_duplicates, sketched
from .readers import Labelled, Ranked
from .tables import TABLES, Tables
from .text import normalised, word_ends

# Demonstrations are dropped in twos, one of each sentiment or side, so that they stay balanced.
GROUPS = {"sft": 2}


def drop_leaks(tables: Tables, intakes: Sequence[Intake], data: DataSettings, grown: bool, openings: bool) -> Counter[str]:
    """Drop from `tables` the near-duplicates of held-out texts, and from the judge's texts those of the pairs.

    A text with too many similar texts is not compared with each of them. It may be a near-duplicate, so it is dropped too. A
    warning quotes the first of these texts.

    Args:
        tables: changed in place.
        intakes: all sources. Their validation and test texts are held out.
        data: the threshold `near_duplicate`.
        grown: whether the grammar wrote some of the tables. If so, their validation and test rows are held out too, and pairs
            are compared sentence by sentence, since the grammar's labelled texts are made of such sentences.
        openings: whether to drop also the rows that begin with a held-out prompt. A test prompt begins no training text, and a
            validation prompt begins no training text of a language model or reward model. (Prompts of the grammar can be one
            word.)

    Returns:
        The number of dropped texts of each table that may not be near-duplicates.
    """
    held_out: list[Sequence[str]] = [Texts(intake, ("validation", "test")) for intake in intakes]
    if grown:
        rows = [row for table in TABLES for row in tables[table] if row["split"] != "train"]
        held_out.append([text for row in rows for text in texts_of(row)])
    unsure: Counter[str] = Counter()

    def drop(table: str, split: str, others: Sketched) -> None:
        tables[table], crowded = apart(tables[table], split, others, data.near_duplicate, GROUPS.get(table, 1))
        unsure[table] += len(crowded)
        if crowded:
            why = "each is similar to too many held-out texts or pairs to compare them all"
            warn("prepare", f"{len(crowded)} texts of {table} are dropped, because {why}; the first is {shown(crowded[0])}")

    for texts in held_out:
        others = sketched(texts, "prepare: near-duplicates of held-out texts")
        for table in TABLES:
            drop(table, "train", others)
    prompts = {split: [row["prompt"] for row in tables["prompts"] if row["split"] == split] for split in ("validation", "test")}
    for table in ("corpus", "sft", "preferences", "labelled") if openings else ():
        theirs = prompts["test"] + (prompts["validation"] if table != "labelled" else [])
        tables[table] = not_opening(tables[table], "train", theirs, GROUPS.get(table, 1))

    paired = [text for row in tables["preferences"] for text in texts_of(row)]
    if grown:
        paired += [sentence for text in paired for sentence in re.split(r"(?<=\.) ", text)]
    pairs = sketched(paired, "prepare: near-duplicates of the pairs")
    for split in ("train", "test"):
        drop("labelled", split, pairs)
    return unsure


class Texts(Sequence[str]):
    """The texts of an intake's records in some splits, read from disk one by one. The prompt of preferences is a text too."""

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


def texts_of(row: Row) -> list[str]:
    """Return the texts of a table's row, as a model reads them in training."""
    if "text" in row:
        return [row["text"]]
    sides = [row["prompt"] + row[side] for side in ("response", "chosen", "rejected") if side in row]
    return [text for text in (row["prompt"], *sides) if text]


def apart(rows: list[Row], split: str, others: Sketched, threshold: float, together: int = 1) -> tuple[list[Row], list[str]]:
    """Drop the rows of `split` that have a near-duplicate in `others`, or may have one.

    Args:
        rows: of any split.
        split: the split whose rows are compared.
        others: the texts to compare with.
        threshold: as for `near_duplicates`.
        together: the size of a group of rows. A group is dropped as a whole, which keeps a balance.

    Returns:
        The rows that stay, and the dropped texts with too many similar texts in `others` to compare with each.
    """
    owners = [(number // together, text) for number, row in enumerate(rows) if row["split"] == split for text in texts_of(row)]
    near = near_duplicates(sketched([text for _, text in owners]), others, threshold)
    gone = {owners[number][0] for number in near.found | near.crowded}
    kept = [row for number, row in enumerate(rows) if row["split"] != split or number // together not in gone]
    return kept, [owners[number][1] for number in sorted(near.crowded)]


def not_opening(rows: list[Row], split: str, prompts: Sequence[str], together: int = 1) -> list[Row]:
    """Drop the rows of `split` with a text that begins with one of `prompts`, word for word."""
    taken = sorted({normalised(prompt) for prompt in prompts})
    gone = {
        number // together
        for number, row in enumerate(rows)
        if row["split"] == split and any(_opens(normalised(text), taken) for text in texts_of(row))
    }
    return [row for number, row in enumerate(rows) if row["split"] != split or number // together not in gone]


def _opens(text: str, prompts: Sequence[str]) -> bool:
    """Return whether `text` begins with one of `prompts`, which are sorted, and a word ends there.

    Every beginning of a text sorts before the text. All strings that sort between the two share this beginning. So the last
    prompt that does not sort after the text is compared with the text. If the text does not begin with this prompt, then every
    prompt with which it begins is at most as long as the common start of the two. The search goes on with that start.
    """
    ends: set[int] | None = None
    start = text
    while start and (place := bisect_right(prompts, start)):
        last = prompts[place - 1]
        common = commonprefix([last, start])  # noqa: RUF071 (of letters, not of paths)
        if common == last:
            ends = ends or set(word_ends(text))
            if len(last) in ends:
                return True
            common = last[:-1]
        start = common
    return False
