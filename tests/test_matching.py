"""Pairs from labels: openings and lengths are as similar as possible, and the uses of each text are limited."""

import random
from collections import Counter
from statistics import median

import pytest

from rlhf_sentiment.data.matching import match


def words(count: int, opening: str, filler: str = "w") -> str:
    return " ".join([*opening.split(), *(f"{filler}{number}" for number in range(count))])


def test_texts_with_the_longest_common_opening_are_paired() -> None:
    positive = [words(9, "I saw this film today and"), words(9, "I saw this play and"), words(9, "Never")]
    negative = [words(9, "Boring"), words(9, "i SAW this play but"), words(9, "I saw this film, alas and")]
    assert match(positive, negative) == {(0, 2): 4, (1, 1): 4, (2, 0): 0}


def test_texts_with_a_common_opening_are_paired_only_if_their_lengths_are_close() -> None:
    positive = [words(98, "The film"), words(18, "A play")]
    negative = [words(18, "The film"), words(98, "A play")]
    # 100 and 20 words are not close, so all texts are paired by length.
    assert match(positive, negative) == {(1, 0): 0, (0, 1): 0}
    assert match([words(8, "The film")], [words(10, "The film", "v")]) == {(0, 0): 2}, "12 is at most 1.25 times 10"


def test_texts_without_a_common_opening_are_paired_by_length() -> None:
    positive = [words(count, f"p{count}") for count in (10, 50, 30)]
    negative = [words(count, f"n{count}") for count in (31, 9, 49)]
    assert set(match(positive, negative)) == {(0, 1), (2, 0), (1, 2)}


def test_a_text_is_in_at_most_uses_pairs_and_no_pair_is_made_twice() -> None:
    rng = random.Random(0)
    sides = [[words(rng.randint(5, 60), rng.choice(("The film", "I saw", f"{side}"))) for _ in range(40)] for side in "pn"]
    once, thrice = match(sides[0], sides[1]), match(sides[0], sides[1], uses=3)
    assert [set(Counter(pair[side] for pair in once).values()) for side in (0, 1)] == [{1}, {1}]
    assert max(Counter(pair[0] for pair in thrice).values()) == max(Counter(pair[1] for pair in thrice).values()) == 3
    assert len(thrice) >= 110, "a few texts may be in fewer pairs"


def test_matched_pairs_are_more_similar_than_random_pairs() -> None:
    rng = random.Random(1)
    sides = [[words(rng.randint(10, 200), rng.choice("abcdefghij")) for _ in range(300)] for _ in range(2)]
    ratios = [
        median(max(len(sides[0][i]), len(sides[1][j])) / min(len(sides[0][i]), len(sides[1][j])) for i, j in pairs)
        for pairs in (match(sides[0], sides[1]), [(number, number) for number in range(300)])
    ]
    assert ratios[0] < 1.2 < 1.5 < ratios[1]
    assert sum(opening > 0 for opening in match(sides[0], sides[1]).values()) > 150


def share_longer(positive: list[str], negative: list[str]) -> float:
    """Return the share of matched pairs with a longer positive text. A pair of equal lengths counts half."""
    lengths = [(len(positive[i].split()), len(negative[j].split())) for i, j in match(positive, negative)]
    return sum((one > other) + (one == other) / 2 for one, other in lengths) / len(lengths)


@pytest.mark.parametrize("times", [0.7, 0.9, 1.0, 1.12, 1.4])
def test_each_side_is_the_longer_one_in_about_half_of_the_pairs(times: float) -> None:
    """In film reviews, positive texts are a tenth longer than negative ones. In other data they are shorter."""
    rng = random.Random(2)
    sides = [[words(int(size * rng.lognormvariate(5, 0.5)), rng.choice("abcdefgh")) for _ in range(300)] for size in (times, 1)]
    assert 0.47 <= share_longer(sides[0], sides[1]) <= 0.53
    assert len(match(sides[0], sides[1])) == 300


def test_pairs_of_neighbouring_ranks_are_exchanged_to_balance_lengths() -> None:
    # Each positive text is one word longer than the negative one of its rank. Two of four pairs cross.
    positive, negative = (
        [words(count, f"{side}{count}") for count in counts]
        for side, counts in (("p", (11, 21, 31, 41)), ("n", (10, 20, 30, 40)))
    )
    assert set(match(positive, negative)) == {(0, 1), (1, 0), (2, 3), (3, 2)}


def test_openings_are_ignored_if_they_make_one_side_the_longer_one() -> None:
    """A third of the negative texts have the openings of positive texts. Positive texts are a little longer."""
    rng = random.Random(0)
    positive = [words(rng.randint(10, 22), "The film was") for _ in range(300)]
    negative = [words(rng.randint(8, 20), rng.choice(("The film was", "I saw", "It is"))) for _ in range(300)]
    assert 0.4 <= share_longer(positive, negative) <= 0.6


def test_texts_whose_lengths_cannot_be_balanced_are_still_paired() -> None:
    positive, negative = (
        [words(count, f"{side}{count}") for count in counts] for side, counts in (("p", (70, 80, 90)), ("n", (5, 6, 7)))
    )
    assert set(match(positive, negative)) == {(0, 0), (1, 1), (2, 2)}
