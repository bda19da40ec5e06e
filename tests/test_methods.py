"""Baselines against their definitions, written here in other words, on a small network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from conftest import relative, run_onnx
from networks import Network, picture, resnet

from lrp_onnx.baselines import BASELINES, rise_masks
from lrp_onnx.compiler import compile_model
from lrp_onnx.errors import RuleError
from lrp_onnx.maps.c3 import c3
from lrp_onnx.methods import find_method
from lrp_onnx.subject import Subject

Save = Callable[[onnx.ModelProto], Path]
TARGETS = np.array([3, 7])


@pytest.fixture
def subject(saved: Save) -> Subject:
    return Subject(saved(resnet(size=(64, 48), widths=(8, 16))), provider="cpu")


@pytest.fixture
def x() -> np.ndarray:
    return picture(resnet(size=(64, 48), widths=(8, 16)))


def logits(subject: Subject, x: np.ndarray) -> np.ndarray:
    model = onnx.load(subject.path)
    return run_onnx(model, {"x": x})[model.graph.output[0].name]


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def test_probabilities_in_parts(subject: Subject) -> None:
    many = picture(resnet(size=(64, 48), widths=(8, 16)), batch=70)
    np.testing.assert_allclose(subject.probabilities(many), softmax(logits(subject, many)), atol=1e-5)


@pytest.mark.parametrize("name", [name for name in BASELINES if name != "attention"])
def test_every_baseline_gives_finite_maps_that_do_not_depend_on_the_batch(
    name: str, subject: Subject, x: np.ndarray
) -> None:
    short = {"rise": "rise(masks=40)", "integrated-gradients": "integrated-gradients(steps=4)"}
    method = find_method(short.get(name, name), subject)
    maps = method.maps(x, TARGETS)
    assert maps.shape == (2, 64, 48) and maps.dtype == np.float32 and np.isfinite(maps).all()
    alone = method.maps(x[1:], TARGETS[1:])
    if name != "smooth-grad":  # its noise goes on from picture to picture
        assert relative(alone[0], maps[1]) < 1e-4
    assert name == "constant" or np.ptp(maps) > 0


def test_composites_and_chains(subject: Subject, x: np.ndarray) -> None:
    plain = find_method("lrp-resnet", subject).maps(x, TARGETS)
    expected = run_onnx(compile_model(subject.path, composite="lrp-resnet").model, {"x": x, "target": TARGETS})
    assert relative(plain, expected["heatmap"]) < 1e-5
    chained = find_method("lrp-resnet+c3", subject).maps(x, TARGETS)
    np.testing.assert_array_equal(chained[0], c3(plain[0]).map)


def test_grad_cam_and_cam(subject: Subject, x: np.ndarray) -> None:
    """CAM of a network with one dense layer behind a global average, from its weights alone."""
    model = onnx.load(subject.path)
    model.graph.output.append(onnx.ValueInfoProto(name=subject.feature))
    activations = run_onnx(model, {"x": x})[subject.feature]
    weights = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name.startswith("fc")]
    dense = next(w for w in weights if w.ndim == 2)[TARGETS]
    weighted = np.einsum("nk,nkhw->nhw", dense, activations) / activations[0, 0].size
    large = np.stack([cv2.resize(one, (48, 64), interpolation=cv2.INTER_LINEAR) for one in weighted])
    assert relative(find_method("cam", subject).maps(x, TARGETS), large) < 1e-4
    positive = np.stack([cv2.resize(np.maximum(one, 0), (48, 64), interpolation=cv2.INTER_LINEAR) for one in weighted])
    found = find_method("grad-cam", subject).maps(x, TARGETS)
    for one, other in zip(found, positive, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.999


def test_integrated_gradients_are_complete(subject: Subject, x: np.ndarray) -> None:
    """They sum to f(x) − f(0), and agree with a plain Riemann sum of 300 steps."""
    found = find_method("integrated-gradients(steps=64)", subject).maps(x, TARGETS)
    ends = [logits(subject, one)[[0, 1], TARGETS] for one in (x, 0 * x)]
    np.testing.assert_allclose(found.sum((1, 2)), ends[0] - ends[1], rtol=0.02)
    model = compile_model(subject.path, composite="gradient", outputs=("relevance",)).model
    shades = ((np.arange(300) + 0.5) / 300).astype(np.float32).reshape(-1, 1, 1, 1)
    slopes = run_onnx(model, {"x": x[:1] * shades, "target": np.full(300, 3)})["relevance"].mean(0)
    assert np.corrcoef((x[0] * slopes).sum(0).ravel(), found[0].ravel())[0, 1] > 0.99


def test_rise_by_its_definition(subject: Subject, x: np.ndarray) -> None:
    masks = rise_masks((64, 48), 60, 7, 0.5, 0)
    assert masks.min() >= 0 and masks.max() <= 1 and abs(masks.mean() - 0.5) < 0.05
    total = np.zeros((64, 48))
    for mask in masks:
        total += softmax(logits(subject, x[:1] * mask))[0, 3] * mask
    found = find_method("rise(masks=60)", subject).maps(x[:1], TARGETS[:1])[0]
    assert relative(found, total / (60 * 0.5)) < 1e-4


def test_occlusion_finds_the_only_thing_that_counts(saved: Save) -> None:
    """A network that sums one corner: hiding it is what costs."""
    net = Network(0)
    gate = np.zeros((1, 3, 20, 20), np.float32)
    gate[..., :6, :6] = 1
    y = net.node("Flatten", net.node("Mul", "x", net.constant("gate", gate)))
    weights = np.zeros((3 * 400, 2), np.float32)
    weights[:, 0] = 0.05
    logits = net.node("MatMul", y, net.constant("w", weights))
    subject = Subject(saved(net.model(logits, ["N", 3, 20, 20], classes=2)), provider="cpu")
    found = find_method("occlusion", subject).maps(np.ones((1, 3, 20, 20), np.float32), np.array([0]))[0]
    assert found[:6, :6].min() > 10 * np.abs(found[12:, 12:]).max()


def test_unknown_methods_and_parameters(subject: Subject) -> None:
    for text, message in (
        ("grad-kam", "did you mean grad-cam"),
        ("rise(mask=3)", "no parameter 'mask'; it takes masks, cells, keep"),
        ("lrp-resnet(epsilon=3)", "it takes none"),
        ("rise(masks=many)", "masks is a number"),
        ("lrp-resnet+c4", "unknown step 'c4'"),
        ("c3 lrp", "is no method"),
    ):
        with pytest.raises(RuleError, match=message):
            find_method(text, subject)
