"""The two colour maps: what is claimed of their lightness, and which is taken for which map."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lrp_onnx.report.colors import ENTRIES, TABLES, color_scheme, paint, scale_for


def lightness(scheme: str) -> np.ndarray:
    """CIE L* of every entry, 0..100."""
    lab = cv2.cvtColor(TABLES[scheme].astype(np.float32)[None] / 255, cv2.COLOR_RGB2LAB)
    return lab[0, :, 0]


def test_sequential_lightness_rises_evenly() -> None:
    steps = np.diff(lightness("sequential"))
    assert lightness("sequential")[0] < 10
    assert lightness("sequential")[-1] > 90
    assert steps.min() > -0.2  # 8-bit rounding is worth 0.2
    chunks = lightness("sequential")[:: (ENTRIES - 1) // 6 or 1]
    assert np.diff(chunks[:7]).min() > 10  # each sixth of the way is a visible step


def test_diverging_lightness_falls_evenly_and_alike_to_both_sides() -> None:
    level = lightness("diverging")
    middle = ENTRIES // 2
    assert level.argmax() == middle
    assert np.diff(level[middle:]).max() < 0.2
    assert np.diff(level[: middle + 1]).min() > -0.2
    assert np.abs(level - level[::-1]).max() < 4  # of 100: no sign looks stronger


def test_diverging_hues() -> None:
    table = TABLES["diverging"].astype(int)
    assert np.ptp(table[ENTRIES // 2]) == 0  # grey, and nearly white
    assert (table[0, 2] - table[0, 0], table[-1, 0] - table[-1, 2]) > (100, 100)


def test_tables_cannot_be_changed() -> None:
    for table in TABLES.values():
        assert table.shape == (ENTRIES, 3)
        with pytest.raises(ValueError, match="read-only"):
            table[0] = 0


def test_paint_finds_ends_and_middle() -> None:
    signed = paint(np.float32([[-1, 0, 1]]), "diverging")
    np.testing.assert_array_equal(signed[0], TABLES["diverging"][[0, ENTRIES // 2, -1]])
    positive = paint(np.float32([[0, 0.5, 1]]), "sequential")
    np.testing.assert_array_equal(positive[0], TABLES["sequential"][[0, ENTRIES // 2, -1]])


@pytest.mark.parametrize(
    ("values", "scheme"),
    [
        ([[0, 1]], "sequential"),
        ([[0, 0]], "sequential"),
        ([[-1, 1]], "diverging"),
        ([[-1, -2]], "diverging"),
        ([[-0.005, 1]], "sequential"),
        ([[-0.05, 1]], "diverging"),
    ],
)
def test_the_scheme_follows_the_sign(values: list[list[float]], scheme: str) -> None:
    assert color_scheme(values) == scheme


def test_scales() -> None:
    np.testing.assert_array_equal(scale_for([[-4, 2]], "diverging"), [[-1, 0.5]])
    np.testing.assert_array_equal(scale_for([[-4, 2]], "sequential"), [[0, 1]])
