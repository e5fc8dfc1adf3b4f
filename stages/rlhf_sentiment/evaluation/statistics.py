"""How certain a difference between two models is.

The unit is the prompt. Every model answers the same prompts, so differences are paired by prompt. They are differences between
means over the answers to a prompt.
"""

import math
from itertools import count
from typing import Any

import numpy as np
from scipy.stats import bootstrap, permutation_test, wilcoxon
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from .contestants import COMPARISONS

SMALLEST = 0.05  # the difference in mean P(positive) that `prompts_needed` prompts can detect
POWER = 0.8
_NOTHING = 1e-9  # a smaller difference is rounding


def interval(values: np.ndarray, confidence: float, resamples: int, seed: int) -> tuple[float, float]:
    """Return the BCa bootstrap interval of a mean (Efron 1987). (N,) -> low, high.

    Where all values are equal, the interval is this one value.
    """
    if np.ptp(values) < _NOTHING:
        return float(values.mean()), float(values.mean())
    found = bootstrap(
        (values,), np.mean, confidence_level=confidence, n_resamples=resamples, method="BCa", rng=np.random.default_rng(seed)
    ).confidence_interval
    return float(found.low), float(found.high)


def improvement(after: np.ndarray, before: np.ndarray, confidence: float, resamples: int, seed: int) -> dict[str, float]:
    """Compare two models: after - before, paired by prompt.

    Args:
        after, before: P(positive) of each response, a row for each prompt. (N, S), (N, S)
        confidence: the level of the intervals.
        resamples: of the bootstrap and of the permutation test.
        seed: of the resamples.

    Returns:
        mean_positive, ci_low, ci_high: the mean difference and its BCa interval.
        p_value: two-sided, of a paired permutation test, which swaps the two models' names at random, prompt by prompt.
        p_wilcoxon: of the signed-rank test on the same differences (Wilcoxon 1945).
        p_mcnemar: of the exact test whether as many prompts turn positive as turn negative (McNemar 1947). It uses the first
            answer to each prompt, because a paired test must not count a prompt twice.
        effect_size: Cohen's d_z, the mean difference in standard deviations of the difference, 0 where it is constant.
        prompts_needed: how many prompts a paired t-test needs to detect a difference of 0.05 at level 1 - confidence with
            power 0.8. The standard deviation of the differences is taken from the prompts given.
        positive_ratio and its interval: the difference in the share of responses with P > 0.5.
    """
    difference = after.mean(axis=1) - before.mean(axis=1)
    difference[np.abs(difference) < _NOTHING] = 0.0
    low, high = interval(difference, confidence, resamples, seed)
    flips = (after > 0.5).mean(axis=1) - (before > 0.5).mean(axis=1)
    ratio_low, ratio_high = interval(flips, confidence, resamples, seed)
    swapped = permutation_test(
        (after.mean(axis=1), before.mean(axis=1)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=1000,
        rng=np.random.default_rng(seed),
    )
    spread = float(difference.std(ddof=1))
    return {
        "mean_positive": float(difference.mean()),
        "ci_low": low,
        "ci_high": high,
        "p_value": float(swapped.pvalue),
        "p_wilcoxon": float(wilcoxon(difference).pvalue) if difference.any() else 1.0,
        "p_mcnemar": mcnemar_p(after[:, 0] > 0.5, before[:, 0] > 0.5),
        "effect_size": float(difference.mean()) / spread if spread > 0 else 0.0,
        "prompts_needed": prompts_needed(spread, 1 - confidence),
        "positive_ratio": float(flips.mean()),
        "positive_ratio_ci_low": ratio_low,
        "positive_ratio_ci_high": ratio_high,
    }


def mcnemar_p(after: np.ndarray, before: np.ndarray) -> float:
    """Return McNemar's exact two-sided p of paired booleans. (N,), (N,) -> p."""
    table = [[(after & before).sum(), (after & ~before).sum()], [(~after & before).sum(), (~after & ~before).sum()]]
    return float(mcnemar(table, exact=True).pvalue)


def prompts_needed(spread: float, alpha: float) -> int:
    """Return how many prompts a paired t-test needs to detect a difference of 0.05 with power 0.8.

    Args:
        spread: the standard deviation of the differences.
        alpha: the level of the test.

    Returns:
        At least 2, because one prompt has no standard deviation.
    """
    if spread < SMALLEST / 10:  # ten standard deviations
        return 2
    if spread < SMALLEST:  # few prompts are enough, and the solver does not always find the root
        return next(n for n in count(2) if TTestPower().power(SMALLEST / spread, n, alpha) >= POWER)
    return max(2, math.ceil(TTestPower().solve_power(effect_size=SMALLEST / spread, alpha=alpha, power=POWER)))


def holm(p_values: list[float]) -> list[float]:
    """Adjust p-values for several tests at once (Holm 1979).

    If nothing differs, the probability that any adjusted p is below alpha is at most alpha.
    """
    return [float(p) for p in multipletests(p_values, method="holm")[1]]


def comparisons(positive: dict[str, np.ndarray], **certainty: Any) -> dict[str, dict[str, float]]:
    """Compare the contestants in pairs, as `contestants.COMPARISONS` lists them.

    Args:
        positive: P(positive) of the answers of each contestant. name -> (N, S)
        certainty: `confidence`, `resamples` and `seed` of `improvement`.

    Returns:
        For each pair what `improvement` returns, and `p_holm`: `p_value` adjusted for all pairs.
    """
    found = {key: improvement(positive[after], positive[before], **certainty) for key, (after, before) in COMPARISONS.items()}
    for pair, p in zip(found.values(), holm([pair["p_value"] for pair in found.values()]), strict=True):
        pair["p_holm"] = p
    return found
