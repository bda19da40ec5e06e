"""The two colour maps and the ground: lightness, and what is left of them without red, green or
blue.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lrp_onnx.report.colors import (
    ENTRIES,
    GROUND,
    TABLES,
    Scale,
    color_scheme,
    ground,
    paint,
    scale_for,
)
from lrp_onnx.report.render import overlay

MIDDLE = ENTRIES // 2
SAMPLES = sorted((Path(__file__).parents[2] / "models" / "samples").glob("*.png"))
VISIONS = {
    "all colours": np.eye(3),
    # Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision
    # Deficiency", IEEE TVCG 2009, table 1, severity 1.0: matrices for linear RGB.
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}


def seen(rgb: NDArray[np.uint8], vision: str) -> NDArray[np.float32]:
    """CIE L*a*b* (N, 3) of colours (..., 3) as a vision sees them."""
    encoded = rgb.reshape(-1, 3) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    linear = (linear @ VISIONS[vision].T).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return cv2.cvtColor(encoded.astype(np.float32)[None], cv2.COLOR_RGB2LAB)[0]


def distance(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """ΔE*ab of 1976: 2.3 can just be noticed."""
    return np.linalg.norm(one - other, axis=1)


@pytest.mark.parametrize("vision", VISIONS)
def test_lightness_rises_with_magnitude_on_each_side(vision: str) -> None:
    for side in (
        TABLES["sequential"],
        TABLES["diverging"][MIDDLE:],
        TABLES["diverging"][MIDDLE::-1],
    ):
        level = seen(side, vision)[:, 0]
        assert level[0] < 10
        assert level[-1] > 80
        assert np.diff(level).min() > -0.1  # 8-bit rounding
        assert np.diff(level[:: len(level) // 6]).min() > 8  # each sixth is a visible step


def test_both_sides_are_equally_light_and_steps_are_even() -> None:
    level = seen(TABLES["diverging"], "all colours")[:, 0]
    assert np.abs(level - level[::-1]).max() < 1  # of 100: no sign looks stronger
    evenly = np.linspace(level[MIDDLE], level[-1], MIDDLE + 1)
    assert np.abs(level[MIDDLE:] - evenly).max() < 1.5


@pytest.mark.parametrize("vision", VISIONS)
def test_for_and_against_can_be_told_apart(vision: str) -> None:
    for_it = seen(TABLES["diverging"][MIDDLE:], vision)
    against = seen(TABLES["diverging"][MIDDLE::-1], vision)
    apart = distance(for_it, against)
    assert apart[0] == 0
    assert apart[MIDDLE // 10] > 20
    assert apart[MIDDLE // 4 :].min() > 40
    # In hue, not in lightness: one is yellowish and the other bluish, or, without blue, one is
    # reddish and the other greenish.
    a, b = (for_it - against)[MIDDLE // 4 :, 1:].T
    assert (a > 30).all() if vision == "tritanopia" else (b > 30).all()


def test_a_colour_means_the_same_in_both_maps() -> None:
    upper = TABLES["diverging"][MIDDLE:].astype(int)
    positions = np.linspace(0, ENTRIES - 1, len(upper)).round().astype(int)
    assert np.abs(TABLES["sequential"].astype(int)[positions] - upper).max() <= 2  # rounding


def pictures() -> dict[str, NDArray[np.uint8]]:
    """The sample pictures, a red and a white one, and a red car's worth of reds."""
    read = {path.stem: cv2.imread(str(path), cv2.IMREAD_COLOR)[:, :, ::-1] for path in SAMPLES}
    plain = {"red": (255, 0, 0), "white": (255, 255, 255), "orange": (233, 142, 0)}
    return read | {name: np.full((8, 8, 3), rgb, np.uint8) for name, rgb in plain.items()}


def test_there_are_sample_pictures() -> None:
    assert len(SAMPLES) >= 4


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("name", pictures())
def test_relevance_stands_out_of_the_ground(name: str, vision: str) -> None:
    picture = pictures()[name]
    under = seen(ground(picture), vision)
    for sign in (-1, 1):
        strong = seen(overlay(picture, [[sign]], scale=Scale("diverging", 1)), vision)
        assert strong[:, 0].min() > under[:, 0].max() + 25  # than the lightest spot of the photo
        middling = seen(overlay(picture, [[sign]], scale=Scale("diverging", 2)), vision)
        assert distance(middling, under).min() > 25


def test_the_ground_has_no_colours_and_keeps_the_photo_s_order_of_lightness() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    before = picture.copy()
    dimmed = ground(picture)
    np.testing.assert_array_equal(picture, before)
    assert dimmed.dtype == np.uint8 and dimmed.shape == picture.shape
    assert np.ptp(dimmed, axis=2).max() == 0
    light, dark = seen(picture, "all colours")[:, 0], seen(dimmed, "all colours")[:, 0]
    expected = GROUND[0] + (GROUND[1] - GROUND[0]) * light / 100
    assert np.abs(dark - expected).max() < 0.5  # 8-bit rounding


def test_tables_cannot_be_changed() -> None:
    for table in TABLES.values():
        assert table.shape == (ENTRIES, 3)
        with pytest.raises(ValueError, match="read-only"):
            table[0] = 0


def test_paint_finds_ends_and_middle() -> None:
    signed = paint(np.float32([[-1, 0, 1]]), "diverging")
    np.testing.assert_array_equal(signed[0], TABLES["diverging"][[0, MIDDLE, -1]])
    positive = paint(np.float32([[0, 0.5, 1]]), "sequential")
    np.testing.assert_array_equal(positive[0], TABLES["sequential"][[0, MIDDLE, -1]])


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


def test_a_scale_is_shared() -> None:
    small, large = np.array([[1.0, 2.0]]), np.array([[-4.0], [3.0], [0.0]])
    scale = Scale.of([small, large])
    assert scale == Scale("diverging", 4.0)
    np.testing.assert_array_equal(scale(small), [[0.25, 0.5]])
    assert Scale.of([small, large], colors="sequential") == Scale("sequential", 3.0)
    assert Scale.of([small]) == Scale("sequential", 2.0)
    # Of the five magnitudes 0, 1, 2, 3, 4 the median is 2; what is above it is clipped.
    half = Scale.of([small, large], percentile=50)
    assert half.full == 2
    np.testing.assert_array_equal(half(large), [[-1], [1], [0]])


def test_a_scale_of_zeros() -> None:
    scale = Scale.of([np.zeros((2, 2)), np.zeros((3, 3))])
    assert scale == Scale("sequential", 0.0)
    assert not scale([[1.0]]).any()
    mostly = np.zeros((10, 10))
    mostly[0, 0] = 5
    assert Scale.of([mostly], percentile=90).full == 5
