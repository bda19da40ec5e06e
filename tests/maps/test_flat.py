"""Signals and volumes as pictures: where every slice of a montage lies."""

from __future__ import annotations

from math import ceil

import numpy as np
import pytest

from lrp_onnx.maps.flat import Tiles, flat, montage


def numbered(depth: int, height: int, width: int) -> np.ndarray:
    """A volume whose values are all different and not zero."""
    return 1 + np.arange(depth * height * width, dtype=np.float32).reshape(depth, height, width)


def test_a_row_a_map_and_a_montage() -> None:
    row, picture = np.arange(5, dtype=np.float32), np.ones((3, 4), np.float32)
    np.testing.assert_array_equal(flat(row), [[0, 1, 2, 3, 4]])
    assert flat(picture) is picture
    volume = numbered(3, 4, 5)
    np.testing.assert_array_equal(flat(volume), montage(volume))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 10, 10), Tiles(1, 1, 1, 1)),
        ((5, 4, 6), Tiles(1, 3, 2, 1)),  # √(5 · 1.6 · 4 / 6) = 2.3 columns
        ((36, 100, 100), Tiles(1, 5, 8, 3)),  # √(36 · 1.6) = 7.6
        ((37, 100, 100), Tiles(2, 4, 6, 3)),  # 19 slices, √(19 · 1.6) = 5.5
        ((4, 200, 90), Tiles(1, 1, 4, 3)),  # √(4 · 1.6 · 200 / 90) = 3.8; gaps of 2.7 pixels
        ((3, 50, 1000), Tiles(1, 3, 1, 2)),  # √(3 · 1.6 · 50 / 1000) = 0.5: one column at least
        ((2, 1000, 10), Tiles(1, 1, 2, 1)),  # as many columns as slices at most
    ],
)
def test_tiles_by_hand(shape: tuple[int, int, int], expected: Tiles) -> None:
    assert Tiles.of(*shape) == expected


@pytest.mark.parametrize("shape", [(5, 4, 6), (36, 4, 7), (75, 40, 34), (1, 3, 3)])
def test_every_slice_lies_in_its_place(shape: tuple[int, int, int]) -> None:
    """Row by row from the first, every `step`-th, with gaps between, and none around."""
    volume = numbered(*shape)
    depth, height, width = shape
    tiles = Tiles.of(*shape)
    down, right = height + tiles.gap, width + tiles.gap
    expected = np.full(
        (tiles.rows * down - tiles.gap, tiles.columns * right - tiles.gap), -7, np.float32
    )
    for place, number in enumerate(range(0, depth, tiles.step)):
        top, left = place // tiles.columns * down, place % tiles.columns * right
        expected[top : top + height, left : left + width] = volume[number]
    assert (tiles.rows - 1) * tiles.columns < ceil(depth / tiles.step) <= tiles.rows * tiles.columns
    np.testing.assert_array_equal(montage(volume, between=-7), expected)
    np.testing.assert_array_equal(montage(volume), np.where(expected == -7, 0, expected))
    colored = montage(np.stack([volume, -volume], -1), between=-7)
    np.testing.assert_array_equal(colored[..., 0], expected)
    np.testing.assert_array_equal(colored[..., 1], np.where(expected == -7, -7, -expected))
