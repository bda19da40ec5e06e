"""Readers of layers with arithmetic: linear layers, joins, products, pooling, normalisation."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lrp_onnx.errors import few
from lrp_onnx.model.graph import Graph, name_of, shape_of
from lrp_onnx.model.readers.attention import constant_product, matrix_product
from lrp_onnx.model.readers.reading import (
    Unreadable,
    along_axes,
    attribute,
    axis_of,
    data_inputs,
    fits,
    known_sizes,
    need_spatial,
    needed_constant,
    needed_integers,
    one_sample,
    pads,
    reads,
    stored_bias,
)
from lrp_onnx.plan import kinds


@reads("Conv")
def _convolution(graph: Graph, node: ir.Node) -> kinds.Convolution:
    channels, *sizes = need_spatial(node)
    weight = _windows_weight(graph, node)
    group = int(attribute(node, "group", 1))
    if (
        weight.ndim != 2 + len(sizes)
        or group < 1
        or weight.shape[1] * group != channels
        or weight.shape[0] % group
    ):
        raise Unreadable(
            f"its weight of shape {weight.shape} "
            f"with {group} groups does not fit {channels} input channels"
        )
    bias = stored_bias(graph, node, 2)
    if bias is not None and bias.shape != weight.shape[:1]:
        raise Unreadable(
            f"its bias of shape {bias.shape} does not fit its weight of shape {weight.shape}"
        )
    assert node.inputs[1] is not None
    return kinds.Convolution(
        kinds.Weight(name_of(node.inputs[1]), tuple(weight.shape), bias=bias),
        strides=along_axes(node, "strides", len(sizes)),
        pads=pads(node, weight.shape[2:]),
        dilations=along_axes(node, "dilations", len(sizes)),
        group=group,
    )


def _windows_weight(graph: Graph, node: ir.Node) -> NDArray[np.generic]:
    """The weight of a convolution; its windows are as large as the node says."""
    weight = needed_constant(graph, node, 1, "weight")
    stated = attribute(node, "kernel_shape", None)
    if stated is not None and tuple(stated) != weight.shape[2:]:
        raise Unreadable(
            f"its weight of shape {weight.shape} does not fit kernel_shape={few(stated)}"
        )
    return weight


@reads("ConvTranspose")
def _deconvolution(graph: Graph, node: ir.Node) -> kinds.Deconvolution:
    channels, *sizes = need_spatial(node)
    weight = _windows_weight(graph, node)
    group = int(attribute(node, "group", 1))
    rank = 2 + len(sizes)
    if weight.ndim != rank or group < 1 or weight.shape[0] != channels or channels % group:
        raise Unreadable(
            f"its weight of shape {weight.shape} "
            f"with {group} groups does not fit {channels} input channels"
        )
    if attribute(node, "output_shape", None) or attribute(node, "auto_pad", "NOTSET") not in (
        "NOTSET",
        "VALID",
    ):
        raise Unreadable("its pads follow from the size of its output: only stated pads")
    bias = stored_bias(graph, node, 2)
    if bias is not None and bias.shape != (weight.shape[1] * group,):
        raise Unreadable(
            f"its bias of shape {bias.shape} does not fit its weight of shape {weight.shape}"
        )
    assert node.inputs[1] is not None
    made = kinds.Deconvolution(
        kinds.Weight(name_of(node.inputs[1]), tuple(weight.shape), bias=bias),
        strides=along_axes(node, "strides", len(sizes)),
        pads=pads(node, weight.shape[2:]),
        dilations=along_axes(node, "dilations", len(sizes)),
        group=group,
    )
    size = known_sizes(node.outputs[0], "its output")[1:]
    if min(made.strides) < 1 or _read_by(made, size) != tuple(sizes):
        raise Unreadable(
            f"its strides and pads make no {size} from {tuple(sizes)}: the file is damaged, or "
            "adds a whole stride to its output"
        )
    return made


def _read_by(layer: kinds.Deconvolution, size: tuple[int, ...]) -> tuple[int, ...]:
    """How many windows of its convolution fit on an output of this size."""
    return tuple(
        (
            size[i]
            + layer.pads[i]
            + layer.pads[i + len(size)]
            - layer.dilations[i] * (layer.weight.shape[i + 2] - 1)
            - 1
        )
        // layer.strides[i]
        + 1
        for i in range(len(size))
    )


@reads("Gemm")
def _gemm(graph: Graph, node: ir.Node) -> kinds.Dense | kinds.Linear:
    if attribute(node, "transA", 0):
        raise Unreadable("transA=1 transposes the batch: only y = xW + b can be explained")
    weight = needed_constant(graph, node, 1, "weight")
    transposed = bool(attribute(node, "transB", 0))
    if weight.ndim != 2:
        raise Unreadable(f"its weight has shape {weight.shape}: two axes are needed")
    alpha, beta = float(attribute(node, "alpha", 1.0)), float(attribute(node, "beta", 1.0))
    out = weight.shape[0 if transposed else 1]
    bias = stored_bias(graph, node, 2)
    if bias is not None and not fits(bias.shape, (1, out)):
        raise Unreadable(f"its bias of shape {bias.shape} does not fit its {out} outputs")
    assert node.inputs[1] is not None
    stored = kinds.Weight(
        name_of(node.inputs[1]),
        tuple(weight.shape),
        scale=None if alpha == 1.0 else np.full(out, alpha),
        bias=None if bias is None else beta * np.broadcast_to(bias, (1, out)).reshape(out),
    )
    if len(known_sizes(node.inputs[0], "its input")) > 1:  # a view of (batch · positions, in)
        return kinds.Linear(stored, transposed)
    return kinds.Dense(stored, transposed)


@reads("MatMul")
def _matmul(
    graph: Graph, node: ir.Node
) -> kinds.Dense | kinds.Linear | kinds.Matrices | kinds.MatrixProduct:
    if len(data_inputs(graph, node)) == 2:
        return matrix_product(graph, node)
    if graph.is_constant(node.inputs[0]):
        return constant_product(graph, node, 0)
    weight = needed_constant(graph, node, 1, "second factor")
    shape = shape_of(node.inputs[0]) if node.inputs[0] is not None else None
    if weight.ndim > 2:
        return constant_product(graph, node, 1)
    if weight.ndim != 2 or shape is None or len(shape) < 2 or shape[-1] != weight.shape[0]:
        raise Unreadable(
            f"it multiplies {shape} by {weight.shape}: "
            "only (N, …, in) by a constant (in, out) can be explained"
        )
    assert node.inputs[1] is not None
    stored = kinds.Weight(name_of(node.inputs[1]), tuple(weight.shape))
    if len(shape) == 2:
        return kinds.Dense(stored, transposed=False)
    known_sizes(node.inputs[0], "its input")
    return kinds.Linear(stored, transposed=False)


@reads("BatchNormalization")
def _batch_normalization(graph: Graph, node: ir.Node) -> kinds.Affine:
    if attribute(node, "training_mode", 0):
        raise Unreadable(
            "training_mode=1 uses the statistics of the batch: call model.eval() before the export"
        )
    gamma, beta, mean, variance = (
        np.asarray(needed_constant(graph, node, slot, what), np.float64)
        for slot, what in enumerate(("scale", "bias", "mean", "variance"), start=1)
    )
    sizes = known_sizes(node.inputs[0], "its input")
    axis = int(attribute(node, "axis", 1))  # of a view: see model/batch_first.py
    channels = sizes[axis - 1 : axis]
    if not sizes or {v.shape for v in (gamma, beta, mean, variance)} != {channels}:
        raise Unreadable(f"its scale, bias, mean and variance do not fit {channels} channels")
    spread = variance + float(attribute(node, "epsilon", 1e-5))
    if (spread <= 0).any():
        raise Unreadable("its variance is negative: the file is damaged")
    scale = gamma / np.sqrt(spread)
    ones = (1,) * (len(sizes) - axis)
    return kinds.Affine(scale.reshape(-1, *ones), (beta - mean * scale).reshape(-1, *ones))


@reads("Mul", "Div", "Sub", "Add", "Sum")
def _arithmetic(
    graph: Graph, node: ir.Node
) -> kinds.Affine | kinds.Activation | kinds.Join | kinds.Product | kinds.Quotient:
    operands = data_inputs(graph, node)
    if len(operands) == len(node.inputs) >= 2:
        if node.op_type == "Div":
            return _quotient(node)
        return _product(node) if node.op_type == "Mul" else _join(node)
    if len(operands) != 1 or len(node.inputs) != 2:
        raise Unreadable(
            f"{len(operands)} of its {len(node.inputs)} operands depend on the input: "
            "this form cannot be explained"
        )
    slot = 0 if node.inputs[0] is not operands[0] else 1
    sizes = known_sizes(operands[0], "its input")
    constant = one_sample(
        np.asarray(needed_constant(graph, node, slot, "other operand"), np.float64), sizes
    )
    one, zero = np.ones_like(constant), np.zeros_like(constant)
    if slot == 0 and node.op_type == "Div":
        if constant.size != 1 or not constant.any():
            raise Unreadable("it divides several constants, or zero, by its input: only one number")
        return kinds.Activation("Reciprocal", (float(constant.reshape(())),))
    if node.op_type == "Div" and (np.abs(constant) < np.finfo(np.float64).tiny).any():
        raise Unreadable("it divides by zero: the file is damaged")
    if node.op_type == "Mul":
        return kinds.Affine(constant, zero)
    if node.op_type == "Div":
        return kinds.Affine(1.0 / constant, zero)
    if node.op_type == "Sub":
        return kinds.Affine(-one, constant) if slot == 0 else kinds.Affine(one, -constant)
    return _shifted(constant)


def _shifted(constant: NDArray[np.float64]) -> kinds.Affine:
    """A constant that is added."""
    if not np.isfinite(constant).all():
        raise Unreadable("its constant holds infinity, and is no mask in front of a softmax")
    return kinds.Affine(np.ones_like(constant), constant)


BOUNDED = ("Sigmoid", "HardSigmoid", "Softmax", "Clip", "Erf", "Tanh")
"""Functions with bounds: their output may be a gate even if it has the signal's shape."""
THROUGH = (
    "Add",
    "Mul",
    "Div",
    "Sub",
    "Reshape",
    "Expand",
    "Cast",
    "Identity",
    "Transpose",
    "Unsqueeze",
    "Squeeze",
    "Resize",
)
"""Operators that may lie between the bounded function and the product."""


