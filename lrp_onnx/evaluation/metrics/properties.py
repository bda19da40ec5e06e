"""Properties of maps: sparseness, stability, similarity, and ADCC."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.maps.resample import Map


def sparseness(relevance: Map) -> float:
    """Gini index of |R| (Chalasani et al. 2020).

    ``Σ (2i − n − 1)·|R|₍ᵢ₎ / (n·Σ|R|)``, with |R|₍ᵢ₎ in increasing order: from 0 (all pixels equal)
    to nearly 1 (one pixel has all relevance); 0 for a map of zeros.
    """
    values = np.sort(np.abs(relevance.ravel().astype(np.float64)))
    total = values.sum()
    if total == 0:
        return 0.0
    ranks = 2 * np.arange(1, values.size + 1) - values.size - 1
    return float((ranks * values).sum() / (values.size * total))


def similarity(one: Map, other: Map) -> float:
    """Cosine of the angle between two maps, −1 to 1.

    1 where they are equal; else 0 where one of them is zero.
    """
    if np.array_equal(one, other):
        return 1.0
    a, b = (values.ravel().astype(np.float64) for values in (one, other))
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / scale if scale > 0 else 0.0


def rank_correlation(one: Map, other: Map) -> float:
    """Spearman's rank correlation of two maps, −1 to 1; ties get their mean rank.

    1 where they are equal; else 0 where one of them is constant.
    """
    if np.array_equal(one, other):
        return 1.0
    a, b = (_ranks(values.ravel()) for values in (one, other))
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / scale if scale > 0 else 0.0


def _ranks(values: NDArray[np.float32]) -> NDArray[np.float64]:
    _, inverse, sizes = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    return np.asarray(last - (sizes - 1) / 2)[inverse]


def max_sensitivity(original: Map, perturbed: Sequence[Map]) -> float:
    """``max ‖Φ(x + δ) − Φ(x)‖ / ‖Φ(x)‖`` over perturbations δ (Yeh et al. 2019).

    0 or more; lower is more stable. For an `original` of zeros: 0 if all perturbed maps are zero,
    else infinity.
    """
    scale = float(np.linalg.norm(original.astype(np.float64)))
    changes = [float(np.linalg.norm(other.astype(np.float64) - original)) for other in perturbed]
    if scale > 0:
        return max(changes) / scale
    return float("inf") if max(changes) > 0 else 0.0


def adcc(
    relevance: Map, explain: Callable[[Map], Map], drop: Callable[[Map], float]
) -> tuple[float, float, float, float]:
    """ADCC and its parts, all 0 to 1 (Poppi et al. 2021).

    Args:
        relevance: (H, W); it is scaled to 0..1 by its minimum and maximum.
        explain: scaled map → the map of the picture that is multiplied by it.
        drop: scaled map → share of the target's probability that is lost when the picture is
            multiplied by it, 0 to 1.

    Returns:
        (ADCC, average drop, coherency, complexity). ADCC is the harmonic mean of ``1 − drop``,
        coherency and ``1 − complexity``; coherency is Pearson's correlation of both maps, moved
        from −1..1 to 0..1; complexity is the mean of the scaled map.
    """
    scaled = unit(relevance)
    other = unit(explain(scaled))
    average_drop, complexity = drop(scaled), float(scaled.mean())
    a, b = (values.ravel().astype(np.float64) - values.mean() for values in (scaled, other))
    spread = float(np.linalg.norm(a) * np.linalg.norm(b))
    coherency = (float(a @ b) / spread + 1) / 2 if spread > 0 else 0.0
    parts = (1 - average_drop, coherency, 1 - complexity)
    score = 3 / sum(1 / part for part in parts) if min(parts) > 0 else 0.0
    return score, average_drop, coherency, complexity


def unit(relevance: Map) -> Map:
    """The map scaled linearly to 0..1, float32; all 0 for a constant map."""
    low, high = float(relevance.min()), float(relevance.max())
    if high > low:
        return ((relevance - low) / (high - low)).astype(np.float32)
    return np.zeros(relevance.shape, np.float32)
