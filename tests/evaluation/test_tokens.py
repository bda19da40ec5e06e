"""Baselines on transformers: Grad-CAM on tokens against central differences, attention rollout
against its formula, and what both refuse.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.utils
import pytest
from conftest import relative, run_onnx
from float64 import run_float64
from networks import picture, resnet, transformer

from lrp_onnx.errors import RuleError
from lrp_onnx.evaluation.methods import check_method, find_method
from lrp_onnx.evaluation.subject import Subject
from lrp_onnx.evaluation.tokens import FeatureMap, rolled_out
from lrp_onnx.maps.resample import resample
from lrp_onnx.plan.layouts import Layout

Save = Callable[[onnx.ModelProto], Path]
GRID = (3, 2)
TARGETS = np.array([2, 0])


def with_outputs(model: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return model


@pytest.mark.parametrize("form", ["split", "merged", "windows"])
def test_grad_cam_weighs_the_tokens_that_enter_the_last_attention(form: str, saved: Save) -> None:
    model = transformer(form)
    x, subject = picture(model), Subject(saved(model), provider="cpu")
    tokens = subject.feature_map
    first = 0 if form == "windows" else 1
    assert (tokens.layout, tokens.start) == (Layout(2, GRID, tokens=True), first)
    norm = next(node for node in model.graph.node if tokens.name in node.output)
    assert norm.op_type == "LayerNormalization"
    both = [tokens.name, norm.input[0]]
    found = run_float64(with_outputs(transformer(form), *both), {"x": x})
    values, entering = (found[name] for name in both)
    logits = model.graph.output[0].name
    rest = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model)).extract_model(
        both, [logits]
    )

    def scores(changed: np.ndarray) -> np.ndarray:
        inputs = dict(zip(both, (changed, entering), strict=True))
        return run_float64(rest, inputs)[logits][np.arange(2), TARGETS]

    gradient = np.zeros_like(values)
    for token, channel in np.ndindex(*values.shape[1:]):
        step = np.zeros_like(values)
        step[:, token, channel] = 1e-5
        gradient[:, token, channel] = (scores(values + step) - scores(values - step)) / 2e-5
    weights = gradient[:, first:].mean(1, keepdims=True)
    coarse = np.maximum((weights * values[:, first:]).sum(2), 0).reshape(2, *GRID)
    expected = [resample(one.astype(np.float32), (6, 4), method="bilinear") for one in coarse]
    assert np.ptp(coarse) > 0
    assert relative(find_method("grad-cam", subject).maps(x, TARGETS), np.stack(expected)) < 1e-3


@pytest.mark.parametrize("form", ["split", "merged"])
def test_attention_rollout_is_the_class_tokens_row(form: str, saved: Save) -> None:
    model = transformer(form)
    x, subject = picture(model), Subject(saved(model), provider="cpu")
    name = next(node.output[0] for node in model.graph.node if node.op_type == "Softmax")
    weights = run_onnx(with_outputs(model, name), {"x": x})[name].reshape(2, 2, 7, 7)
    rows = (weights.mean(1) + np.eye(7))[:, 0] / 2
    expected = [
        resample(row[1:].reshape(GRID).astype(np.float32), (6, 4), method="bilinear")
        for row in rows
    ]
    found = find_method("attention-rollout", subject).maps(x, TARGETS)
    assert relative(found, np.stack(expected)) < 1e-5


def test_rollout_multiplies_layers() -> None:
    layers = np.random.default_rng(0).random((3, 2, 4, 5, 5)).astype(np.float32)
    layers /= layers.sum(-1, keepdims=True)
    last, middle, first = (0.5 * layer.mean(1) + 0.5 * np.eye(5) for layer in layers[::-1])
    assert np.allclose(rolled_out(iter(layers)), last @ middle @ first)
    assert np.allclose(rolled_out(iter(layers)).sum(-1), 1)


def test_what_a_network_lacks_is_said(saved: Save) -> None:
    for model in (resnet(), transformer("windows")):
        with pytest.raises(RuleError, match="is no transformer whose every layer attends to all"):
            check_method("attention-rollout", Subject(saved(model), provider="cpu"))
    model = transformer("split")
    x, subject = picture(model), Subject(saved(model), provider="cpu")
    with pytest.raises(RuleError, match="is not all that the layers behind it read"):
        find_method("recipro-cam", subject).maps(x, TARGETS)


@pytest.mark.parametrize(
    "tensor",
    [
        FeatureMap("a", Layout(1, (2, 3))),
        FeatureMap("a", Layout(3, (2, 3))),
        FeatureMap("a", Layout(2, (2, 3), tokens=True), 0, 6),
        FeatureMap("a", Layout(1, (2, 3), tokens=True), 0, 6),
    ],
)
def test_a_feature_map_and_its_tensor(tensor: FeatureMap) -> None:
    maps = np.arange(48, dtype=np.float32).reshape(2, 4, 2, 3)
    assert tensor.whole and np.array_equal(tensor.of(tensor.tensor(maps)), maps)
