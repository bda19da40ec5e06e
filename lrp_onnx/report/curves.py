"""Plots of insertion and deletion curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from lrp_onnx.report.render import lengthened
from lrp_onnx.report.text import (
    INK,
    WHITE,
    Line,
    Picture,
    drawable,
    shortened,
    text_block,
    width_of,
    write,
)

SIZE = 15
"""Of the letters in pixels."""
LEFT, RIGHT = 62, 22
"""Pixels beside a plot, at the left with the values of its axis."""
GRID = (225, 225, 225)
INKS = (
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (0, 0, 0),
    (230, 159, 0),
    (86, 180, 233),
)
"""RGB: the colours of Okabe and Ito, "Color Universal Design" (2008), without their yellow, which
is too pale on white.
"""
MARKERS: tuple[Sequence[tuple[float, float]], ...] = (
    [(np.cos(a), np.sin(a)) for a in np.linspace(0, 2 * np.pi, 16)],
    [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    [(0, -1.2), (1.1, 0.8), (-1.1, 0.8)],
    [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
    [(0, 1.2), (1.1, -0.8), (-1.1, -0.8)],
)
"""Corners of a mark on a curve, in radii: disc, square, triangle, diamond, triangle on its tip.
Seven colours and five marks make 35 curves that differ.
"""
TOPS = (0.1, 0.2, 0.5, 1.0)
"""Probabilities at which the vertical axis may end."""
MARKED = 12
"""The most marks on a curve."""


def draw_curves(
    curves: Mapping[str, NDArray[np.float64]],
    title: str,
    *,
    from_zero: bool = True,
    size: int = 360,
) -> Picture:
    """Plot insertion and deletion curves side by side: probability over the share of pixels.

    Args:
        curves: name of a method → (2, K), its insertion and deletion curve. Curves differ in colour
            and in the form of their marks.
        title: the protocol's name.
        from_zero: whether the curves start before the first step.
        size: side of each plot in pixels.

    Returns:
        (H, W, 3) uint8 RGB, with a legend below.
    """
    highest = max((float(curve.max()) for curve in curves.values()), default=1.0)
    top = next((top for top in TOPS if highest <= top), highest)
    plots = []
    for index, (verb, better) in enumerate((("inserted", "higher"), ("deleted", "lower"))):
        name = ("insertion", "deletion")[index]
        head = Line(f"{title}: {name} ({better} is better)", bold=True, most=2)
        plot = _axes(top, size)
        for number, curve in enumerate(curves.values()):
            _draw(plot, _points(curve[index] / top, size, from_zero=from_zero), number)
        foot = Line(f"pixels {verb}, the most relevant first (%)")
        width = plot.shape[1]
        plots.append(
            np.vstack(
                [
                    text_block([head, Line("probability of the class")], width, SIZE, margin=8),
                    plot,
                    text_block([foot], width, SIZE, align="centre", margin=RIGHT),
                ]
            )
        )
    height = max(plot.shape[0] for plot in plots)
    both = np.hstack([lengthened(plot, height) for plot in plots])
    return np.vstack([both, _legend(list(curves), both.shape[1])])


def _axes(top: float, size: int) -> Picture:
    """An empty plot with its grid, and values at every line of it."""
    picture = np.full((size + 3 * SIZE, LEFT + size + RIGHT, 3), WHITE, np.uint8)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = LEFT + round(size * share), SIZE + round(size * (1 - share))
        cv2.line(picture, (x, SIZE), (x, SIZE + size), GRID, 1)
        cv2.line(picture, (LEFT, y), (LEFT + size, y), GRID, 1)
        value, percent = f"{top * share:.3g}", f"{100 * share:.0f}"
        write(picture, value, (LEFT - 8 - width_of(value, SIZE), y + SIZE // 3), SIZE)
        write(picture, percent, (x - width_of(percent, SIZE) // 2, size + round(2.4 * SIZE)), SIZE)
    cv2.line(picture, (LEFT, SIZE), (LEFT, SIZE + size), INK, 1)
    cv2.line(picture, (LEFT, SIZE + size), (LEFT + size, SIZE + size), INK, 1)
    return picture


def _points(heights: NDArray[np.float64], size: int, *, from_zero: bool) -> NDArray[np.float64]:
    """(K, 2): where a curve's values, as shares of the axis, lie in the plot."""
    first = 0 if from_zero else 1
    xs = LEFT + np.linspace(first / len(heights), 1, len(heights)) * size
    return np.stack([xs, SIZE + size * (1 - heights)], 1)


def _draw(picture: Picture, points: NDArray[np.float64], number: int) -> None:
    """Draw a curve with its marks; the marks of several curves do not start at one point."""
    ink = INKS[number % len(INKS)]
    cv2.polylines(picture, [_fixed(points)], False, ink, 2, cv2.LINE_AA, 4)
    step = -(-len(points) // MARKED)
    for point in points[number % step :: step]:
        _mark(picture, point, number)


def _mark(picture: Picture, point: NDArray[np.float64], number: int) -> None:
    corners = _fixed(point + 4.5 * np.asarray(MARKERS[number % len(MARKERS)]))
    cv2.fillPoly(picture, [corners], INKS[number % len(INKS)], cv2.LINE_AA, 4)
    cv2.polylines(picture, [corners], True, WHITE, 1, cv2.LINE_AA, 4)


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """Points in sixteenths of a pixel, as OpenCV takes them."""
    return np.asarray(np.round(points * 16).astype(np.int32).reshape(-1, 1, 2))


def _legend(names: Sequence[str], width: int) -> Picture:
    """The curves' names, in two columns."""
    rows = -(-len(names) // 2)
    line = round(1.6 * SIZE)
    picture = np.full((rows * line + SIZE, width, 3), WHITE, np.uint8)
    for number, name in enumerate(names):
        x, y = 8 + width // 2 * (number // rows), line * (number % rows) + SIZE
        ends = np.asarray([(x, y), (x + 36, y)], np.float64)
        cv2.polylines(picture, [_fixed(ends)], False, INKS[number % len(INKS)], 2, cv2.LINE_AA, 4)
        _mark(picture, ends.mean(0), number)
        text = shortened(drawable(name), width // 2 - 60, SIZE)
        write(picture, text, (x + 46, y + SIZE // 3), SIZE)
    return picture
