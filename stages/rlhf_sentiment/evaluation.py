"""Statistics of responses: how sure we are of a difference, and what it cost in variety.

A prompt is the unit: every model answers the same prompts, so differences are taken prompt by prompt.
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import bootstrap, permutation_test


def interval(values: np.ndarray, confidence: float, resamples: int, seed: int) -> tuple[float, float]:
    """The BCa bootstrap interval of a mean (Efron 1987). (N,) -> low, high.

    Where all values are the same, so is every resample's mean: the interval is that point.
    """
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    found = bootstrap(
        (values,), np.mean, confidence_level=confidence, n_resamples=resamples, method="BCa", rng=np.random.default_rng(seed)
    ).confidence_interval
    return float(found.low), float(found.high)


def improvement(after: np.ndarray, before: np.ndarray, confidence: float, resamples: int, seed: int) -> dict[str, float]:
    """after - before, paired by prompt.

    Args:
        after, before: P(positive) of each prompt's response. (N,), (N,)

    Returns:
        mean_positive, ci_low, ci_high: the mean difference and its BCa interval; p_value: two-sided, of a paired
        permutation test (signs of the differences flipped at random); effect_size: Cohen's d_z, the mean difference in
        standard deviations of the difference (0 where the difference is constant); positive_ratio and its interval:
        the difference in the share of responses with P > 0.5.
    """
    difference = after - before
    low, high = interval(difference, confidence, resamples, seed)
    flips = (after > 0.5).astype(float) - (before > 0.5).astype(float)
    ratio_low, ratio_high = interval(flips, confidence, resamples, seed)
    test = permutation_test(
        (after, before),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=1000,
        rng=np.random.default_rng(seed),
    )
    spread = difference.std(ddof=1)
    return {
        "mean_positive": float(difference.mean()),
        "ci_low": low,
        "ci_high": high,
        "p_value": float(test.pvalue),
        "effect_size": float(difference.mean() / spread) if spread > 0 else 0.0,
        "positive_ratio": float(flips.mean()),
        "positive_ratio_ci_low": ratio_low,
        "positive_ratio_ci_high": ratio_high,
    }


def distinct(responses: Sequence[Sequence[int]], n: int, tokens: int) -> float:
    """Distinct n-grams over n-grams (Li et al. 2016), in the first `tokens` tokens of the responses, in order.

    Longer text repeats more, whoever wrote it: models are compared at equal numbers of tokens. No n-gram spans two
    responses. 0 where there is no n-gram.
    """
    grams = []
    for response in responses:
        part = response[: max(tokens, 0)]
        tokens -= len(part)
        grams += [tuple(part[i : i + n]) for i in range(len(part) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def duplicated(responses: Sequence[str]) -> float:
    """The share of responses that an earlier prompt was given already, to the letter."""
    return 1 - len(set(responses)) / len(responses)
