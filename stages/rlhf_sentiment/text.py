"""Text as the data stages see it: cleaned, the same text, the split it belongs to, and texts that are nearly the same."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence

from datasketch import MinHash, MinHashLSH

_SHINGLE = 3  # words
_PERMUTATIONS = 128


def cleaned(text: str) -> str:
    """`text` on one line: HTML line breaks and every run of white space become one space."""
    return " ".join(re.sub(r"<br\s*/?>", " ", text, flags=re.IGNORECASE).split())


def normalised(text: str) -> str:
    """`text` with what does not make it another text taken away: case, width and composition, runs of white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def split_of(text: str, validation: float, test: float) -> str:
    """ "train", "validation" or "test", from a hash of the normalised text: adding rows moves nobody.

    Args:
        validation, test: shares of all texts, in [0, 1).
    """
    place = place_of(text)
    return "test" if place < test else "validation" if place < test + validation else "train"


def place_of(text: str, purpose: str = "") -> float:
    """A number in [0, 1) from a hash of the normalised text; another purpose gives another, independent number."""
    digest = hashlib.sha256((purpose + normalised(text)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def cut_words(text: str, words: int) -> str:
    """The first `words` words of `text`, white space as it was."""
    match = re.match(rf"\s*(?:\S+\s+){{0,{max(words - 1, 0)}}}\S+", text)
    return match[0] if match and words else ""


def shingles(text: str) -> set[str]:
    """The runs of three words in the normalised text, punctuation aside; of a shorter text, all of it."""
    words = re.findall(r"\w+", normalised(text))
    return {" ".join(words[i : i + _SHINGLE]) for i in range(max(len(words) - _SHINGLE + 1, 1))}


def near_duplicates(texts: Sequence[str], of: Iterable[str], threshold: float) -> set[int]:
    """Indices of those `texts` that nearly stand in `of` too.

    Args:
        threshold: Jaccard similarity of the two sets of shingles, in [0.1, 1], from which two texts are near-duplicates.

    MinHash with locality-sensitive hashing proposes (Broder 1997, as in datasketch) and the exact similarity decides, so
    that no text is dropped that should stay. Two texts are proposed where they agree in all r rows of one of b bands,
    which at the threshold t fails with probability (1 - t^r)^b: r is the largest for which that is below 1e-4.
    """
    choices = [(_PERMUTATIONS // rows, rows) for rows in range(1, _PERMUTATIONS // 2 + 1)]
    sure = [(bands, rows) for bands, rows in choices if (1 - threshold**rows) ** bands < 1e-4]
    others = [shingles(text) for text in of]
    index = MinHashLSH(num_perm=_PERMUTATIONS, params=sure[-1])
    for number, sketch in enumerate(_sketches(others)):
        index.insert(number, sketch)
    own = [shingles(text) for text in texts]
    found = set()
    for number, sketch in enumerate(_sketches(own)):
        if any(_jaccard(own[number], others[other]) >= threshold for other in index.query(sketch)):
            found.add(number)
    return found


def _sketches(sets: list[set[str]]) -> list[MinHash]:
    # Sorted: a set's order depends on PYTHONHASHSEED. A sketch does not depend on order, but why make a reader check.
    return MinHash.bulk([[item.encode() for item in sorted(one)] for one in sets], num_perm=_PERMUTATIONS, seed=1)


def _jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)
