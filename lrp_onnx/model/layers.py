"""One reader per ONNX operator: node → layer. What no reader knows cannot be explained, and the reader says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lrp_onnx import plan
from lrp_onnx.model.graph import Graph, name_of, shape_of


class Unreadable(Exception):
    """A node that cannot be explained; the message says what was found and what to do."""


Reader = Callable[[Graph, ir.Node], plan.Layer]
READERS: dict[str, Reader] = {}


def reads(*operators: str) -> Callable[[Reader], Reader]:
    """Register a reader for operators of the standard domain."""

    def register(reader: Reader) -> Reader:
        for operator in operators:
            assert operator not in READERS, operator
            READERS[operator] = reader
        return reader

    return register


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """An attribute's value as plain Python, or `default` where the node does not state it."""
    found = node.attributes.get(name)
    if found is None:
        return default
    value = found.value
    return tuple(value) if isinstance(value, list | tuple) else value


def data_inputs(graph: Graph, node: ir.Node) -> list[ir.Value]:
    """The inputs of a node that carry the picture, as against weights, shapes and axes."""
    slots = node.inputs if node.op_type in ("Add", "Sum", "Mul", "Sub", "Div", "Concat", "MatMul") else node.inputs[:1]
    return [value for value in slots if value is not None and graph.constant(value) is None]


def _pair(node: ir.Node, name: str) -> tuple[int, int]:
    values = attribute(node, name, (1, 1))
    if len(values) != 2:
        raise Unreadable(f"its {name} has {len(values)} entries: only 2-D (N, C, H, W) layers can be explained")
    return int(values[0]), int(values[1])


def _pads(node: ir.Node) -> tuple[int, int, int, int]:
    automatic = attribute(node, "auto_pad", "NOTSET")
    if automatic == "VALID":
        return 0, 0, 0, 0
    if automatic != "NOTSET":
        raise Unreadable(f"auto_pad={automatic} is not supported yet: export it with explicit pads")
    top, left, bottom, right = (int(p) for p in attribute(node, "pads", (0, 0, 0, 0)))
    return top, left, bottom, right


def _need_spatial(node: ir.Node) -> tuple[int, int, int]:
    """(C, H, W) of a node's input."""
    assert node.inputs[0] is not None
    shape = shape_of(node.inputs[0])
    if shape is None or len(shape) != 4:
        raise Unreadable(f"its input has shape {shape}: only (N, C, H, W) can be explained")
    channels, height, width = shape[1:]
    if channels is None or height is None or width is None:
        raise Unreadable(f"its input has symbolic sizes {shape}: export the model for a fixed height and width")
    return channels, height, width


def _weight_constant(graph: Graph, node: ir.Node, slot: int, what: str) -> NDArray[np.generic]:
    value = node.inputs[slot] if slot < len(node.inputs) else None
    found = graph.constant(value)
    if found is None:
        raise Unreadable(
            f"its {what} is not a constant of the file: export the model with its weights stored, not computed"
        )
    return found


def _bias(graph: Graph, node: ir.Node, slot: int) -> NDArray[np.float64] | None:
    if slot >= len(node.inputs) or node.inputs[slot] is None:
        return None
    return np.asarray(_weight_constant(graph, node, slot, "bias"), np.float64)


@reads("Conv")
def _convolution(graph: Graph, node: ir.Node) -> plan.Convolution:
    channels, _, _ = _need_spatial(node)
    weight = _weight_constant(graph, node, 1, "weight")
    group = int(attribute(node, "group", 1))
    if weight.ndim != 4 or group < 1 or weight.shape[1] * group != channels or weight.shape[0] % group:
        raise Unreadable(
            f"its weight of shape {weight.shape} with {group} groups does not fit {channels} input channels"
        )
    assert node.inputs[1] is not None
    return plan.Convolution(
        plan.Weight(name_of(node.inputs[1]), tuple(weight.shape), bias=_bias(graph, node, 2)),
        strides=_pair(node, "strides"),
        pads=_pads(node),
        dilations=_pair(node, "dilations"),
        group=group,
    )


@reads("Gemm")
def _gemm(graph: Graph, node: ir.Node) -> plan.Dense:
    if attribute(node, "transA", 0):
        raise Unreadable("transA=1 transposes the batch: only y = xW + b can be explained")
    weight = _weight_constant(graph, node, 1, "weight")
    transposed = bool(attribute(node, "transB", 0))
    alpha, beta = float(attribute(node, "alpha", 1.0)), float(attribute(node, "beta", 1.0))
    out = weight.shape[0 if transposed else 1]
    bias = _bias(graph, node, 2)
    assert node.inputs[1] is not None
    return plan.Dense(
        plan.Weight(
            name_of(node.inputs[1]),
            tuple(weight.shape),
            scale=None if alpha == 1.0 else np.full(out, alpha),
            bias=None if bias is None else beta * np.broadcast_to(bias, (1, out)).reshape(out),
        ),
        transposed,
    )


@reads("MatMul")
def _matmul(graph: Graph, node: ir.Node) -> plan.Dense:
    weight = _weight_constant(graph, node, 1, "second factor")
    shape = shape_of(node.inputs[0]) if node.inputs[0] is not None else None
    if weight.ndim != 2 or shape is None or len(shape) != 2:
        raise Unreadable(
            f"it multiplies {shape} by {weight.shape}: only (N, in) by a constant (in, out) can be explained"
        )
    assert node.inputs[1] is not None
    return plan.Dense(plan.Weight(name_of(node.inputs[1]), tuple(weight.shape)), transposed=False)


