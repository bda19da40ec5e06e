"""Logits (N, classes) for a model without such a tensor: appended to its graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lrp_onnx.contract import EXPLAINED, Selection
from lrp_onnx.model.graph import Graph, shape_of
from lrp_onnx.model.heads.classifier import Head


def append_logits(graph: Graph, head: Head) -> Graph:
    """A copy of the graph with the logits that `head` names; the graph itself where it has them.

    Of a feature map they are the mean over height and width, of scores (N, C, 1, 1) the same
    scores. Of one logit z they are -z and z, for the classes no and yes: the layer that makes z is
    computed once more with its weights and their negatives, so that rules see what speaks for
    either class; where its weights are not stored, the negative of z is taken.
    """
    if head.source is None:
        return graph
    model = graph.model.clone()
    (value,) = [v for node in model.graph for v in node.outputs if v.name == head.source]
    before = []
    if head.selection is not None:
        before = _taken(model, value, head.selection)
        (value,) = before[-1].outputs
    shape = shape_of(value) or ()
    assert value.shape is not None
    if len(shape) > 2 and shape[1] != 1:
        op, name = ("ReduceMean", "axes") if set(shape[2:]) != {1} else ("Reshape", "shape")
        numbers = [*range(2, len(shape))] if op == "ReduceMean" else [0, shape[1] or 0]
        constant = _constant(model, f"{EXPLAINED}.{name}", np.array(numbers, np.int64))
        attributes = {"keepdims": 0} if op == "ReduceMean" else {}
        node = ir.node(op, [value, constant], attributes=attributes, name=EXPLAINED)
        nodes, classes = [node], shape[1]
    else:
        nodes, classes = _two_sided(model, value), 2
    (logits,) = nodes[-1].outputs
    logits.name, logits.type = EXPLAINED, value.type
    logits.shape = ir.Shape([value.shape[0], classes])
    model.graph.extend([*before, *nodes])
    return replace(graph, model=model)


def _taken(model: ir.Model, value: ir.Value, selection: Selection) -> list[ir.Node]:
    """The selected part of a tensor (N, C, H, W); of one channel its mean, (N, 1)."""
    ranges = (selection.channels, selection.rows, selection.columns)
    bounds = [
        _constant(model, f"{EXPLAINED}.{name}", np.array(numbers, np.int64))
        for name, numbers in (
            ("from", [first for first, _ in ranges]),
            ("to", [last for _, last in ranges]),
            ("taken", [1, 2, 3]),
        )
    ]
    nodes = [ir.node("Slice", [value, *bounds], name=f"{EXPLAINED}.part")]
    (part,) = nodes[0].outputs
    assert value.shape is not None
    part.name, part.type = f"{EXPLAINED}.part", value.type
    part.shape = ir.Shape([value.shape[0], *(last - first for first, last in ranges)])
    if selection.classes == 1:
        axes = _constant(model, f"{EXPLAINED}.pixels", np.array([2, 3], np.int64))
        nodes.append(
            ir.node("ReduceMean", [part, axes], attributes={"keepdims": 0}, name=f"{EXPLAINED}.one")
        )
        _describe(nodes[1].outputs[0], f"{EXPLAINED}.one", value, 1)
    return nodes


@dataclass(frozen=True, slots=True)
class _Dense:
    """A dense layer with one output."""

    x: ir.Value
    """(N, features)"""
    weight: NDArray[Any]
    """(features, 1)"""
    bias: NDArray[Any] | None
    """(1,)"""


def _two_sided(model: ir.Model, logit: ir.Value) -> list[ir.Node]:
    """Nodes that make (N, 2) of one logit: its negative, and itself."""
    layer = _dense(logit)
    if layer is None:
        return _mirrored(model, logit)
    both = np.concatenate([-layer.weight, layer.weight], 1)
    inputs = [layer.x, _constant(model, f"{EXPLAINED}.weight", both)]
    if layer.bias is not None:
        two = np.concatenate([-layer.bias, layer.bias])
        inputs.append(_constant(model, f"{EXPLAINED}.bias", two))
    return [ir.node("Gemm", inputs, name=EXPLAINED)]


def _dense(logit: ir.Value) -> _Dense | None:
    """The dense layer that makes a logit (N, 1); None where there is none, or it is not stored."""
    node = logit.producer()
    if node is None or node.op_type not in ("Gemm", "MatMul", "Add"):
        return None
    arrays = [_stored(value) for value in node.inputs]
    if node.op_type == "Gemm":
        return _of_gemm(node, arrays)
    if node.op_type == "MatMul":
        return _layer(node.inputs[0], arrays[1], None)
    others = [value for value, array in zip(node.inputs, arrays, strict=True) if array is None]
    product = others[0].producer() if len(others) == 1 and others[0] is not None else None
    if product is None or product.op_type != "MatMul":
        return None
    (bias,) = (array for array in arrays if array is not None)
    return _layer(product.inputs[0], _stored(product.inputs[1]), bias)


def _of_gemm(node: ir.Node, arrays: Sequence[NDArray[Any] | None]) -> _Dense | None:
    numbers = {name: attribute.value for name, attribute in node.attributes.items()}
    if numbers.get("transA", 0) or {numbers.get("alpha", 1.0), numbers.get("beta", 1.0)} != {1.0}:
        return None
    weight, has_bias = arrays[1], len(arrays) > 2 and node.inputs[2] is not None
    if weight is None or (has_bias and arrays[2] is None):
        return None
    bias = arrays[2] if has_bias else None
    return _layer(node.inputs[0], weight.T if numbers.get("transB", 0) else weight, bias)


def _layer(
    x: ir.Value | None, weight: NDArray[Any] | None, bias: NDArray[Any] | None
) -> _Dense | None:
    if x is None or weight is None or len(shape_of(x) or ()) != 2 or weight.shape[1:] != (1,):
        return None
    if bias is not None and bias.size != 1:
        return None
    return _Dense(x, weight, None if bias is None else bias.reshape(1))


def _stored(value: ir.Value | None) -> NDArray[Any] | None:
    """A constant's array."""
    constant = value.const_value if value is not None else None
    return None if constant is None else constant.numpy()


