"""Text as the data stages see it: cleaned, the same text, the split it belongs to, and texts that are nearly the same."""

import hashlib
import re
import unicodedata
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from datasketch import MinHash

from .progress import progress_bar

_SHINGLE = 3  # words
_PERMUTATIONS = 128
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_LINE_END = re.compile(r"\r\n|[\n\r\x0b\x0c\x85\u2028\u2029]")


def cleaned(text: str) -> str:
    """`text` on one line: HTML line breaks and every run of white space become one space."""
    return " ".join(_BREAK.sub(" ", text).split())


def cleaned_lines(text: str) -> str:
    """`text` with its lines: HTML line breaks become line breaks, other runs of white space one space, and of blank lines
    in a row one stays. White space at the end goes; two line breaks at the start, as a transcript has them, stay."""
    lines = (" ".join(line.split()) for line in _LINE_END.split(_BREAK.sub("\n", text)))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip()


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


def digest_of(*texts: str) -> int:
    """A number below 2**64 from a hash of normalised texts: the same for the same texts, and hardly ever for others."""
    whole = "\0".join(map(normalised, texts))
    return int.from_bytes(hashlib.blake2b(whole.encode(), digest_size=8).digest(), "big")


def words(text: str) -> list[str]:
    """The words of `text`, as lengths count them: what white space parts."""
    return text.split()


def cut_words(text: str, words: int) -> str:
    """The first `words` words of `text`, white space as it was."""
    match = re.match(rf"\s*(?:\S+\s+){{0,{max(words - 1, 0)}}}\S+", text)
    return match[0] if match and words else ""


def shingles(text: str) -> set[str]:
    """The runs of three words in the normalised text, punctuation aside; of a shorter text, all of it."""
    same = normalised(text)
    words = re.findall(r"\w+", same) or [same]
    return {" ".join(words[i : i + _SHINGLE]) for i in range(max(len(words) - _SHINGLE + 1, 1))}


class Sketched(NamedTuple):
    """Texts, and a MinHash of each. Shape of `sketches`: (texts, 128), uint32. The texts may lie on disk."""

    texts: Sequence[str]
    sketches: np.ndarray


def sketched(texts: Sequence[str], title: str = "") -> Sketched:
    """The MinHash of each text's shingles (Broder 1997, as in datasketch), with a progress bar where it has a title."""
    sketches = np.empty((len(texts), _PERMUTATIONS), dtype=np.uint32)
    with progress_bar(total=len(texts), desc=title, unit=" texts", leave=False, shown=bool(title)) as progress:
        for start in range(0, len(texts), 1000):
            part = [texts[number] for number in range(start, min(start + 1000, len(texts)))]
            hashed = [[zlib.crc32(shingle.encode()) for shingle in shingles(text)] for text in part]
            for number, one in enumerate(MinHash.bulk(hashed, num_perm=_PERMUTATIONS, seed=1, hashfunc=int), start):
                sketches[number] = one.hashvalues
            progress.update(len(part))
    return Sketched(texts, sketches)


def near_duplicates(ours: Sketched, others: Sketched, threshold: float) -> set[int]:
    """Indices of those of `ours` that nearly stand in `others` too.

    Args:
        threshold: Jaccard similarity of the two sets of shingles, in [0.1, 1], from which two texts are near-duplicates.

    MinHash with locality-sensitive hashing proposes and the exact similarity decides, so that no text is dropped that
    should stay. Two texts are proposed where they agree in all r rows of one of b bands, which at the threshold t fails
    with probability (1 - t^r)^b: r is the largest for which that is below 1e-4. (datasketch's own index keeps every band
    of every text in dictionaries, about 16 KiB a text; here one band is looked at after the other.)
    """
    shapes = [(_PERMUTATIONS // rows, rows) for rows in range(1, _PERMUTATIONS // 2 + 1)]
    bands, rows = [shape for shape in shapes if (1 - threshold ** shape[1]) ** shape[0] < 1e-4][-1]
    found: set[int] = set()
    compared: set[tuple[int, int]] = set()
    for band in range(bands):
        own, other = (_keys(side.sketches[:, band * rows : (band + 1) * rows]) for side in (ours, others))
        order = np.argsort(other, kind="stable")
        first, last = (np.searchsorted(other[order], own, side) for side in ("left", "right"))
        for number in np.flatnonzero(last > first):
            for candidate in order[first[number] : last[number]]:
                pair = int(number), int(candidate)
                if pair[0] in found or pair in compared:
                    continue
                compared.add(pair)
                if _jaccard(_cached_shingles(ours.texts[pair[0]]), _cached_shingles(others.texts[pair[1]])) >= threshold:
                    found.add(pair[0])
    return found


def _keys(rows: np.ndarray) -> np.ndarray:
    """One number for the values of a row; two rows with another value have hardly ever the same. (N, r) -> (N,)"""
    keys = np.zeros(len(rows), dtype=np.uint64)
    for column in rows.T:
        keys = (keys ^ column) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


_cached_shingles = lru_cache(maxsize=2_000)(shingles)


def _jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)
