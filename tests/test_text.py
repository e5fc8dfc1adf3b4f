"""Splits, cuts and near-duplicates."""

from collections import Counter

import pytest

from rlhf_sentiment.text import (
    cleaned,
    cleaned_lines,
    cut_words,
    near_duplicates,
    normalised,
    place_of,
    shingles,
    sketched,
    split_of,
)


def test_a_cleaned_text_is_one_line() -> None:
    assert cleaned(" One.<br /><br />Two\u00a0\n three<BR>four <b>5</b>\t") == "One. Two three four <b>5</b>"


def test_lines_stay_where_they_mean_something() -> None:
    talk = "\n\nHuman:  Hi<br />you\u00a0 there\r\n\n\n\n\tfriend\n\nAssistant: \n"
    assert cleaned_lines(talk) == "\n\nHuman: Hi\nyou there\n\nfriend\n\nAssistant:"
    assert cleaned_lines("שלום  עולם 🎬\u200d🍿") == "שלום עולם 🎬\u200d🍿"


def test_a_place_is_of_the_text_and_the_purpose() -> None:
    places = [place_of(f"text {number}") for number in range(2000)]
    others = [place_of(f"text {number}", "judge/") for number in range(2000)]
    assert place_of("TEXT  7") == places[7]
    assert sum(place < 0.5 for place in places) == pytest.approx(1000, abs=90)  # four standard errors
    both = sum(a < 0.5 and b < 0.5 for a, b in zip(places, others, strict=True))
    assert both == pytest.approx(500, abs=78), "one purpose says nothing of another"


def test_the_same_text_is_the_same_text() -> None:
    assert normalised("  The FILM\n was\u00a0fine ") == normalised("the film was fine")
    assert normalised("the film was fine!") != normalised("the film was fine")


def test_a_split_is_of_the_text_alone() -> None:
    texts = [f"prompt {number}" for number in range(5000)]
    counts = Counter(split_of(text, validation=0.1, test=0.2) for text in texts)
    assert counts["validation"] == pytest.approx(500, abs=100)
    assert counts["test"] == pytest.approx(1000, abs=130)
    assert split_of("A Prompt", 0.1, 0.2) == split_of("a  prompt", 0.1, 0.2)
    assert {split_of(text, 0, 0) for text in texts} == {"train"}


def test_a_cut_keeps_white_space() -> None:
    assert cut_words(" one  two three four", 3) == " one  two three"
    assert cut_words("one two", 5) == "one two"
    assert cut_words("", 5) == ""


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
    assert near_duplicates(ours, others, threshold=0.6) == {0, 2}
    assert near_duplicates(ours, others, threshold=0.3) == {0, 1, 2}
    assert near_duplicates(ours, others, threshold=1.0) == {2}
    assert near_duplicates(sketched([]), others, 0.6) == near_duplicates(ours, sketched([]), 0.6) == set()


def test_hardly_any_near_duplicate_is_missed() -> None:
    # 600 texts of 20 words, each with a copy whose last 4 words differ: 14 of 18 + 18 - 14 = 22 shingles, 0.636.
    words = [[f"w{row}x{place}" for place in range(20)] for row in range(600)]
    of = [" ".join(row) for row in words]
    texts = [" ".join([*row[:16], *(f"v{word}" for word in row[16:])]) for row in words]
    ours, others = sketched(texts), sketched(of)
    assert len(near_duplicates(ours, others, threshold=0.6)) == 600
    assert near_duplicates(ours, others, threshold=0.65) == set()
