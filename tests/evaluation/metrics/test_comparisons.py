"""Tests of paired differences: against known distributions, and Holm's correction by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lrp_onnx.evaluation.metrics.comparisons import holm, sign_flip_test


def test_sign_flips_against_every_flip() -> None:
    differences = np.array([0.3, -0.1, 0.5, 0.2, 0.4, -0.2, 0.1, 0.6])
    sums = [abs(np.dot(signs, differences)) for signs in itertools.product((-1, 1), repeat=8)]
    exact = np.mean(np.array(sums) >= abs(differences.sum()) - 1e-12)
    assert sign_flip_test(differences) == pytest.approx(exact, abs=0.01)
    assert sign_flip_test(-differences) == pytest.approx(exact, abs=0.01)


def test_what_is_clear_and_what_is_chance() -> None:
    rng = np.random.default_rng(0)
    assert sign_flip_test(rng.normal(1, 1, 50)) == pytest.approx(1 / 10_001)
    assert sign_flip_test([]) == 1 and sign_flip_test(np.zeros(9)) == 1
    chance = [sign_flip_test(rng.normal(0, 1, 30), flips=500) for _ in range(300)]
    assert 0.02 < np.mean(np.array(chance) < 0.05) < 0.09


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.9]) == [1.0, 1.0] and holm([]) == [] and holm([0.2]) == [0.2]
