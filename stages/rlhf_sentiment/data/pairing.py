"""Preference pairs from labels: a positive text and a negative one, as alike as can be in opening and length.

Where the two sides differ in length or in how they begin, a reward model can tell them apart by that. So texts that open
with the same words go together where their lengths are close, and what is left is paired by length alone. Of two texts of
close lengths one is still the longer: that should be the positive one as often as the negative one.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from .text import normalised, terms, words

OPENINGS = (4, 3, 2, 1)  # words that two texts open with alike, the most first
CLOSE = 1.25  # lengths are close where the longer is at most this times the shorter
LEAN = 0.04  # share of the pairs by which one side may be the longer more often than the other
FAR = 0.2  # share of the pairs, so far from a balance that openings are given up for one
TRIES = 6

Pair = tuple[int, int]  # the indices of a positive and of a negative text
Pairs = dict[Pair, int]  # with how many words both open
Sides = tuple[list[int], list[int]]  # a number for each positive text, and for each negative one


def match(positive: Sequence[str], negative: Sequence[str], uses: int = 1) -> Pairs:
    """Pairs of indices, of a positive and a negative text, and with how many words both open.

    Args:
        positive, negative: as many of one as of the other.
        uses: pairs that a text stands in; no pair is made twice, so that a few texts may stand in fewer.
    """
    openings = tuple([terms(normalised(text))[: OPENINGS[0]] for text in side] for side in (positive, negative))
    lengths = [len(words(text)) for text in positive], [len(words(text)) for text in negative]
    best, least, start = Pairs(), float("inf"), 0
    for number in range(TRIES + 1):  # texts that only one side has so long lean at the end; the others can lean against them
        if number == TRIES:
            if least <= FAR * len(best):
                break
            openings, start = ([[]] * len(positive), [[]] * len(negative)), 0  # then only lengths count
        pairs = _matched(openings, lengths, uses, start)
        lean = _lean(pairs, lengths)
        if abs(lean) < least:
            best, least = pairs, abs(lean)
        if least <= LEAN * len(pairs):
            break
        start += lean
    return best


def _lean(pairs: Iterable[Pair], lengths: Sides) -> int:
    """How many more of the pairs have a longer positive than have a longer negative text."""
    return sum((lengths[0][one] > lengths[1][other]) - (lengths[0][one] < lengths[1][other]) for one, other in pairs)


def _matched(openings: tuple[list[list[str]], ...], lengths: Sides, uses: int, lean: int) -> Pairs:
    """As `match`, from the words that texts open with and their lengths; `lean` is to be made up for."""
    made: Pairs = {}
    for _ in range(uses):
        left = (
            sorted(range(len(lengths[0])), key=lengths[0].__getitem__),
            sorted(range(len(lengths[1])), key=lengths[1].__getitem__),
        )
        for opening in OPENINGS:
            groups: dict[tuple[str, ...], Sides] = defaultdict(lambda: ([], []))
            for number, side in enumerate(left):
                for one in side:
                    groups[tuple(openings[number][one][:opening])][number].append(one)
            now: list[Pair] = []
            for start, group in groups.items():
                if len(start) == opening:
                    pairs = _close(group, lengths, made, lean)
                    lean += _lean(pairs, lengths)
                    now += pairs
            made |= dict.fromkeys(now, opening)
            left = _without(now, left)
        rest = _by_length(left, lengths, made, lean)
        lean += _lean(rest, lengths)
        made |= dict.fromkeys(rest, 0)
        for pair in _leftovers(_without(rest, left), made):
            made[pair] = 0
    return made


def _without(pairs: Sequence[Pair], left: Sides) -> Sides:
    """Those of both sides that are in none of the pairs."""
    taken = {one for one, _ in pairs}, {other for _, other in pairs}
    return [one for one in left[0] if one not in taken[0]], [other for other in left[1] if other not in taken[1]]


def _close(group: Sides, lengths: Sides, made: Pairs, lean: int) -> list[Pair]:
    """Pairs of close lengths, from two lists in the order of lengths, which lose the texts of the pairs.

    Where the longer text of two is of the side that has been the longer too often, its partner is the first text that is
    longer still, if that is close.
    """
    pairs: list[Pair] = []
    at = [0, 0]
    while at[0] < len(group[0]) and at[1] < len(group[1]):
        size = [lengths[side][group[side][at[side]]] for side in (0, 1)]
        longer = 0 if size[0] > size[1] else 1
        shorter = 1 - longer
        places, close = list(at), size[longer] <= CLOSE * size[shorter]
        if size[0] != size[1] and (lean > 0 if longer == 0 else lean < 0):
            place = bisect_left(group[shorter], size[longer], lo=at[shorter], key=lengths[shorter].__getitem__)
            if place < len(group[shorter]) and lengths[shorter][group[shorter][place]] <= CLOSE * size[longer]:
                places[shorter], close = place, True
        pair = group[0][places[0]], group[1][places[1]]
        if close and pair not in made:
            pairs.append(pair)
            lean += _lean([pair], lengths)
            for side in (0, 1):
                del group[side][places[side]]
        else:
            at[shorter] += 1
    return pairs


def _by_length(left: Sides, lengths: Sides, made: Pairs, lean: int) -> list[Pair]:
    """Pairs of texts, as many of each side, by their ranks in the order of lengths.

    Equal ranks go together. Where that leaves one side the longer too often, ranks cross in as many blocks as it takes: the
    i-th positive text goes with the (i + d)-th negative one, and the other way round, for the smallest d of 1, 2, 4, ... that
    suffices, or helps most.
    """
    best: list[Pair] = []
    least, distance, count = float("inf"), 0, len(left[0])
    if not count:
        return best
    enough = LEAN * (len(made) + count)
    while distance <= count // 2 and least > enough:
        pairs: list[Pair] = []
        off = lean + _lean(zip(*left, strict=True), lengths)
        for start in range(0, count, 2 * distance or count):
            ours, theirs = (side[start : start + (2 * distance or count)] for side in left)
            half = min(distance, len(ours) // 2)
            straight = list(zip(ours, theirs, strict=True))
            crossed = list(zip(ours, theirs[half : 2 * half] + theirs[:half] + theirs[2 * half :], strict=True))
            gain = _lean(crossed, lengths) - _lean(straight, lengths)
            crosses = abs(off) > enough and abs(off + gain) < abs(off)
            pairs += crossed if crosses else straight
            off += gain if crosses else 0
        if abs(off) < least:
            best, least = [pair for pair in pairs if pair not in made], abs(off)
        distance = 2 * distance or 1
    return best


def _leftovers(left: Sides, made: Pairs) -> Iterator[Pair]:
    """What ranks would pair a second time: each text with the first one that it has not met."""
    rest = left[1]
    for one in left[0]:
        other = next((other for other in rest if (one, other) not in made), None)
        if other is not None:
            rest.remove(other)
            yield one, other
