"""Statistics against worked and published examples, and the sentence of the report against the numbers."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from statsmodels.stats.power import TTestPower

from rlhf_sentiment.evaluation.contestants import COMPARISONS, CONTESTANTS
from rlhf_sentiment.evaluation.exam import agreement_with_annotators
from rlhf_sentiment.evaluation.measures import gain
from rlhf_sentiment.evaluation.report import markdown, verdict
from rlhf_sentiment.evaluation.statistics import holm, improvement, interval, mcnemar_p, prompts_needed


def test_the_interval_covers_the_mean_at_its_confidence() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        low, high = interval(rng.exponential(1.0, 60), 0.9, 499, seed)
        covered += low <= 1.0 <= high
    assert covered / 200 == pytest.approx(0.9, abs=0.06)


def test_the_interval_of_a_constant_is_a_point() -> None:
    assert interval(np.full(10, 0.25), 0.95, 99, 0) == (0.25, 0.25)
    nearly = np.full(10, 0.3)
    nearly[3] = np.nextafter(0.3, 1)
    assert interval(nearly, 0.95, 99, 0) == pytest.approx((0.3, 0.3))


def test_the_interval_corrects_for_skew() -> None:
    """BCa of a few skewed values lies above the plain percentiles of the resampled means, at both ends."""
    values = np.random.default_rng(3).exponential(1.0, 30)
    resampled = np.random.default_rng(0).choice(values, (9999, 30)).mean(axis=1)
    low, high = interval(values, 0.95, 9999, 0)
    plain_low, plain_high = np.quantile(resampled, [0.025, 0.975])
    assert low > plain_low + 0.005
    assert high > plain_high + 0.01


def test_a_rounding_error_counts_as_no_difference() -> None:
    before = np.full((20, 1), 0.3)
    gain = improvement(np.nextafter(before, 1), before, 0.95, 99, 0)
    assert gain["p_wilcoxon"] == 1
    assert gain["effect_size"] == 0


def test_improvement_is_paired_by_prompt() -> None:
    # Prompts differ much, but the gain of each is 0.1. A paired test detects the gain, an unpaired test does not.
    before = np.linspace(0.0, 0.8, 50)
    noise = np.tile([0.01, -0.01], 25)
    gain = improvement((before + 0.1 + noise)[:, None], before[:, None], 0.95, 999, 0)
    assert gain["mean_positive"] == pytest.approx(0.1)
    assert 0.095 < gain["ci_low"] < 0.1 < gain["ci_high"] < 0.105
    assert gain["p_value"] == pytest.approx(2 / 1000)  # the smallest two-sided p of 999 resamples
    assert gain["effect_size"] == pytest.approx(0.1 / noise.std(ddof=1))


def test_the_permutation_test_is_exact_where_there_are_few_prompts() -> None:
    # Three differences, all positive: 2^3 sign flips, two of them as extreme (+++ and ---). p = 2 / 8.
    gain = improvement(np.array([[0.9], [0.8], [0.7]]), np.full((3, 1), 0.5), 0.95, 999, 0)
    assert gain["p_value"] == pytest.approx(0.25)


def test_no_difference_is_no_improvement() -> None:
    rng = np.random.default_rng(1)
    gain = improvement(rng.random((300, 1)), rng.random((300, 1)), 0.95, 999, 0)
    assert gain["ci_low"] < 0 < gain["ci_high"]
    assert gain["p_value"] > 0.05


def test_the_positive_ratio_counts_crossings() -> None:
    gain = improvement(np.array([[0.6], [0.6], [0.4], [0.9]]), np.array([[0.4], [0.6], [0.4], [0.1]]), 0.95, 99, 0)
    assert gain["positive_ratio"] == pytest.approx(0.5)  # two of four crossed


def test_a_prompt_with_several_answers_is_one_observation() -> None:
    rng = np.random.default_rng(2)
    after, before = rng.random((40, 1)), rng.random((40, 1))
    once = improvement(after, before, 0.95, 199, 0)
    assert improvement(after.repeat(5, axis=1), before.repeat(5, axis=1), 0.95, 199, 0) == pytest.approx(once)
    # Means over a prompt's samples, and McNemar's test on the first alone.
    two = improvement(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([[0.1, 0.1], [0.2, 0.2]]), 0.95, 99, 0)
    assert two["mean_positive"] == pytest.approx((0.4 + 0.3) / 2)
    assert two["positive_ratio"] == pytest.approx(0.5)
    assert two["p_mcnemar"] == pytest.approx(0.5)  # both turned positive: 2 x 0.5^2


def test_wilcoxon_of_a_worked_example() -> None:
    # Differences .05 to .4, all positive: of the 2^8 ways to sign eight ranks two are as extreme.
    after = 0.5 + np.arange(1, 9)[:, None] / 20
    assert improvement(after, np.full((8, 1), 0.5), 0.95, 99, 0)["p_wilcoxon"] == pytest.approx(2 / 256)
    # One of them negative, the smallest: rank sum 1. Two more ways on each side... {}, {1}: 2 of 256 on a side.
    after[0] = 0.45
    assert improvement(after, np.full((8, 1), 0.5), 0.95, 99, 0)["p_wilcoxon"] == pytest.approx(4 / 256)
    assert improvement(np.full((8, 1), 0.5), np.full((8, 1), 0.5), 0.95, 99, 0)["p_wilcoxon"] == 1


def test_mcnemar_of_a_worked_example() -> None:
    # Ten prompts turn positive, two negative, eight stay: 2 x P(at most 2 of 12 heads) = 2 x (1 + 12 + 66) / 4096.
    before = np.array([False] * 10 + [True] * 2 + [True] * 5 + [False] * 3)
    after = np.array([True] * 10 + [False] * 2 + [True] * 5 + [False] * 3)
    assert mcnemar_p(after, before) == pytest.approx(2 * 79 / 4096)
    assert mcnemar_p(before, before) == 1


def test_holm_of_a_worked_example() -> None:
    # 3 x 0.01; 2 x 0.02; then not less than the one before: max(0.04, 1 x 0.03).
    assert holm([0.02, 0.01, 0.03]) == pytest.approx([0.04, 0.03, 0.04])


def test_prompts_needed_of_a_published_example() -> None:
    # Cohen 1988, table 2.4.1 for one sample: d = 0.5, two-sided alpha 0.05, power 0.8 needs 33.4, that is 34.
    assert prompts_needed(spread=0.1, alpha=0.05) == 34
    assert prompts_needed(spread=0.0, alpha=0.05) == 2
    after, before = np.random.default_rng(4).random((2, 50, 1))
    spread = float((after - before).std(ddof=1))
    at_99, at_90 = (improvement(after, before, level, 99, 0)["prompts_needed"] for level in (0.99, 0.9))
    assert (at_99, at_90) == (prompts_needed(spread, 0.01), prompts_needed(spread, 0.1))
    assert at_99 > at_90
    # A simulation shows that this number is enough, and a number one third lower is not.
    rng = np.random.default_rng(0)
    seen = {count: [ttest_1samp(rng.normal(0.05, 0.1, count), 0).pvalue < 0.05 for _ in range(2000)] for count in (34, 22)}
    assert np.mean(seen[34]) == pytest.approx(0.8, abs=0.03)
    assert np.mean(seen[22]) < 0.7


def result(low: float, high: float, p: float = 0.01) -> dict:
    gain = {
        "mean_positive": (low + high) / 2,
        "ci_low": low,
        "ci_high": high,
        "p_value": 0.01,
        "p_holm": p,
        "p_wilcoxon": 0.00001,
        "p_mcnemar": 0.0456,
        "effect_size": 1.0,
        "prompts_needed": 50,
        "positive_ratio": 0.1,
        "positive_ratio_ci_low": 0.0,
        "positive_ratio_ci_high": 0.2,
    }
    figures = {"mean_positive": 0.5, "std_positive": 0.25, "positive_ratio": 0.625, "perplexity": 4.0, "distinct_2": 0.5}
    models = {name: figures | {"samples": 40} for name in CONTESTANTS}
    exam = {"accuracy": 0.9, "ece": 0.1, "accuracy_cut": 0.8, "ece_cut": 0.2}
    judges = {"classifier": exam, "my_own": exam, "lexicon": exam}
    kappa = {"classifier_my_own": 0.1, "classifier_lexicon": 0.2, "my_own_lexicon": 0.3}
    beside = {"judges": judges, "kappa": kappa, "reward_hacking_gap": 0.1, "prompts": 20}
    beside |= {"annotators": {"pairs": 200, "agree": 0.512, "agree_ci_low": 0.441, "agree_ci_high": 0.579}}
    return {**models, **dict.fromkeys(COMPARISONS, gain), **beside}


@pytest.mark.parametrize(
    ("low", "high", "p", "said"),
    [
        (0.1, 0.3, 0.01, "RLHF raised mean P(positive) over SFT by +0.200 [+0.100, +0.300]"),
        (-0.3, -0.1, 0.01, "RLHF lowered mean P(positive) against SFT by -0.200 [-0.300, -0.100]"),
        (-0.1, 0.3, 0.01, "these 20 prompts show no difference between RLHF and SFT"),
        (
            0.1,
            0.3,
            0.5,
            "these 20 prompts show no difference between RLHF and SFT in mean P(positive): +0.200 [+0.100, +0.300], p 0.50",
        ),
    ],
)
def test_the_verdict_says_what_the_interval_says(low: float, high: float, p: float, said: str) -> None:
    assert said in verdict(result(low, high, p), 0.95)


def test_the_report_begins_with_base_against_rlhf() -> None:
    figures = result(0.1, 0.3)
    figures["rlhf"] = figures["rlhf"] | {"mean_positive": 0.75, "std_positive": 0.125, "positive_ratio": 0.875}
    summary = markdown(figures, [], [], 0.95, "positivity").split("\n\n")[2].splitlines()
    assert [re.sub(" +", " ", line) for line in summary] == [
        "| | Base | RLHF | improvement |",
        "|---|---:|---:|---:|",
        "| mean P(positive) | 0.500 | 0.750 | +0.200 [+0.100, +0.300] |",
        "| standard deviation of P(positive) | 0.250 | 0.125 | |",
        "| positive ratio (P > 0.5) | 0.625 | 0.875 | +0.100 [+0.000, +0.200] |",
    ]


def test_an_absent_figure_is_a_dash() -> None:
    figures = result(0.1, 0.3)
    figures["rlhf"] = figures["rlhf"] | {"distinct_2": None}
    assert "| distinct bigrams | 0.500 | 0.500 | - |" in markdown(figures, [], [], 0.95, "positivity")
    assert verdict(figures, 0.95).endswith("; perplexity is 1.00 times that of SFT.")
    assert verdict(result(0.1, 0.3), 0.95).endswith(
        "; perplexity is 1.00 times and distinct bigrams are 1.00 times those of SFT."
    )


def test_generated_text_is_escaped() -> None:
    texts = dict.fromkeys(CONTESTANTS, "x | y\n# z")
    scores = {f"{model}_positive": 0.5 for model in texts}
    report = markdown(result(0.1, 0.3), ["rlhf: too long"], [{"prompt": "<b>a</b>"} | texts | scores], 0.95, "positivity")
    assert r"\<b\>a" in report
    assert r"x \| y \# z" in report
    assert "- warning: rlhf: too long" in report
    assert "| rlhf over sft | 0.0100 | 0.0100 | < 0.0001 | 0.0456 |" in report, "permutation, Holm, Wilcoxon, McNemar"
    assert "classifier and my_own 0.10, classifier and lexicon 0.20, my_own and lexicon 0.30" in report


def test_the_report_says_what_annotators_chose_for() -> None:
    rows = [{"prompt": "a"} | dict.fromkeys(CONTESTANTS, "x") | {f"{name}_positive": 0.5 for name in CONTESTANTS}]
    for preferred_for, said in (
        ("positivity", "The preference pairs prefer positive responses. The judge"),
        (
            "harmlessness",
            "The annotators chose by harmlessness, not by positivity. RLHF therefore does not aim at positivity here. The",
        ),
    ):
        report = markdown(result(0.1, 0.3), [], rows, 0.95, preferred_for)
        assert said in report
        assert "more positive in 0.51 [0.44, 0.58] of 200 held-out preference pairs" in report


def test_agreement_of_the_judge_with_the_annotators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/prepared").mkdir(parents=True)
    sides = [("good", "bad")] * 6 + [("bad", "good")] * 2 + [("so", "so")]
    rows = [{"prompt": "", "chosen": one, "rejected": other, "split": "validation"} for one, other in sides]
    rows.append({"prompt": "", "chosen": "bad", "rejected": "good", "split": "train"})
    (tmp_path / "data/prepared/preferences.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = agreement_with_annotators(
        lambda texts: np.array([{"good": 0.9, "so": 0.5, "bad": 0.1}[text] for text in texts]), 0.95
    )
    # Wilson for 6 of 8, z = 1.96: (0.75 + 0.2401 +- 1.96 sqrt(0.75 x 0.25 / 8 + 3.8416 / 256)) / 1.4802
    assert found == pytest.approx({"pairs": 8, "agree": 0.75, "agree_ci_low": 0.4093, "agree_ci_high": 0.9285}, abs=1e-4)


@pytest.mark.parametrize("spread", [0.006, 0.01, 0.0125, 0.02, 0.03, 0.049])
def test_a_small_spread_needs_few_prompts(spread: float) -> None:
    found = prompts_needed(spread, 0.05)
    power = [TTestPower().power(0.05 / spread, n, 0.05) for n in (found, max(found - 1, 2))]
    assert power[0] >= 0.8
    assert found == 2 or not power[1] >= 0.8  # statsmodels has no power, NaN, for two prompts and a large effect


def test_a_gain_is_in_standard_deviations_of_the_earlier_scores() -> None:
    before, after = np.array([0.0, 2.0, 4.0]), np.array([3.0, 5.0, 7.0])
    assert gain(after, before) == pytest.approx(1.5)  # an increase of 3 with deviations -2, 0, 2
    assert gain(before, after) == pytest.approx(-1.5)
    assert gain(after, np.ones(3)) == 0
