"""C3 and C1C by hand: 28 x 28 examples, and the cases that the papers leave open."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lrp_onnx.maps.c3 import C3Options, c1c, c3

Mask = NDArray[np.bool_]
SIDE = 28


def blank() -> Mask:
    return np.zeros((SIDE, SIDE), dtype=np.bool_)


def box(top: int, left: int, bottom: int, right: int) -> Mask:
    """The box's pixels, bottom and right excluded."""
    mask = blank()
    mask[top:bottom, left:right] = True
    return mask


RING = box(2, 2, 14, 14) & ~box(3, 3, 13, 13)  # 44 pixels that enclose 144
BLOCK = box(18, 18, 25, 25)  # 49 pixels
RING_AND_BLOCK = np.where(RING, 1, np.where(BLOCK, 2, 0)).astype(np.float32)


def test_contour_and_component_differ() -> None:
    """The ring encloses most, the block has most pixels:
    the AND is empty, and the component stands in.
    """
    result = c3(RING_AND_BLOCK)
    np.testing.assert_array_equal(result.contour, box(2, 2, 14, 14))
    np.testing.assert_array_equal(result.component, BLOCK)
    assert result.fallback
    np.testing.assert_array_equal(result.mask, BLOCK)
    np.testing.assert_array_equal(result.map, np.where(BLOCK, 2, 0))


def test_empty_and_named_otherwise() -> None:
    contour = c3(RING_AND_BLOCK, C3Options(empty="contour"))
    assert contour.fallback
    np.testing.assert_array_equal(contour.mask, box(2, 2, 14, 14))
    np.testing.assert_array_equal(contour.map, RING.astype(np.float32))
    nothing = c3(RING_AND_BLOCK, C3Options(empty="nothing"))
    assert nothing.fallback
    assert not nothing.mask.any()
    assert not nothing.map.any()


def test_a_thin_blob_counts_by_its_pixels() -> None:
    """A line of 28 pixels encloses a polygon of area 0, a 3
    x 3 block one of area 4; the line is larger.
    """
    line, block = box(20, 0, 21, 28), box(5, 5, 8, 8)
    areas = [
        cv2.contourArea(
            cv2.findContours(m.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0][0]
        )
        for m in (line, block)
    ]
    assert areas == [0, 4]
    result = c3(np.where(line | block, 3, 0))
    np.testing.assert_array_equal(result.contour, line)
    np.testing.assert_array_equal(result.mask, line)
    np.testing.assert_array_equal(result.map, np.where(line, 3, 0))
    assert not result.fallback


def test_holes_stay_out() -> None:
    result = c3(RING)
    np.testing.assert_array_equal(result.contour, box(2, 2, 14, 14))
    np.testing.assert_array_equal(result.component, RING)
    np.testing.assert_array_equal(result.mask, RING)
    assert not result.fallback


def test_a_blob_inside_of_a_hole() -> None:
    """It lies within the filled contour, so choosing it by
    its peak leaves an AND that is not empty.
    """
    inner = box(7, 7, 9, 9)
    result = c3(np.where(RING, 1, np.where(inner, 5, 0)), C3Options(component="peak"))
    np.testing.assert_array_equal(result.mask, inner)
    assert not result.fallback


def test_c1c_takes_the_peak_and_c3_the_area() -> None:
    large, hot = box(1, 1, 9, 9), box(20, 20, 22, 22)
    values = np.where(large, 1, np.where(hot, 9, 0)).astype(np.float32)
    np.testing.assert_array_equal(c3(values).mask, large)
    result = c1c(values)
    np.testing.assert_array_equal(result.mask, hot)
    np.testing.assert_array_equal(result.contour, large)
    np.testing.assert_array_equal(result.map, np.where(hot, 9, 0))
    assert not result.fallback
    np.testing.assert_array_equal(c1c(values, C3Options(component="area")).mask, large)


def test_reduced_chosen_and_expanded() -> None:
    """A 56 x 84 map: 2 x 3 pixels become one, by their mean, and one becomes 2 x 3 again."""
    coarse = np.where(BLOCK, 4, np.where(box(0, 0, 3, 3), 2, 0)).astype(np.float32)
    spread = np.arange(6).reshape(2, 3) - 2.5  # sums to 0
    values = np.kron(coarse, np.ones((2, 3))) + np.tile(spread, (28, 28))
    result = c3(values)
    np.testing.assert_array_equal(result.coarse, coarse)
    np.testing.assert_array_equal(result.map, np.kron(np.where(BLOCK, 4, 0), np.ones((2, 3))))
    assert c3(values, shape=(10, 20)).map.shape == (10, 20)


