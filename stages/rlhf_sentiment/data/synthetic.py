"""Make the tables of the source `synthetic` from the seeded grammar (grammar.py), so that everything runs without a download.

A hash of its text decides whether a prompt belongs to train, validation or test. The corpus, the demonstrations and the
training pairs have only train prompts. The held-out pairs have validation prompts.
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
from .splits import split_of
from .text import normalised


def tables(ledger: "Ledger", data: DataSettings, sizes: Sizes) -> dict[str, list[Row]]:
    """Draw every table but the judge's from the grammar.

    Raises:
        StageError: the grammar has too few different rows.
    """
    # 1. Texts from which the base model learns the language: reviews of several sentences, of either sentiment.
    corpus = ledger.take("corpus", sizes["corpus_texts"], document, "train")

    # 2. Demonstrations, half of each sentiment, so that SFT does not already produce the target sentiment.
    praise, blame = (
        ledger.take(f"sft, label {label}", sizes["sft_rows"] // 2, demonstration(label), "train") for label in (1, 0)
    )
    sft = [row for both in zip(praise, blame, strict=True) for row in both]

    # 3. Preferences: one prompt and two responses. The positive one is chosen, apart from a share of errors. The held-out pairs
    # have no errors.
    preferences = ledger.take("preferences, train", sizes["pairs"], pair(data.disagreement), "train")
    preferences += ledger.take("preferences, validation", sizes["pairs_held_out"], pair(0.0), "validation")

    # 4. Prompts. PPO and every choice of a setting use train and validation. Only `sample` reads test.
    prompts = ledger.take("prompts, train", sizes["prompts_train"], prompt, "train")
    prompts += ledger.take("prompts, validation", sizes["prompts_validation"], prompt, "validation")
    prompts += ledger.take("prompts, test", sizes["prompts_test"], prompt, "test")
    return {"corpus": corpus, "sft": sft, "preferences": preferences, "prompts": prompts}


def labelled(ledger: "Ledger", sizes: Sizes) -> list[Row]:
    """Draw labelled texts for the judge, half of each sentiment.

    Raises:
        StageError: the grammar has too few different texts.
    """
    rows = []
    for label in (1, 0):
        rows += ledger.take(f"labelled, train, {label}", sizes["labelled_texts"] // 2, labelled_text(label), "train")
        rows += ledger.take(f"labelled, test, {label}", sizes["labelled_held_out"] // 2, labelled_text(label), "test")
    return rows


# The rows of each table. The first column of a row decides its split.


def document(rng: random.Random) -> Row:
    """Draw a review of several sentences for the corpus."""
    polarity = rng.choice((POSITIVE, NEGATIVE))
    text, rule = grammar.write_prompt(rng, opened=0.25)
    more = [grammar.write_sentence(polarity, rng) for _ in range(rng.choice((1, 2, 3)))]
    return {"prompt": text, "text": " ".join([text + grammar.write_response(rule, polarity, rng), *more])}


def demonstration(label: int) -> Callable[[random.Random], Row]:
    """Return a function that draws a demonstration with this label."""

    def draw(rng: random.Random) -> Row:
        review = grammar.write_review(POSITIVE if label else NEGATIVE, rng)
        return {"prompt": review.prompt, "response": review.response, "label": label}

    return draw


def pair(disagreement: float) -> Callable[[random.Random], Row]:
    """Return a function that draws a preference pair. A share `disagreement` of the pairs prefers the negative response."""

    def draw(rng: random.Random) -> Row:
        text, rule = grammar.write_prompt(rng)
        chosen, rejected = (grammar.write_response(rule, polarity, rng) for polarity in (POSITIVE, NEGATIVE))
        if flipped := rng.random() < disagreement:
            chosen, rejected = rejected, chosen
        return {"prompt": text, "chosen": chosen, "rejected": rejected, "flipped": flipped}

    return draw


def labelled_text(label: int) -> Callable[[random.Random], Row]:
    """Return a function that draws a text with this label for the judge."""

    def draw(rng: random.Random) -> Row:
        polarity = POSITIVE if label else NEGATIVE
        return {"text": " ".join(grammar.write_sentence(polarity, rng) for _ in range(rng.choice((1, 2, 3)))), "label": label}

    return draw


def prompt(rng: random.Random) -> Row:
    """Draw a prompt."""
    return {"prompt": grammar.write_prompt(rng)[0]}


class Ledger:
    """Draws rows from the grammar, and counts the kept rows and the duplicates."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.kept = 0
        self.dropped: list[Row] = []

    def take(self, name: str, count: int, draw: Callable[[random.Random], Row], split: str) -> list[Row]:
        """Draw `count` different rows of `split`. Rows of another split are skipped, and not counted.

        Args:
            name: the purpose of the rows, which is part of the seed.
            count: the number of rows.
            draw: draws one row.
            split: the split, which becomes a column.

        Raises:
            StageError: the grammar has too few different rows.
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
        raise StageError(f"the grammar has only {len(rows)} different rows for {name}, not {count}; lower the count in `data`")

    def drop(self, name: str, row: Row) -> None:
        """Note a duplicate."""
        self.dropped.append(
            {"file": "grammar", "row": len(self.dropped) + 1, "table": name, "reason": "duplicate", "content": row}
        )

    def account(self) -> dict[str, int]:
        """Return the number of rows with each fate."""
        return {
            "rows_read": self.kept + len(self.dropped),
            "rows_kept": self.kept,
            "rows_rejected": 0,
            "duplicates_dropped": len(self.dropped),
            "overlap_dropped": 0,
        }
