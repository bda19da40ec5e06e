"""Masks of minus infinity: read in front of a softmax, refused elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import relative, run_onnx
from networks import Network, picture

from lrp_onnx.compiler import compile_model
from lrp_onnx.errors import UnsupportedModelError

Save = Callable[[onnx.ModelProto], Path]


def attention(masked: float, *, moved: bool = False, softmax: bool = True) -> onnx.ModelProto:
    """Attention of five rows of a picture, in which every row sees itself and those before it."""
    net = Network(2)
    rows = [net.conv("x", (2, 1), (1, 1)) for _ in range(3)]
    turned = net.node("Transpose", rows[1], perm=[0, 1, 3, 2])
    scores = net.node("MatMul", rows[0], turned)
    mask = np.where(np.tri(5) > 0, 0.0, masked).astype(np.float32)
    scores = net.node("Add", net.constant("mask", mask), scores)
    if moved:
        scores = net.node("Reshape", scores, net.constant("shape", np.array([0, 1, 5, 5])))
    weights = net.node("Softmax", scores, axis=-1) if softmax else net.node("Sigmoid", scores)
    y = net.node("Flatten", net.node("MatMul", weights, rows[2]))
    return net.model(net.dense(y, (20, 3)), ["N", 2, 5, 4], classes=3)


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("composite", ["attn-lrp", "cp-lrp-gamma", "gradient"])
def test_infinity_is_a_large_number(composite: str, moved: bool, saved: Save) -> None:
    model = attention(-np.inf, moved=moved)
    x = {"x": picture(model)}
    compiled = compile_model(saved(model), composite=composite, outputs=("relevance",)).model
    finite = compile_model(
        saved(attention(-1e9, moved=moved)), composite=composite, outputs=("relevance",)
    ).model
    found, expected = run_onnx(compiled, x)["relevance"], run_onnx(finite, x)["relevance"]
    assert relative(found, expected) < 1e-6 and np.abs(expected).max() > 1e-3
    name = model.graph.output[0].name
    before = run_onnx(model, x, optimize=False)[name]
    np.testing.assert_array_equal(run_onnx(compiled, x, optimize=False)[name], before)


def test_infinity_elsewhere_is_refused(saved: Save) -> None:
    with pytest.raises(UnsupportedModelError, match="no mask in front of a softmax"):
        compile_model(saved(attention(-np.inf, softmax=False)), composite="gradient")
    with pytest.raises(UnsupportedModelError, match="'mask' holds NaN or infinity"):
        compile_model(saved(attention(np.inf)), composite="gradient")
