"""Match positive texts with negative texts, as similar as possible in their first words and in length.

A reward model can tell two sides apart if their lengths or first words differ. So texts with the same first words are paired if
their lengths are close, and all other texts are paired by length. The positive text should be the longer one as often as the
negative text.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from .text import normalised, terms, words

OPENINGS = (4, 3, 2, 1)  # numbers of equal first words, in the order of the rounds
CLOSE = 1.25  # two lengths are close if the longer is at most this times the shorter
LEAN = 0.04  # one side may be the longer more often than the other by this share of the pairs
FAR = 0.2  # from this share of the pairs, the first words are ignored
TRIES = 6

Pair = tuple[int, int]  # the indices of a positive and of a negative text
Pairs = dict[Pair, int]  # the number of equal first words of each pair
Sides = tuple[list[int], list[int]]  # a number for each positive text, and for each negative one


def match(positive: Sequence[str], negative: Sequence[str], uses: int = 1) -> Pairs:
    """Return pairs of indices of a positive and a negative text, with the number of equal first words.

    Args:
        positive: the positive texts.
        negative: as many negative texts.
        uses: the number of pairs of each text. No pair is made twice, so a few texts may be in fewer pairs.
    """
    openings = tuple([terms(normalised(text))[: OPENINGS[0]] for text in side] for side in (positive, negative))
    lengths = [len(words(text)) for text in positive], [len(words(text)) for text in negative]
    best, least, start = Pairs(), float("inf"), 0
    for number in range(TRIES + 1):  # each try starts with the imbalance of the tries before, to make up for it
        if number == TRIES:
            if least <= FAR * len(best):
                break
            openings, start = ([[]] * len(positive), [[]] * len(negative)), 0  # by length alone
        pairs = _matched(openings, lengths, uses, start)
        lean = _lean(pairs, lengths)
        if abs(lean) < least:
            best, least = pairs, abs(lean)
        if least <= LEAN * len(pairs):
            break
        start += lean
    return best


def _lean(pairs: Iterable[Pair], lengths: Sides) -> int:
    """Return the number of pairs with a longer positive text minus the number with a longer negative text."""
    return sum((lengths[0][one] > lengths[1][other]) - (lengths[0][one] < lengths[1][other]) for one, other in pairs)


def _matched(openings: tuple[list[list[str]], ...], lengths: Sides, uses: int, lean: int) -> Pairs:
    """Match texts by their first words and lengths, as `match` does. `lean` is an imbalance to make up for."""
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
    """Return the texts of both sides that are in none of the pairs."""
    taken = {one for one, _ in pairs}, {other for _, other in pairs}
    return [one for one in left[0] if one not in taken[0]], [other for other in left[1] if other not in taken[1]]


def _close(group: Sides, lengths: Sides, made: Pairs, lean: int) -> list[Pair]:
    """Pair texts of close lengths, and take them out of `group`, whose two lists are sorted by length.

    Where one side has the longer text too often, its text gets the first partner that is even longer, if the lengths are close.
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
    """Pair equally many texts of both sides by their ranks in the order of lengths.

    Texts of equal rank are paired. If one side is then the longer one too often, the ranks cross in as many blocks as needed.
    In such a block, the i-th positive text is paired with the (i + d)-th negative text, and the other way round. d is the
    smallest of 1, 2, 4, ... that suffices, or the one that helps most.
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
    """Pair each text that is left with the first text of the other side that it is not yet paired with."""
    rest = left[1]
    for one in left[0]:
        other = next((other for other in rest if (one, other) not in made), None)
        if other is not None:
            rest.remove(other)
            yield one, other
