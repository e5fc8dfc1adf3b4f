"""Preference pairs from labels: a positive text and a negative one, as alike as can be in opening and length.

Where the two sides differ in length or in how they begin, a reward model can tell them apart by that. So texts that open
with the same words go together where their lengths are close; what is left is paired by length alone.
"""

from collections import defaultdict
from collections.abc import Sequence

from .text import normalised, terms

OPENINGS = (4, 3, 2, 1)  # words that two texts open with alike, the most first
CLOSE = 1.25  # lengths are close where the longer is at most this times the shorter

Pairs = dict[tuple[int, int], int]


def match(positive: Sequence[str], negative: Sequence[str], uses: int = 1) -> Pairs:
    """Pairs of indices, of a positive and a negative text, and with how many words both open.

    Args:
        positive, negative: as many of one as of the other.
        uses: pairs that a text stands in; no pair is made twice, so that a few texts may stand in fewer.
    """
    words = tuple([terms(normalised(text)) for text in side] for side in (positive, negative))
    made: Pairs = {}
    for _ in range(uses):
        left = tuple([one for _, one in sorted((len(side[one]), one) for one in range(len(side)))] for side in words)
        for opening in OPENINGS:
            groups: dict[tuple[str, ...], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
            for number, side in enumerate(left):
                for one in side:
                    groups[tuple(words[number][one][:opening])][number].append(one)
            now = [pair for start, group in groups.items() if len(start) == opening for pair in _close(*group, words, made)]
            made |= dict.fromkeys(now, opening)
            taken = [{pair[number] for pair in now} for number in (0, 1)]
            left = tuple([one for one in side if one not in taken[number]] for number, side in enumerate(left))
        rest = left[1]
        for one in left[0]:
            other = next((other for other in rest if (one, other) not in made), None)
            if other is not None:
                made[one, other] = 0
                rest.remove(other)
    return made


def _close(ours: list[int], theirs: list[int], words: tuple[list[list[str]], ...], made: Pairs) -> list[tuple[int, int]]:
    """Pairs of close lengths, from two lists in the order of lengths."""
    pairs = []
    i = j = 0
    while i < len(ours) and j < len(theirs):
        one, other = len(words[0][ours[i]]), len(words[1][theirs[j]])
        if max(one, other) <= CLOSE * min(one, other) and (ours[i], theirs[j]) not in made:
            pairs.append((ours[i], theirs[j]))
            i, j = i + 1, j + 1
        elif one < other:
            i += 1
        else:
            j += 1
    return pairs
