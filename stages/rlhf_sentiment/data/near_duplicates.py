"""Find near-duplicates, in time and memory that grow with the number of texts and not with its square."""

import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from datasketch import MinHash

from ..engine.progress import progress_bar
from .text import normalised, terms

_SHINGLE = 3  # words
_PERMUTATIONS = 128
_AT_ONCE = 2_000  # shingles that are hashed at once, half a KiB each
_BLOCK = 256  # candidates whose sketches are compared at once
_LOOKED_AT = 5_000  # the most candidates of a text whose sketches are compared with it
_COMPARED = 100  # the most candidates of a text that are compared with it exactly


class Sketched(NamedTuple):
    """Texts, and a MinHash of each. Shape of `sketches`: (texts, 128), uint32. The texts may be on disk."""

    texts: Sequence[str]
    sketches: np.ndarray


class Near(NamedTuple):
    """Indices of texts: those with a near-duplicate, and those with so many candidates that not all were compared."""

    found: set[int]
    crowded: set[int]


def shingles(text: str) -> set[str]:
    """Return all runs of three words in the normalised text, without punctuation. A shorter text is one run."""
    same = normalised(text)
    words = terms(same) or [same]
    return {" ".join(words[i : i + _SHINGLE]) for i in range(max(len(words) - _SHINGLE + 1, 1))}


def sketched(texts: Sequence[str], title: str = "") -> Sketched:
    """Compute the MinHash of each text's shingles (Broder 1997, as in datasketch). `title` is that of a progress bar.

    numpy permutes the hashes of many texts at once, since datasketch's calls for each text take longer than their arithmetic.
    """
    sketches = np.full((len(texts), _PERMUTATIONS), np.iinfo(np.uint32).max, dtype=np.uint32)
    factors, summands = MinHash(num_perm=_PERMUTATIONS, seed=1).permutations
    hashed: list[int] = []  # of the shingles that wait
    starts: dict[int, int] = {}  # text -> the place of its first shingle in `hashed`

    def take() -> None:
        values = _mixed(np.array(hashed, dtype=np.uint32))[:, None] * factors + summands
        rows = list(starts)
        sketches[rows] = np.minimum(sketches[rows], np.minimum.reduceat(values, list(starts.values()), axis=0))
        hashed.clear()
        starts.clear()

    with progress_bar(total=len(texts), desc=title, unit=" texts", leave=False, shown=bool(title)) as progress:
        for number in range(len(texts)):
            own = [zlib.crc32(shingle.encode()) for shingle in shingles(texts[number])]
            for start in range(0, len(own), _AT_ONCE):
                part = own[start : start + _AT_ONCE]
                if len(hashed) + len(part) > _AT_ONCE:
                    take()
                starts[number] = len(hashed)
                hashed.extend(part)
            progress.update()
        if hashed:
            take()
    return Sketched(texts, sketches)


def _mixed(hashes: np.ndarray) -> np.ndarray:
    """Mix the bits of hashes (MurmurHash3's finalizer), as datasketch does before it permutes them. (N,) -> (N,), uint32."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        hashes = (hashes ^ (hashes >> np.uint32(shift))) * np.uint32(factor)
    return hashes ^ (hashes >> np.uint32(16))


def near_duplicates(ours: Sketched, others: Sketched, threshold: float) -> Near:
    """Return the texts of `ours` that have a near-duplicate in `others`.

    MinHash with locality-sensitive hashing proposes candidates, and the exact similarity decides, so that no text is dropped
    wrongly. Two texts are candidates if they agree in all r rows of one of b bands. At the threshold t, this fails with
    probability (1 - t^r)^b. r is the largest number for which this probability is below 1e-4. A candidate is compared exactly
    if the share of equal rows, an estimate of the similarity, is at most four standard errors below the threshold. The bands
    are compared one after the other, since datasketch's index keeps all bands in dictionaries, about 16 KiB for each text.

    Texts that share much boilerplate are all candidates of each other. So the search for a text ends after 5,000 candidates or
    100 comparisons. A candidate that was not compared may be a near-duplicate, so the text is `crowded`.

    Args:
        ours: the texts to check.
        others: the texts to compare with.
        threshold: the Jaccard similarity of the two sets of shingles, in [0.1, 1], from which two texts are near-duplicates.
    """
    shapes = [(_PERMUTATIONS // rows, rows) for rows in range(1, _PERMUTATIONS // 2 + 1)]
    bands, rows = [shape for shape in shapes if (1 - threshold ** shape[1]) ** shape[0] < 1e-4][-1]
    least = threshold - 4 * (threshold * (1 - threshold) / _PERMUTATIONS) ** 0.5
    near = Near(set(), set())
    looked_at, compared = np.zeros((2, len(ours.texts)), dtype=np.int64)
    for band in range(bands):
        own, other = (_keys(side.sketches[:, band * rows : (band + 1) * rows]) for side in (ours, others))
        order = np.argsort(other, kind="stable")
        first, last = (np.searchsorted(other[order], own, side) for side in ("left", "right"))
        alike = np.argsort(first, kind="stable")  # texts with the same candidates together, so that cached shingles are used
        for number in map(int, alike[(last > first)[alike]]):
            if number in near.found or number in near.crowded:
                continue
            candidates = order[first[number] : last[number]]
            for start in range(0, len(candidates), _BLOCK):
                block = candidates[start : start + _BLOCK]
                equal = others.sketches[block] == ours.sketches[number]
                likely = np.flatnonzero(np.count_nonzero(equal, axis=1) >= least * _PERMUTATIONS)
                new = block[likely]
                if len(new):  # without candidates that were compared for an earlier band
                    in_bands = equal[likely, : band * rows].reshape(len(new), band, rows).all(axis=2)
                    new = new[~in_bands.any(axis=1)]
                few = new[: _COMPARED - compared[number]]
                looked_at[number] += len(block)
                compared[number] += len(few)
                if any(_similarity(ours.texts[number], others.texts[int(one)]) >= threshold for one in few):
                    near.found.add(number)
                elif looked_at[number] > _LOOKED_AT or len(few) < len(new):
                    near.crowded.add(number)
                else:
                    continue
                break
    return near


def _keys(rows: np.ndarray) -> np.ndarray:
    """Return one number for the values of each row. Shape: (N, r) -> (N,).

    Different rows hardly ever have the same number.
    """
    keys = np.zeros(len(rows), dtype=np.uint64)
    for column in rows.T:
        keys = (keys ^ column) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


_cached_shingles = lru_cache(maxsize=1000)(shingles)


def _similarity(one: str, other: str) -> float:
    """Return the Jaccard similarity of the shingles of two texts."""
    ours, theirs = _cached_shingles(one), _cached_shingles(other)
    return len(ours & theirs) / len(ours | theirs)
