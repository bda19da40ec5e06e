"""The colour bar: what the colours of maps mean, in words and values."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from lrp_onnx.report.colors import Scale
from lrp_onnx.report.render import STYLE, RenderStyle, colorize, lengthened, overlay
from lrp_onnx.report.text import INK, WHITE, Line, drawable, text_block, width_of, write
from lrp_onnx.runtime.images import Picture

MIDDLE = 119
"""The grey of a photo that is under the colours of a bar: of CIE lightness 50."""

BAR = 24
"""Width of a colour bar, in sizes of letters."""


def color_bar(
    scheme: str,
    width: int,
    size: int,
    *,
    ends: tuple[str, str],
    ticks: Sequence[str],
    style: RenderStyle = STYLE,
    over: bool = True,
) -> Picture:
    """A bar of a scheme's colours with words above its ends and values below it.

    Args:
        scheme: ``diverging`` or ``sequential``.
        width: in pixels.
        size: of the letters in pixels.
        ends: what the left and the right end mean.
        ticks: values from the left end to the right, evenly spaced; at least two.
        style: opacity and ground of the maps.
        over: whether the maps are drawn over the photo; then the bar lies over a middle grey.

    Returns:
        (h, width, 3) uint8 RGB, on white.
    """
    left, right = size, width - size
    ramp = np.linspace(-1 if scheme == "diverging" else 0, 1, right - left)[None]
    height = round(1.3 * size)
    whole = Scale(scheme, 1.0)
    if over:
        grey = np.full((height, right - left, 3), MIDDLE, np.uint8)
        bar = overlay(grey, ramp, style, scale=whole)
    else:
        bar = colorize(ramp, style, shape=(height, right - left), scale=whole)
    values = np.full((2 * size, width, 3), WHITE, np.uint8)
    for place, tick in zip(np.linspace(left, right - 1, len(ticks)), ticks, strict=True):
        x, text = round(float(place)), drawable(tick)
        cv2.line(values, (x, 0), (x, size // 3), INK, max(1, size // 12))
        free = width - width_of(text, size)
        write(
            values,
            text,
            (min(max(0, x - (width - free) // 2), max(0, free)), round(1.5 * size)),
            size,
        )
    edges = ((0, 0), (left, width - right), (0, 0))
    return np.vstack([_ends(ends, width, size), np.pad(bar, edges, constant_values=255), values])


def beside(bar: Picture, words: Sequence[Line], width: int, size: int) -> Picture:
    """A colour bar and words, side by side where the words have as much room as the bar, else one
    below the other.

    Args:
        bar: at most `width` wide.
        words: what they say.
        width: of the whole in pixels.
        size: of the letters in pixels.

    Returns:
        (h, width, 3) uint8 RGB, on white.
    """
    gap = 2 * size
    room = width - bar.shape[1] - gap
    if room < BAR * size:
        sides = ((0, 0), (0, width - bar.shape[1]), (0, 0))
        return np.vstack([np.pad(bar, sides, constant_values=255), text_block(words, width, size)])
    text = text_block(words, room, size)
    height = max(bar.shape[0], text.shape[0])
    between = np.full((height, gap, 3), WHITE, np.uint8)
    return np.hstack([lengthened(bar, height), between, lengthened(text, height)])


def _ends(ends: tuple[str, str], width: int, size: int) -> Picture:
    """Two texts, one at the left and one at the right."""
    half = width // 2 - size // 2
    sides = [
        text_block([Line(text, most=2)], half, size, align=align)
        for text, align in zip(ends, ("left", "right"), strict=True)
    ]
    height = max(side.shape[0] for side in sides)
    between = np.full((height, width - 2 * half, 3), WHITE, np.uint8)
    left, right = (lengthened(side, height) for side in sides)
    return np.hstack([left, between, right])
