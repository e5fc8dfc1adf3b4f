"""From the records of a source to the tables that the other stages read.

Which records are taken, where fewer are asked for, is decided by a hash of each: a new record takes at most one's place
in a table, and no other moves to another split. (It may give the texts of pairs that are made from labels other partners;
and what opens as a new test prompt, or nearly equals a new text that it must not meet, leaves.)
"""

import hashlib
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from os.path import commonprefix
from statistics import mean, median

import pandas as pd

from ..engine.records import Row
from ..settings.data import DataSettings
from .intake import SPLITS, Intake
from .near_duplicates import Sketched, near_duplicates, sketched
from .pairing import match
from .shapes import Plain, Ranked
from .sizes import Sizes
from .text import digest_of, normalised, place_of, word_ends, words

Tables = dict[str, list[Row]]


def from_labels(source: Intake, data: DataSettings, sizes: Sizes, judged: bool) -> Tables:
    """Every table but the judge's, from labelled texts; those from elsewhere are empty.

    Args:
        sizes: settles how many rows each table gets.
        judged: the judge's held-out texts are of this source, too.
    """
    # 1. Prompts. No test prompt opens a text of train or validation, and no validation prompt one of train.
    part, asked = splits_of(source), not data.prompts
    there = {"labelled_held_out": 2 * smaller_side(part["test"])} if judged else {}
    sizes.share_out(len(part["test"]), there | prompts_there(part["test"], data, "test", asked))
    test = openings(source, part["test"], data, "test", sizes) if asked else []

    part["validation"] = without(part["validation"], test)
    there = {"pairs_held_out": pairs_there(part["validation"], data)}
    there |= prompts_there(part["validation"], data, "validation", asked)
    sizes.share_out(len(part["validation"]), there, {"pairs_held_out": 2})
    validation = openings(source, part["validation"], data, "validation", sizes) if asked else []

    train = without(part["train"], validation + test)
    if len(train) < len(part["train"]) / 2:
        opened = f"{len(part['train']) - len(train)} of {len(part['train'])} training texts"
        sizes.hints.append(f"held-out prompts open {opened}, which therefore go; a larger data.prompt_words makes more prompts")
    there = {} if data.corpus else {"corpus_texts": len(train)}
    there |= {"sft_rows": 2 * smaller_side(train), "pairs": pairs_there(train, data)}
    there |= prompts_there(train, data, "train", asked)
    sizes.share_out(len(train), there, {"pairs": 2})
    prompts = [*openings(source, train, data, "train", sizes), *validation, *test] if asked else []

    # 2. Texts for a base model; demonstrations, half of each sentiment.
    corpus = [] if data.corpus else corpus_of(source, train, data, sizes)
    sft: list[Row] = []
    for both in zip(*balanced(train, sizes["sft_rows"] // 2, "sft_rows", data), strict=True):
        for one in map(source.record, both):
            sft.append({"prompt": one.prompt, "response": one.response, "label": one.label, "split": "train"})

    # 3. Preferences: a positive text is preferred to a negative one. Held-out pairs are of the validation texts.
    pairs = pairs_from_labels(source, train, data, "pairs", sizes["pairs"], "train")
    pairs += pairs_from_labels(source, part["validation"], data, "pairs_held_out", sizes["pairs_held_out"], "validation")
    return {"corpus": corpus, "sft": sft, "preferences": pairs, "prompts": prompts}


def from_preferences(source: Intake, data: DataSettings, sizes: Sizes) -> Tables:
    """As `from_labels`, from preferences that people gave."""
    part, asked = splits_of(source), not data.prompts
    train = pairs_given(source, part["train"], data, "pairs", "train")
    held_out = pairs_given(source, part["validation"], data, "pairs_held_out", "validation")
    sizes.share_out(len(part["test"]), prompts_there(part["test"], data, "test", asked))
    there = {"pairs_held_out": len(held_out)} | prompts_there(part["validation"], data, "validation", asked)
    sizes.share_out(len(part["validation"]), there)
    there = {} if data.corpus else {"corpus_texts": len(part["train"])}
    there |= {"sft_rows": len(part["train"]), "pairs": len(train)} | prompts_there(part["train"], data, "train", asked)
    sizes.share_out(len(part["train"]), there)

    prompts = [row for name in SPLITS[:3] for row in openings(source, part[name], data, name, sizes)] if asked else []
    corpus = [] if data.corpus else corpus_of(source, part["train"], data, sizes)
    sft: list[Row] = []
    for place, number in enumerate(choose(part["train"], sizes["sft_rows"], "sft_rows", data)):
        one = source.record(number)
        better = place % 2 == 0 or data.sft_from == "chosen"
        response = one.responses[one.scores.index((max if better else min)(one.scores))]
        sft.append({"prompt": one.prompt, "response": response, "split": "train"})
    pairs = train[: sizes["pairs"]] + held_out[: sizes["pairs_held_out"]]
    return {"corpus": corpus, "sft": sft, "preferences": pairs, "prompts": prompts}


def labelled(source: Intake, data: DataSettings, prompts: Sequence[Row], sizes: Sizes) -> list[Row]:
    """The judge's texts, half of each sentiment: those that it learns from are its alone, and test texts measure it.

    Args:
        prompts: test prompts, which open no text that it learns from.
        sizes: settles how many there are, where `from_labels` has not.
    """
    part = splits_of(source)
    part["judge"] = without(part["judge"], prompts)
    rows: list[Row] = []
    for name, place, split in (("labelled_texts", "judge", "train"), ("labelled_held_out", "test", "test")):
        if name not in sizes.came_to:
            sizes.share_out(len(part[place]), {name: 2 * smaller_side(part[place])})
        for both in zip(*balanced(part[place], sizes[name] // 2, name, data), strict=True):
            for number in both:
                rows.append({"text": text_of(source, number), "label": source.record(number).label, "split": split})
    return rows


def prompts_of(source: Intake, data: DataSettings, sizes: Sizes) -> list[Row]:
    """Prompts from a source of their own."""
    rows: list[Row] = []
    for name, table in splits_of(source).items():
        if name in SPLITS[:3]:
            sizes.share_out(len(table), prompts_there(table, data, name))
            rows += openings(source, table, data, name, sizes)
    return rows


def corpus_of(source: Intake, table: pd.DataFrame, data: DataSettings, sizes: Sizes) -> list[Row]:
    """Texts for a base model that is made from scratch."""
    chosen = choose(table, sizes["corpus_texts"], "corpus_texts", data)
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


def choose(table: pd.DataFrame, count: int, name: str, data: DataSettings, by: str = "digest") -> list[int]:
    """`count` rows of the table, in the order of a hash of the seed, the purpose and the column `by`."""
    places = [place_in_line(digest, name, data) for digest in table[by]]
    return [number for _, number in sorted(zip(places, table.index.tolist(), strict=True))[:count]]


def place_in_line(digest: int, name: str, data: DataSettings) -> bytes:
    """What orders the records for a table, as if by lot: it depends on the seed, the table and the record alone."""
    return hashlib.sha256(f"{data.seed}/{name}/{digest}".encode()).digest()


def balanced(table: pd.DataFrame, count: int, name: str, data: DataSettings) -> tuple[list[int], list[int]]:
    """`count` positive and `count` negative rows."""
    return tuple(choose(table[table["label"] == label], count, name, data) for label in (1, 0))  # type: ignore[return-value]


def smaller_side(table: pd.DataFrame) -> int:
    """How many texts the rarer sentiment has."""
    return int(table["label"].value_counts().reindex([0, 1], fill_value=0).min())


def pairs_there(table: pd.DataFrame, data: DataSettings) -> int:
    """The most pairs that labelled texts make: no text stands in more than `max_uses`, and no pair is made twice."""
    smaller = smaller_side(table)
    return smaller * min(data.max_uses, smaller)


def prompts_there(table: pd.DataFrame, data: DataSettings, split: str, asked: bool = True) -> dict[str, int]:
    """How many prompts a table has for `split`, by the name of their count; nothing where they are not asked for."""
    return {f"prompts_{split}": len(short_prompts(table, data))} if asked else {}


def short_prompts(table: pd.DataFrame, data: DataSettings) -> pd.DataFrame:
    """One row for each different prompt that is not longer than `max_prompt_words`."""
    return table[table["prompt_words"] <= (data.max_prompt_words or math.inf)].drop_duplicates("prompt")


def openings(source: Intake, table: pd.DataFrame, data: DataSettings, split: str, sizes: Sizes) -> list[Row]:
    """Different prompts of a table, none longer than `max_prompt_words`."""
    name = f"prompts_{split}"
    chosen = choose(short_prompts(table, data), sizes[name], name, data, by="prompt")
    return [{"prompt": source.record(number)[0], "split": split} for number in chosen]


def prompts_too_long(source: Intake, data: DataSettings) -> int:
    """How many different prompts have more than `max_prompt_words`."""
    longer = source.table["prompt_words"] > (data.max_prompt_words or math.inf)
    return int(source.table.loc[longer, "prompt"].nunique())


def without(table: pd.DataFrame, prompts: Sequence[Row]) -> pd.DataFrame:
    """The rows that open with none of `prompts`."""
    return table[~table["prompt"].isin([digest_of(row["prompt"]) for row in prompts])]


def pairs_from_labels(source: Intake, table: pd.DataFrame, data: DataSettings, name: str, count: int, split: str) -> list[Row]:
    """`count` pairs of a positive and a negative text, matched (pairing.py), or as many as can be made.

    As many texts as there are take part, and each stands in more pairs than one, at most `data.max_uses`, only where they do
    not suffice. The words that both open with, to the letter, are the prompt.
    """
    texts = min(count, smaller_side(table))
    if not texts:
        return []
    sides = [[text_of(source, number) for number in side] for side in balanced(table, texts, name, data)]
    rows: list[Row] = []
    for good, bad in list(match(sides[0], sides[1], math.ceil(count / texts)))[:count]:
        chosen, rejected = sides[0][good], sides[1][bad]
        prompt = shared_opening(chosen, rejected)
        rows.append({"prompt": prompt, "chosen": chosen[len(prompt) :], "rejected": rejected[len(prompt) :], "split": split})
    return rows


def shared_opening(one: str, other: str) -> str:
    """The words that two texts begin with, to the letter, but not all of either."""
    same = 0
    for end, also in zip(*(list(word_ends(text))[:-1] for text in (one, other)), strict=False):
        if end != also or one[same:end] != other[same:end]:
            break
        same = end
    return one[:same]


def pairs_given(source: Intake, table: pd.DataFrame, data: DataSettings, name: str, split: str) -> list[Row]:
    """All pairs that people's preferences make, those of a row together.

    Of ranked completions the two that differ most go first, and each stands in at most `data.max_uses` pairs.
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
                rows.append({"prompt": one.prompt, "chosen": chosen, "rejected": rejected, "split": split})
    return rows


def turned_round(pairs: Sequence[Row], data: DataSettings) -> list[Row]:
    """The pairs with a share `data.flipped_pairs` of those that train exchanged, which are marked: noise, where asked for."""
    rows = []
    for row in pairs:
        place = place_of(row["prompt"] + row["chosen"], f"{data.seed}/flipped/")
        turns = row["split"] == "train" and place < data.flipped_pairs
        rows.append(row | {"chosen": row["rejected"], "rejected": row["chosen"], "flipped": True} if turns else row)
    return rows


def about_pairs(pairs: Sequence[Row]) -> Row:
    """How alike the two sides of the training pairs are: a model should not be able to tell them by their lengths."""
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


def texts_of(row: Row) -> list[str]:
    """The texts of a table's row: what a model reads when it learns from it."""
    if "text" in row:
        return [row["text"]]
    sides = [row["prompt"] + row[side] for side in ("response", "chosen", "rejected") if side in row]
    return [text for text in (row["prompt"], *sides) if text]


def apart(rows: list[Row], split: str, others: Sketched, threshold: float, together: int = 1) -> tuple[list[Row], list[str]]:
    """The rows without those of `split` that have a text which nearly stands in `others`, or may do so.

    Args:
        threshold: as for `duplicates.near_duplicates`.
        together: rows go in groups of so many, which keeps a balance.

    Returns:
        The rows that stay; and those texts of the others that are too much like too many of `others` to be sure.
    """
    owners = [(number // together, text) for number, row in enumerate(rows) if row["split"] == split for text in texts_of(row)]
    near = near_duplicates(sketched([text for _, text in owners]), others, threshold)
    gone = {owners[number][0] for number in near.found | near.crowded}
    kept = [row for number, row in enumerate(rows) if row["split"] != split or number // together not in gone]
    return kept, [owners[number][1] for number in sorted(near.crowded)]


def not_opening(rows: list[Row], split: str, prompts: Sequence[str], together: int = 1) -> list[Row]:
    """The rows without those of `split` that have a text which begins with one of `prompts`, word for word."""
    taken = sorted({normalised(prompt) for prompt in prompts})
    gone = {
        number // together
        for number, row in enumerate(rows)
        if row["split"] == split and any(_opens(normalised(text), taken) for text in texts_of(row))
    }
    return [row for number, row in enumerate(rows) if row["split"] != split or number // together not in gone]


def _opens(text: str, prompts: Sequence[str]) -> bool:
    """Whether `text` begins with one of `prompts`, which are sorted, and a word ends there.

    Every beginning of a text stands before it in the order, and what stands between the two begins so, too. So either the last
    prompt that is not after the text is a beginning, or no beginning is longer than what the two have in common.
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
