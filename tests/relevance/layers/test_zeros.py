"""Relevance that is known to be zero: it is so, and layers along the last axis leave it out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import relative
from float64 import run_float64
from networks import Network, picture, transformer
from zoo_files import ZooFile, families, feeds

from lrp_onnx.compiled.conservation import expose
from lrp_onnx.compiler import compile_model, plan_model
from lrp_onnx.plan import kinds
from lrp_onnx.relevance import emit
from lrp_onnx.relevance.graph.builder import Builder, Value, Zeros
from lrp_onnx.relevance.graph.relevance import Relevance
from lrp_onnx.relevance.layers.layer import Layer
from lrp_onnx.relevance.layers.linear import LinearLayer
from lrp_onnx.relevance.layers.table import layer_of
from lrp_onnx.relevance.rules.linear import Epsilon
from lrp_onnx.relevance.rules.rule import Rule, Shares
from tools.benchmark.arithmetic import multiply_adds

FILES = [file for name in ("vit", "deit") for file in families()[name]]


def in_full(rule: Rule, layer: Layer, received: Relevance) -> Shares:
    return rule(layer, received)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.name))
def test_what_is_known_to_be_zero_is_left_out(
    file: ZooFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same map with fewer products."""
    path = file.save(tmp_path)
    short = compile_model(path, composite="cp-lrp-gamma").model
    monkeypatch.setattr(emit, "_passed", in_full)
    full = compile_model(path, composite="cp-lrp-gamma").model
    x = feeds(file, short)
    maps = [run_float64(model, x)["heatmap"] for model in (short, full)]
    assert relative(maps[0], maps[1]) < 1e-9
    costs = [sum(multiply_adds(model).values()) for model in (short, full)]
    assert costs[0] < 0.9 * costs[1]


@pytest.mark.parametrize("form", ["split", "merged"])
@pytest.mark.parametrize("composite", ["cp-lrp-gamma", "attn-lrp", "epsilon-gamma-plus"])
def test_what_is_known_to_be_zero_is_zero(
    composite: str,
    form: str,
    saved: Callable[[onnx.ModelProto], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known: dict[str, Zeros] = {}
    zero = Value.zero

    def noted(value: Value, zeros: Zeros | None) -> Value:
        if zeros:
            known[value.name] = zeros
        return zero(value, zeros)

    monkeypatch.setattr(Value, "zero", noted)
    model = compile_model(saved(transformer(form)), composite=composite).model
    found = run_float64(expose(model, frozenset(known)), {"x": picture(model)})
    there = {name: zeros for name, zeros in known.items() if name in found}
    assert len(there) > 3
    for name, zeros in there.items():
        tensor = np.moveaxis(found[name], zeros.axis, 0)
        assert not tensor[: zeros.before].any()
        assert not tensor[len(tensor) - zeros.after :].any()


@pytest.mark.parametrize("rule", ["epsilon", "gamma"])
def test_products_of_a_linear_layer(rule: str, saved: Callable[[onnx.ModelProto], Path]) -> None:
    """Epsilon needs one beside the forward pass; gamma three, whatever the signs."""
    net = Network(0)
    y = net.node("MatMul", "x", net.constant("w", net.rng.normal(size=(8, 6)).astype("float32")))
    axes = net.constant("mean", np.array([1, 2]))
    y = net.node("ReduceMean", net.node("Tanh", y), axes, keepdims=0)
    model = net.model(net.dense(y, (6, 3)), ["N", 3, 5, 8])
    rules = {"@convolution": rule, "@dense": "epsilon"}
    compiled = compile_model(saved(model), composite="lrp-z", rules=rules).model
    shapes = Counter(
        node.op_type for node in compiled.graph.node if node.op_type in ("MatMul", "Gemm")
    )
    assert shapes == {"MatMul": 1, "Gemm": 2 + {"epsilon": 1, "gamma": 3}[rule]}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((6, 4), (2, 3, 4)),
        ((2, 3, 4), (6, 4)),
        ((6, 4), (24,)),
        ((6, 4), (4, 6)),
        ((3, 2, 4), (3, 8)),
        ((5, 4), (5, 2, 2)),
        ((1, 7), (7, 1)),
        ((4, 1, 3), (4, 3)),
    ],
)
def test_zeros_in_another_shape(
    before: tuple[int, ...], after: tuple[int, ...], saved: Callable[[onnx.ModelProto], Path]
) -> None:
    """What is known behind a Reshape is known before it where one axis tells it: all is tried."""
    net = Network(0)
    y = net.node("Reshape", "x", net.constant("shape", np.array([-1, *after])))
    flat = net.node("Flatten", net.node("Relu", y))
    path = saved(net.model(net.dense(flat, (int(np.prod(after)), 2)), ["N", *before]))
    _, plan, _ = plan_model(path)
    step = next((s for s in plan.steps if type(s.kind) is kinds.Reshape), None)
    assert step is not None and step.output_shape[1:] == after
    for axis, size in enumerate(after, 1):
        for first, last in ((f, b) for f in range(size + 1) for b in range(size - f)):
            builder = Builder()
            known = Zeros(axis, first, last)
            zeros = (
                layer_of(builder, step)
                .vjp(Value(builder, "s", zeros=known), builder.value(1.0))
                .zeros
            )
            expected = marked(after, known).reshape(1, *before)
            if zeros is not None:
                np.testing.assert_array_equal(marked(before, zeros), expected)
            elif first + last:
                assert not any(
                    np.array_equal(marked(before, other), expected) for other in every(before)
                ), known


def marked(shape: tuple[int, ...], zeros: Zeros) -> np.ndarray:
    """True where zeros are, with a batch of 1."""
    found = np.zeros((1, *shape), bool)
    places = np.moveaxis(found, zeros.axis, 0)
    places[: zeros.before] = True
    places[len(places) - zeros.after :] = True
    return found


def every(shape: tuple[int, ...]) -> list[Zeros]:
    return [
        Zeros(axis, first, last)
        for axis, size in enumerate(shape, 1)
        for first in range(size + 1)
        for last in range(size + 1 - first)
        if first + last
    ]


def test_a_rule_without_a_stabilizer_sees_the_whole_layer(
    saved: Callable[[onnx.ModelProto], Path],
) -> None:
    """Others see what is left where relevance is not known to be zero."""
    seen: list[Layer] = []

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Noting(Epsilon):
        def __call__(self, layer: Layer, r: Relevance) -> Shares:
            seen.append(layer)
            return Epsilon.__call__(self, layer, r)

    _, plan, _ = plan_model(saved(transformer()))
    builder = Builder()
    step = next(step for step in plan.steps if isinstance(step.kind, kinds.Linear))
    layer = layer_of(builder, step)
    received = Relevance(Value(builder, "r", zeros=Zeros(1, 0, 1)))
    for epsilon in (0.0, 1e-6):
        emit._passed(Noting(epsilon=epsilon), layer, received)
    assert seen[0] is layer and seen[1] is not layer
    _, tokens, width = step.input_shape
    assert isinstance(seen[1], LinearLayer) and tokens is not None
    assert seen[1].step.input_shape[1:] == (tokens - 1, width)
    assert seen[1].step.output_shape[1:] == (tokens - 1, *step.output_shape[2:])
    emit._passed(Noting(), layer, Relevance(Value(builder, "r")))
    assert seen[2] is layer
