"""Functions on a heatmap before it is shown or scored: quantize, normalize, average."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from lrp_onnx.maps.options import check_choice, check_range, check_whole
from lrp_onnx.maps.resample import Map, as_map, resample

LEVELS = 8
"""Levels of heat quantization in the ECCV 2024 paper's code."""
COARSE = 28
"""Side of the grid of `average` in pixels: that of C3."""
NORMALIZATIONS = ("symmetric", "positive")


def quantize(relevance: ArrayLike, *, levels: int = LEVELS) -> Map:
    """Heat quantization: round every value down to one of `levels` values, evenly spaced from the
    minimum to the maximum.

    ``bins = linspace(min R, max R, levels)``, R → the largest bin ≤ R. Source: "Layer-wise
    Relevance Propagation with Conservation Property for ResNet", ECCV 2024 (levels = 8). Only
    pixels with the maximum reach the top bin. Quantized maps have many ties: score them with a
    metric that takes exactly n pixels per step.

    Args:
        relevance: (H, W), or with one or three axes; finite.
        levels: at least 2.

    Returns:
        a new array of its shape, float32, with the input's minimum and maximum. A constant map is
        not changed.

    Raises:
        ValueError: not a finite map, or fewer than two levels.
    """
    check_whole("levels", levels, least=2)
    values = as_map(relevance)
    # The bins have the map's precision, so that quantizing a map twice changes nothing.
    bins = np.linspace(float(values.min()), float(values.max()), levels).astype(np.float32)
    return np.asarray(bins[np.searchsorted(bins, values, side="right") - 1])


def normalize(relevance: ArrayLike, *, mode: str = "symmetric", percentile: float = 100.0) -> Map:
    """Scale a map for display; zero stays zero.

    ``symmetric``: R / max |R|, in -1..1.  ``positive``: max(R, 0) / max R, in 0..1.

    Args:
        relevance: (H, W), or with one or three axes; finite.
        mode: ``symmetric`` or ``positive``.
        percentile: above 0, up to 100. This percentile of |R|, or of max(R, 0), replaces the
            maximum, and larger values are clipped, so that a few high pixels do not make the rest
            pale. Where it is zero, as in a map of mostly zeros, the maximum is used.

    Returns:
        a new array of its shape, float32; all zeros where the maximum is zero.

    Raises:
        ValueError: not a finite map, an unknown mode, or a percentile out of range.
    """
    check_choice("mode", mode, NORMALIZATIONS)
    check_range("percentile", percentile, above=0, most=100)
    values = as_map(relevance).astype(np.float64)
    if mode == "positive":
        values = values.clip(0, None)
    magnitude = np.abs(values)
    scale = float(np.percentile(magnitude, percentile)) or float(magnitude.max())
    if scale == 0:
        return np.zeros(values.shape, dtype=np.float32)
    return (values / scale).clip(-1, 1).astype(np.float32)


def average(relevance: ArrayLike, *, size: int = COARSE, expansion: str = "nearest") -> Map:
    """Average a map over a grid of `size` cells along every axis, and expand it again.

    The result is C3's coarse map, expanded, without a mask.

    Args:
        relevance: (H, W), or with one or three axes; finite.
        size: cells along every axis, at least 1.
        expansion: ``nearest`` or ``bilinear``; also any other key of
            `lrp_onnx.maps.resample.METHODS`.

    Returns:
        a new array of its shape, float32.

    Raises:
        ValueError: not a finite map, a size below 1, or an unknown expansion.
    """
    check_whole("size", size, least=1)
    values = as_map(relevance)
    return resample(resample(values, (size,) * values.ndim), values.shape, method=expansion)
