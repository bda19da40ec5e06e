"""The matrices of a Resize: what every new row or column takes of the old ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Coordinates = Callable[[Floats, int, int, np.float32], Floats]
"""New positions, the old and the new size, and the scale → positions between the old ones."""


def _half_pixel(x: Floats, old: int, new: int, scale: np.float32) -> Floats:
    return (x + np.float32(0.5)) / scale - np.float32(0.5)


def _symmetric(x: Floats, old: int, new: int, scale: np.float32) -> Floats:
    """As half_pixel, about the same centre where the size was rounded."""
    offset = np.float32(old / 2) * (1 - np.float32(new) / (scale * np.float32(old)))
    return np.asarray(offset + _half_pixel(x, old, new, scale), np.float32)


COORDINATES: dict[str, Coordinates] = {
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _symmetric,
    "pytorch_half_pixel": lambda x, old, new, scale: (
        _half_pixel(x, old, new, scale) if new > 1 else x * 0
    ),
    "align_corners": lambda x, old, new, scale: (
        x * np.float32(old - 1) / np.float32(new - 1) if new > 1 else x * 0
    ),
    "asymmetric": lambda x, old, new, scale: x / scale,
}
"""``coordinate_transformation_mode`` → its formula, in float32 as ONNX Runtime computes it: where
two old positions are equally near, rounding decides between them.
"""
NEAREST: dict[str, Callable[[Floats], Floats]] = {
    "round_prefer_floor": lambda x: np.ceil(x - np.float32(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + np.float32(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}
"""``nearest_mode`` → how positions are rounded."""
MODES = ("nearest", "linear", "cubic")


@dataclass(frozen=True, slots=True)
class Interpolation:
    """The attributes of a Resize by their values."""

    mode: str
    coordinates: str
    nearest: str
    cubic: float
    """The coefficient a of cubic interpolation."""
    inside: bool
    """Whether positions outside the picture have no weight (`exclude_outside`)."""


def interpolation(old: int, new: int, scale: float, options: Interpolation) -> NDArray[np.float64]:
    """(new, old): what every new position takes of every old one; rows sum to 1."""
    places = np.arange(new, dtype=np.float32)
    x = COORDINATES[options.coordinates](places, old, new, np.float32(scale))
    if options.mode == "nearest":
        first, weights = NEAREST[options.nearest](x).astype(np.int64), np.ones((new, 1))
    else:
        floor = np.floor(x)
        fraction = (x - floor).astype(np.float64)[:, None]
        if options.mode == "linear":
            first, weights = floor.astype(np.int64), np.hstack([1 - fraction, fraction])
        else:
            first, weights = floor.astype(np.int64) - 1, _cubic(fraction, options.cubic)
    taken = first[:, None] + np.arange(weights.shape[1])
    if options.inside and options.mode == "cubic":
        weights = np.where((taken >= 0) & (taken < old), weights, 0.0)
        weights = weights / weights.sum(1, keepdims=True)
    matrix = np.zeros((new, old))
    np.add.at(matrix, (np.arange(new)[:, None], np.clip(taken, 0, old - 1)), weights)
    return matrix


def _cubic(fraction: NDArray[np.float64], a: float) -> NDArray[np.float64]:
    """(new, 4): the weights of the four nearest positions (Keys 1981)."""
    t = np.abs(fraction - np.array([-1.0, 0.0, 1.0, 2.0]))
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.asarray(np.where(t <= 1, near, far))
