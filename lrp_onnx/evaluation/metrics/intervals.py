"""Means with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
"""Number of bootstrap samples."""
CONFIDENCE = 0.95
"""Level of the intervals."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over photos with its bootstrap confidence interval from `low` to `high`."""

    value: float
    low: float
    high: float
    count: int
    """Number of photos."""

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean_of(values: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES) -> Mean:
    """The mean of (N,) values and its 95 % percentile bootstrap interval (Efron 1979).

    Without values, mean and interval are NaN.
    """
    sample = np.asarray(values, np.float64)
    if sample.size == 0:
        return Mean(float("nan"), float("nan"), float("nan"), 0)
    picks = np.random.default_rng(seed).integers(0, sample.size, (resamples, sample.size))
    means = sample[picks].mean(1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return Mean(float(sample.mean()), float(low), float(high), int(sample.size))


def statistic_of(
    values: ArrayLike,
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Mean:
    """A statistic of the mean over photos, with its interval as `mean_of` has it.

    Args:
        values: (N, K).
        statistic: (…, K) → (…).
        seed: of the bootstrap samples.
        resamples: number of bootstrap samples.
    """
    sample = np.asarray(values, np.float64)
    if sample.size == 0:
        return Mean(float("nan"), float("nan"), float("nan"), 0)
    rng, count = np.random.default_rng(seed), len(sample)
    shares = rng.multinomial(count, np.full(count, 1 / count), resamples) / count
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(statistic(shares @ sample), (tail, 1 - tail))
    return Mean(float(statistic(sample.mean(0))), float(low), float(high), count)


def difference_of(one: ArrayLike, other: ArrayLike, *, seed: int = 0) -> Mean:
    """The mean difference `one` − `other` of paired values (N,), with its interval."""
    return mean_of(np.asarray(one, np.float64) - np.asarray(other, np.float64), seed=seed)
