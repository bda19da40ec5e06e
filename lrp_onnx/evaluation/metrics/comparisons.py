"""Comparisons of two methods on the same photos, and what many of them mean together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import ArrayLike

FLIPS = 10_000
"""Number of random sign flips, and how many are drawn at once."""


def sign_flip_test(differences: ArrayLike, *, seed: int = 0, flips: int = FLIPS) -> float:
    """The two-sided p-value of a mean difference: how often it is at least as far from 0 if every
    photo's difference has a random sign (Fisher's randomisation test).

    Args:
        differences: (N,), one method minus the other, photo by photo.
        seed: of the signs.
        flips: number of draws; the p-value is at least 1 / (flips + 1).

    Returns:
        0 to 1; 1 without photos.
    """
    values = np.asarray(differences, np.float64)
    # Equal sums may differ in the last place.
    least = abs(float(values.sum())) * (1 - 1e-12)
    rng, reached = np.random.default_rng(seed), 0
    for first in range(0, flips, FLIPS):
        signs = rng.integers(0, 2, (min(FLIPS, flips - first), values.size)) * 2 - 1
        reached += int((np.abs(signs @ values) >= least).sum())
    return (reached + 1) / (flips + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979), in the order given.

    The k-th smallest of n is multiplied by n − k + 1, and none is smaller than one before it.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    multiplied = [min(1.0, (len(order) - rank) * p_values[i]) for rank, i in enumerate(order)]
    corrected = dict(zip(order, accumulate(multiplied, max), strict=True))
    return [corrected[index] for index in range(len(order))]
