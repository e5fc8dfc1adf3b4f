"""From the records of a source to the tables that the other stages read.

Which records are taken, where fewer are asked for, is decided by a hash of each: a new record takes at most one's place
in a table, and no other moves to another split. (It may give the texts of pairs that are made from labels other partners;
and what opens as a new test prompt, or nearly equals a new text that it must not meet, leaves.)
"""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from statistics import mean, median

import pandas as pd

from .intake import SPLITS, Intake
from .matching import match
from .records import Row
from .run import StageError
from .settings.data import DataSettings
from .shapes import Plain, Ranked
from .text import Sketched, cut_words, digest_of, near_duplicates, normalised, place_of, sketched

Tables = dict[str, list[Row]]


def from_labels(source: Intake, data: DataSettings) -> tuple[Tables, Row]:
    """Every table but the judge's, from labelled texts, and what is to be said of the pairs.

    Raises:
        StageError: the source has fewer texts than the settings ask for.
    """
    # 1. Prompts. No test prompt opens a text of train or validation, and no validation prompt one of train.
    part = splits_of(source)
    test = openings(source, part["test"], data, "test")
    part["validation"] = without(part["validation"], test)
    validation = openings(source, part["validation"], data, "validation")
    train = without(part["train"], validation + test)
    prompts = [*openings(source, train, data, "train"), *validation, *test]

    # 2. Texts for a base model; demonstrations, half of each sentiment.
    corpus = corpus_of(source, train, data)
    sft: list[Row] = []
    for both in zip(*balanced(train, data.sft_rows // 2, "sft_rows", data), strict=True):
        for one in map(source.record, both):
            sft.append({"prompt": one.prompt, "response": one.response, "label": one.label, "split": "train"})

    # 3. Preferences: a positive text is preferred to a negative one. Held-out pairs are of the validation texts.
    learned, matched = pairs_from_labels(source, train, data.pairs, "pairs", data)
    held_out, _ = pairs_from_labels(source, part["validation"], data.pairs_held_out, "pairs_held_out", data)
    return {"corpus": corpus, "sft": sft, "preferences": learned + held_out, "prompts": prompts}, matched


def from_preferences(source: Intake, data: DataSettings) -> tuple[Tables, Row]:
    """Every table but the judge's, from preferences that people gave, and what is to be said of the pairs.

    Raises:
        StageError: the source has fewer rows than the settings ask for.
    """
    part = splits_of(source)
    prompts = [row for name in SPLITS[:3] for row in openings(source, part[name], data, name)]
    corpus = corpus_of(source, part["train"], data)
    sft: list[Row] = []
    for place, number in enumerate(choose(part["train"], data.sft_rows, "sft_rows", data)):
        one = source.record(number)
        better = place % 2 == 0 or data.sft_from == "chosen"
        response = one.responses[one.scores.index((max if better else min)(one.scores))]
        sft.append({"prompt": one.prompt, "response": response, "split": "train"})
    learned = pairs_given(source, part["train"], data.pairs, "pairs", data)
    held_out = pairs_given(source, part["validation"], data.pairs_held_out, "pairs_held_out", data)
    return {"corpus": corpus, "sft": sft, "preferences": learned + held_out, "prompts": prompts}, lengths(learned)


def labelled(source: Intake, data: DataSettings, prompts: Sequence[Row]) -> list[Row]:
    """The judge's texts, half of each sentiment: those that it learns from are its alone, and test texts measure it.

    Args:
        prompts: test prompts, which open no text that it learns from.

    Raises:
        StageError: there are fewer.
    """
    part = splits_of(source)
    part["judge"] = without(part["judge"], prompts)
    rows: list[Row] = []
    for name, place, split in (("labelled_texts", "judge", "train"), ("labelled_held_out", "test", "test")):
        for both in zip(*balanced(part[place], getattr(data, name) // 2, name, data), strict=True):
            for number in both:
                rows.append({"text": text_of(source, number), "label": source.record(number).label, "split": split})
    return rows


def corpus_of(source: Intake, table: pd.DataFrame, data: DataSettings) -> list[Row]:
    """Texts for a base model that is made from scratch."""
    chosen = choose(table, data.corpus_texts, "corpus_texts", data)
    return [{"text": text_of(source, number), "split": "train"} for number in chosen]


def splits_of(source: Intake) -> dict[str, pd.DataFrame]:
    """The table of each split, empty ones too."""
    return {name: source.table[source.table["split"] == name] for name in SPLITS}


def text_of(source: Intake, number: int) -> str:
    """A record as one text; of responses that are ranked, with the best."""
    record = source.record(number)
    if isinstance(record, Ranked):
        return record.prompt + record.responses[record.scores.index(max(record.scores))]
    return record.text if isinstance(record, Plain) else record.prompt + record.response


def choose(
    table: pd.DataFrame, count: int, name: str, data: DataSettings, kind: str = "texts", by: str = "digest"
) -> list[int]:
    """`count` rows of the table, in the order of a hash of the seed, the purpose and the column `by`.

    Raises:
        StageError: there are fewer.
    """
    if len(table) < count:
        raise StageError(f"data.{name} asks for {count} {kind} where the source has {len(table)} for it; lower it")
    places = [place_in_line(digest, name, data) for digest in table[by]]
    return [number for _, number in sorted(zip(places, table.index.tolist(), strict=True))[:count]]


def place_in_line(digest: int, name: str, data: DataSettings) -> bytes:
    """What orders the records for a table, as if by lot: it depends on the seed, the table and the record alone."""
    return hashlib.sha256(f"{data.seed}/{name}/{digest}".encode()).digest()


def balanced(table: pd.DataFrame, count: int, name: str, data: DataSettings) -> tuple[list[int], list[int]]:
    """`count` positive and `count` negative rows."""
    positive, negative = (
        choose(table[table["label"] == label], count, name, data, kind)
        for label, kind in ((1, "positive texts"), (0, "negative texts"))
    )
    return positive, negative


def openings(source: Intake, table: pd.DataFrame, data: DataSettings, split: str) -> list[Row]:
    """Different prompts of a table, as many as the settings ask for, none longer than `max_prompt_words`."""
    short = table[table["prompt_words"] <= (data.max_prompt_words or math.inf)].drop_duplicates("prompt")
    name, count = f"prompts_{split}", getattr(data, f"prompts_{split}")
    chosen = choose(short, count, name, data, "different prompts", by="prompt")
    return [{"prompt": source.record(number)[0], "split": split} for number in chosen]


def prompts_too_long(source: Intake, data: DataSettings) -> int:
    """How many different prompts have more than `max_prompt_words`."""
    longer = source.table["prompt_words"] > (data.max_prompt_words or math.inf)
    return int(source.table.loc[longer, "prompt"].nunique())


def without(table: pd.DataFrame, prompts: Sequence[Row]) -> pd.DataFrame:
    """The rows that open with none of `prompts`."""
    return table[~table["prompt"].isin([digest_of(row["prompt"]) for row in prompts])]


def pairs_from_labels(source: Intake, table: pd.DataFrame, count: int, name: str, data: DataSettings) -> tuple[list[Row], Row]:
    """`count` pairs of a positive and a negative text, matched (matching.py), each text in at most `data.max_uses` of them.

    The words that both open with are the prompt. A share `data.disagreement` of the pairs is the wrong way round.
    """
    sides = balanced(table, math.ceil(count / data.max_uses), name, data)
    texts = [[text_of(source, number) for number in side] for side in sides]
    rows, openings = [], []
    for (good, bad), opening in list(match(texts[0], texts[1], data.max_uses).items())[:count]:
        chosen, rejected = texts[0][good], texts[1][bad]
        openings.append(opening)
        if place_of(chosen, f"{data.seed}/disagreement/") < data.disagreement:
            chosen, rejected = rejected, chosen
        prompt = shared_opening(chosen, rejected)
        rows.append({"prompt": prompt, "chosen": chosen[len(prompt) :], "rejected": rejected[len(prompt) :], "split": ""})
    split = "validation" if name == "pairs_held_out" else "train"
    uses = Counter(row["prompt"] + row[side] for row in rows for side in ("chosen", "rejected"))
    return [row | {"split": split} for row in rows], {
        "matched_opening": sum(opening > 0 for opening in openings),
        "most_uses": max(uses.values()),
        **lengths(rows),
    }


def shared_opening(one: str, other: str) -> str:
    """The words that two texts begin with, to the letter, but not all of either."""
    words = one.split(" "), other.split(" ")
    same = next((n for n, (a, b) in enumerate(zip(*words, strict=False)) if a != b), min(map(len, words)))
    return " ".join(words[0][: min(same, min(map(len, words)) - 1)])


def pairs_given(source: Intake, table: pd.DataFrame, count: int, name: str, data: DataSettings) -> list[Row]:
    """`count` pairs that people's preferences make, those of a row together.

    Of ranked completions the two that differ most go first, and each stands in at most `data.max_uses` pairs.

    Raises:
        StageError: there are fewer.
    """
    split = "validation" if name == "pairs_held_out" else "train"
    rows: list[Row] = []
    for number in choose(table, len(table), name, data):
        one = source.record(number)
        ranks = sorted(range(len(one.scores)), key=lambda place: (-one.scores[place], place))
        gaps = sorted(combinations(ranks, 2), key=lambda two: one.scores[two[1]] - one.scores[two[0]])
        uses: Counter[int] = Counter()
        for better, worse in gaps:
            differ = one.scores[better] > one.scores[worse]
            if differ and (len(ranks) == 2 or max(uses[better], uses[worse]) < data.max_uses):
                uses.update((better, worse))
                chosen, rejected = one.responses[better], one.responses[worse]
                rows.append({"prompt": one.prompt, "chosen": chosen, "rejected": rejected, "split": split})
    if len(rows) < count:
        raise StageError(f"data.{name} asks for {count} pairs where the source has {len(rows)} for it; lower it")
    return rows[:count]


def lengths(pairs: Sequence[Row]) -> Row:
    """How alike the two sides of the pairs are in length: a model should not be able to go by that."""
    words = [(len((row["prompt"] + row["chosen"]).split()), len((row["prompt"] + row["rejected"]).split())) for row in pairs]
    return {
        "pairs": len(pairs),
        "chosen_longer": mean((a > b) + (a == b) / 2 for a, b in words),
        "length_ratio": median(max(both) / min(both) for both in words),
    }


def texts_of(row: Row) -> list[str]:
    """The texts of a table's row: what a model reads when it learns from it."""
    if "text" in row:
        return [row["text"]]
    sides = [row["prompt"] + row[side] for side in ("response", "chosen", "rejected") if side in row]
    return [text for text in (row["prompt"], *sides) if text]


def apart(rows: list[Row], split: str, others: Sketched, threshold: float, together: int = 1) -> list[Row]:
    """The rows without those of `split` that have a text which nearly stands in `others`.

    Args:
        threshold: as for `text.near_duplicates`.
        together: rows go in groups of so many, which keeps a balance.
    """
    owners = [(number // together, text) for number, row in enumerate(rows) if row["split"] == split for text in texts_of(row)]
    near = near_duplicates(sketched([text for _, text in owners]), others, threshold)
    gone = {owners[number][0] for number in near}
    return [row for number, row in enumerate(rows) if row["split"] != split or number // together not in gone]


def not_opening(rows: list[Row], split: str, prompts: Sequence[str], together: int = 1) -> list[Row]:
    """The rows without those of `split` that have a text which begins with one of `prompts`, word for word."""
    taken = {normalised(prompt) for prompt in prompts}
    counts = sorted({len(prompt.split()) for prompt in taken})
    gone = {
        number // together
        for number, row in enumerate(rows)
        for text in map(normalised, texts_of(row))
        if row["split"] == split and any(cut_words(text, count) in taken for count in counts)
    }
    return [row for number, row in enumerate(rows) if row["split"] != split or number // together not in gone]