@pytest.mark.parametrize("shape", [(1, 1), (7, 7), (28, 28), (224, 200), (31, 17)])
@pytest.mark.parametrize(
    "options", [C3Options(), C3Options(expansion="bilinear", reduction="antialiased")]
)
def test_shapes_and_dtypes(shape: tuple[int, int], options: C3Options) -> None:
    result = c3(np.random.default_rng(0).random(shape), options)
    assert result.map.shape == shape
    assert (result.map.dtype, result.coarse.dtype) == (np.float32, np.float32)
    for mask in (result.mask, result.contour, result.component):
        assert (mask.shape, mask.dtype) == ((28, 28), np.bool_)
    assert c3(np.ones(shape), replace(options, size=5)).mask.shape == (5, 5)


def test_bilinear_expansion_softens_the_mask() -> None:
    values = np.where(box(10, 10, 20, 20), 1, 0).astype(np.float32)
    soft = c3(values, C3Options(expansion="bilinear"), shape=(56, 56)).map
    # Two output pixels per coarse one: across the edge the weights are 3/4 and 1/4.
    np.testing.assert_array_equal(soft[30, 18:22], [0, 0.25, 0.75, 1])


def test_thresholds() -> None:
    values = np.zeros((SIDE, SIDE), dtype=np.float32)
    values[0, :4] = [1, 2, 3, 4]
    assert c3(values, C3Options(threshold=2)).mask.sum() == 2
    assert c3(values, C3Options(threshold=-1.0)).mask.all()
    assert not c3(values, C3Options(threshold=4)).mask.any()
    assert c3(values).mask.sum() == 4
    # Of 784 sorted values the one at place 0.998722 * 783 = 782 is 3.
    assert c3(values, C3Options(threshold=f"quantile:{782 / 783}")).mask.sum() == 1
    assert not c3(values, C3Options(threshold="quantile:1")).mask.any()


def test_a_value_equal_to_the_threshold_in_float32_is_not_above_it() -> None:
    values = np.zeros((SIDE, SIDE), dtype=np.float32)
    values[3, 3:5] = [0.1, 0.2]  # float32(0.1) > 0.1
    assert c3(values, C3Options(threshold=0.1)).mask.sum() == 1


def test_the_mean_is_finer_than_float32() -> None:
    """Half of the pixels are the next float32 of the
    others; their mean, as float32, would be the larger one.
    """
    low, high = np.float32(1 + 2**-23), np.float32(1 + 2**-22)
    values = np.where(box(0, 0, 14, 28), high, low)
    np.testing.assert_array_equal(c3(values).mask, box(0, 0, 14, 28))


# --- edge cases
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 0.1, -3.0, 1e-30])
@pytest.mark.parametrize("shape", [(28, 28), (50, 45)])
def test_a_constant_map_has_no_foreground(value: float, shape: tuple[int, int]) -> None:
    for choose in (c3, c1c):
        result = choose(np.full(shape, value))
        assert not (
            result.mask.any() or result.contour.any() or result.component.any() or result.fallback
        )
        np.testing.assert_array_equal(result.map, np.zeros(shape))
        ranked = choose(np.full(shape, value), C3Options(outside="rank"))
        np.testing.assert_array_equal(ranked.map, np.full(shape, np.float32(value)))


def test_a_single_pixel() -> None:
    values = np.zeros((SIDE, SIDE))
    values[27, 13] = 5
    result = c3(values)
    np.testing.assert_array_equal(result.mask, values > 0)
    np.testing.assert_array_equal(result.map, values)


def test_a_negative_map_keeps_what_is_least_negative() -> None:
    values = np.where(BLOCK, -1, -2).astype(np.float32)
    np.testing.assert_array_equal(c3(values).map, np.where(BLOCK, -1, 0))
    ranked = c3(values, C3Options(outside="rank")).map
    np.testing.assert_array_equal(ranked, values)  # what is outside ranks below already


