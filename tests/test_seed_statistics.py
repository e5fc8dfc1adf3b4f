"""Statistics over seeds, with values worked by hand."""

import math

import numpy as np
import pytest

from seed_statistics import by_seed_and_prompt, interquartile_mean, spread, two_way_interval


def test_the_spread_is_that_between_seeds() -> None:
    found = spread([1.0, 2.0, 3.0, 6.0])
    assert found.mean == 3.0
    assert found.sd == pytest.approx(math.sqrt(14 / 3))  # (4 + 1 + 0 + 9) / 3
    assert (found.low, found.high) == (1.0, 6.0)
    assert found.iqm == 2.5  # 2 and 3
    assert math.isnan(spread([1.0]).sd)


@pytest.mark.parametrize(
    ("values", "mean"),
    [([5.0], 5.0), ([0.0, 1.0, 5.0], 2.0), ([0.0, 1.0, 2.0, 9.0], 1.5), ([9.0, 0.0, 2.0, 1.0, 3.0], 2.0)],
)
def test_the_interquartile_mean_leaves_out_a_quarter_at_each_end(values: list[float], mean: float) -> None:
    assert interquartile_mean(values) == pytest.approx(mean)


def quantiles(values: list[list[float]], *levels: float) -> list[float]:
    """Return quantiles of the resampled means. The level of an interval gives the quantile of its high end."""
    return [two_way_interval(np.array(values), 2 * level - 1, resamples=20_000)[1] for level in levels]


def test_seeds_and_prompts_are_resampled_independently() -> None:
    """A mean is (draws of the second seed) * (draws of the second prompt), and each number is 0, 1 or 2.

    The number of draws is 0, 1, 2 with probabilities 1/4, 1/2, 1/4. The product is 0 with 7/16, 1 with 4/16, 2 with 4/16 and 4
    with 1/16. So the steps of its distribution are at 0.4375, 0.6875 and 0.9375.
    """
    assert quantiles([[0.0, 0.0], [0.0, 4.0]], 0.55, 0.67, 0.71, 0.92, 0.955) == [1.0, 1.0, 2.0, 2.0, 4.0]
    assert two_way_interval(np.array([[0.0, 0.0], [0.0, 4.0]]), 0.2) == (0.0, 1.0)


def test_with_one_prompt_only_seeds_vary_and_with_one_seed_only_prompts() -> None:
    """The mean of two draws of 0 and 1 is 0, 1/2 and 1 with probabilities 1/4, 1/2 and 1/4."""
    for values in ([[0.0], [1.0]], [[0.0, 1.0]]):
        assert quantiles(values, 0.72, 0.78) == [0.5, 1.0]
    assert two_way_interval(np.full((3, 4), 0.7)) == pytest.approx((0.7, 0.7))


def test_the_interval_has_the_variance_of_the_pigeonhole_bootstrap() -> None:
    """For values a_s + b_p, the variance of the resampled mean is var(a) / S + var(b) / N, with N in the denominators."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=12), rng.normal(size=50)
    low, high = two_way_interval(a[:, None] + b, 0.6827, resamples=20_000)  # two standard deviations of a normal distribution
    assert (high - low) / 2 == pytest.approx(math.sqrt(a.var() / 12 + b.var() / 50), rel=0.03)


def test_the_same_values_give_the_same_interval() -> None:
    values = np.random.default_rng(1).random((3, 20))
    assert two_way_interval(values) == two_way_interval(values)
    assert two_way_interval(values, resamples=501) != two_way_interval(values, resamples=500)


def test_only_prompts_of_all_seeds_count() -> None:
    table = by_seed_and_prompt([{"a": 1.0, "b": 2.0, "c": 3.0}, {"c": 6.0, "a": 4.0}])
    assert table.tolist() == [[1.0, 3.0], [4.0, 6.0]]
