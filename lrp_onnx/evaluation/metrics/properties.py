"""What maps are like, whatever they are of: how sparse, how stable, how alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.maps.resample import Map


def sparseness(relevance: Map) -> float:
    """Gini index of |R|, 0 (even) to 1 (one pixel); 0 where all is zero (Chalasani et al. 2020).

    ``Σ (2i − n − 1)·|R|₍ᵢ₎ / (n·Σ|R|)``, sorted.
    """
    values = np.sort(np.abs(relevance.ravel().astype(np.float64)))
    total = values.sum()
    if total == 0:
        return 0.0
    ranks = 2 * np.arange(1, values.size + 1) - values.size - 1
    return float((ranks * values).sum() / (values.size * total))


def similarity(one: Map, other: Map) -> float:
    """Cosine of the angle between two maps, −1 to 1; 1 where they are the same, 0 where one of them
    is zero.
    """
    if np.array_equal(one, other):
        return 1.0
    a, b = (values.ravel().astype(np.float64) for values in (one, other))
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / scale if scale > 0 else 0.0


def rank_correlation(one: Map, other: Map) -> float:
    """Spearman's correlation of two maps; ties get their mean rank. 1 where they are the same, 0
    where one of them is constant.
    """
    if np.array_equal(one, other):
        return 1.0
    a, b = (_ranks(values.ravel()) for values in (one, other))
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / scale if scale > 0 else 0.0


def _ranks(values: NDArray[np.float32]) -> NDArray[np.float64]:
    _, inverse, many = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(many)
    return np.asarray(last - (many - 1) / 2)[inverse]


def max_sensitivity(original: Map, perturbed: Sequence[Map]) -> float:
    """``max ‖Φ(x + δ) − Φ(x)‖ / ‖Φ(x)‖`` over perturbations δ (Yeh et al. 2019); lower is more
    stable. A map of zeros that stays one has 0.
    """
    scale = float(np.linalg.norm(original.astype(np.float64)))
    changes = [float(np.linalg.norm(other.astype(np.float64) - original)) for other in perturbed]
    return max(changes) / scale if scale > 0 else (float("inf") if max(changes) > 0 else 0.0)


def adcc(
    relevance: Map, explain: Callable[[Map], Map], drop: Callable[[Map], float]
) -> tuple[float, float, float, float]:
    """ADCC and its parts, all 0 to 1 (Poppi et al. 2021).

    Args:
        relevance: the map; it is scaled to 0..1 by its extremes.
        explain: scaled map → the map of the picture multiplied by it.
        drop: scaled map → share of the target's probability that the picture multiplied by it
            loses, 0 to 1.

    Returns:
        (ADCC, average drop, coherency, complexity): the harmonic mean of ``1 − drop``, coherency
        (Pearson's correlation of both maps, from −1..1 to 0..1) and ``1 − complexity`` (mean of the
        scaled map).
    """
    scaled = unit(relevance)
    again = unit(explain(scaled))
    lost, complexity = drop(scaled), float(scaled.mean())
    a, b = (values.ravel().astype(np.float64) - values.mean() for values in (scaled, again))
    spread = float(np.linalg.norm(a) * np.linalg.norm(b))
    coherency = (float(a @ b) / spread + 1) / 2 if spread > 0 else 0.0
    parts = (1 - lost, coherency, 1 - complexity)
    score = 3 / sum(1 / part for part in parts) if min(parts) > 0 else 0.0
    return score, lost, coherency, complexity


def unit(relevance: Map) -> Map:
    """A map from its lowest value as 0 to its highest as 1; a constant one is all 0."""
    low, high = float(relevance.min()), float(relevance.max())
    return ((relevance - low) / (high - low) if high > low else np.zeros_like(relevance)).astype(np.float32)
