"""What holds for every map of C3 and C1C, and slow twins of both masks."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from lrp_onnx.maps.c3 import C3Options, C3Result, c1c, c3, choose_component, largest_contour

Mask = NDArray[np.bool_]
SIDE = 28
SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12))
MASKS = hnp.arrays(np.bool_, SHAPES)
# Whole numbers: sums are exact, so thresholds and ties are what they seem.
SIGNED = hnp.arrays(
    np.float32, (SIDE, SIDE), elements=st.integers(-3, 3).map(float), fill=st.just(0.0)
)
POSITIVE = hnp.arrays(
    np.float32, (SIDE, SIDE), elements=st.integers(0, 4).map(float), fill=st.just(0.0)
)
SOME = st.sampled_from(
    [
        C3Options(),
        C3Options(component="peak"),
        C3Options(connectivity=4),
        C3Options(component="peak", connectivity=4, threshold="quantile:0.7"),
        C3Options(threshold=0.5),
        C3Options(empty="contour"),
        C3Options(empty="nothing"),
    ]
)


def blobs(mask: Mask, connectivity: int) -> list[Mask]:
    """Connected components in raster order, by breadth-first search: the slow twin."""
    near = [(-1, 0), (1, 0), (0, -1), (0, 1)]
    near += [(-1, -1), (-1, 1), (1, -1), (1, 1)] if connectivity == 8 else []
    left, found = mask.copy(), []
    while left.any():
        start = np.unravel_index(int(left.argmax()), left.shape)
        blob, queue = np.zeros_like(mask), deque([(int(start[0]), int(start[1]))])
        left[start] = False
        while queue:
            y, x = queue.popleft()
            blob[y, x] = True
            for v, u in ((y + dy, x + dx) for dy, dx in near):
                if 0 <= v < mask.shape[0] and 0 <= u < mask.shape[1] and left[v, u]:
                    left[v, u] = False
                    queue.append((v, u))
        found.append(blob)
    return found


def filled(blob: Mask) -> Mask:
    """A blob and all that it encloses: what the outside, 4-connected, cannot reach."""
    return ~blobs(np.pad(~blob, 1, constant_values=True), 4)[0][1:-1, 1:-1]


def first_largest(masks: list[Mask]) -> Mask:
    return max(masks, key=lambda mask: int(mask.sum()))  # max keeps the first of equals


@settings(max_examples=300, deadline=None)
@given(MASKS)
def test_largest_contour_equals_its_slow_twin(mask: Mask) -> None:
    outer = sorted(map(filled, blobs(mask, 8)), key=lambda m: int(m.argmax()))
    expected = first_largest(outer) if outer else np.zeros_like(mask)
    np.testing.assert_array_equal(largest_contour(mask), expected)


@settings(max_examples=300, deadline=None)
@given(MASKS, st.sampled_from([4, 8]))
def test_largest_component_equals_its_slow_twin(mask: Mask, connectivity: int) -> None:
    found = blobs(mask, connectivity)
    expected = first_largest(found) if found else np.zeros_like(mask)
    coarse = np.zeros(mask.shape, dtype=np.float32)
    np.testing.assert_array_equal(
        choose_component(mask, coarse, connectivity=connectivity), expected
    )


@settings(max_examples=200, deadline=None)
@given(
    SHAPES.flatmap(
        lambda shape: hnp.arrays(np.float32, shape, elements=st.integers(-2, 2).map(float))
    )
)
def test_peak_component_equals_its_slow_twin(coarse: NDArray[np.float32]) -> None:
    mask = coarse > -1
    found = blobs(mask, 8)
    expected = max(found, key=lambda blob: coarse[blob].max()) if found else np.zeros_like(mask)
    chosen = choose_component(mask, coarse, component="peak")
    assert coarse[chosen].max(initial=-9) == coarse[expected].max(initial=-9)
    # Equal peaks: the one whose peak pixel comes first in raster order.
    if found:
        first = int(np.where(mask, coarse, -9).argmax())
        assert chosen.flat[first]
        assert any((chosen == blob).all() for blob in found)


def test_diagonal_pixels_are_one_blob_of_eight_and_many_of_four() -> None:
    diagonal = np.eye(5, dtype=np.bool_)
    coarse = np.zeros((5, 5), dtype=np.float32)
    np.testing.assert_array_equal(choose_component(diagonal, coarse), diagonal)
    alone = np.zeros((5, 5), dtype=np.bool_)
    alone[0, 0] = True
    np.testing.assert_array_equal(choose_component(diagonal, coarse, connectivity=4), alone)


@settings(max_examples=150, deadline=None)
@given(SIGNED, SOME)
def test_the_and_is_the_component_or_nothing(
    values: NDArray[np.float32], options: C3Options
) -> None:
    """The claim of the module's docstring, and what the fallback then is."""
    result = c3(values, options)
    both = result.contour & result.component
    assert not both.any() or (both == result.component).all()
    if result.fallback:
        assert not both.any()
        named = {
            "component": result.component,
            "contour": result.contour,
            "nothing": np.zeros_like(both),
        }[options.empty]
        np.testing.assert_array_equal(result.mask, named)
    else:
        np.testing.assert_array_equal(result.mask, both)
    np.testing.assert_array_equal(result.map, np.where(result.mask, result.coarse, 0))


