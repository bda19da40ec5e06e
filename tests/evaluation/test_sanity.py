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
    REMADE["class-sensitivity"](Made(method, made.maps, made.raw), subject, x, TARGETS)
    REMADE["random-logit"](Made(method, made.maps, made.raw), subject, x, TARGETS)
    scores = subject.probabilities(x)
    for row, target in enumerate(TARGETS):
        order = [c for c in np.argsort(-scores[row]) if c != target]
        assert asked[0][row] == order[0]
    assert (asked[1] != TARGETS).all() and set(asked[1]) <= set(range(10))


def test_a_mosaic_by_hand(subject: Subject, x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """The share in the target's half, for maps that know it, that do not, and that are negative."""
    targets = np.array([3, 7, 1])
    sure = np.array([0.9, 0.7, 0.59])
    probabilities = np.full((3, 10), 0.01)
    probabilities[np.arange(3), targets] = sure
    monkeypatch.setattr(Subject, "probabilities", lambda self, pictures: probabilities)
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def brightness(pictures: np.ndarray, asked: np.ndarray) -> np.ndarray:
        """Relevance where a pixel has the brightness of its class."""
        seen.append((pictures, asked))
        return (pictures[:, 0] == asked[:, None, None]).astype(np.float32)

    pictures = np.broadcast_to(targets[:, None, None, None], (3, 3, 32, 32)).astype(np.float32)
    (made,) = make_maps(["gaussian"], subject, x, TARGETS)
    method = type(made.method)("ours", brightness)
    found = REMADE["mosaic"](Made(method, made.maps, made.raw), subject, pictures, targets)
    assert found[:2] == [1.0, 1.0] and np.isnan(found[2])  # the third is not predicted surely
    mosaics, asked = seen[0]
    assert sorted(asked) == [3, 7] and mosaics.shape == (2, 3, 32, 32)
    for mosaic in mosaics:
        assert {*np.unique(mosaic[..., :16]), *np.unique(mosaic[..., 16:])} == {3, 7}
        assert len(np.unique(mosaic[..., :16])) == 1
    for maps, expected in (
        (lambda p, t: np.ones((len(p), 32, 32), np.float32), 0.5),
        (lambda p, t: -brightness(p, t), 0.5),
        (lambda p, t: (p[:, 0] != t[:, None, None]).astype(np.float32), 0.0),
    ):
        method = type(made.method)("ours", maps)
        found = REMADE["mosaic"](Made(method, made.maps, made.raw), subject, pictures, targets)
        assert found[:2] == [expected, expected]
    # Of one class there is no partner.
    found = REMADE["mosaic"](made, subject, pictures, np.array([3, 3, 3]))
    assert np.isnan(found).all()
