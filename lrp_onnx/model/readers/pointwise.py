"""Readers of what bends or moves every element alone: activations, quantisation, changes of the element type."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lrp_onnx.model.graph import Graph
from lrp_onnx.model.readers.reading import (
    Unreadable,
    attribute,
    fits,
    is_there,
    known_sizes,
    needed_constant,
    needed_number,
    quantizer,
    reads,
)
from lrp_onnx.plan import kinds

SMOOTH = {
    "Erf": "erf",
    "Exp": "exp",
    "HardSwish": "hardswish",
    "Mish": "mish",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Swish": "silu",
    "Tanh": "tanh",
}
"""Operators without parameters that matter → the names of what they compute."""
FLOATING = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)


@reads("Relu")
def _relu(graph: Graph, node: ir.Node) -> kinds.Relu:
    return kinds.Relu()


@reads("LeakyRelu")
def _leaky_relu(graph: Graph, node: ir.Node) -> kinds.LeakyRelu:
    return kinds.LeakyRelu(float(attribute(node, "alpha", 0.01)))


@reads("PRelu")
def _prelu(graph: Graph, node: ir.Node) -> kinds.PRelu:
    sizes = known_sizes(node.inputs[0], "its input")
    slope = np.asarray(needed_constant(graph, node, 1, "slope"), np.float64)
    if slope.ndim == len(sizes) + 1 and slope.shape[0] == 1:
        slope = slope[0]
    if not fits(slope.shape, sizes):
        raise Unreadable(f"its slope has shape {slope.shape}, which does not fit one picture's {sizes}")
    return kinds.PRelu(slope)


@reads("Sigmoid")
def _sigmoid(graph: Graph, node: ir.Node) -> kinds.Sigmoid:
    return kinds.Sigmoid()


@reads("HardSigmoid")
def _hard_sigmoid(graph: Graph, node: ir.Node) -> kinds.HardSigmoid:
    return kinds.HardSigmoid(float(attribute(node, "alpha", 0.2)), float(attribute(node, "beta", 0.5)))


@reads(*SMOOTH)
def _smooth(graph: Graph, node: ir.Node) -> kinds.Smooth:
    if node.op_type == "Swish" and float(attribute(node, "alpha", 1.0)) != 1.0:
        raise Unreadable("its alpha is not 1: only x · sigmoid(x) can be explained")
    return kinds.Smooth(SMOOTH[node.op_type])


@reads("Elu")
def _elu(graph: Graph, node: ir.Node) -> kinds.Smooth:
    return kinds.Smooth("elu", float(attribute(node, "alpha", 1.0)))


@reads("Gelu")
def _gelu(graph: Graph, node: ir.Node) -> kinds.Smooth:
    return kinds.Smooth("gelu-tanh" if attribute(node, "approximate", "none") == "tanh" else "gelu")


@reads("Pow")
def _power(graph: Graph, node: ir.Node) -> kinds.Smooth:
    exponent = np.asarray(needed_constant(graph, node, 1, "exponent"), np.float64)
    if exponent.size != 1 or exponent.reshape(()) not in (2.0, 3.0):
        raise Unreadable(f"its exponent is {exponent.tolist()}: only squares and cubes, of a GELU, can be explained")
    return kinds.Smooth("pow", float(exponent.reshape(())))


@reads("Clip")
def _clip(graph: Graph, node: ir.Node) -> kinds.Clip:
    bounds = []
    for slot, what, default in ((1, "lower bound", -np.inf), (2, "upper bound", np.inf)):
        bounds.append(needed_number(graph, node, slot, what) if is_there(node, slot) else default)
    if not bounds[0] < bounds[1]:
        raise Unreadable(
            f"it clips to between {bounds[0]} and {bounds[1]}, which leaves one value: nothing can be "
            f"explained through it"
        )
    return kinds.Clip(bounds[0], bounds[1])


@reads("Cast")
def _cast(graph: Graph, node: ir.Node) -> kinds.Reshape:
    number = int(attribute(node, "to", 0))
    to = next((kind for kind in ir.DataType if kind == number), None)
    if to not in FLOATING:
        name = f"type {number}" if to is None else to.name.lower()
        raise Unreadable(f"it turns numbers into {name}, which rounds them: this cannot be explained")
    known_sizes(node.inputs[0], "its input")
    return kinds.Reshape()


@reads("DequantizeLinear")
def _dequantize(graph: Graph, node: ir.Node) -> kinds.Clip | kinds.Affine:
    """Rounding to integers and back is read as the clipping that it also is; integers that come in, as an affine."""
    quantize = quantizer(node)
    source = quantize or node
    scale = np.asarray(needed_constant(graph, source, 1, "scale"), np.float64)
    stored = is_there(source, 2)
    zero = np.asarray(needed_constant(graph, source, 2, "zero point")) if stored else np.zeros((), np.uint8)
    if scale.size != 1 or zero.size != 1:
        raise Unreadable("it has a scale for every channel of an activation: quantise activations by tensor")
    step, offset = float(scale.reshape(())), float(zero.reshape(()))
    if quantize is None:
        sizes = (1,) * len(known_sizes(node.inputs[0], "its input"))
        return kinds.Affine(np.full(sizes, step), np.full(sizes, -step * offset))
    if zero.dtype.kind not in "iu" or step <= 0:
        raise Unreadable(f"it quantises to {zero.dtype} in steps of {step}: only integers can be explained")
    limits = np.iinfo(zero.dtype)
    return kinds.Clip((limits.min - offset) * step, (limits.max - offset) * step)
