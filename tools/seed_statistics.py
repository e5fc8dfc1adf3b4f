"""Statistics over seeds: how much a figure varies from one training run to another.

A figure of a run depends on the seed and on the prompts. All runs answer the same prompts, so the values form a table with a
row for each seed and a column for each prompt. Intervals for new seeds and new prompts resample both.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import trim_mean

RESAMPLES, CONFIDENCE = 9999, 0.95
_AT_ONCE = 500  # resamples, to save memory


class Spread(NamedTuple):
    """A figure over the seeds.

    Attributes:
        mean: the mean.
        sd: the standard deviation between seeds, with N - 1 in the denominator. It is nan for one seed.
        low, high: the smallest and the largest value.
        iqm: the interquartile mean.
    """

    mean: float
    sd: float
    low: float
    high: float
    iqm: float


def spread(values: Sequence[float]) -> Spread:
    """Return how a figure varies. (S,) values, one for each seed."""
    numbers = np.asarray(values, dtype=float)
    sd = float(numbers.std(ddof=1)) if len(numbers) > 1 else float("nan")
    return Spread(float(numbers.mean()), sd, float(numbers.min()), float(numbers.max()), interquartile_mean(numbers))


def interquartile_mean(values: Sequence[float] | np.ndarray) -> float:
    """Return the mean of the middle half of the values, as in rliable (2108.13264). (S,) -> mean.

    A quarter of the values, rounded down, is left out at each end. So all of up to three values count.

    Example:
        >>> interquartile_mean([0, 1, 2, 9])
        1.5
    """
    return float(trim_mean(values, 0.25))


def two_way_interval(
    values: np.ndarray, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile interval of the pigeonhole bootstrap of a mean (Owen 2007, doi 10.1214/07-AOAS122).

    Each resample draws S seeds and, independently, N prompts, both with replacement. Its mean is over all pairs of a drawn seed
    and a drawn prompt. The interval tends to be too wide for many seeds, and too narrow for two to five.

    Args:
        values: a row for each seed, and a column for each prompt. (S, N)
        confidence: the level of the interval.
        resamples: the number of resamples.
        seed: of the random numbers.

    Returns:
        The low and the high end.
    """
    rng = np.random.default_rng(seed)
    seeds, prompts = values.shape
    means = []
    for start in range(0, resamples, _AT_ONCE):
        count = min(_AT_ONCE, resamples - start)
        # How often each seed and each prompt is drawn. (R, S) and (R, N)
        of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=count)
        of_prompts = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=count)
        means.append(((of_seeds @ values) * of_prompts).sum(axis=1) / (seeds * prompts))
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def by_seed_and_prompt(tables: Sequence[dict[str, float]]) -> np.ndarray:
    """Return the values of the prompts that all seeds have. (S dicts by prompt) -> (S, N)."""
    common = [prompt for prompt in tables[0] if all(prompt in table for table in tables)]
    return np.array([[table[prompt] for prompt in common] for table in tables])
