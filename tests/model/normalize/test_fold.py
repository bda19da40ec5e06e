"""What does not depend on the picture is evaluated; what is large or unknown is left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import run_onnx
from networks import Network, picture

from lrp_onnx.errors import ModelFileError
from lrp_onnx.model.load import load_model, normalise

Save = Callable[[onnx.ModelProto], Path]


def with_reshape(net: Network, shape: str, *, batch: int | str = 2) -> onnx.ModelProto:
    """``GlobalAveragePool → Reshape(shape) → Gemm``."""
    pooled = net.node("GlobalAveragePool", net.conv("x", (3, 4)))
    return net.model(
        net.dense(net.node("Reshape", pooled, shape), (4, 5)), [batch, 3, 8, 8], classes=5
    )


def operators(model: onnx.ModelProto, saved: Save) -> list[str]:
    graph = load_model(saved(model))
    x = {"x": picture(model)}
    found = ir.to_proto(graph.model)
    before, after = (next(iter(run_onnx(m, x, optimize=False).values())) for m in (model, found))
    assert np.array_equal(before, after)
    return [node.op_type for node in graph.nodes]


def test_a_computed_shape_is_evaluated(saved: Save) -> None:
    net = Network(0)
    halves = [net.constant(name, np.array([value])) for name, value in (("two", 2), ("four", 4))]
    shape = net.node("Concat", *halves, axis=0)
    shape = net.node(
        "Cast",
        net.node("Mul", shape, net.constant("one", np.array([1, 1]))),
        to=onnx.TensorProto.INT64,
    )
    assert operators(with_reshape(net, shape), saved) == [
        "Conv",
        "GlobalAveragePool",
        "Reshape",
        "Gemm",
    ]


def test_the_shape_of_a_tensor_of_known_size_is_evaluated(saved: Save) -> None:
    net = Network(0)
    size = net.node("Gather", net.node("Shape", "x"), net.constant("zero", np.array([0])))
    shape = net.node("Concat", size, net.constant("rest", np.array([-1])), axis=0)
    assert operators(with_reshape(net, shape), saved) == [
        "Conv",
        "GlobalAveragePool",
        "Reshape",
        "Gemm",
    ]


def test_a_shape_made_of_the_batch_is_found_by_trying_two(saved: Save) -> None:
    net = Network(0)
    size = net.node("Gather", net.node("Shape", "x"), net.constant("zero", np.array([0])))
    shape = net.node("Concat", size, net.constant("rest", np.array([-1])), axis=0)
    assert "Shape" not in operators(with_reshape(net, shape, batch="N"), saved)


def test_padding_that_is_computed_from_the_size(saved: Save) -> None:
    """TensorFlow's SAME as torch code computes it: ⌈size /
    2⌉ windows, through Shape, Cast, Div, Ceil, Clip.
    """
    net = Network(0)
    number = lambda v, kind: net.constant(f"n{len(net.weights)}", np.asarray(v, kind))  # noqa: E731
    size = net.node("Cast", net.node("Gather", net.node("Shape", "x"), number(2, np.int64)), to=1)
    windows = net.node("Ceil", net.node("Div", size, number(2, np.float32)))
    needed = net.node(
        "Sub",
        net.node("Mul", windows, number(2, np.float32)),
        net.node("Sub", size, number(1, np.float32)),
    )
    amount = net.node("Cast", net.node("Clip", needed, number(0, np.float32)), to=7)
    amount = net.node("Unsqueeze", amount, number([0], np.int64))
    zeros = number([0, 0, 0, 0, 0, 0], np.int64)
    pads = net.node("Concat", zeros, amount, number([0], np.int64), axis=0)
    y = net.conv(net.node("Pad", "x", pads), (3, 4), (3, 3), strides=[2, 2])
    model = net.model(
        net.dense(net.node("Flatten", net.node("GlobalAveragePool", y)), (4, 2)), ["N", 3, 9, 8]
    )
    found = operators(model, saved)
    assert found == ["Pad", "Conv", "GlobalAveragePool", "Flatten", "Gemm"]


@pytest.mark.parametrize("op", ["ConstantOfShape", "Expand", "Range"])
def test_a_bomb_is_not_evaluated(op: str, saved: Save) -> None:
    """A file may ask for gigabytes in a few bytes: nothing is allocated for it, and it is refused
    where these are not allowed.
    """
    net = Network(0)
    huge = net.constant("huge", np.array([1 << 14, 1 << 14]))
    if op == "ConstantOfShape":
        bomb = net.node(op, huge)
    elif op == "Expand":
        bomb = net.node(op, net.constant("value", np.array([1], np.float32)), huge)
    else:
        bomb = net.node(
            op, *(net.constant(f"r{i}", np.float32(v)) for i, v in enumerate((0, 2.0**28, 1)))
        )
    y = net.node("GlobalAveragePool", net.conv("x", (3, 4)))
    y = net.node("Add", y, net.node("ReduceSum", bomb, keepdims=0))
    model = net.model(net.dense(net.node("Flatten", y), (4, 5)), ["N", 3, 8, 8], classes=5)
    allowed = normalise(model, "model.onnx", max_memory=1e10)
    assert op in [node.op_type for node in allowed.nodes]
    with pytest.raises(ModelFileError, match=rf"takes 1\.1 GB .* {op} .*--max-memory"):
        normalise(model, "model.onnx", max_memory=1e9)


def test_a_constant_in_the_type_of_a_tensor(saved: Save) -> None:
    """What torch's dynamo exporter writes for a missing bias,
    unless it optimises: zeros, cast like the input, expanded.
    """
    net = Network(0)
    zero = net.node("CastLike", net.constant("zero", np.float64(0.0)), "x")
    bias = net.node(
        "Expand", zero, net.node("Shape", net.constant("four", np.zeros(4, np.float32)))
    )
    weight = net.constant("weight", net.rng.normal(size=(4, 3, 3, 3)).astype(np.float32))
    pooled = net.node("GlobalAveragePool", net.node("Conv", "x", weight, bias, kernel_shape=[3, 3]))
    model = net.model(net.dense(net.node("Flatten", pooled), (4, 5)), ["N", 3, 8, 8], classes=5)
    assert operators(model, saved) == ["Conv", "GlobalAveragePool", "Flatten", "Gemm"]
