"""Plots of curves: where points lie, and that curves differ without their colours."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lrp_onnx.report.curves import INKS, LEFT, MARKERS, SIZE, draw_curves

FLAT = np.array([[0.5, 0.5, 0.5], [0.25, 0.25, 0.25]])


def ink_at(picture: np.ndarray, number: int = 0) -> np.ndarray:
    """(N, 2): x and y of the pixels that have the colour of a curve."""
    y, x = np.nonzero((picture == INKS[number]).all(axis=2))
    return np.stack([x, y], 1)


def test_points_lie_where_their_values_are() -> None:
    picture = draw_curves({"one": FLAT}, "exact", size=200)
    points = ink_at(picture)
    points = points[points[:, 1] < picture.shape[0] - 2 * SIZE]  # without the legend
    half = picture.shape[1] // 2
    insertion, deletion = points[points[:, 0] < half], points[points[:, 0] >= half]
    assert np.abs(insertion[:, 0].min() - LEFT) <= 5 and insertion[:, 0].max() >= LEFT + 200
    heights = np.median(insertion[:, 1]), np.median(deletion[:, 1])
    assert np.abs(heights[1] - heights[0] - 100).max() <= 1  # the axis ends at 0.5
    late = ink_at(draw_curves({"one": FLAT}, "keio", from_zero=False, size=200))
    above = late[(late[:, 1] < picture.shape[0] - 2 * SIZE) & (late[:, 0] < half)]
    assert np.abs(above[:, 0].min() - (LEFT + 200 / 3)) <= 5


@pytest.mark.parametrize("count", [0, 1, 7, 16, 40])
def test_any_number_of_curves(count: int) -> None:
    rng = np.random.default_rng(0)
    curves = {f"method {i} 猫 {'x' * 5 * i}": rng.random((2, 25)) for i in range(count)}
    picture = draw_curves(curves, "exact")
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    for number in range(min(count, len(INKS))):
        assert len(ink_at(picture, number)) > 20
    assert (picture[:, [0, -1]] == 255).all() and (picture[[0, -1]] == 255).all()


def test_values_above_one_are_not_cut() -> None:
    picture = draw_curves({"one": FLAT * 8}, "exact", size=200)
    assert ink_at(picture)[:, 1].min() > SIZE


def test_every_curve_is_told_by_colour_and_form() -> None:
    ways = {(i % len(INKS), i % len(MARKERS)) for i in range(len(INKS) * len(MARKERS))}
    assert len(ways) == 35
    for one, other in itertools.combinations(INKS, 2):
        assert np.abs(np.subtract(one, other)).max() > 50
