"""The cost of positivity against values worked by hand, and the guard against a model that only repeats itself."""

import random
from typing import Any

import pytest
import yaml
from sacrebleu.metrics.bleu import BLEU

from rlhf_sentiment.engine.records import Row
from rlhf_sentiment.evaluation.costs import distinct, duplicated, repetition, self_bleu
from rlhf_sentiment.evaluation.guards import crossed, guard
from rlhf_sentiment.settings.evaluate import EvaluateSettings, Guards

from .conftest import ROOT, assert_names


def test_distinct_bigrams() -> None:
    # (1 2)(2 3) and (1 2)(2 4): 3 distinct of 4. No bigram spans two responses.
    assert distinct([[1, 2, 3], [1, 2, 4]], 2, 6) == pytest.approx(3 / 4)
    # The first 5 tokens: (1 2)(2 3) and (1 2): 2 distinct of 3.
    assert distinct([[1, 2, 3], [1, 2, 4]], 2, 5) == pytest.approx(2 / 3)
    assert distinct([[1], [1]], 2, 2) == 0, "there is no bigram"
    assert distinct([[1, 2, 3], [1, 2, 4]], 1, 6) == pytest.approx(4 / 6)
    assert distinct([[1, 2, 3], [1, 2, 4]], 3, 6) == 1
    assert distinct([[1, 2, 3], [1, 2, 4]], 2, 7) is None, "six tokens are too few"


def test_repetition_is_within_a_response() -> None:
    assert repetition([[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]) == 0
    assert repetition([[7] * 8]) == pytest.approx(4 / 5)  # five 4-grams, all the same
    assert repetition([[7] * 8, [1, 2, 3]]) == pytest.approx(2 / 5), "a response too short for a 4-gram repeats nothing"


def test_duplicated() -> None:
    assert duplicated(["a", "b", "a", "a"]) == pytest.approx(0.5)


def test_self_bleu() -> None:
    assert self_bleu(["it was a warm film"] * 3) == pytest.approx(1)
    assert self_bleu(["it was warm and bright", "nobody liked their long story"]) < 0.1
    assert self_bleu(["so warm"] * 2) == pytest.approx(1), "too short for a 4-gram"
    alike = [f"word{i} other{i} third{i} fourth{i}" for i in range(50)] * 2
    assert self_bleu(alike) == pytest.approx(1), "each text has its duplicate among the first hundred"
    assert self_bleu(alike + ["never seen before here"] * 100) == self_bleu(alike), "only the first hundred are compared"
    # Unigrams 3 of 4, bigrams 2 of 3, trigrams 1 of 2, no 4-gram of 1 (smoothed to half a count): each way, equal lengths.
    expected = (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** (1 / 4)
    assert self_bleu(["one two three four", "one two three five"]) == pytest.approx(expected)


def test_self_bleu_is_that_of_sacrebleu() -> None:
    rng = random.Random(1)
    words = ["the", "film", "was", "warm", ",", "dull", ".", "don't", "it's", "(long)"]
    texts = [" ".join(rng.choices(words, k=rng.randint(0, 9))) for _ in range(30)]
    each = [BLEU(effective_order=True).sentence_score(text, texts[:i] + texts[i + 1 :]).score for i, text in enumerate(texts)]
    assert self_bleu(texts) == pytest.approx(sum(each) / len(each) / 100, rel=1e-12)


def test_self_bleu_of_a_script_without_spaces() -> None:
    # The value of the four words above, because each letter is a word.
    expected = (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** (1 / 4)
    assert self_bleu(["音乐感人", "音乐感动"]) == pytest.approx(expected)
    assert self_bleu(["音乐感人。", "难看，无聊！"]) < 0.1


def guards() -> Guards:
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())["evaluate"]
    return EvaluateSettings.model_validate(tree).guards


FIGURES: dict[str, float | None] = {
    "perplexity": 4.0,
    "kl_to_sft": 0.0,
    "distinct_2": 0.2,
    "self_bleu": 0.5,
    "repetition": 0.01,
    "duplicated": 0.0,
    "response_tokens": 20.0,
    "cut_off": 0.02,
}


def test_a_model_like_sft_crosses_no_guard() -> None:
    assert crossed(FIGURES | {"kl_to_sft": 2.0}, FIGURES, guards()) == []


@pytest.mark.parametrize(
    ("change", "figure", "side", "setting", "limit"),
    [
        ({"perplexity": 8.0}, "2 times", "above", "max_perplexity", "1.5"),
        ({"kl_to_sft": 12.0}, "12", "above", "max_kl", "10"),
        ({"distinct_2": 0.1}, "0.5 times", "below", "min_distinct_2", "0.7"),
        ({"self_bleu": 0.9}, "0.4 more", "above", "max_self_bleu", "0.15"),
        ({"repetition": 0.51}, "0.5 more", "above", "max_repetition", "0.1"),
        ({"duplicated": 0.5}, "0.5 more", "above", "max_duplicated", "0.1"),
        ({"cut_off": 1.0}, "0.98 more", "above", "max_cut_off", "0.3"),
        ({"response_tokens": 5.0}, "0.25 times", "below", "min_length", "0.5"),
        ({"response_tokens": 60.0}, "3 times", "above", "max_length", "2.5"),
    ],
)
def test_each_guard_names_its_figure_and_its_limit(
    change: dict[str, Any], figure: str, side: str, setting: str, limit: str
) -> None:
    (line,) = crossed(FIGURES | change, FIGURES, guards())
    assert_names(line, *change, f" {figure}", side, f"evaluate.guards.{setting} {limit}")
    assert crossed(FIGURES | change, FIGURES, guards().model_copy(update={setting: None})) == []


def test_a_figure_at_its_limit_crosses_no_guard() -> None:
    assert crossed(FIGURES | {"cut_off": 1.0}, FIGURES | {"cut_off": 0.7}, guards()) == []  # 1 - .7 > .3


def test_a_guard_on_an_absent_figure_is_not_crossed() -> None:
    assert crossed(FIGURES | {"distinct_2": None}, FIGURES, guards()) == []
    assert crossed(FIGURES | {"distinct_2": 0.1}, FIGURES | {"distinct_2": None}, guards()) == []


def test_each_model_is_measured_against_the_reference() -> None:
    models: dict[str, Row] = {
        "base": FIGURES | {"perplexity": 8.0},
        "sft": dict(FIGURES),
        "rlhf": FIGURES | {"kl_to_sft": 12.0},
    }
    assert [line.split(" is ")[0] for line in guard(models, guards())] == ["base: perplexity", "rlhf: kl_to_sft"]
    assert [figures["guards_crossed"] for figures in models.values()] == [1, 0, 1]