def _mirrored(model: ir.Model, logit: ir.Value) -> list[ir.Node]:
    """The logit's negative and itself, where the layer that makes it cannot be doubled."""
    nodes = []
    column = logit
    if len(shape_of(logit) or ()) != 2:
        shape = _constant(model, f"{EXPLAINED}.column", np.array([-1, 1], np.int64))
        nodes.append(ir.node("Reshape", [logit, shape], name=f"{EXPLAINED}.column"))
        (column,) = nodes[0].outputs
        _describe(column, f"{EXPLAINED}.z", logit, 1)
    assert logit.dtype is not None
    minus = _constant(model, f"{EXPLAINED}.minus", np.array(-1, logit.dtype.numpy()))
    nodes.append(ir.node("Mul", [column, minus], name=f"{EXPLAINED}.negative"))
    (negative,) = nodes[-1].outputs
    _describe(negative, f"{EXPLAINED}.no", logit, 1)
    both = ir.node("Concat", [negative, column], attributes={"axis": 1}, name=EXPLAINED)
    return [*nodes, both]


def _describe(value: ir.Value, name: str, like: ir.Value, size: int) -> None:
    assert like.shape is not None
    value.name, value.type, value.shape = name, like.type, ir.Shape([like.shape[0], size])


def _constant(model: ir.Model, name: str, array: NDArray[np.generic]) -> ir.Value:
    """A stored constant of the graph."""
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, const_value=tensor)
    value.shape, value.dtype = ir.Shape(array.shape), tensor.dtype
    model.graph.register_initializer(value)
    return value
