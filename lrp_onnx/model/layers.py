"""Readers of operators that compute: node → layer."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lrp_onnx import kinds
from lrp_onnx.model.graph import Graph, name_of, shape_of
from lrp_onnx.model.reading import (
    Unreadable,
    attribute,
    data_inputs,
    need_spatial,
    needed_constant,
    pads,
    pair,
    reads,
    stored_bias,
)


@reads("Conv")
def _convolution(graph: Graph, node: ir.Node) -> kinds.Convolution:
    channels, _, _ = need_spatial(node)
    weight = needed_constant(graph, node, 1, "weight")
    group = int(attribute(node, "group", 1))
    if weight.ndim != 4 or group < 1 or weight.shape[1] * group != channels or weight.shape[0] % group:
        raise Unreadable(
            f"its weight of shape {weight.shape} with {group} groups does not fit {channels} input channels"
        )
    assert node.inputs[1] is not None
    return kinds.Convolution(
        kinds.Weight(name_of(node.inputs[1]), tuple(weight.shape), bias=stored_bias(graph, node, 2)),
        strides=pair(node, "strides"),
        pads=pads(node, (weight.shape[2], weight.shape[3])),
        dilations=pair(node, "dilations"),
        group=group,
    )


@reads("Gemm")
def _gemm(graph: Graph, node: ir.Node) -> kinds.Dense:
    if attribute(node, "transA", 0):
        raise Unreadable("transA=1 transposes the batch: only y = xW + b can be explained")
    weight = needed_constant(graph, node, 1, "weight")
    transposed = bool(attribute(node, "transB", 0))
    alpha, beta = float(attribute(node, "alpha", 1.0)), float(attribute(node, "beta", 1.0))
    out = weight.shape[0 if transposed else 1]
    bias = stored_bias(graph, node, 2)
    assert node.inputs[1] is not None
    return kinds.Dense(
        kinds.Weight(
            name_of(node.inputs[1]),
            tuple(weight.shape),
            scale=None if alpha == 1.0 else np.full(out, alpha),
            bias=None if bias is None else beta * np.broadcast_to(bias, (1, out)).reshape(out),
        ),
        transposed,
    )


@reads("MatMul")
def _matmul(graph: Graph, node: ir.Node) -> kinds.Dense:
    weight = needed_constant(graph, node, 1, "second factor")
    shape = shape_of(node.inputs[0]) if node.inputs[0] is not None else None
    if weight.ndim != 2 or shape is None or len(shape) != 2:
        raise Unreadable(
            f"it multiplies {shape} by {weight.shape}: only (N, in) by a constant (in, out) can be explained"
        )
    assert node.inputs[1] is not None
    return kinds.Dense(kinds.Weight(name_of(node.inputs[1]), tuple(weight.shape)), transposed=False)


@reads("BatchNormalization")
def _batch_normalization(graph: Graph, node: ir.Node) -> kinds.Affine:
    if attribute(node, "training_mode", 0):
        raise Unreadable("training_mode=1 uses the statistics of the batch: call model.eval() before the export")
    gamma, beta, mean, variance = (
        np.asarray(needed_constant(graph, node, slot, what), np.float64)
        for slot, what in enumerate(("scale", "bias", "mean", "variance"), start=1)
    )
    if (variance < 0).any():
        raise Unreadable("its variance is negative: the file is damaged")
    scale = gamma / np.sqrt(variance + float(attribute(node, "epsilon", 1e-5)))
    return kinds.Affine(scale, beta - mean * scale)


@reads("Mul", "Div", "Sub", "Add", "Sum")
def _arithmetic(graph: Graph, node: ir.Node) -> kinds.Affine | kinds.Join | kinds.Product:
    operands = data_inputs(graph, node)
    if len(operands) == len(node.inputs) >= 2:
        return _product(node) if node.op_type == "Mul" else _join(node)
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
        return kinds.Affine(vector, zero)
    if node.op_type == "Div":
        return kinds.Affine(1.0 / vector, zero)
    if node.op_type == "Sub":
        return kinds.Affine(-one, vector) if slot == 0 else kinds.Affine(one, -vector)
    return kinds.Affine(one, vector)


BOUNDED = ("Sigmoid", "HardSigmoid")
"""What makes a gate of a tensor as large as the signal."""


def _product(node: ir.Node) -> kinds.Product:
    """The gate is the operand with one value per channel, or, of two equally large ones, the one that is bounded."""
    first, second = shapes = [shape_of(value) for value in node.inputs if value is not None]
    if first is None or second is None or len(first) != len(second) or None in (*first[1:], *second[1:]):
        raise Unreadable(f"it multiplies tensors of shapes {shapes}: their sizes must be known and their ranks equal")
    makers = [value.producer() for value in node.inputs if value is not None]
    bounded = [maker is not None and maker.op_type in BOUNDED for maker in makers]
    for signal, whole, part in ((0, first, second), (1, second, first)):
        fits = all(g in (1, s) for s, g in zip(whole[1:], part[1:], strict=True))
        axes = tuple(axis for axis in range(1, len(whole)) if part[axis] != whole[axis])
        if fits and (axes or (bounded[1 - signal] and not bounded[signal])):
            return kinds.Product(signal, axes)
    raise Unreadable(f"it multiplies tensors of shapes {shapes}: which one is the gate cannot be told")


def _join(node: ir.Node) -> kinds.Join:
    shapes = [shape_of(value) for value in node.inputs if value is not None]
    if node.op_type not in ("Add", "Sum"):
        raise Unreadable("both of its operands depend on the input: a difference or a quotient cannot be explained yet")
    if any(shape is None or shape[1:] != shapes[0][1:] for shape in shapes if shapes[0] is not None):
        raise Unreadable(f"it adds tensors of different shapes {shapes}: only branches of one shape can be joined")
    return kinds.Join()


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


@reads("Clip")
def _clip(graph: Graph, node: ir.Node) -> kinds.Clip:
    bounds = []
    for slot, what, default in ((1, "lower bound", -np.inf), (2, "upper bound", np.inf)):
        there = slot < len(node.inputs) and node.inputs[slot] is not None
        bounds.append(float(np.asarray(needed_constant(graph, node, slot, what)).reshape(())) if there else default)
    if not bounds[0] < bounds[1]:
        raise Unreadable(
            f"it clips to between {bounds[0]} and {bounds[1]}, which leaves one value: nothing can be "
            f"explained through it"
        )
    return kinds.Clip(bounds[0], bounds[1])


@reads("Sigmoid")
def _sigmoid(graph: Graph, node: ir.Node) -> kinds.Sigmoid:
    return kinds.Sigmoid()


@reads("HardSigmoid")
def _hard_sigmoid(graph: Graph, node: ir.Node) -> kinds.HardSigmoid:
    return kinds.HardSigmoid(float(attribute(node, "alpha", 0.2)), float(attribute(node, "beta", 0.5)))


@reads("LeakyRelu")
def _leaky_relu(graph: Graph, node: ir.Node) -> kinds.LeakyRelu:
    return kinds.LeakyRelu(float(attribute(node, "alpha", 0.01)))


@reads("Relu")
def _relu(graph: Graph, node: ir.Node) -> kinds.Relu:
    return kinds.Relu()


@reads("MaxPool")
def _max_pool(graph: Graph, node: ir.Node) -> kinds.MaxPool:
    need_spatial(node)
    kernel = pair(node, "kernel_shape")
    return kinds.MaxPool(
        kernel,
        pair(node, "strides"),
        pads(node, kernel),
        pair(node, "dilations"),
        bool(attribute(node, "ceil_mode", 0)),
    )


@reads("AveragePool")
def _average_pool(graph: Graph, node: ir.Node) -> kinds.AveragePool:
    sizes, kernel, strides = need_spatial(node)[1:], pair(node, "kernel_shape"), pair(node, "strides")
    borders = pads(node, kernel)
    left_over = [(sizes[i] + borders[i] + borders[i + 2] - kernel[i]) % strides[i] for i in (0, 1)]
    if pair(node, "dilations") != (1, 1) or (attribute(node, "ceil_mode", 0) and any(left_over)):
        raise Unreadable("its last windows are cut off at the border (ceil_mode), or it is dilated: not supported yet")
    return kinds.AveragePool(kernel, strides, borders, bool(attribute(node, "count_include_pad", 0)))


@reads("GlobalAveragePool")
def _global_average_pool(graph: Graph, node: ir.Node) -> kinds.GlobalAverage:
    need_spatial(node)
    return kinds.GlobalAverage(keepdims=True)


@reads("ReduceMean")
def _reduce_mean(graph: Graph, node: ir.Node) -> kinds.GlobalAverage:
    need_spatial(node)
    axes = attribute(node, "axes", None)
    if axes is None and len(node.inputs) > 1:
        axes = tuple(int(a) for a in np.asarray(needed_constant(graph, node, 1, "list of axes")))
    if axes is None or sorted(axis % 4 for axis in axes) != [2, 3]:
        raise Unreadable(f"it averages over the axes {axes}: only over height and width (2, 3) can be explained")
    return kinds.GlobalAverage(keepdims=bool(attribute(node, "keepdims", 1)))
