"""Resampling matrices: hand-computed rows, a recorded
scikit-image value, and what holds for every method.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lrp_onnx.maps.resample import METHODS, antialiased, area, as_map, bilinear, nearest, resample

LENGTHS = st.integers(1, 40)


def test_area_counts_overlap() -> None:
    np.testing.assert_array_equal(area(2, 4), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    # Five pixels into two: each takes two and a half.
    np.testing.assert_allclose(
        area(2, 5), [[0.4, 0.4, 0.2, 0, 0], [0, 0, 0.2, 0.4, 0.4]], rtol=1e-15
    )
    # Upwards: output pixel 1 of 3 lies half in each of two input pixels.
    np.testing.assert_array_equal(area(3, 2), [[1, 0], [0.5, 0.5], [0, 1]])


def test_area_is_the_block_mean_where_it_divides() -> None:
    values = np.random.default_rng(0).normal(size=(224, 56)).astype(np.float32)
    blocks = values.astype(np.float64).reshape(28, 8, 28, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(
        resample(values, (28, 28)), blocks, rtol=1e-6, atol=1e-7
    )  # float32 rounding


def test_nearest_takes_the_pixel_that_holds_the_centre() -> None:
    np.testing.assert_array_equal(nearest(3, 6).argmax(axis=1), [1, 3, 5])
    np.testing.assert_array_equal(nearest(6, 3).argmax(axis=1), [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(nearest(2, 3).argmax(axis=1), [0, 2])
    assert (nearest(7, 5).sum(axis=1) == 1).all()


def test_bilinear_weights_by_hand() -> None:
    expected = [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    np.testing.assert_array_equal(bilinear(4, 2), expected)


def test_antialiased_agrees_with_scikit_image() -> None:
    values = np.arange(25).reshape(5, 5) ** 2 / 10
    # skimage.transform.resize(values, (2, 3), order=1,
    # anti_aliasing=True), scikit-image 0.25, float64.
    recorded = [[3.62817776, 5.47870603, 7.91764226], [26.43218747, 31.92369898, 38.00361844]]
    np.testing.assert_allclose(resample(values, (2, 3), method="antialiased"), recorded, rtol=2e-7)


def test_antialiased_mirrors_beyond_the_border_upwards() -> None:
    # The first centre lies at -1/4, mirrored to 1/4.
    np.testing.assert_array_equal(antialiased(4, 2)[0], [0.75, 0.25])
    np.testing.assert_array_equal(antialiased(3, 1), np.ones((3, 1)))


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=50, deadline=None)
@given(target=LENGTHS, source=LENGTHS)
def test_rows_are_weights(method: str, target: int, source: int) -> None:
    matrix = METHODS[method](target, source)
    assert matrix.shape == (target, source)
    assert (matrix >= 0).all()
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-12)  # some ulps of float64


@pytest.mark.parametrize("method", METHODS)
def test_same_size_is_the_same_map(method: str) -> None:
    values = np.random.default_rng(1).normal(size=(6, 9)).astype(np.float32)
    result = resample(values, (6, 9), method=method)
    np.testing.assert_array_equal(result, values)
    assert result is not values
    assert not np.shares_memory(result, values)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=50, deadline=None)
@given(
    value=st.floats(width=32, allow_nan=False, allow_infinity=False), height=LENGTHS, width=LENGTHS
)
def test_a_constant_stays_that_constant(method: str, value: float, height: int, width: int) -> None:
    result = resample(np.full((height, width), value, dtype=np.float32), (28, 5), method=method)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, np.full((28, 5), value, dtype=np.float32))


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25, deadline=None)
@given(
    values=hnp.arrays(
        np.float32, st.tuples(LENGTHS, LENGTHS), elements=st.floats(-1e6, 1e6, width=32)
    ),
    height=LENGTHS,
    width=LENGTHS,
)
def test_stays_within_the_range(method: str, values: np.ndarray, height: int, width: int) -> None:
    values.flags.writeable = False
    result = resample(values, (height, width), method=method)
    assert result.shape == (height, width)
    assert values.min() <= result.min()
    assert result.max() <= values.max()


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (np.zeros(()), "shape"),
        (np.zeros((2, 2, 2, 2)), "shape"),
        (np.zeros((0, 3)), "non-empty"),
        (np.array([[1.0, np.nan]]), "1 of 2"),
        (np.full((2, 2), np.nan), "4 of 4"),
        (np.array([[np.inf, -np.inf]]), "2 of 2"),
        (np.array([[1e300]]), "float32"),
        (np.array([[1j]]), "real"),
        (np.array([["a"]]), "real"),
    ],
)
def test_what_is_no_map(bad: np.ndarray, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        as_map(bad)


def test_what_is_a_map() -> None:
    values = np.ones((2, 3), dtype=np.float32)
    assert as_map(values) is values
    for dtype in (np.bool_, np.uint8, np.int64, np.float16, np.float64):
        assert as_map(np.ones((2, 3), dtype=dtype)).dtype == np.float32
    assert as_map([[1, 2]]).shape == (1, 2)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="method must be one of area"):
        resample(np.ones((2, 2)), (2, 2), method="lanczos")
    with pytest.raises(ValueError, match="shape"):
        resample(np.ones((2, 2)), (0, 2))


@pytest.mark.parametrize("method", METHODS)
def test_signals_and_volumes_axis_by_axis(method: str) -> None:
    """Every axis has its own matrix: by hand, by one sum over all of them."""
    rng = np.random.default_rng(2)
    signal, volume = rng.normal(size=7), rng.normal(size=(4, 6, 9))
    found = resample(signal, (5,), method=method)
    expected = METHODS[method](5, 7) @ signal.astype(np.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    assert found.dtype == np.float32
    shape = (3, 8, 2)
    along = [METHODS[method](new, old) for new, old in zip(shape, volume.shape, strict=True)]
    expected = np.einsum("ad,bh,cw,dhw->abc", *along, volume.astype(np.float32))
    found = resample(volume, shape, method=method)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert (found.shape, found.dtype) == (shape, np.float32)


def test_as_many_sizes_as_axes() -> None:
    for values, shape in ((np.ones(3), (3, 3)), (np.ones((3, 3)), (3,)), (np.ones(3), ())):
        with pytest.raises(ValueError, match=f"a map's shape is {values.ndim} positive"):
            resample(values, shape)
    with pytest.raises(ValueError, match="shape"):
        resample(np.ones((2, 2, 2)), (1, 1, 0))


def test_no_method_changes_the_cached_matrix() -> None:
    first = resample(np.eye(5), (3, 3))
    first[:] = 9
    expected = (area(3, 5) @ area(3, 5).T).astype(np.float32)
    np.testing.assert_array_equal(resample(np.eye(5), (3, 3)), expected)