@reads("BatchNormalization")
def _batch_normalization(graph: Graph, node: ir.Node) -> plan.Affine:
    if attribute(node, "training_mode", 0):
        raise Unreadable("training_mode=1 uses the statistics of the batch: call model.eval() before the export")
    gamma, beta, mean, variance = (
        np.asarray(_weight_constant(graph, node, slot, what), np.float64)
        for slot, what in enumerate(("scale", "bias", "mean", "variance"), start=1)
    )
    if (variance < 0).any():
        raise Unreadable("its variance is negative: the file is damaged")
    scale = gamma / np.sqrt(variance + float(attribute(node, "epsilon", 1e-5)))
    return plan.Affine(scale, beta - mean * scale)


@reads("Mul", "Div", "Sub", "Add", "Sum")
def _arithmetic(graph: Graph, node: ir.Node) -> plan.Affine | plan.Join:
    operands = data_inputs(graph, node)
    if len(operands) == len(node.inputs) >= 2:
        return _join(node)
    if len(operands) != 1 or len(node.inputs) != 2:
        raise Unreadable(
            f"{len(operands)} of its {len(node.inputs)} operands depend on the input: this form cannot be explained"
        )
    shape = shape_of(operands[0])
    slot = 0 if node.inputs[0] is not operands[0] else 1
    constant = np.asarray(graph.constant(node.inputs[slot]), np.float64)
    if shape is None or len(shape) < 2 or shape[1] is None:
        raise Unreadable(f"its input has shape {shape}: the number of channels must be known")
    vector = _per_channel(constant, len(shape), shape[1])
    one, zero = np.ones(shape[1]), np.zeros(shape[1])
    if slot == 0 and node.op_type == "Div":
        raise Unreadable("it divides a constant by its input, which is not linear: this cannot be explained")
    if node.op_type == "Mul":
        return plan.Affine(vector, zero)
    if node.op_type == "Div":
        return plan.Affine(1.0 / vector, zero)
    if node.op_type == "Sub":
        return plan.Affine(-one, vector) if slot == 0 else plan.Affine(one, -vector)
    return plan.Affine(one, vector)


def _join(node: ir.Node) -> plan.Join:
    shapes = [shape_of(value) for value in node.inputs if value is not None]
    if node.op_type not in ("Add", "Sum"):
        raise Unreadable("both of its operands depend on the input (a gate or a difference): not supported yet")
    if any(shape is None or shape[1:] != shapes[0][1:] for shape in shapes if shapes[0] is not None):
        raise Unreadable(f"it adds tensors of different shapes {shapes}: only branches of one shape can be joined")
    return plan.Join()


def _per_channel(constant: NDArray[np.float64], rank: int, channels: int) -> NDArray[np.float64]:
    """A constant that broadcasts along axis 1 only, as (channels,)."""
    padded = constant.reshape((1,) * (rank - constant.ndim) + constant.shape) if constant.ndim <= rank else constant
    if (
        padded.ndim != rank
        or any(size != 1 for axis, size in enumerate(padded.shape) if axis != 1)
        or padded.shape[1] not in (1, channels)
    ):
        raise Unreadable(
            f"its constant has shape {constant.shape}: only one value, or one per channel (axis 1), can be explained"
        )
    return np.broadcast_to(padded.reshape(-1), (channels,)).astype(np.float64)


@reads("Relu")
def _relu(graph: Graph, node: ir.Node) -> plan.Relu:
    return plan.Relu()


@reads("MaxPool")
def _max_pool(graph: Graph, node: ir.Node) -> plan.MaxPool:
    _need_spatial(node)
    kernel = _pair(node, "kernel_shape")
    return plan.MaxPool(
        kernel, _pair(node, "strides"), _pads(node), _pair(node, "dilations"), bool(attribute(node, "ceil_mode", 0))
    )


@reads("AveragePool")
def _average_pool(graph: Graph, node: ir.Node) -> plan.AveragePool:
    _need_spatial(node)
    if attribute(node, "ceil_mode", 0) or _pair(node, "dilations") != (1, 1):
        raise Unreadable("average pooling with ceil_mode or dilations is not supported yet")
    return plan.AveragePool(
        _pair(node, "kernel_shape"), _pair(node, "strides"), _pads(node), bool(attribute(node, "count_include_pad", 0))
    )


@reads("GlobalAveragePool")
def _global_average_pool(graph: Graph, node: ir.Node) -> plan.GlobalAverage:
    _need_spatial(node)
    return plan.GlobalAverage(keepdims=True)


@reads("ReduceMean")
def _reduce_mean(graph: Graph, node: ir.Node) -> plan.GlobalAverage:
    _need_spatial(node)
    axes = attribute(node, "axes", None)
    if axes is None and len(node.inputs) > 1:
        axes = tuple(int(a) for a in np.asarray(_weight_constant(graph, node, 1, "list of axes")))
    if axes is None or sorted(axis % 4 for axis in axes) != [2, 3]:
        raise Unreadable(f"it averages over the axes {axes}: only over height and width (2, 3) can be explained")
    return plan.GlobalAverage(keepdims=bool(attribute(node, "keepdims", 1)))


@reads("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout")
def _reshape(graph: Graph, node: ir.Node) -> plan.Reshape:
    assert node.inputs[0] is not None
    before, after = shape_of(node.inputs[0]), shape_of(node.outputs[0])
    if before is None or any(size is None for size in before[1:]):
        raise Unreadable(f"it reshapes a tensor of shape {before}: all sizes but the batch must be known")
    if node.op_type == "Flatten" and attribute(node, "axis", 1) not in (1, 1 - len(before)):
        raise Unreadable("it flattens the batch with the rest: only axis=1 can be explained")
    if after is not None and after and before[0] is not None and after[0] not in (None, before[0]):
        raise Unreadable(f"it reshapes {before} to {after}, which mixes the batch with the rest")
    return plan.Reshape()
