"""Make and check preference pairs: rows of `prompt`, `chosen`, `rejected` and `split`."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from statistics import mean, median

import pandas as pd
from datasets import Dataset

from ..engine.errors import StageError
from ..engine.messages import listed, shown
from ..engine.records import Row
from ..settings.data import DataSettings
from .chat import answered, beside, messages_of
from .dialogue import text_of as checked_text
from .faults import Fault
from .intake import Intake
from .matching import match
from .readers import Labelled, refuse_equal
from .selection import balanced, choose, smaller_side
from .text import place_of, word_ends, words

_OTHER = {"chosen": "rejected", "chosen_messages": "rejected_messages"}
_OTHER |= {other: name for name, other in _OTHER.items()}


def pairs_there(table: pd.DataFrame, data: DataSettings) -> int:
    """Return the most pairs that labelled texts can make: each text in at most `max_uses` pairs, and no pair twice."""
    smaller = smaller_side(table)
    return smaller * min(data.max_uses, smaller)


def pairs_from_labels(source: Intake, table: pd.DataFrame, data: DataSettings, name: str, count: int, split: str) -> list[Row]:
    """Make `count` pairs of a positive and a negative text, matched (matching.py), or as many as possible.

    A text is in more than one pair, and in at most `data.max_uses`, only if there are too few texts. The prompt is the words
    that both texts begin with, exactly. If the texts have messages, each side keeps its own, with the response as the last one.
    """
    texts = min(count, smaller_side(table))
    if not texts:
        return []
    records: list[list[Labelled]] = [[source.record(one) for one in side] for side in balanced(table, texts, name, data)]
    sides = [[one.prompt + one.response for one in side] for side in records]
    rows: list[Row] = []
    for good, bad in list(match(sides[0], sides[1], math.ceil(count / texts)))[:count]:
        chosen, rejected = sides[0][good], sides[1][bad]
        prompt = shared_opening(chosen, rejected)
        row: Row = {"prompt": prompt, "chosen": chosen[len(prompt) :], "rejected": rejected[len(prompt) :], "split": split}
        both = {"chosen_messages": records[0][good], "rejected_messages": records[1][bad]}
        if all(one.messages for one in both.values()):
            row |= {name: [*(one.messages or ()), answered(one.response)] for name, one in both.items()}
        rows.append(row)
    return rows


def shared_opening(one: str, other: str) -> str:
    """Return the words that two texts begin with, exactly, but never a whole text."""
    same = 0
    for end, also in zip(*(list(word_ends(text))[:-1] for text in (one, other)), strict=False):
        if end != also or one[same:end] != other[same:end]:
            break
        same = end
    return one[:same]


def pairs_given(source: Intake, table: pd.DataFrame, data: DataSettings, name: str, split: str) -> list[Row]:
    """Make all pairs from the preferences of people. The pairs of one row stand together.

    Of ranked completions, the pair with the largest difference comes first. A completion is in at most `data.max_uses` pairs.
    """
    rows: list[Row] = []
    for number in choose(table, len(table), name, data):
        one = source.record(number)
        ranks = sorted(range(len(one.scores)), key=lambda place: (-one.scores[place], place))
        gaps = sorted(combinations(ranks, 2), key=lambda two: one.scores[two[1]] - one.scores[two[0]])
        uses: Counter[int] = Counter()
        for better, worse in gaps:
            if one.scores[better] > one.scores[worse] and max(uses[better], uses[worse]) < data.max_uses:
                uses.update((better, worse))
                chosen, rejected = one.responses[better], one.responses[worse]
                row = {"prompt": one.prompt, "chosen": chosen, "rejected": rejected, "split": split}
                rows.append(row | beside(one.messages))
    return rows


def flipped(pairs: Sequence[Row], data: DataSettings) -> list[Row]:
    """Exchange the sides of a share `data.flipped_pairs` of the training pairs, and mark these pairs as `flipped`."""
    rows = []
    for row in pairs:
        place = place_of(row["prompt"] + row["chosen"], f"{data.seed}/flipped/")
        flips = row["split"] == "train" and place < data.flipped_pairs
        rows.append({name: row[_OTHER.get(name, name)] for name in row} | {"flipped": True} if flips else row)
    return rows


def about_pairs(pairs: Sequence[Row]) -> Row:
    """Measure the training pairs. A reward model should not be able to tell the two sides by their lengths."""
    train = [row for row in pairs if row["split"] == "train"]
    uses = Counter(row["prompt"] + row[side] for row in train for side in ("chosen", "rejected"))
    lengths = [tuple(len(words(row["prompt"] + row[side])) for side in ("chosen", "rejected")) for row in train]
    return {
        "pairs": len(train),
        "most_uses": max(uses.values()),
        "chosen_longer": mean((a > b) + (a == b) / 2 for a, b in lengths),
        "length_ratio": median(max(both) / max(min(both), 1) for both in lengths),
        "shared_opening": sum(bool(row["prompt"]) for row in train),
    }


def pairs_of_dataset(dataset: object) -> list[Row]:
    """Check a data set of preference pairs, and return its rows.

    Args:
        dataset: a `datasets.Dataset` with columns prompt, chosen, rejected and, optionally, split and messages. Without split,
            every tenth pair is for validation. `messages` counts only if it has the messages of the prompt.

    Raises:
        StageError: it is not a data set, a column is missing, a value is not a text, a response is empty, the two responses of
            a row are equal, or one of the splits train and validation is missing.
    """
    if not isinstance(dataset, Dataset):
        raise StageError(f"dataset should be a datasets.Dataset, as load_custom_data returns (got {shown(dataset)})")
    absent = {"prompt", "chosen", "rejected"} - set(dataset.column_names)
    if absent:
        raise StageError(f"the dataset lacks {', '.join(sorted(absent))}; it has {listed(dataset.column_names)}")
    pairs: list[Row] = dataset.to_list()
    for number, row in enumerate(pairs):
        for name in ("prompt", "split"):
            if not isinstance(row.get(name, ""), str):
                raise StageError(f"the dataset, row {number}: {name} should be a text (got {shown(row[name])})")
        try:
            for name in ("chosen", "rejected"):
                checked_text(row[name], name)
            refuse_equal(["chosen", "rejected"], [row["chosen"], row["rejected"]])
        except Fault as fault:
            raise StageError(f"the dataset, row {number}: {fault}; chosen and rejected should be two different texts") from None
        if "messages" in row:  # other data sets have other messages there
            row["messages"] = messages_of(row["prompt"], {"messages": row["messages"]})
    if "split" not in dataset.column_names:
        return [{**row, "split": "train" if number % 10 else "validation"} for number, row in enumerate(pairs)]
    if not {"train", "validation"} <= {row["split"] for row in pairs}:
        raise StageError(
            "the dataset needs pairs of split train and of split validation; without the column split "
            '(dataset.remove_columns("split")), every tenth pair is for validation'
        )
    return pairs
