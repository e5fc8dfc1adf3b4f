"""Near-duplicates: found as an exact comparison of all pairs finds them, and bounded where all texts are alike."""

import random

import pytest

from rlhf_sentiment import duplicates
from rlhf_sentiment.duplicates import near_duplicates, shingles, sketched


def test_shingles() -> None:
    assert shingles("The film, was fine.") == {"the film was", "film was fine"}
    assert shingles("Fine film") == {"fine film"}


def test_near_duplicates_are_found_and_others_are_not() -> None:
    of = ["one two three four five six seven eight", "a b c d e f g h"]
    texts = [
        "One two three four five six seven nine",  # 5 of 7 shingles in common: 5 / 7 = 0.71
        "one two three x four five six seven",  # {123, 456, 567} of 6 + 6 - 3 = 9: 0.33
        "a b c d e f g h",  # the same
        "nothing in common with any of them",
    ]
    ours, others = sketched(texts), sketched(of)
    assert near_duplicates(ours, others, threshold=0.6) == ({0, 2}, set())
    assert near_duplicates(ours, others, threshold=0.3).found == {0, 1, 2}
    assert near_duplicates(ours, others, threshold=1.0).found == {2}
    assert near_duplicates(sketched([]), others, 0.6) == near_duplicates(ours, sketched([]), 0.6) == (set(), set())


def test_hardly_any_near_duplicate_is_missed() -> None:
    # 600 texts of 20 words, each with a copy whose last 4 words differ: 14 of 18 + 18 - 14 = 22 shingles, 0.636.
    words = [[f"w{row}x{place}" for place in range(20)] for row in range(600)]
    of = [" ".join(row) for row in words]
    texts = [" ".join([*row[:16], *(f"v{word}" for word in row[16:])]) for row in words]
    ours, others = sketched(texts), sketched(of)
    assert len(near_duplicates(ours, others, threshold=0.6).found) == 600
    assert near_duplicates(ours, others, threshold=0.65) == (set(), set())


@pytest.mark.parametrize(
    "letters",
    ["abcdefghijklmnopqrstuvwxyz", "导演有点无聊员特别音乐难看结局真的这个故事", "กขคงจฉชซฌญฎฏฐฑฒณดตถทธนบปผฝพฟภมยรลวศษสห"],
)
def test_the_search_finds_what_a_comparison_of_all_pairs_finds(letters: str) -> None:
    rng = random.Random(0)
    between = " " if letters.isascii() else ""

    def changed(text: list[str], places: int) -> list[str]:
        return [rng.choice(letters) if rng.random() * len(text) < places else letter for letter in text]

    of = [[rng.choice(letters) for _ in range(40)] for _ in range(150)]
    texts = [changed(of[number % 150], number % 12) for number in range(300)]
    ours, others = ([between.join(text) for text in side] for side in (texts, of))
    exact = {number for number, text in enumerate(ours) for other in others if similar(text, other) >= 0.6}
    assert 50 < len(exact) < 250
    assert near_duplicates(sketched(ours), sketched(others), 0.6) == (exact, set())


def similar(one: str, other: str) -> float:
    ours, theirs = shingles(one), shingles(other)
    return len(ours & theirs) / len(ours | theirs)


def boilerplate(count: int, seed: str) -> list[str]:
    """Texts that share 64 of 82 to 84 words: 62 of 80 + 80 - 62 = 98 shingles or more at most, 0.63 to 0.61."""
    return [
        " ".join([*(f"b{place}" for place in range(64)), *(f"{seed}{number}x{place}" for place in range(18))])
        for number in range(count)
    ]


def test_a_text_like_too_many_others_is_named_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    # All share 62 of 80 + 80 - 62 = 98 shingles, 0.63, just below the threshold of 0.65. The last one has a double.
    others = boilerplate(300, "o")
    ours = [*boilerplate(20, "w"), "a text like none of them", others[250].replace("o250x0", "new")]
    near = near_duplicates(sketched(ours), sketched(others), 0.65)
    assert near.crowded | near.found == set(range(22)) - {20}
    assert 21 in near.crowded | near.found, "what was not compared may be a near-duplicate"
    assert near_duplicates(sketched(ours), sketched(others[:90]), 0.65) == (set(), set()), "so many are all compared"

    monkeypatch.setattr(duplicates, "_LOOKED_AT", 10)
    assert near_duplicates(sketched(ours[20:]), sketched(others), 0.65).found <= {1}


def test_a_very_long_text_is_hashed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(f"w{number}" for number in range(500))
    whole = sketched([text]).sketches
    monkeypatch.setattr(duplicates, "_AT_ONCE", 7)
    assert (sketched([text]).sketches == whole).all()
