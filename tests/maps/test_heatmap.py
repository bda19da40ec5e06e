"""Quantization, normalisation, averaging and sums: small
examples by hand and what holds for every map.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from lrp_onnx.maps.heatmap import average, normalize, quantize

Map = NDArray[np.float32]
MAPS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


def read_only(values: object) -> Map:
    array = np.asarray(values, dtype=np.float32)
    array.flags.writeable = False
    return array


def test_quantize_by_hand() -> None:
    """Bins of -1..6 in eight levels are the whole numbers."""
    values = read_only([[-1, -0.01, 0, 0.99], [3.5, 5.999, 6, 1]])
    np.testing.assert_array_equal(quantize(values), [[-1, -1, 0, 0], [3, 5, 6, 1]])
    np.testing.assert_array_equal(quantize(values, levels=3), [[-1, -1, -1, -1], [2.5, 2.5, 6, -1]])
    np.testing.assert_array_equal(quantize(values, levels=2), [[-1, -1, -1, -1], [-1, -1, 6, -1]])


@pytest.mark.parametrize("value", [0.0, 0.1, -7.0])
def test_quantize_leaves_a_constant_map(value: float) -> None:
    values = read_only(np.full((3, 4), value))
    result = quantize(values)
    np.testing.assert_array_equal(result, values)
    assert not np.shares_memory(result, values)


@settings(max_examples=200, deadline=None)
@given(MAPS, st.integers(2, 20))
def test_quantize_properties(values: Map, levels: int) -> None:
    values.flags.writeable = False
    result = quantize(values, levels=levels)
    assert (result.dtype, result.shape) == (np.float32, values.shape)
    assert np.unique(result).size <= levels
    assert (result <= values).all()
    assert (result.min(), result.max()) == (values.min(), values.max())
    flat = np.argsort(values, axis=None, kind="stable")
    assert (result.flat[flat][1:] >= result.flat[flat][:-1]).all()  # no order is inverted
    np.testing.assert_array_equal(quantize(result, levels=levels), result)


@pytest.mark.parametrize("levels", [1, 0, -8, 8.0, True])
def test_quantize_refuses_levels(levels: object) -> None:
    with pytest.raises(ValueError, match="levels"):
        quantize(np.ones((2, 2)), levels=levels)  # type: ignore[arg-type]


def test_normalize_by_hand() -> None:
    values = read_only([[-4, 2], [0, 1]])
    np.testing.assert_array_equal(normalize(values), [[-1, 0.5], [0, 0.25]])
    np.testing.assert_array_equal(normalize(values, mode="positive"), [[0, 1], [0, 0.5]])
    # The median of 4, 2, 0, 1 is 1.5; of 0, 2, 0, 1 it is 0.5.
    np.testing.assert_allclose(normalize(values, percentile=50), [[-1, 1], [0, 2 / 3]], rtol=1e-7)
    np.testing.assert_array_equal(
        normalize(values, mode="positive", percentile=50), [[0, 1], [0, 1]]
    )


def test_percentiles_of_less_than_one() -> None:
    values = read_only(np.arange(1, 202))  # the percentile 0.5 is the second
    np.testing.assert_allclose(normalize(values, percentile=0.5)[:3], [0.5, 1, 1])


def test_normalize_of_sparse_and_empty_maps() -> None:
    sparse = np.zeros((10, 10))
    sparse[3, 3] = 8
    np.testing.assert_array_equal(
        normalize(sparse, percentile=90), sparse / 8
    )  # the percentile is zero
    for mode in ("symmetric", "positive"):
        np.testing.assert_array_equal(normalize(np.zeros((3, 3)), mode=mode), np.zeros((3, 3)))
    np.testing.assert_array_equal(normalize(-sparse, mode="positive"), np.zeros((10, 10)))


@settings(max_examples=200, deadline=None)
@given(MAPS, st.sampled_from(["symmetric", "positive"]), st.sampled_from([100.0, 99.0, 50.0]))
def test_normalize_properties(values: Map, mode: str, percentile: float) -> None:
    values.flags.writeable = False
    result = normalize(values, mode=mode, percentile=percentile)
    assert (result.dtype, result.shape) == (np.float32, values.shape)
    assert (result[values == 0] == 0).all()
    assert result.min() >= (-1 if mode == "symmetric" else 0)
    kept = np.abs(values) if mode == "symmetric" else values
    assert np.abs(result).max() == (1 if kept.max() > 0 else 0)


@pytest.mark.parametrize(
    ("kwargs", "word"),
    [
        ({"mode": "minmax"}, "mode"),
        ({"percentile": 0}, "percentile"),
        ({"percentile": 101}, "percentile"),
    ],
)
def test_normalize_refuses(kwargs: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        normalize(np.ones((2, 2)), **kwargs)  # type: ignore[arg-type]


def test_average_by_hand() -> None:
    values = read_only([[1, 3, 0, 0], [5, 7, 0, 8]])
    np.testing.assert_array_equal(average(values, size=1), np.full((2, 4), 3))
    np.testing.assert_array_equal(average(values, size=2), [[2, 2, 0, 0], [6, 6, 4, 4]])
    np.testing.assert_array_equal(average(values, size=1, expansion="bilinear"), np.full((2, 4), 3))


def test_average_keeps_the_sum_where_the_grid_divides() -> None:
    values = np.random.default_rng(0).normal(size=(56, 112)).astype(np.float32)
    # float32 rounding of 784 means of about 0.3
    np.testing.assert_allclose(
        average(values).sum(dtype=np.float64), values.sum(dtype=np.float64), atol=1e-3
    )


@pytest.mark.parametrize("function", [quantize, normalize, average])
def test_what_is_no_map_is_refused(function: object) -> None:
    for bad in (np.full((2, 2), np.nan), np.ones((2, 2, 2, 2))):
        with pytest.raises(ValueError, match="a map"):
            function(bad)  # type: ignore[operator]


def test_average_expands_by_the_method_that_is_named() -> None:
    """Two cells over five pixels: the third pixel's centre lies between both."""
    values = read_only([[4, 4, 2, 0, 0]])
    first, last = (4 + 4 + 2 / 2) / 2.5, (2 / 2) / 2.5
    cells = average(values, size=2)
    np.testing.assert_allclose(cells, [[first, first, last, last, last]], rtol=1e-6)
    by_area = average(values, size=2, expansion="area")
    middle = (first + last) / 2
    np.testing.assert_allclose(by_area, [[first, first, middle, last, last]], rtol=1e-6)
    # Centres of the pixels, in cells: -0.3, 0.1, 0.5, 0.9, 1.3.
    straight = [first, 0.9 * first + 0.1 * last, middle, 0.1 * first + 0.9 * last, last]
    bilinear = average(values, size=2, expansion="bilinear")
    np.testing.assert_allclose(bilinear, [straight], rtol=1e-6)


def test_signals_and_volumes() -> None:
    signal, volume = read_only([1, 3, 5, 7]), read_only(np.arange(8).reshape(2, 2, 2))
    np.testing.assert_array_equal(average(signal, size=2), [2, 2, 6, 6])
    np.testing.assert_array_equal(average(volume, size=1), np.full((2, 2, 2), 3.5))
    np.testing.assert_array_equal(quantize(signal, levels=2), [1, 1, 1, 7])
    np.testing.assert_allclose(normalize(volume), volume / 7, rtol=1e-7)