def _product(node: ir.Node) -> kinds.Product:
    """A product of a signal and a gate.

    The gate is the operand with one value per channel or pixel. Of two operands of one shape, it is
    the bounded one.
    """
    operands = [value for value in node.inputs if value is not None]
    shapes = [known_sizes(value, "one of its factors") for value in operands]
    first, second = shapes
    if len(first) != len(second):
        raise Unreadable(f"it multiplies tensors of shapes {shapes}: their ranks must be equal")
    bounded = [_is_bounded(value) for value in operands]
    for signal, gate in ((0, 1), (1, 0)):
        signal_shape, gate_shape = shapes[signal], shapes[gate]
        axes = tuple(i + 1 for i in range(len(first)) if gate_shape[i] != signal_shape[i])
        broadcasts = all(gate_shape[axis - 1] == 1 for axis in axes)
        if broadcasts and (axes or (bounded[gate] and not bounded[signal])):
            return kinds.Product(signal, axes)
    if first != second:
        raise Unreadable(
            f"it multiplies tensors of shapes {shapes}: it is not clear which of them is the gate"
        )
    return kinds.Product(None, ())


def _quotient(node: ir.Node) -> kinds.Quotient:
    signal, divisor = (known_sizes(value, "one of its operands") for value in node.inputs)
    if len(signal) != len(divisor) or not fits(divisor, signal):
        raise Unreadable(
            f"it divides a tensor of shape {signal} by one of {divisor}: "
            "the divisor must broadcast to the signal, and their ranks be equal"
        )
    axes = tuple(i + 1 for i in range(len(signal)) if divisor[i] != signal[i])
    return kinds.Quotient(axes)


