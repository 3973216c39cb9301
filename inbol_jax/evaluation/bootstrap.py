"""95% intervals of statistics of questions, by drawing the questions again."""

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from inbol_jax.intervals import Estimate


def bootstrap(
    statistic: Callable[[np.ndarray], float | None], n: int, *, resamples: int = 500, seed: int = 0
) -> Estimate:
    """A statistic of n questions with its 95% percentile bootstrap interval.

    The difference of two models is paired if the statistic looks up both under one index.

    Args:
      statistic: index of questions i64[n] -> a number; None if it is not defined for them.

    Source: Efron and Tibshirani 1993, "An introduction to the bootstrap", chapter 13.
    """
    value = statistic(np.arange(n)) if n else None
    if value is None:
        return Estimate()
    random = np.random.default_rng(seed)
    # Whole questions are drawn: what a statistic compares under one index stays together.
    drawn = (statistic(random.integers(n, size=n)) for _ in range(resamples))
    return _with_percentiles(value, [d for d in drawn if d is not None] or [value])


def bootstrap_mean(values: Counter[int], resamples: int, seed: int) -> Estimate:
    """The same of a mean of integers, given how often each occurs, in a fraction of the time.

    To draw n of n questions with replacement and to count their values is one multinomial draw
    over the few distinct values; `scipy.stats.bootstrap` draws n indices per resample.
    """
    n = values.total()
    if not n:
        return Estimate()
    # {-1: 2, 0: 1, 1: 7}: numbers (-1, 0, 1), counts (2, 1, 7). A row of `draws`, like (3, 1, 6),
    # says how often 10 draws gave each number; its mean is (6 - 3) / 10.
    numbers, counts = np.array(sorted(values.items())).T
    draws = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples)
    means = draws @ numbers / n  # [resamples, k] @ [k]
    return _with_percentiles(float(counts @ numbers / n), means)


def _with_percentiles(value: float, resampled: Iterable[float]) -> Estimate:
    low, high = np.percentile(resampled, (2.5, 97.5))
    return Estimate(value, float(low), float(high))
