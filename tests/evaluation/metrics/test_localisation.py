"""Localisation metrics by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lrp_onnx.evaluation.metrics.localisation import (
    attended,
    attention_error,
    mass_accuracy,
    pointing_game,
    rank_accuracy,
)

MASK = np.zeros((4, 4), bool)
MASK[:2, :2] = True


def spot(*places: tuple[int, int]) -> np.ndarray:
    found = np.zeros((4, 4), np.float32)
    for row, column in places:
        found[row, column] = 1
    return found


def test_pointing_game() -> None:
    assert pointing_game(spot((0, 1)), MASK, tolerance=0) == 1
    assert pointing_game(spot((0, 2)), MASK, tolerance=0) == 0
    assert pointing_game(spot((0, 2)), MASK, tolerance=0.25) == 1
    assert pointing_game(spot((2, 2)), MASK, tolerance=0.25) == 0  # √2 away
    assert pointing_game(spot((0, 0), (3, 3)), MASK, tolerance=0) == 0.5
    assert pointing_game(np.zeros((4, 4), np.float32), MASK, tolerance=0) == 0.25
    assert pointing_game(spot((0, 0)), np.zeros((4, 4), bool)) == 0


def test_mass_accuracy() -> None:
    assert mass_accuracy(spot((0, 0), (3, 3)), MASK) == 0.5
    assert mass_accuracy(spot((0, 0)) - spot((3, 3)), MASK) == 1
    assert mass_accuracy(np.full((4, 4), 2, np.float32), MASK) == 0.25
    assert mass_accuracy(-spot((0, 0)), MASK) == 0


def test_rank_accuracy() -> None:
    order = np.arange(16, 0, -1, dtype=np.float32).reshape(
        4, 4
    )  # the four highest are the first row
    assert rank_accuracy(order, MASK) == 0.5
    assert rank_accuracy(MASK.astype(np.float32), MASK) == 1
    assert rank_accuracy(np.zeros((4, 4), np.float32), MASK) == 0.25
    assert rank_accuracy(spot((0, 0), (3, 3)), MASK) == pytest.approx((1 + 2 * 3 / 14) / 4)
    assert rank_accuracy(order, np.zeros((4, 4), bool)) == 0


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (MASK, "good"),
        (np.ones((4, 4), bool), "over"),
        (spot((0, 0)) > 0, "insufficient"),
        (spot((3, 3)) > 0, "wrong"),
        (np.zeros((4, 4), bool), "wrong"),
    ],
)
def test_attention_errors(kept: np.ndarray, said: str) -> None:
    assert attention_error(kept, MASK) == said


def test_attention_errors_at_their_limits() -> None:
    """Exactly half is enough, of the object and of what is kept."""
    half, less = spot((0, 0), (0, 1)) > 0, spot((0, 0)) > 0
    wide = half | (spot((3, 2), (3, 3)) > 0)
    assert attention_error(half, MASK) == attention_error(wide, MASK) == "good"
    assert attention_error(wide | (spot((3, 1)) > 0), MASK) == "over"
    assert attention_error(less, less, enough=1, most=1) == "good"
    assert attention_error(half, MASK, enough=0.75) == "insufficient"
    assert attention_error(half, less, most=0.75) == "over"
    assert attention_error(wide, MASK, enough=0.75, most=0.75) == "wrong"


def test_what_a_map_points_at() -> None:
    values = np.array([[4, 2, 1.9], [0, -5, 1]], np.float32)
    np.testing.assert_array_equal(attended(values), [[1, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(attended(values, share=0.25), [[1, 1, 1], [0, 0, 1]])
    np.testing.assert_array_equal(attended(values / 8), [[1, 1, 0], [0, 0, 0]])
    for nothing in (-values, np.zeros((2, 3), np.float32)):
        found = attended(np.minimum(nothing, 0))
        assert found.dtype == np.bool_ and found.shape == (2, 3) and not found.any()


def test_the_paper_s_tolerance_is_15_of_224_pixels() -> None:
    mask = np.zeros((224, 300), bool)
    mask[100, 100] = True
    for distance, expected in ((15, 1), (16, 0)):
        relevance = np.zeros(mask.shape, np.float32)
        relevance[100, 100 + distance] = 1
        assert pointing_game(relevance, mask) == expected
