"""Two colour maps, their application to relevance, and the ground that they are drawn on.

Relevance for the class goes from near black over orange to pale yellow, relevance against it from
near black over blue to pale blue. ``diverging`` has both sides, ``sequential`` is the first alone:
a colour means the same in both. The maps are piecewise linear in sRGB between control points that
are evenly spaced in CIE lightness L*, so that equal steps in relevance look equal. Orange and blue
stay apart for people with protanopia, deuteranopia or tritanopia, and strong relevance is lighter
than any `ground`, so that it can be told without colours at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrp_onnx.maps.resample import as_map

ColorTable = NDArray[np.uint8]
"""(levels, 3) uint8, RGB."""

ENTRIES = 255
"""Colours in a table. The number is odd, so that zero has its own entry in the middle."""
SIGNED_FROM = 0.01
"""A map counts as signed if its minimum is below minus this share of its largest magnitude.

Rounding and stabilizers leave a little negative relevance in maps that are positive by their rule.
"""
GROUND = (6.0, 52.0)
"""CIE lightness L* of black and of white in a dimmed photo."""

_ZERO = (22, 21, 22)
_FOR = (
    (69, 31, 13),
    (112, 42, 1),
    (147, 61, 0),
    (180, 84, 0),
    (207, 112, 0),
    (233, 142, 0),
    (247, 177, 48),
    (250, 214, 138),
)
_AGAINST = (
    (23, 42, 73),
    (6, 64, 121),
    (0, 88, 163),
    (0, 113, 201),
    (0, 141, 235),
    (47, 170, 255),
    (122, 197, 255),
    (179, 224, 255),
)


def _table(points: Sequence[tuple[int, int, int]]) -> ColorTable:
    """Return (ENTRIES, 3) uint8: the control points, evenly spaced and interpolated linearly."""
    positions = np.linspace(0, len(points) - 1, ENTRIES)
    places = np.arange(len(points))
    channels = [np.interp(positions, places, channel) for channel in zip(*points, strict=True)]
    table: ColorTable = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    table.flags.writeable = False
    return table


TABLES: MappingProxyType[str, ColorTable] = MappingProxyType(
    {
        "diverging": _table((*reversed(_AGAINST), _ZERO, *_FOR)),
        "sequential": _table((_ZERO, *_FOR)),
    }
)
"""Name → (255, 3) uint8 RGB. ``diverging`` spans -1..1, ``sequential`` 0..1."""


def color_scheme(relevance: ArrayLike) -> str:
    """Return ``diverging`` for a signed (H, W) map, ``sequential`` for a positive one (see
    `SIGNED_FROM`).
    """
    values = as_map(relevance)
    lowest = float(values.min())
    return "diverging" if lowest < -SIGNED_FROM * float(np.abs(values).max()) else "sequential"


@dataclass(frozen=True, slots=True)
class Scale:
    """Which relevance has which colour, in one map or in several that are compared."""

    scheme: str
    """A key of `TABLES`."""
    full: float
    """The relevance that has the full colour; 0 if there is nothing but zeros to show."""

    @classmethod
    def of(
        cls, maps: Sequence[ArrayLike], *, colors: str = "auto", percentile: float = 100.0
    ) -> Scale:
        """The scale that some maps share.

        Args:
            maps: at least one (H, W), finite; their sizes may differ.
            colors: a key of `TABLES`, or ``auto``: ``diverging`` if one of the maps is signed.
            percentile: above 0, up to 100: the percentile of all their magnitudes that has the full
                colour; larger values are clipped. Of ``sequential`` maps only positive values
                count. Where the percentile is zero, as in maps of mostly zeros, it is the maximum.

        Raises:
            ValueError: not a finite map.
        """
        values = [as_map(relevance) for relevance in maps]
        if colors == "auto":
            signed = any(color_scheme(relevance) == "diverging" for relevance in values)
            colors = "diverging" if signed else "sequential"
        together = np.concatenate([relevance.ravel() for relevance in values]).astype(np.float64)
        magnitude = np.abs(together) if colors == "diverging" else together.clip(0, None)
        return cls(colors, float(np.percentile(magnitude, percentile)) or float(magnitude.max()))

    def __call__(self, relevance: ArrayLike) -> NDArray[np.float32]:
        """The (H, W) map as shares of the full colour: -1..1, or 0..1 of ``sequential``; float32.
        Zero stays zero.
        """
        values = as_map(relevance).astype(np.float64)
        if self.full == 0:
            return np.zeros(values.shape, np.float32)
        lowest = -1 if self.scheme == "diverging" else 0
        return (values / self.full).clip(lowest, 1).astype(np.float32)


def scale_for(
    relevance: ArrayLike, scheme: str, *, percentile: float = 100.0
) -> NDArray[np.float32]:
    """Return the (H, W) map scaled for a scheme: -1..1 for ``diverging``, 0..1 for ``sequential``.

    Zero stays zero. `percentile` is that of `Scale.of`.
    """
    return Scale.of([relevance], colors=scheme, percentile=percentile)(relevance)


def paint(scaled: NDArray[np.float32], scheme: str) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8 RGB: the colours of a map that was scaled for this scheme."""
    position = (scaled + 1) / 2 if scheme == "diverging" else scaled
    return np.take(TABLES[scheme], np.rint(position * (ENTRIES - 1)).astype(np.int64), axis=0)


def ground(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the (H, W, 3) uint8 RGB picture in dark greys (see `GROUND`).

    No colour of the photo can be taken for relevance, and its lights are darker than strong
    relevance.
    """
    pixels = picture.astype(np.float32) / 255
    lightness = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)[..., :1]
    dark = np.zeros(picture.shape, np.float32)
    dark[..., :1] = GROUND[0] + (GROUND[1] - GROUND[0]) * lightness / 100
    return np.asarray(np.rint(cv2.cvtColor(dark, cv2.COLOR_LAB2RGB) * 255), np.uint8)