def _is_bounded(value: ir.Value) -> bool:
    """Whether `value` can only be a gate: a bounded function computes it, apart from constant
    arithmetic and moves, or it repeats fewer values.
    """
    node = value.producer()
    while node is not None and node.op_type in THROUGH:
        if node.op_type == "Expand" and _repeats(node):
            return True
        slots = node.inputs[:1] if node.op_type == "Resize" else node.inputs
        computed = [v for v in slots if v is not None and v.producer() is not None]
        node = computed[0].producer() if len(computed) == 1 else None
    return node is not None and node.op_type in BOUNDED


def _repeats(expand: ir.Node) -> bool:
    before, after = (
        shape_of(v) if v is not None else None for v in (expand.inputs[0], *expand.outputs)
    )
    return before is not None and after is not None and before[1:] != after[1:]


def _join(node: ir.Node) -> kinds.Join:
    shapes = [known_sizes(value, "one of its terms") for value in node.inputs]
    if any(shape != shapes[0] for shape in shapes):
        raise Unreadable(
            f"it adds tensors of different shapes {shapes}: "
            "only branches of one shape can be joined"
        )
    return kinds.Join()


@reads("MaxPool")
def _max_pool(graph: Graph, node: ir.Node) -> kinds.MaxPool | kinds.Subsample:
    sizes = need_spatial(node)
    kernel, strides, dilations = _windows(node, len(sizes) - 1)
    borders = pads(node, kernel)
    ceil_mode = bool(attribute(node, "ceil_mode", 0))
    if set(kernel) == {1} and not any(borders) and not ceil_mode:
        return kinds.Subsample((0,) * len(sizes), (1, *strides), sizes)
    return kinds.MaxPool(kernel, strides, borders, dilations, ceil_mode)


