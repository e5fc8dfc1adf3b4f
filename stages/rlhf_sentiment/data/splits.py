"""Which split a file or a text belongs to: train, validation or test."""

import re
from pathlib import Path

from .text import place_of

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval", "evaluation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_HELD_OUT = re.compile(
    r"(?<![a-z])(test(ing)?|val(id(ation)?)?|dev(elopment)?|eval(uation)?|h[eo]ld[^a-z]?out|unseen)(set|data|split)?s?(?![a-z])"
)


def split_of_name(path: Path) -> str | None:
    """Return the split that a file's name begins with, as in test.csv or train-00000-of-00002.parquet, or None."""
    word = re.match(r"[a-z]*", path.name.lower())
    return SPLITS.get(word[0]) if word else None


def looks_held_out(name: str) -> bool:
    """Return whether a name contains a word such as test, val or holdout, as in my_test.csv, testData.tsv or held-out."""
    return bool(_HELD_OUT.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()))


def split_of(text: str, validation: float, test: float) -> str:
    """Return "train", "validation" or "test", from a hash of the normalised text. New rows move no other row.

    Args:
        text: the text.
        validation: the share of all texts for validation, in [0, 1).
        test: the share of all texts for test, in [0, 1).
    """
    place = place_of(text)
    return "test" if place < test else "validation" if place < test + validation else "train"
