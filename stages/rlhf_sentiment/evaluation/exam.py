"""The exam: labelled texts and preference pairs on which the judges are measured. No judge was trained on them."""

from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from ..data.text import cut_words, place_of
from ..engine.errors import StageError
from ..engine.records import Row, read_rows
from .judges import Opinion


class Exam(NamedTuple):
    """Labelled texts.

    Attributes:
        texts: those that measure the judges, "whole" and "cut" to a response's length. way -> [N]
        labels: of these texts, 1 positive and 0 negative. (N,)
        scale_texts, scale_labels: other labelled texts, which set the scale of the reward model's scores. [N], (N,)
    """

    texts: dict[str, list[str]]
    labels: np.ndarray
    scale_texts: list[str]
    scale_labels: np.ndarray


def read_exam(count: int, words: int) -> Exam:
    """Read the labelled texts.

    Args:
        count: texts that measure the judges, and texts that set the reward model's scale.
        words: the number of words to which a text is cut.

    Raises:
        StageError: the file is damaged, or the texts do not have both labels.
    """
    rows = read_rows("data/prepared/labelled.jsonl", {"text": str, "label": int, "split": str})
    if any(row["label"] not in (0, 1) for row in rows):
        raise StageError("data/prepared/labelled.jsonl: a label is neither 0 nor 1; run `dvc repro`")
    drawn = sorted(rows, key=lambda row: place_of(row["text"], "exam"))  # so that new rows change few of the drawn ones
    parts = {split: [row for row in drawn if row["split"] == split][:count] for split in ("train", "test")}
    for split, part in parts.items():
        if {row["label"] for row in part} != {0, 1}:
            raise StageError(
                f"data/prepared/labelled.jsonl: the {len(part)} texts drawn from {split} do not have both labels; "
                "raise evaluate.exam_texts, or add texts"
            )
    texts = {split: [row["text"] for row in part] for split, part in parts.items()}
    labels = {split: np.array([row["label"] for row in part]) for split, part in parts.items()}
    ways = {"whole": texts["test"], "cut": [cut_words(text, words) for text in texts["test"]]}
    return Exam(ways, labels["test"], texts["train"], labels["train"])


def agreement_with_annotators(opinion: Opinion, confidence: float) -> Row:
    """Return how often a judge finds the chosen response of a held-out preference pair the more positive one.

    A share of about one half means that the annotators chose by another criterion than positivity. Pairs whose
    sides have equal P(positive) do not count.

    Returns:
        pairs: how many pairs count.
        agree, agree_ci_low, agree_ci_high: the share of them, and its Wilson interval.
    """
    columns: dict[str, type] = {"chosen": str, "rejected": str, "split": str}
    rows = [row for row in read_rows("data/prepared/preferences.jsonl", columns) if row["split"] == "validation"]
    chosen, rejected = (opinion([row[side] for row in rows]) for side in ("chosen", "rejected"))
    decided, agreed = int((chosen != rejected).sum()), int((chosen > rejected).sum())
    if not decided:
        return {"pairs": 0, "agree": 0.5, "agree_ci_low": 0.0, "agree_ci_high": 1.0}
    share = binomtest(agreed, decided).proportion_ci(confidence, method="wilson")
    return {"pairs": decided, "agree": agreed / decided, "agree_ci_low": share.low, "agree_ci_high": share.high}