def _windows(node: ir.Node, rank: int) -> list[tuple[int, ...]]:
    """Kernel, strides and dilations of a pooling."""
    return [along_axes(node, name, rank) for name in ("kernel_shape", "strides", "dilations")]


@reads("AveragePool")
def _average_pool(graph: Graph, node: ir.Node) -> kinds.AveragePool:
    sizes = need_spatial(node)[1:]
    rank = len(sizes)
    kernel, strides, dilations = _windows(node, rank)
    borders = pads(node, kernel)
    remainders = [
        (sizes[i] + borders[i] + borders[i + rank] - kernel[i]) % strides[i] for i in range(rank)
    ]
    if set(dilations) != {1} or (attribute(node, "ceil_mode", 0) and any(remainders)):
        raise Unreadable(
            "its last windows are cut off at the border (ceil_mode), or it is dilated: "
            "not supported yet"
        )
    return kinds.AveragePool(
        kernel, strides, borders, bool(attribute(node, "count_include_pad", 0))
    )


@reads("GlobalAveragePool")
def _global_average_pool(graph: Graph, node: ir.Node) -> kinds.GlobalAverage:
    sizes = known_sizes(node.inputs[0], "its input")
    return kinds.GlobalAverage(tuple(range(2, len(sizes) + 1)), keepdims=True)


@reads("ReduceMean", "ReduceSum")
def _reduce(graph: Graph, node: ir.Node) -> kinds.GlobalAverage:
    reduced = _reduced(graph, node)
    factor = 1.0
    if node.op_type == "ReduceSum":
        sizes = known_sizes(node.inputs[0], "its input")
        factor = float(prod(sizes[axis - 1] for axis in reduced))
    return kinds.GlobalAverage(reduced, bool(attribute(node, "keepdims", 1)), factor)


def _reduced(graph: Graph, node: ir.Node) -> tuple[int, ...]:
    """The axes of a reduction, sorted; none of them is the batch."""
    sizes = known_sizes(node.inputs[0], "its input")
    axes = attribute(node, "axes", None)
    if axes is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        axes = tuple(needed_integers(graph, node, 1, "list of axes"))
    rank = len(sizes) + 1
    reduced = sorted(axis_of(axis, rank) for axis in axes) if axes else [0]
    if 0 in reduced or len(set(reduced)) != len(reduced):
        does = "averages" if node.op_type in ("ReduceMean", "ReduceSum") else "reduces"
        raise Unreadable(
            f"it {does} over the axes {axes}: an average over the batch cannot be explained"
        )
    return tuple(reduced)


@reads("ReduceL2", "ReduceSumSquare", "GlobalLpPool")
def _norm(graph: Graph, node: ir.Node) -> kinds.GlobalNorm:
    if node.op_type == "GlobalLpPool":
        if attribute(node, "p", 2) != 2:
            raise Unreadable(f"its p is {attribute(node, 'p', 2)}: only 2 can be explained")
        return kinds.GlobalNorm(tuple(range(2, len(need_spatial(node)) + 1)), keepdims=True)
    keepdims, squared = bool(attribute(node, "keepdims", 1)), node.op_type == "ReduceSumSquare"
    return kinds.GlobalNorm(_reduced(graph, node), keepdims, squared)


@reads("ReduceMax", "GlobalMaxPool")
def _largest(graph: Graph, node: ir.Node) -> kinds.GlobalMax:
    if node.op_type == "GlobalMaxPool":
        rank = len(known_sizes(node.inputs[0], "its input")) + 1
        return kinds.GlobalMax(tuple(range(2, rank)), keepdims=True)
    return kinds.GlobalMax(_reduced(graph, node), bool(attribute(node, "keepdims", 1)))