@settings(max_examples=60, deadline=None)
@given(
    SIGNED,
    st.integers(-20, 20),
    st.sampled_from(["zero", "rank"]),
    st.sampled_from(["area", "peak"]),
)
def test_a_positive_factor_changes_nothing_but_the_scale(
    values: NDArray[np.float32], power: int, outside: str, component: str
) -> None:
    options = C3Options(outside=outside, component=component)
    factor = np.float32(2.0**power)  # exact in float32, so equality is too
    one, other = c3(values, options), c3(values * factor, options)
    np.testing.assert_array_equal(one.mask, other.mask)
    np.testing.assert_array_equal(one.map * factor, other.map)


@settings(max_examples=60, deadline=None)
@given(POSITIVE, st.sampled_from(["area", "peak"]), st.sampled_from([1, 2, 8]))
def test_twice_is_once_for_positive_maps(
    values: NDArray[np.float32], component: str, factor: int
) -> None:
    """Zeroing lowers the mean, so the kept blob, alone, is
    all above it. (Negative values break this.)
    """
    options = C3Options(component=component)
    once = c3(values, options, shape=(SIDE * factor, SIDE * factor))
    twice = c3(once.map, options)
    np.testing.assert_array_equal(once.map, twice.map)
    assert not twice.fallback


@settings(max_examples=60, deadline=None)
@given(SIGNED, SOME, st.sampled_from(["nearest", "bilinear"]))
def test_rank_keeps_the_order_outside_below_all_inside(
    values: NDArray[np.float32], options: C3Options, expansion: str
) -> None:
    options = replace(options, outside="rank", expansion=expansion)
    result = c3(values, options, shape=(56, 56))
    plain = c3(
        values, replace(options, threshold=-9.0), shape=(56, 56)
    ).map  # all is inside: just expanded
    inside = np.kron(result.mask, np.ones((2, 2))) > 0
    np.testing.assert_array_equal(result.map[inside], plain[inside])
    if inside.any() and not inside.all():
        assert result.map[~inside].max() < result.map[inside].min()
    np.testing.assert_array_equal(
        np.unique(result.map[~inside], return_inverse=True)[1].ravel(),
        np.unique(plain[~inside], return_inverse=True)[1].ravel(),
    )


@pytest.mark.parametrize("outside", ["zero", "rank"])
@pytest.mark.parametrize("expansion", ["nearest", "bilinear"])
def test_the_input_is_left_alone(outside: str, expansion: str) -> None:
    values = np.random.default_rng(0).normal(size=(SIDE, SIDE)).astype(np.float32)
    before = values.copy()
    values.flags.writeable = False
    for choose in (c3, c1c):
        result: C3Result = choose(values, C3Options(outside=outside, expansion=expansion))
        arrays = [result.map, result.coarse, result.mask, result.contour, result.component]
        assert all(not np.shares_memory(array, values) for array in arrays)
        for index, array in enumerate(arrays):
            assert all(not np.shares_memory(array, other) for other in arrays[index + 1 :])
    np.testing.assert_array_equal(values, before)