@pytest.mark.parametrize("component", ["area", "peak"])
@pytest.mark.parametrize("turn", [False, True])
def test_ties_go_to_the_first_in_raster_order(component: str, turn: bool) -> None:
    """Upper right and lower left are alike; upper right
    comes first, and after transposing the other one does.
    """
    upper, lower = box(3, 20, 6, 23), box(4, 2, 7, 5)
    values = np.where(upper | lower, 1, 0)
    values, expected = (values.T, lower.T) if turn else (values, upper)
    result = c3(values, C3Options(component=component))
    np.testing.assert_array_equal(result.mask, expected)
    np.testing.assert_array_equal(result.contour, expected)


def test_ties_do_not_depend_on_how_opencv_numbers_components(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = cv2.connectedComponents

    def backwards(mask: NDArray[np.uint8], connectivity: int) -> tuple[int, NDArray[np.int32]]:
        count, labels = original(mask, connectivity=connectivity)
        return count, np.where(labels > 0, count - labels, 0)

    monkeypatch.setattr(cv2, "connectedComponents", backwards)
    np.testing.assert_array_equal(
        c3(box(3, 20, 6, 23) | box(4, 2, 7, 5)).component, box(3, 20, 6, 23)
    )


@pytest.mark.parametrize("empty", ["component", "contour", "nothing"])
def test_masks_are_separate_arrays(empty: str) -> None:
    result = c3(RING_AND_BLOCK, C3Options(empty=empty))
    assert not np.shares_memory(result.mask, result.component)
    assert not np.shares_memory(result.mask, result.contour)


@pytest.mark.parametrize(
    "bad", [np.full((9, 9), np.nan), np.full((9, 9), np.inf), np.zeros((3, 9, 9)), np.zeros((0, 9))]
)
def test_what_is_no_map_is_refused(bad: NDArray[np.float64]) -> None:
    for choose in (c3, c1c):
        with pytest.raises(ValueError, match="a map"):
            choose(bad)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", 0),
        ("size", 28.0),
        ("size", True),
        ("threshold", "median"),
        ("threshold", "quantile:1.5"),
        ("threshold", "quantile:"),
        ("threshold", float("nan")),
        ("threshold", float("inf")),
        ("threshold", None),
        ("component", "largest"),
        ("connectivity", 6),
        ("connectivity", 8.0),
        ("reduction", "bilinear"),
        ("expansion", "area"),
        ("outside", "mean"),
        ("empty", "zero"),
    ],
)
def test_options_are_checked(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        C3Options(**{field: value})  # type: ignore[arg-type]


def test_options_and_results_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        C3Options().size = 3  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        c3(RING).fallback = True  # type: ignore[misc]


def test_rank_by_hand() -> None:
    """Inside 5 and 4; outside 0, 1 and 4.5, which is lowered to 5/1024 below 4, and with it the
    others.
    """
    values = np.zeros((SIDE, SIDE), dtype=np.float32)
    values[1, 1:3] = [5, 4]
    values[10, 10], values[20, 20] = 1, 4.5
    result = c3(values, C3Options(outside="rank", threshold=1.5))
    shift = 0.5 + 5 / 1024  # sums of powers of two
    expected = np.full((SIDE, SIDE), -shift)
    expected[1, 1:3] = [5, 4]
    expected[10, 10], expected[20, 20] = 1 - shift, 4.5 - shift
    np.testing.assert_array_equal(result.map, expected.astype(np.float32))


def test_rank_lowers_nothing_that_is_low_enough() -> None:
    values = np.zeros((SIDE, SIDE), dtype=np.float32)
    values[1, 1:3], values[10, 10] = [5, 4], 3
    np.testing.assert_array_equal(c3(values, C3Options(outside="rank")).map, values)


def test_rank_does_not_overflow() -> None:
    values = np.full((SIDE, SIDE), -3.2e38, dtype=np.float32)
    values[3, 3:5], values[9, 9] = -2e38, 3e38  # 3e38 would have to become -2e38, all others less
    result = c3(values, C3Options(outside="rank", threshold=-3e38))
    assert np.isfinite(result.map).all()
    np.testing.assert_array_equal(result.map[3, 3:5], np.float32(-2e38))
    others = np.delete(result.map, [3 * SIDE + 3, 3 * SIDE + 4])
    assert (others < np.float32(-2e38)).all() and others.min() == np.finfo(np.float32).min
