"""The grammar that writes the synthetic corpus and parses it."""

import random

import pytest

from rlhf_sentiment.data import grammar
from rlhf_sentiment.data.grammar import NEGATIVE, POSITIVE, polarity_of, read_sentences


def test_the_grammar_parses_the_reviews_that_it_writes() -> None:
    rng = random.Random(0)
    for polarity in (POSITIVE, NEGATIVE) * 500:
        review = grammar.write_review(polarity, rng)
        assert polarity_of(review.prompt + review.response) == polarity, review
        assert read_sentences(grammar.write_sentence(polarity, rng)) == [polarity]


@pytest.mark.parametrize(
    ("text", "polarity"),
    [
        ("The acting was fresh and moving.", 1),
        ("The acting was not dull at all.", 1),  # a negative word, a positive sentence
        ("The acting was anything but lovely.", -1),
        ("The film was hopelessly dull at first but splendidly funny by the end.", 1),  # what comes after "but" counts
        ("The film was splendidly funny at first but hopelessly dull by the end.", -1),
        ("My sister never enjoyed the music.", -1),
        ("The acting was fresh and lively. The plot was boring and flat.", 0),  # a positive and a negative clause
        ("On Friday we saw a comedy about a sailor.", 0),  # neutral
        ("The acting was not dull but boring.", None),  # no contrast
        ("The acting was splendidly fresh at first but pleasantly moving by the end.", None),
        ("the acting was pleasantly warm.", None),  # a sentence starts with a capital
        ("The acting was pleasantly warm", None),  # and ends with a full stop
        ("The acting was pleasantly.", None),
        ("Warm warm warm.", None),
        ("", 0),
    ],
)
def test_the_polarity_of_a_text(text: str, polarity: int | None) -> None:
    assert polarity_of(text) == polarity


def test_prompts_are_neutral_and_many() -> None:
    rng = random.Random(1)
    prompts = [grammar.write_prompt(rng)[0] for _ in range(2000)]
    assert len(set(prompts)) > 1700
    words = {word for prompt in prompts for word in prompt.split()}
    toned = {word for side in (grammar._POSITIVE, grammar._NEGATIVE) for word in side["good"] + side["enjoyed"]}
    assert not words & toned, "prompts are neutral"


def test_many_positive_reviews_contain_negative_words() -> None:
    rng = random.Random(2)
    responses = [grammar.write_review(POSITIVE, rng).response for _ in range(2000)]
    negative = set(grammar._NEGATIVE["good"] + grammar._NEGATIVE["enjoyed"])
    share = sum(any(word.strip(",.") in negative for word in text.split()) for text in responses) / len(responses)
    assert 0.3 < share < 0.7


def test_responses_vary() -> None:
    rng = random.Random(3)
    responses = [grammar.write_review(POSITIVE, rng).response for _ in range(1000)]
    assert len(set(responses)) > 950


def test_no_sentence_joins_a_word_to_itself() -> None:
    rng = random.Random(4)
    for _ in range(2000):
        assert not grammar._REPEATED.search(grammar.write_sentence(POSITIVE, rng))
