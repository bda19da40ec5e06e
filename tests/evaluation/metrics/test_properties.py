"""Properties of maps and intervals of means, by hand and against other definitions."""

from __future__ import annotations

import numpy as np
import pytest

from lrp_onnx.evaluation.metrics.intervals import difference_of, mean_of, statistic_of
from lrp_onnx.evaluation.metrics.properties import (
    adcc,
    max_sensitivity,
    rank_correlation,
    similarity,
    sparseness,
    unit,
)


def test_sparseness() -> None:
    assert sparseness(np.ones((5, 5), np.float32)) == pytest.approx(0)
    one = np.zeros((10, 10), np.float32)
    one[3, 3] = -2
    assert sparseness(one) == pytest.approx(0.99)
    assert sparseness(np.zeros((3, 3), np.float32)) == 0
    values = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
    pairs = np.abs(np.subtract.outer(np.abs(values.ravel()), np.abs(values.ravel()))).mean()
    assert sparseness(values) == pytest.approx(pairs / (2 * np.abs(values).mean()), rel=1e-5)


def test_similarity_and_rank_correlation() -> None:
    a = np.array([[1, 2], [3, 4]], np.float32)
    assert similarity(a, 2 * a) == pytest.approx(1) and similarity(a, -a) == pytest.approx(-1)
    assert similarity(a, 0 * a) == 0
    for same in (a, 0 * a):
        assert similarity(same, same.copy()) == rank_correlation(same, same.copy()) == 1
    assert rank_correlation(a, a**3) == pytest.approx(1) and rank_correlation(a, 0 * a) == 0
    ties = np.array([[1, 1], [2, 3]], np.float32)
    assert rank_correlation(a, ties) == pytest.approx(
        np.corrcoef([1, 2, 3, 4], [1.5, 1.5, 3, 4])[0, 1]
    )


def test_max_sensitivity() -> None:
    a = np.array([[3, 4]], np.float32)
    assert max_sensitivity(a, [a, a + np.array([[0, 5]], np.float32), -a]) == pytest.approx(2)
    assert max_sensitivity(0 * a, [a]) == float("inf") and max_sensitivity(0 * a, [0 * a]) == 0


def test_adcc() -> None:
    relevance = np.array([[0, 1], [2, 4]], np.float32)
    score, lost, coherency, complexity = adcc(relevance, lambda scaled: scaled, lambda scaled: 0.25)
    assert (lost, coherency, complexity) == (0.25, pytest.approx(1), pytest.approx(1.75 / 4))
    assert score == pytest.approx(3 / (1 / 0.75 + 1 / 1 + 1 / (1 - 1.75 / 4)))
    assert adcc(relevance, lambda scaled: -scaled, lambda scaled: 0.25)[2] == pytest.approx(0)
    assert adcc(relevance, lambda scaled: scaled, lambda scaled: 1.0)[0] == 0
    np.testing.assert_array_equal(unit(np.full((2, 2), 3, np.float32)), 0)


def test_intervals() -> None:
    values = np.random.default_rng(0).normal(2, 1, 400)
    found = mean_of(values)
    assert found.value == pytest.approx(values.mean()) and found.count == 400
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert mean_of(values) == mean_of(values) and str(found).startswith(f"{values.mean():.3f} [")
    assert np.isnan(mean_of([]).value)
    paired = difference_of(values + 0.1, values)
    assert paired.low == pytest.approx(0.1) and paired.high == pytest.approx(0.1)


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for seed in range(200):
        found = mean_of(rng.exponential(size=60), seed=seed, resamples=500)
        hits += found.low <= 1 <= found.high
    assert 175 <= hits <= 198  # 95 %, a little less for skewed samples of 60


def test_the_interval_of_a_difference_has_its_own_seed() -> None:
    one, other = np.random.default_rng(3).normal(size=(2, 30))
    for seed in (0, 1):
        assert difference_of(one, other, seed=seed) == mean_of(one - other, seed=seed)
    assert difference_of(one, other, seed=1).low != difference_of(one, other).low


def test_the_interval_of_a_statistic_holds_95_of_100_resamples() -> None:
    seen: list[np.ndarray] = []

    def second(means: np.ndarray) -> np.ndarray:
        seen.append(means[..., 1])
        return means[..., 1]

    sample = np.random.default_rng(4).normal(size=(50, 2))
    found = statistic_of(sample, second, seed=3, resamples=700)
    resampled = max(seen, key=np.size)
    assert resampled.shape == (700,)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(resampled, (0.025, 0.975))))
    assert resampled.std() == pytest.approx(sample[:, 1].std() / 50**0.5, rel=0.1)
    assert found != statistic_of(sample, second, seed=4, resamples=700)


def test_the_scale_of_maps_is_no_matter() -> None:
    a = np.array([[1, 2], [3, 4]], np.float32)
    b = np.array([[2, 1], [4, 4]], np.float32)
    for scale in (1e-3, 1e3):
        assert similarity(scale * a, scale * b) == pytest.approx(similarity(a, b))
        assert rank_correlation(scale * a, scale * b) == pytest.approx(rank_correlation(a, b))
        assert sparseness(scale * a) == pytest.approx(sparseness(a))
        assert max_sensitivity(scale * a, [scale * b]) == pytest.approx(max_sensitivity(a, [b]))
        parts = adcc(scale * a, lambda scaled: b, lambda scaled: 0.5)
        assert parts == pytest.approx(adcc(a, lambda scaled: b, lambda scaled: 0.5))
