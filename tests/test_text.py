"""Words of any script, splits and cuts."""

import re
import sys
import unicodedata
from collections import Counter

import pytest

from rlhf_sentiment.data.splits import split_of
from rlhf_sentiment.data.text import cleaned, cleaned_lines, cut_words, normalised, place_of, spaced, terms, word_ends, words


def test_a_cleaned_text_is_one_line() -> None:
    assert cleaned(" One.<br /><br />Two\u00a0\n three<BR>four <b>5</b>\t") == "One. Two three four <b>5</b>"


def test_cleaned_lines_keep_line_breaks() -> None:
    talk = "\n\nHuman:  Hi<br />you\u00a0 there\r\n\n\n\n\tfriend\n\nAssistant: \n"
    assert cleaned_lines(talk) == "\n\nHuman: Hi\nyou there\n\nfriend\n\nAssistant:"
    assert cleaned_lines("שלום  עולם 🎬\u200d🍿") == "שלום עולם 🎬\u200d🍿"


def test_the_place_of_a_text_depends_on_the_text_and_the_purpose() -> None:
    places = [place_of(f"text {number}") for number in range(2000)]
    others = [place_of(f"text {number}", "judge/") for number in range(2000)]
    assert place_of("TEXT  7") == places[7]
    assert sum(place < 0.5 for place in places) == pytest.approx(1000, abs=90)  # four standard errors
    both = sum(a < 0.5 and b < 0.5 for a, b in zip(places, others, strict=True))
    assert both == pytest.approx(500, abs=78), "the places for two purposes are independent"


def test_normalised_texts_ignore_case_and_white_space_but_not_punctuation() -> None:
    assert normalised("  The FILM\n was\u00a0fine ") == normalised("the film was fine")
    assert normalised("the film was fine!") != normalised("the film was fine")


def test_the_split_depends_on_the_normalised_text_only() -> None:
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


def test_white_space_separates_the_words_of_scripts_with_spaces() -> None:
    for text in (
        "It was  good, “really” - ok. 👍🏽",
        "이 영화는 정말 좋았다 ㅋㅋㅋ",
        "यह फ़िल्म अच्छी थी",
        "ＧＯＯＤ film\x1cyes",
        "–",
        " ",
        "",
    ):
        assert words(text) == text.split()
        assert cut_words(text, 10**6) == text.rstrip()
    assert terms("It wasn’t “good”, 2½ of 10_0.") == ["It", "wasn", "t", "good", "2½", "of", "10_0"]


SCRIPTS = {
    "Chinese": ("我看了 Titanic，很好。", ["我", "看", "了", "Titanic，", "很", "好。"]),
    "Japanese": ("「カー」は2024年、いい々", ["「カ", "ー」", "は", "2024", "年、", "い", "い", "々"]),
    "Thai": ("น้ำ ไม่ดี!", ["น้ำ", "ไ", "ม่", "ดี!"]),
    "Lao": ("ບໍ່ດີ", ["ບໍ່", "ດີ"]),
    "Khmer": ("ខ្មែរ។", ["ខ្មែ", "រ។"]),
    "Burmese": ("ကောင်း", ["ကော", "င်း"]),
    "Tibetan": ("བོད་ཡིག", ["བོ", "ད་", "ཡི", "ག"]),
    "Javanese": ("ꦗꦮ", ["ꦗ", "ꦮ"]),
    "Chinese with emoji": ("好❤️看", ["好❤️", "看"]),
    "rare Chinese": ("𠮷野家〇", ["𠮷", "野", "家", "〇"]),
}


@pytest.mark.parametrize(("text", "expected"), SCRIPTS.values(), ids=SCRIPTS)
def test_letters_of_scripts_without_spaces_are_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected
    assert [text[:end] for end in word_ends(text)] == [cut_words(text, count) for count in range(1, len(expected) + 1)]
    assert cut_words(text, len(expected)) == text, "no punctuation is lost"
    marks = [(letter, unicodedata.category(letter)) for word in terms(text) for letter in word]
    assert all(category[0] in "LMN" for _, category in marks), "no punctuation is a word"
    assert "".join(terms(text)) == "".join(
        letter for letter in text if unicodedata.category(letter)[0] in "LMN" and letter != "\ufe0f"
    )


def test_a_few_letters_of_such_a_script_can_be_a_prompt() -> None:
    assert cut_words("这部电影，真的很好看。", 6) == "这部电影，真的"
    assert cut_words("这部电影", 0) == ""
    assert terms("这部电影（2024），很好") == ["这", "部", "电", "影", "2024", "很", "好"]
    assert spaced("看 film了。") == " 看  film 了 。"
    assert spaced("the film – fine") == "the film – fine"


def test_words_and_terms_classify_each_letter_as_python_does() -> None:
    for code in range(sys.maxunicode + 1):
        letter = chr(code)
        if unicodedata.category(letter) not in ("Cn", "Cs"):
            assert words(letter) == letter.split(), hex(code)
            assert (terms(letter) == [letter]) == bool(re.fullmatch(r"\w", letter)), hex(code)


def test_normalisation_limits_and_orders_combining_marks() -> None:
    assert normalised("e\u0301") == normalised("É"), "a composed letter is the same text"
    thirty = "a" + "\u0301\u0323" * 15
    assert normalised(thirty) == unicodedata.normalize("NFKC", thirty), "as many marks as the Stream-Safe format has"
    assert normalised("a" + "\u0323" * 15 + "\u0301" * 15) == normalised(thirty), "marks are put in order"
    many = normalised("a" + "\u0301\u0323" * 500 + "b")
    assert many.count("\u034f") == 1000 // 30
    assert normalised(many) == many
