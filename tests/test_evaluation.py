"""Statistics against worked examples, and the report's sentence against the numbers."""

import numpy as np
import pytest

from rlhf_sentiment.evaluation import distinct, duplicated, improvement, interval
from rlhf_sentiment.report import markdown, verdict


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        low, high = interval(rng.exponential(1.0, 60), 0.9, 499, seed)
        covered += low <= 1.0 <= high
    assert covered / 200 == pytest.approx(0.9, abs=0.06)


def test_the_interval_of_a_constant_is_a_point() -> None:
    assert interval(np.full(10, 0.25), 0.95, 99, 0) == (0.25, 0.25)


def test_improvement_is_paired_by_prompt() -> None:
    # Prompts differ much, the gain is 0.1 on each: paired, that is certain; unpaired, it would drown.
    before = np.linspace(0.0, 0.8, 50)
    noise = np.tile([0.01, -0.01], 25)
    gain = improvement(before + 0.1 + noise, before, 0.95, 999, 0)
    assert gain["mean_positive"] == pytest.approx(0.1)
    assert 0.095 < gain["ci_low"] < 0.1 < gain["ci_high"] < 0.105
    assert gain["p_value"] == pytest.approx(2 / 1000)  # the least that 999 resamples can say, two-sided
    assert gain["effect_size"] == pytest.approx(0.1 / noise.std(ddof=1))


def test_the_permutation_test_is_exact_where_there_are_few_prompts() -> None:
    # Three differences, all positive: 2^3 sign flips, two of them as extreme (+++ and ---). p = 2 / 8.
    gain = improvement(np.array([0.9, 0.8, 0.7]), np.array([0.5, 0.5, 0.5]), 0.95, 999, 0)
    assert gain["p_value"] == pytest.approx(0.25)


def test_no_difference_is_no_improvement() -> None:
    rng = np.random.default_rng(1)
    gain = improvement(rng.random(300), rng.random(300), 0.95, 999, 0)
    assert gain["ci_low"] < 0 < gain["ci_high"]
    assert gain["p_value"] > 0.05


def test_the_positive_ratio_counts_crossings() -> None:
    gain = improvement(np.array([0.6, 0.6, 0.4, 0.9]), np.array([0.4, 0.6, 0.4, 0.1]), 0.95, 99, 0)
    assert gain["positive_ratio"] == pytest.approx(0.5)  # two of four crossed


def test_distinct_bigrams() -> None:
    # (1 2)(2 3) and (1 2)(2 4): 3 distinct of 4. No bigram spans two responses.
    assert distinct([[1, 2, 3], [1, 2, 4]], 2, 100) == pytest.approx(3 / 4)
    # The first 5 tokens: (1 2)(2 3) and (1 2): 2 distinct of 3.
    assert distinct([[1, 2, 3], [1, 2, 4]], 2, 5) == pytest.approx(2 / 3)
    assert distinct([[1]], 2, 5) == 0


def test_duplicated() -> None:
    assert duplicated(["a", "b", "a", "a"]) == pytest.approx(0.5)


def result(low: float, high: float) -> dict:
    gain = {
        "mean_positive": (low + high) / 2,
        "ci_low": low,
        "ci_high": high,
        "p_value": 0.01,
        "effect_size": 1.0,
        "positive_ratio": 0.1,
        "positive_ratio_ci_low": 0.0,
        "positive_ratio_ci_high": 0.2,
    }
    models = {name: {"perplexity": 4.0, "distinct_2": 0.5, "samples": 20} for name in ("base", "sft", "rlhf")}
    return {**models, "improvement": gain, "improvement_over_sft": gain}


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.1, 0.3, "RLHF raised mean P(positive) over SFT by +0.200 [+0.100, +0.300]"),
        (-0.3, -0.1, "RLHF lowered mean P(positive) against SFT by -0.200 [-0.300, -0.100]"),
        (-0.1, 0.1, "these 20 prompts show no difference between RLHF and SFT"),
    ],
)
def test_the_verdict_says_what_the_interval_says(low: float, high: float, said: str) -> None:
    assert said in verdict(result(low, high))


def test_generated_text_is_escaped() -> None:
    texts = dict.fromkeys(("base", "sft", "rlhf"), "x | y\n# z")
    scores = {f"{model}_positive": 0.5 for model in texts}
    report = markdown(result(0.1, 0.3), [{"prompt": "<b>a</b>"} | texts | scores], 0.95)
    assert r"\<b\>a" in report
    assert r"x \| y \# z" in report
