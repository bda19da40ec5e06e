"""Activations: what their gradient is where it has a limit, and which nodes it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import run_onnx
from networks import Network

from lrp_onnx.compiler import compile_model, plan_model
from lrp_onnx.relevance.graph.builder import Builder, Value
from lrp_onnx.relevance.graph.emission import EMISSIONS
from lrp_onnx.relevance.layers.table import layer_of

Save = Callable[[onnx.ModelProto], Path]


def nodes_of(
    path: Path, *, blocked: bool = False, batch: str | None = None, vanishes: bool = False
) -> Counter[str]:
    """How many nodes of every operator the gradient of the first activation takes."""
    _, plan, _ = plan_model(path)
    step = next(step for step in plan.steps if step.kind.category == "activation")
    emission = replace(EMISSIONS["portable"], blocked_masks=blocked)
    builder = Builder(emission=emission, batch=batch)
    layer = layer_of(builder, step)
    s = Value(builder, "s", vanishes=step.output if vanishes else None)
    layer.vjp(s, layer.weight)
    return Counter(node.op for node in builder.nodes)


def rectified(channels: int, *sizes: int) -> onnx.ModelProto:
    net = Network(0)
    y = net.node("Relu", net.conv("x", (3, channels), (1,) * len(sizes)))
    logits = net.dense(net.node("Flatten", y), (channels * int(np.prod(sizes)), 2))
    return net.model(logits, ["N", 3, *sizes])


def test_masks_of_blocks_are_for_pictures_of_whole_blocks(saved: Save) -> None:
    """A convolution and a tanh; else a choice, and nothing where s vanishes with the output."""
    blocks, choice = Counter(Conv=1, Tanh=1, Mul=1), Counter(Greater=1, Where=1)
    picture = saved(rectified(16, 2, 2))
    assert nodes_of(picture, blocked=True) == blocks
    assert nodes_of(picture) == nodes_of(picture, blocked=True, batch="targets") == choice
    assert nodes_of(saved(rectified(12, 2, 2)), blocked=True) == choice
    assert nodes_of(saved(rectified(16, 4)), blocked=True) == choice
    assert not nodes_of(picture, vanishes=True) and not nodes_of(
        picture, blocked=True, vanishes=True
    )


@pytest.mark.parametrize(("exponent", "divides"), [(2, 0), (3, 0), (4, 1), (1.5, 1)])
def test_squares_and_cubes_take_products_alone(exponent: float, divides: int, saved: Save) -> None:
    net = Network(0)
    y = net.node("Relu", net.conv("x", (3, 4), (1, 1)))
    y = net.node("Pow", y, net.constant("exponent", np.float32(exponent)))
    logits = net.dense(net.node("Flatten", y), (16, 2))
    _, plan, _ = plan_model(saved(net.model(logits, ["N", 3, 2, 2])))
    step = next(step for step in plan.steps if step.op == "Pow")
    builder = Builder()
    layer = layer_of(builder, step)
    layer.vjp(Value(builder, "s"), layer.weight)
    assert Counter(node.op for node in builder.nodes)["Div"] == divides


def test_a_root_has_no_gradient_at_zero(saved: Save) -> None:
    """Where it is infinite, nothing is handed on."""
    net = Network(0)
    y = net.node("Sqrt", "x")
    ones = net.constant("ones", np.ones((12, 1), np.float32))
    path = saved(net.model(net.node("Gemm", net.node("Flatten", y), ones), ["N", 3, 2, 2]))
    model = compile_model(path, composite="gradient", outputs=("relevance",)).model
    x = np.array([4, 0, 2, 0.25, 1, 0, 0, 9, 16, 3, 0, 1], np.float32).reshape(1, 3, 2, 2)
    found = run_onnx(model, {"x": x, "target": np.array([1])})["relevance"]
    expected = np.where(x > 0, 0.5 / np.sqrt(np.where(x > 0, x, 1)), 0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
