"""The search for near-duplicates against an exact comparison of all pairs, and its cost if all texts are similar."""

import random
import zlib

import pytest
from datasketch import MinHash

from rlhf_sentiment.data import near_duplicates as duplicates
from rlhf_sentiment.data.near_duplicates import near_duplicates, shingles, sketched


def test_shingles_are_runs_of_three_words_or_the_whole_text() -> None:
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


def test_the_search_finds_near_duplicates_just_above_the_threshold() -> None:
    # 600 texts of 20 words, each with a copy whose last 4 words differ: 14 of 18 + 18 - 14 = 22 shingles, 0.636.
    words = [[f"w{row}x{place}" for place in range(20)] for row in range(600)]
    of = [" ".join(row) for row in words]
    texts = [" ".join([*row[:16], *(f"v{word}" for word in row[16:])]) for row in words]
    ours, others = sketched(texts), sketched(of)
    assert len(near_duplicates(ours, others, threshold=0.6).found) == 600
    assert near_duplicates(ours, others, threshold=0.65) == (set(), set())


LETTERS = {
    "English": "abcdefghijklmnopqrstuvwxyz",
    "Chinese": "导演有点无聊员特别音乐难看结局真的这个故事",
    "Thai": "กขคงจฉชซฌญฎฏฐฑฒณดตถทธนบปผฝพฟภมยรลวศษสห",
}


@pytest.mark.parametrize("letters", LETTERS.values(), ids=LETTERS)
def test_the_search_equals_a_comparison_of_all_pairs(letters: str) -> None:
    rng = random.Random(0)
    of = [rng.choices(letters, k=40) for _ in range(80)]
    changed = [
        [rng.choice(letters) if rng.random() < number % 12 / 40 else one for one in text] for number, text in enumerate(of)
    ]
    ours, others = ([(" " if letters.isascii() else "").join(text) for text in side] for side in (changed, of))
    sets = [[shingles(text) for text in side] for side in (ours, others)]
    exact = {i for i, one in enumerate(sets[0]) for other in sets[1] if len(one & other) / len(one | other) >= 0.6}
    assert 15 < len(exact) < 65
    assert near_duplicates(sketched(ours), sketched(others), 0.6) == (exact, set())


def boilerplate(count: int, name: str) -> list[str]:
    """Return texts of 82 words that share the first 64."""
    shared = [f"b{place}" for place in range(64)]
    return [" ".join([*shared, *(f"{name}{number}x{place}" for place in range(18))]) for number in range(count)]


@pytest.mark.parametrize("limit", ["_COMPARED", "_LOOKED_AT"])
def test_a_text_with_too_many_similar_texts_is_crowded(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    # Two texts share 62 of 80 + 80 - 62 = 98 shingles: 0.63, just below the threshold. But one text has a duplicate.
    others = boilerplate(300, "o")
    ours = [*boilerplate(20, "w"), "a text with no similar text", others[250].replace("o250x0", "new")]
    for unlimited in ("_COMPARED", "_LOOKED_AT"):
        monkeypatch.setattr(duplicates, unlimited, 10**6)
    assert near_duplicates(sketched(ours), sketched(others), 0.65) == ({21}, set()), "all are compared"

    monkeypatch.setattr(duplicates, limit, 100)
    near = near_duplicates(sketched(ours), sketched(others), 0.65)
    assert near.crowded >= set(range(20))
    assert near.crowded | near.found == set(range(22)) - {20}, "a text that was not compared may have a near-duplicate"
    assert near_duplicates(sketched(ours), sketched(others[:90]), 0.65).found == set()


def test_all_of_a_few_candidates_are_compared() -> None:
    ours, others = boilerplate(20, "w"), boilerplate(90, "o")
    assert near_duplicates(sketched(ours), sketched(others), 0.65) == (set(), set())


def test_a_very_long_text_is_hashed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(f"w{number}" for number in range(500))
    whole = sketched([text]).sketches
    monkeypatch.setattr(duplicates, "_AT_ONCE", 7)
    assert (sketched([text]).sketches == whole).all()


def test_the_sketches_are_those_of_datasketch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_AT_ONCE", 7)  # some texts are hashed in several parts
    texts = ["", "one", "one two three four", " ".join(f"w{number}" for number in range(30)), "five six seven eight nine"]
    for text, sketch in zip(texts, sketched(texts).sketches, strict=True):
        one = MinHash(num_perm=128, seed=1, hashfunc=int)
        one.update_batch([zlib.crc32(shingle.encode()) for shingle in shingles(text)])
        assert (sketch == one.hashvalues).all()
