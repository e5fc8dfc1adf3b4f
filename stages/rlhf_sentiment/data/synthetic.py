"""The source `synthetic`: tables drawn from the seeded grammar (grammar.py), so that everything runs with no download.

A prompt belongs to train, validation or test by a hash of its text. Only train prompts are in the corpus, the
demonstrations and the pairs that train the reward model; its held-out pairs have validation prompts.
"""

import random
from collections.abc import Callable

from ..engine.errors import StageError
from ..engine.progress import progress_bar
from ..engine.records import Row
from ..settings.data import DataSettings
from . import grammar
from .grammar import NEGATIVE, POSITIVE
from .sizes import Sizes
from .text import normalised, split_of


def tables(ledger: "Ledger", data: DataSettings, sizes: Sizes) -> dict[str, list[Row]]:
    """Every table but the judge's, drawn from the grammar.

    Raises:
        StageError: the grammar has too few different rows.
    """
    # 1. Texts for the base model to learn the language from: reviews of several sentences, either sentiment.
    corpus = ledger.take("corpus", sizes["corpus_texts"], document, "train")

    # 2. Demonstrations, half of each sentiment: supervised fine-tuning must not win the game before RLHF plays it.
    praise, blame = (
        ledger.take(f"sft, label {label}", sizes["sft_rows"] // 2, demonstration(label), "train") for label in (1, 0)
    )
    sft = [row for both in zip(praise, blame, strict=True) for row in both]

    # 3. Preferences: one prompt, two responses, the positive one chosen, but where the annotator erred. What measures the
    # reward model is right.
    preferences = ledger.take("preferences, train", sizes["pairs"], pair(data.disagreement), "train")
    preferences += ledger.take("preferences, validation", sizes["pairs_held_out"], pair(0.0), "validation")

    # 4. Prompts: PPO and every choice of a setting see train and validation; only `sample` reads test.
    prompts = ledger.take("prompts, train", sizes["prompts_train"], prompt, "train")
    prompts += ledger.take("prompts, validation", sizes["prompts_validation"], prompt, "validation")
    prompts += ledger.take("prompts, test", sizes["prompts_test"], prompt, "test")
    return {"corpus": corpus, "sft": sft, "preferences": preferences, "prompts": prompts}


def labelled(ledger: "Ledger", sizes: Sizes) -> list[Row]:
    """Labelled texts for the judge, half of each sentiment.

    Raises:
        StageError: the grammar has too few different ones.
    """
    rows = []
    for label in (1, 0):
        rows += ledger.take(f"labelled, train, {label}", sizes["labelled_texts"] // 2, labelled_text(label), "train")
        rows += ledger.take(f"labelled, test, {label}", sizes["labelled_held_out"] // 2, labelled_text(label), "test")
    return rows


# What one row of each table looks like. The first column decides the row's split.


def document(rng: random.Random) -> Row:
    polarity = rng.choice((POSITIVE, NEGATIVE))
    text, rule = grammar.write_prompt(rng, opened=0.25)
    more = [grammar.write_sentence(polarity, rng) for _ in range(rng.choice((1, 2, 3)))]
    return {"prompt": text, "text": " ".join([text + grammar.write_response(rule, polarity, rng), *more])}


def demonstration(label: int) -> Callable[[random.Random], Row]:
    def draw(rng: random.Random) -> Row:
        review = grammar.write_review(POSITIVE if label else NEGATIVE, rng)
        return {"prompt": review.prompt, "response": review.response, "label": label}

    return draw


def pair(disagreement: float) -> Callable[[random.Random], Row]:
    def draw(rng: random.Random) -> Row:
        text, rule = grammar.write_prompt(rng)
        chosen, rejected = (grammar.write_response(rule, polarity, rng) for polarity in (POSITIVE, NEGATIVE))
        if flipped := rng.random() < disagreement:
            chosen, rejected = rejected, chosen
        return {"prompt": text, "chosen": chosen, "rejected": rejected, "flipped": flipped}

    return draw


def labelled_text(label: int) -> Callable[[random.Random], Row]:
    def draw(rng: random.Random) -> Row:
        polarity = POSITIVE if label else NEGATIVE
        return {"text": " ".join(grammar.write_sentence(polarity, rng) for _ in range(rng.choice((1, 2, 3)))), "label": label}

    return draw


def prompt(rng: random.Random) -> Row:
    return {"prompt": grammar.write_prompt(rng)[0]}


class Ledger:
    """Draws rows from the grammar and accounts for each: kept or a duplicate."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.kept = 0
        self.dropped: list[Row] = []

    def take(self, name: str, count: int, draw: Callable[[random.Random], Row], split: str) -> list[Row]:
        """`count` different rows of `split`, each with its split. Rows of another split are not drawn: they never were.

        Raises:
            StageError: the grammar has too few.
        """
        rng = random.Random(f"{self.seed}/{name}")  # noqa: S311 (sampling, not secrets)
        rows: dict[str, Row] = {}
        with progress_bar(total=count, desc=f"prepare: {name}", unit=" rows", leave=False) as progress:
            for _ in range(100 * count + 10_000):
                row = draw(rng)
                if split_of(next(iter(row.values())), validation=0.1, test=0.1) != split:
                    continue
                same = normalised(" ".join(str(value) for value in row.values()))
                if same in rows:
                    self.drop(name, row)
                    continue
                rows[same] = {**row, "split": split}
                progress.update()
                if len(rows) == count:
                    self.kept += count
                    return list(rows.values())
        raise StageError(f"the grammar has only {len(rows)} different rows for {name}, not {count}; lower it in `data`")

    def drop(self, name: str, row: Row) -> None:
        self.dropped.append(
            {"file": "grammar", "row": len(self.dropped) + 1, "table": name, "reason": "duplicate", "content": row}
        )

    def account(self) -> dict[str, int]:
        """How many rows had which fate."""
        return {
            "rows_read": self.kept + len(self.dropped),
            "rows_kept": self.kept,
            "rows_rejected": 0,
            "duplicates_dropped": len(self.dropped),
            "overlap_dropped": 0,
        }
