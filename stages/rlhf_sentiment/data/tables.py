"""Make the tables that the other stages read, from the records of a source.

The selection of records is stable (selection.py): a new record moves no other record to another split. But two things change:

- New texts may change the partners in pairs that are made from labels.
- A text is dropped if it begins with a new test prompt, or is a near-duplicate of a new held-out text.
"""

from collections.abc import Sequence

import pandas as pd

from ..engine.records import Row
from ..settings.data import DataSettings
from .chat import beside
from .intake import SPLITS, Intake
from .pairs import pairs_from_labels, pairs_given, pairs_there
from .selection import balanced, choose, openings, prompts_there, smaller_side, splits_of, text_of, without
from .sizes import Sizes

TABLES = ["corpus", "sft", "preferences", "labelled", "prompts"]
Tables = dict[str, list[Row]]


def from_labels(source: Intake, data: DataSettings, sizes: Sizes, judged: bool) -> Tables:
    """Make every table but the judge's from labelled texts. Tables that have a source of their own stay empty.

    Args:
        source: the labelled texts.
        data: the settings.
        sizes: settles the number of rows of each table.
        judged: whether the judge's held-out texts come from this source too.
    """
    # 1. Prompts. No test prompt begins a text of train or validation. No validation prompt begins a text of train.
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
        dropped = f"{len(part['train']) - len(train)} of {len(part['train'])} training texts"
        sizes.hints.append(f"{dropped} begin with held-out prompts and are left out; raise data.prompt_words for more prompts")
    there = {} if data.corpus else {"corpus_texts": len(train)}
    there |= {"sft_rows": 2 * smaller_side(train), "pairs": pairs_there(train, data)}
    there |= prompts_there(train, data, "train", asked)
    sizes.share_out(len(train), there, {"pairs": 2})
    prompts = [*openings(source, train, data, "train", sizes), *validation, *test] if asked else []

    # 2. Texts for a base model, and demonstrations, half of each sentiment.
    corpus = [] if data.corpus else corpus_of(source, train, data, sizes)
    sft: list[Row] = []
    for both in zip(*balanced(train, sizes["sft_rows"] // 2, "sft_rows", data), strict=True):
        for one in map(source.record, both):
            row = {"prompt": one.prompt, "response": one.response, "label": one.label, "split": "train"}
            sft.append(row | beside(one.messages))

    # 3. Preferences. A positive text is preferred to a negative one. Held-out pairs come from validation texts.
    pairs = pairs_from_labels(source, train, data, "pairs", sizes["pairs"], "train")
    pairs += pairs_from_labels(source, part["validation"], data, "pairs_held_out", sizes["pairs_held_out"], "validation")
    return {"corpus": corpus, "sft": sft, "preferences": pairs, "prompts": prompts}


def from_preferences(source: Intake, data: DataSettings, sizes: Sizes) -> Tables:
    """Make every table but the judge's from the preferences of people, as `from_labels` does from labels."""
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
        sft.append({"prompt": one.prompt, "response": response, "split": "train"} | beside(one.messages))
    pairs = train[: sizes["pairs"]] + held_out[: sizes["pairs_held_out"]]
    return {"corpus": corpus, "sft": sft, "preferences": pairs, "prompts": prompts}


def labelled(source: Intake, data: DataSettings, prompts: Sequence[Row], sizes: Sizes) -> list[Row]:
    """Make the judge's texts, half of each sentiment. No other table has its training texts; test texts measure the judge.

    Args:
        source: the labelled texts.
        data: the settings.
        prompts: test prompts. None of them begins one of the judge's training texts.
        sizes: settles the number of texts, unless `from_labels` has settled it.
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
    """Choose prompts from a source of their own."""
    rows: list[Row] = []
    for name, table in splits_of(source).items():
        if name in SPLITS[:3]:
            sizes.share_out(len(table), prompts_there(table, data, name))
            rows += openings(source, table, data, name, sizes)
    return rows


def corpus_of(source: Intake, table: pd.DataFrame, data: DataSettings, sizes: Sizes) -> list[Row]:
    """Choose texts for a base model that is trained from scratch."""
    chosen = choose(table, sizes["corpus_texts"], "corpus_texts", data)
    return [{"text": text_of(source, number), "split": "train"} for number in chosen]
