"""Plots of insertion and deletion curves."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray


def draw_curves(
    curves: Mapping[str, NDArray[np.float64]],
    title: str,
    *,
    from_zero: bool = True,
    size: int = 360,
) -> NDArray[np.uint8]:
    """Plot insertion and deletion curves side by side: probability over the share of pixels.

    Args:
        curves: name of a method → (2, K), its insertion and deletion curve.
        title: the protocol's name.
        from_zero: whether the curves start before the first step.
        size: side of each plot in pixels.

    Returns:
        (H, W, 3) uint8 RGB, with a legend below.
    """
    first = 0 if from_zero else 1
    margin, legend = 46, 22 * (1 + len(curves)) + 10
    picture = np.full((size + 2 * margin + legend, 2 * (size + 2 * margin), 3), 255, np.uint8)
    for index, name in enumerate(("insertion", "deletion")):
        left, top = margin + index * (size + 2 * margin), margin
        cv2.rectangle(picture, (left, top), (left + size, top + size), (160, 160, 160), 1)
        _write(picture, f"{title}: {name}", (left, top - 14))
        for height in (0.0, 0.5, 1.0):
            _write(picture, f"{height:.1f}", (left - 34, top + round(size * (1 - height)) + 5))
        _write(picture, "0 %", (left, top + size + 20))
        _write(picture, "100 %", (left + size - 40, top + size + 20))
        for ink, curve in zip(_inks(len(curves)), curves.values(), strict=True):
            xs = left + np.linspace(first / curve.shape[1], 1, curve.shape[1]) * size
            ys = top + size * (1 - curve[index])
            points = np.round(np.stack([xs, ys], 1) * 16).astype(np.int32).reshape(-1, 1, 2)
            cv2.polylines(picture, [points], False, ink, 2, cv2.LINE_AA, 4)
    for row, (ink, name) in enumerate(zip(_inks(len(curves)), curves, strict=True)):
        y = size + 2 * margin + 22 * row
        cv2.line(picture, (margin, y), (margin + 26, y), ink, 3, cv2.LINE_AA)
        _write(picture, name, (margin + 36, y + 5))
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def _inks(count: int) -> list[tuple[int, int, int]]:
    """BGR colours of different hues; neighbours differ in brightness too."""
    hues = [180 * index // max(count, 1) for index in range(count)]
    hsv = [(hue, 230, 220 if index % 2 else 140) for index, hue in enumerate(hues)]
    bgr = cv2.cvtColor(np.asarray(hsv, np.uint8).reshape(1, -1, 3), cv2.COLOR_HSV2BGR)[0]
    return [(int(b), int(g), int(r)) for b, g, r in bgr]


def _write(picture: NDArray[np.uint8], text: str, place: tuple[int, int]) -> None:
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
