"""Two colour maps, and their application to relevance.

Both are piecewise linear in sRGB between a few control points. The points are evenly spaced in CIE
lightness L*, so that equal steps in relevance look equal. ``diverging`` goes from white at zero to
red (for the class) and to blue (against it), equally dark on both sides. ``sequential`` goes from
near black over violet and orange to pale yellow.
"""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrp_onnx.maps.heatmap import normalize
from lrp_onnx.maps.resample import as_map

ColorTable = NDArray[np.uint8]
"""(levels, 3) uint8, RGB."""

ENTRIES = 255
"""Colours in a table. The number is odd, so that zero has its own entry in the middle."""
SIGNED_FROM = 0.01
"""A map counts as signed if its minimum is below minus this share of its largest magnitude.

Rounding and stabilizers leave a little negative relevance in maps that are positive by their rule.
"""

_BLUE_TO_RED = (
    (16, 76, 152),
    (32, 121, 196),
    (104, 172, 230),
    (183, 213, 240),
    (246, 246, 246),
    (248, 198, 187),
    (243, 136, 117),
    (212, 68, 56),
    (148, 34, 31),
)
_DARK_TO_LIGHT = (
    (17, 15, 32),
    (51, 35, 107),
    (136, 43, 144),
    (228, 51, 117),
    (254, 121, 89),
    (254, 189, 76),
    (254, 245, 174),
)


def _table(points: tuple[tuple[int, int, int], ...]) -> ColorTable:
    """Return (ENTRIES, 3) uint8: the control points, evenly spaced and interpolated linearly."""
    positions = np.linspace(0, len(points) - 1, ENTRIES)
    places = np.arange(len(points))
    channels = [np.interp(positions, places, channel) for channel in zip(*points, strict=True)]
    table: ColorTable = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    table.flags.writeable = False
    return table


TABLES: MappingProxyType[str, ColorTable] = MappingProxyType(
    {"diverging": _table(_BLUE_TO_RED), "sequential": _table(_DARK_TO_LIGHT)}
)
"""Name → (255, 3) uint8 RGB. ``diverging`` spans -1..1, ``sequential`` 0..1."""


def color_scheme(relevance: ArrayLike) -> str:
    """Return ``diverging`` for a signed (H, W) map, ``sequential`` for a positive one (see
    `SIGNED_FROM`).
    """
    values = as_map(relevance)
    lowest = float(values.min())
    return "diverging" if lowest < -SIGNED_FROM * float(np.abs(values).max()) else "sequential"


def scale_for(
    relevance: ArrayLike, scheme: str, *, percentile: float = 100.0
) -> NDArray[np.float32]:
    """Return the (H, W) map scaled for a scheme: -1..1 for ``diverging``, 0..1 for ``sequential``.

    Zero stays zero. `percentile` is that of `normalize`.
    """
    mode = {"diverging": "symmetric", "sequential": "positive"}[scheme]
    return normalize(relevance, mode=mode, percentile=percentile)


def paint(scaled: NDArray[np.float32], scheme: str) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8 RGB: the colours of a map that `scale_for` scaled for this scheme."""
    position = (scaled + 1) / 2 if scheme == "diverging" else scaled
    return np.take(TABLES[scheme], np.rint(position * (ENTRIES - 1)).astype(np.int64), axis=0)
