"""Metrics that make maps anew: values that can be known beforehand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import picture, resnet

from lrp_onnx.evaluation.methods import Made, make_maps
from lrp_onnx.evaluation.sanity import REMADE
from lrp_onnx.evaluation.subject import Subject

Save = Callable[[onnx.ModelProto], Path]
TARGETS = np.array([3, 7, 1])


@pytest.fixture
def subject(saved: Save) -> Subject:
    return Subject(saved(resnet(size=(32, 32), widths=(8, 16))), provider="cpu")


@pytest.fixture
def x() -> np.ndarray:
    return picture(resnet(size=(32, 32), widths=(8, 16)), batch=3)


def values(metric: str, name: str, subject: Subject, x: np.ndarray) -> np.ndarray:
    (made,) = make_maps([name], subject, x, TARGETS)
    found = REMADE[metric](made, subject, x, TARGETS)
    assert len(found) == 3 and np.isfinite(found).all()
    return np.array(found)


@pytest.mark.parametrize("metric", ["class-sensitivity", "random-logit", "randomisation"])
@pytest.mark.parametrize("name", ["constant", "gaussian", "edges", "random"])
def test_what_knows_nothing_of_the_model_fails(
    metric: str, name: str, subject: Subject, x: np.ndarray
) -> None:
    np.testing.assert_allclose(values(metric, name, subject, x), 1, atol=1e-6)


@pytest.mark.parametrize("metric", ["class-sensitivity", "random-logit", "randomisation"])
def test_what_depends_on_model_and_class_passes(
    metric: str, subject: Subject, x: np.ndarray
) -> None:
    found = values(metric, "gradient-x-input", subject, x)
    assert found.max() < 0.9 and found.min() > -1


def test_max_sensitivity_of_maps_that_see_the_picture_or_not(
    subject: Subject, x: np.ndarray
) -> None:
    np.testing.assert_array_equal(values("max-sensitivity", "gaussian", subject, x), 0)
    assert (values("max-sensitivity", "edges", subject, x) > 1e-3).all()
    rough, smooth = (
        values("max-sensitivity", name, subject, x).mean() for name in ("gradient", "edges")
    )
    assert rough > smooth


def test_adcc_by_hand(subject: Subject, x: np.ndarray) -> None:
    """A map that does not change with the picture is wholly
    coherent; the rest is drop and complexity.
    """
    (made,) = make_maps(["gaussian"], subject, x, TARGETS)
    found = REMADE["adcc"](made, subject, x, TARGETS)
    for index, one in enumerate(made.maps):
        scaled = (one - one.min()) / np.ptp(one)
        whole, left = (
            subject.probabilities(p[None])[0, TARGETS[index]]
            for p in (x[index], (x[index] * scaled).astype(np.float32))
        )
        parts = (1 - max(0, whole - left) / whole, 1.0, 1 - float(scaled.mean()))
        assert found[index] == pytest.approx(3 / sum(1 / part for part in parts), rel=1e-4)


def test_class_sensitivity_looks_at_the_runner_up(subject: Subject, x: np.ndarray) -> None:
    asked = []

    def maps(pictures: np.ndarray, targets: np.ndarray) -> np.ndarray:
        asked.append(targets)
        return np.ones((len(pictures), 32, 32), np.float32)

    (made,) = make_maps(["gaussian"], subject, x, TARGETS)
    method = type(made.method)("ours", maps)
    REMADE["class-sensitivity"](Made(method, made.maps), subject, x, TARGETS)
    REMADE["random-logit"](Made(method, made.maps), subject, x, TARGETS)
    scores = subject.probabilities(x)
    for row, target in enumerate(TARGETS):
        order = [c for c in np.argsort(-scores[row]) if c != target]
        assert asked[0][row] == order[0]
    assert (asked[1] != TARGETS).all() and set(asked[1]) <= set(range(10))
