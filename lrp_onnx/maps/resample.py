"""Resampling of maps: every method is one matrix per axis, ``rows @ map @ columns.T`` of pictures.

All methods use half-pixel centres (output pixel ``i`` of ``n`` covers the input
``[i, i + 1) * length / n``) and rows that sum to 1, so a constant map stays the same constant.
Arithmetic is float64, results are float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrp_onnx.maps.options import check_choice

Map = NDArray[np.float32]
"""float32: relevance of every pixel (H, W), of every sample of a signal (L,), or of every voxel of
a volume (D, H, W).
"""
MOST_AXES = 3
Mask = NDArray[np.bool_]
"""(H, W) bool."""
Matrix = NDArray[np.float64]
"""(target, source) float64: one output pixel's weights per row."""

GAUSSIAN_REACH = 4.0
"""Where the anti-aliasing Gaussian is cut off, in standard deviations: as in scipy.ndimage."""


def as_map(relevance: ArrayLike) -> Map:
    """Return `relevance` as an (H, W), (L,) or (D, H, W) float32 array; not a copy where it is one
    already.

    Raises:
        ValueError: it has not one to three axes, has no pixels, is not real-valued, or is not
            finite in float32.
    """
    values = np.asarray(relevance)
    if not 1 <= values.ndim <= MOST_AXES or values.size == 0:
        raise ValueError(
            f"a map is a non-empty array (H, W), (L,) or (D, H, W); got the shape {values.shape}"
        )
    if values.dtype.kind not in "fiub":
        raise ValueError(f"a map holds real numbers; this one has dtype {values.dtype}")
    with np.errstate(over="ignore"):
        narrowed = values.astype(np.float32, copy=False)
    bad = int(np.count_nonzero(~np.isfinite(narrowed)))
    if bad:
        raise ValueError(
            f"a map must be finite in float32; {bad} of {values.size} values are NaN or infinite"
        )
    return narrowed


def resample(relevance: ArrayLike, shape: tuple[int, ...], *, method: str = "area") -> Map:
    """Return a map resampled to another shape.

    Args:
        relevance: (H, W), or with one or three axes; finite.
        shape: (h, w) of the result, as many sizes as the map has axes, each at least 1.
        method: a key of `METHODS`.

    Returns:
        (h, w) float32, a new array; every value lies within the input's range.

    Raises:
        ValueError: `relevance` is not a map (see `as_map`), the shape is not positive, or the
            method is unknown.
    """
    values = as_map(relevance)
    if len(shape) != values.ndim or min(shape) < 1:
        raise ValueError(f"a map's shape is {values.ndim} positive numbers; got {shape}")
    check_choice("method", method, tuple(METHODS))
    matrices = [_cached(method, new, old) for new, old in zip(shape, values.shape, strict=True)]
    # The product is in float64: rounding it to float32 removes its rounding errors.
    if values.ndim == 1:
        return (matrices[0] @ values).astype(np.float32)
    *first, rows, columns = matrices
    resampled = rows @ values @ columns.T
    for matrix in first:
        resampled = np.tensordot(matrix, resampled, 1)
    return resampled.astype(np.float32)


def area(target: int, source: int) -> Matrix:
    """The mean over the output pixel's area: each input pixel has its overlap as its weight.

    It is exact: overlaps are integers, in units of 1/target of an input pixel.
    """
    start = np.arange(target)[:, None] * source
    pixel = np.arange(source)[None, :] * target
    overlap = np.minimum(start + source, pixel + target) - np.maximum(start, pixel)
    return overlap.clip(0) / source


def antialiased(target: int, source: int) -> Matrix:
    """Blur with a Gaussian, then interpolate linearly, as scikit-image's anti-aliased resize of
    order 1 does.

    ``sigma = max(0, (source / target - 1) / 2)``. Beyond the border the map is mirrored at the
    centre of its last pixel.
    """
    sigma = max(0.0, (source / target - 1) / 2)
    reach = int(GAUSSIAN_REACH * sigma + 0.5)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2) if reach else np.ones(1)
    blur = np.zeros((source, source))
    centre = np.arange(source)[:, None]
    np.add.at(blur, (centre, _mirror(centre + offsets, source)), weights / weights.sum())
    position = _centres(target, source)
    lower = np.floor(position).astype(np.int64)
    fraction = position - lower
    matrix = np.zeros((target, source))
    out = np.arange(target)
    np.add.at(matrix, (out, _mirror(lower, source)), 1 - fraction)
    np.add.at(matrix, (out, _mirror(lower + 1, source)), fraction)
    return np.asarray(matrix @ blur)


def nearest(target: int, source: int) -> Matrix:
    """Take the input pixel that holds the output pixel's centre; a centre on a border takes the
    later pixel.
    """
    matrix = np.zeros((target, source))
    out = np.arange(target)
    matrix[out, (2 * out + 1) * source // (2 * target)] = 1
    return matrix


def bilinear(target: int, source: int) -> Matrix:
    """Interpolate linearly between the two nearest centres, without anti-aliasing.

    Beyond the border the map continues with its last value.
    """
    position = _centres(target, source).clip(0, source - 1)
    return (1 - np.abs(position[:, None] - np.arange(source)[None, :])).clip(0)


METHODS: MappingProxyType[str, Callable[[int, int], Matrix]] = MappingProxyType(
    {"area": area, "antialiased": antialiased, "nearest": nearest, "bilinear": bilinear}
)
"""Name of a method → function (target length, source length) → matrix."""


@lru_cache(maxsize=16)
def _cached(method: str, target: int, source: int) -> Matrix:
    """Return the method's matrix, read-only and cached: a data set has few picture sizes."""
    matrix = METHODS[method](target, source)
    matrix.flags.writeable = False
    return matrix


def _centres(target: int, source: int) -> Matrix:
    """Return (target,) float64: the centres of the output pixels.

    0 is the centre of the first input pixel.
    """
    return (np.arange(target, dtype=np.float64) + 0.5) * (source / target) - 0.5


def _mirror(index: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Fold indices beyond the border back in: -1 → 1, length → length - 2."""
    period = max(1, 2 * (length - 1))
    folded = index % period
    return np.minimum(folded, period - folded) if length > 1 else np.zeros_like(folded)