@reads("Softmax")
def _softmax(graph: Graph, node: ir.Node) -> kinds.Softmax:
    rank = len(known_sizes(node.inputs[0], "its input")) + 1
    axis = axis_of(int(attribute(node, "axis", -1)), rank)
    if axis == 0:
        raise Unreadable("it is taken over the batch: this cannot be explained")
    return kinds.Softmax(axis)


@reads("InstanceNormalization")
def _instance_normalization(graph: Graph, node: ir.Node) -> kinds.Normalization:
    channels, *rest = _channels_first(node)
    scale, bias = (
        _by_channel(values, channels, len(rest))
        for values in _scale_and_bias(graph, node, (channels,))
    )
    axes = tuple(range(2, len(rest) + 2))
    return kinds.Normalization(
        (channels, *rest), axes, float(attribute(node, "epsilon", 1e-5)), scale, bias
    )


@reads("LayerNormalization")
def _layer_normalization(graph: Graph, node: ir.Node) -> kinds.Normalization:
    sizes = known_sizes(node.inputs[0], "its input")
    first = axis_of(int(attribute(node, "axis", -1)), len(sizes) + 1)
    if first == 0:
        raise Unreadable("it normalises over the batch: this cannot be explained")
    scale = np.asarray(needed_constant(graph, node, 1, "scale"), np.float64)
    bias = stored_bias(graph, node, 2)
    for values in (scale, bias):
        if values is not None and not fits(values.shape, sizes):
            raise Unreadable(
                f"its scale or bias has shape {values.shape}, "
                f"which does not fit one picture's {sizes}"
            )
    epsilon = float(attribute(node, "epsilon", 1e-5))
    axes = tuple(range(first, len(sizes) + 1))
    return kinds.Normalization(sizes, axes, epsilon, scale, np.zeros(1) if bias is None else bias)


@reads("GroupNormalization")
def _group_normalization(graph: Graph, node: ir.Node) -> kinds.Normalization:
    channels, *rest = _channels_first(node)
    groups = int(attribute(node, "num_groups", 1))
    if groups < 1 or channels % groups:
        raise Unreadable(
            f"its {channels} channels do not make {groups} groups: the file is damaged"
        )
    scale, bias = (
        _by_channel(values, channels, len(rest))
        for values in _scale_and_bias(graph, node, (groups, channels))
    )
    view, axes = (groups, channels // groups, *rest), tuple(range(2, len(rest) + 3))
    return kinds.Normalization(view, axes, float(attribute(node, "epsilon", 1e-5)), scale, bias)


@reads("LRN")
def _local_response(graph: Graph, node: ir.Node) -> kinds.LocalResponse:
    _channels_first(node)
    size, bias = int(attribute(node, "size", 0)), float(attribute(node, "bias", 1.0))
    alpha, beta = float(attribute(node, "alpha", 1e-4)), float(attribute(node, "beta", 0.75))
    if size < 1 or size % 2 == 0 or bias <= 0 or alpha < 0:
        raise Unreadable(
            f"its size is {size}, its bias {bias}, its alpha {alpha}: the size must be odd, the "
            "bias positive and alpha not negative"
        )
    return kinds.LocalResponse(size, alpha, beta, bias)


def _channels_first(node: ir.Node) -> tuple[int, ...]:
    """One sample's shape, which begins with the channels."""
    sizes = known_sizes(node.inputs[0], "its input")
    if not sizes:
        raise Unreadable("its input has no channels: only (N, C, …) can be explained")
    return sizes


def _scale_and_bias(
    graph: Graph, node: ir.Node, lengths: tuple[int, ...]
) -> list[NDArray[np.float64]]:
    """The vectors scale and bias; the length of each is one of `lengths`."""
    vectors = [
        np.asarray(needed_constant(graph, node, slot, what), np.float64)
        for slot, what in ((1, "scale"), (2, "bias"))
    ]
    if any(vector.size not in lengths for vector in vectors):
        shapes = [vector.shape for vector in vectors]
        raise Unreadable(
            f"its scale and bias have shapes {shapes}: "
            f"{' or '.join(map(str, lengths))} numbers are needed"
        )
    return vectors


def _by_channel(vector: NDArray[np.float64], channels: int, rank: int) -> NDArray[np.float64]:
    """A vector with one value per channel, or per group of channels, as (channels, 1, …) with
    `rank` ones.
    """
    return np.repeat(vector, channels // vector.size).reshape(-1, *(1,) * rank)
