"""Readers of elementwise operators: activations, quantisation, casts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lrp_onnx.model.graph import Graph
from lrp_onnx.model.readers.reading import (
    Unreadable,
    attribute,
    data_inputs,
    fits,
    has_input,
    known_sizes,
    needed_constant,
    needed_number,
    one_sample,
    quantizer,
    reads,
)
from lrp_onnx.plan import kinds

WITHOUT_NUMBERS = (
    "Abs",
    "Erf",
    "Exp",
    "HardSwish",
    "Mish",
    "Relu",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Tanh",
)
"""Activation functions without parameters, by the names of their operators."""
WITH_NUMBERS: Mapping[str, tuple[tuple[str, float], ...]] = {
    "Celu": (("alpha", 1.0),),
    "Elu": (("alpha", 1.0),),
    "HardSigmoid": (("alpha", 0.2), ("beta", 0.5)),
    "LeakyRelu": (("alpha", 0.01),),
    "Selu": (("alpha", 1.67326319217681884765625), ("gamma", 1.05070102214813232421875)),
}
"""Activation functions whose parameters are attributes: operator → (attribute, default) in the
order of `plan.functions`.
"""
FLOATING = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)
"""Element types that a Cast may produce."""


@reads(*WITHOUT_NUMBERS)
def _activation(graph: Graph, node: ir.Node) -> kinds.Activation:
    return kinds.Activation(node.op_type)


@reads(*WITH_NUMBERS)
def _with_numbers(graph: Graph, node: ir.Node) -> kinds.Activation:
    parameters = WITH_NUMBERS[node.op_type]
    return kinds.Activation(
        node.op_type, tuple(float(attribute(node, name, default)) for name, default in parameters)
    )


@reads("PRelu")
def _prelu(graph: Graph, node: ir.Node) -> kinds.Activation:
    sizes = known_sizes(node.inputs[0], "its input")
    slope = np.asarray(needed_constant(graph, node, 1, "slope"), np.float64)
    if slope.ndim == len(sizes) + 1 and slope.shape[0] == 1:
        slope = slope[0]
    if not fits(slope.shape, sizes):
        raise Unreadable(
            f"its slope has shape {slope.shape}, which does not fit one picture's {sizes}"
        )
    return kinds.Activation("PRelu", slopes=slope)


@reads("Gelu")
def _gelu(graph: Graph, node: ir.Node) -> kinds.Activation:
    approximate = attribute(node, "approximate", "none")
    return kinds.Activation("GeluTanh" if approximate == "tanh" else "Gelu")


@reads("Pow")
def _power(graph: Graph, node: ir.Node) -> kinds.Activation:
    exponent = needed_number(graph, node, 1, "exponent")
    if exponent == 0 or not np.isfinite(exponent):
        raise Unreadable(f"its exponent is {exponent}: no relevance can be computed through it")
    return kinds.Activation("Pow", (exponent,))


@reads("Reciprocal")
def _reciprocal(graph: Graph, node: ir.Node) -> kinds.Activation:
    return kinds.Activation("Reciprocal", (1.0,))


@reads("Neg")
def _negative(graph: Graph, node: ir.Node) -> kinds.Affine:
    one = np.ones((1,) * len(known_sizes(node.inputs[0], "its input")))
    return kinds.Affine(-one, np.zeros_like(one))


@reads("Max", "Min")
def _bounded(graph: Graph, node: ir.Node) -> kinds.Activation:
    """The larger or smaller one of a tensor and a constant; several bounds, one for every channel,
    as in the thresholded linear unit of filter response normalisation.
    """
    operands = data_inputs(graph, node)
    if len(operands) != 1 or len(node.inputs) != 2:
        raise Unreadable(
            f"{len(operands)} of its {len(node.inputs)} operands depend on the input: "
            "only a bound that is a constant can be explained"
        )
    slot = 0 if node.inputs[0] is not operands[0] else 1
    bound = np.asarray(needed_constant(graph, node, slot, "bound"), np.float64)
    if bound.size == 1:
        number = float(bound.reshape(()))
        limits = (number, np.inf) if node.op_type == "Max" else (-np.inf, number)
        return kinds.Activation("Clip", limits)
    if node.op_type == "Min":
        raise Unreadable("its bound has several values: only those of a Max can be explained")
    return kinds.Activation("Max", slopes=one_sample(bound, known_sizes(operands[0], "its input")))


@reads("Clip")
def _clip(graph: Graph, node: ir.Node) -> kinds.Activation:
    bounds = []
    for slot, what, default in ((1, "lower bound", -np.inf), (2, "upper bound", np.inf)):
        bounds.append(needed_number(graph, node, slot, what) if has_input(node, slot) else default)
    if not bounds[0] < bounds[1]:
        raise Unreadable(
            f"it clips to between {bounds[0]} and {bounds[1]}, so that its output is constant: "
            "no relevance can be computed through it"
        )
    return kinds.Activation("Clip", (bounds[0], bounds[1]))


@reads("Cast")
def _cast(graph: Graph, node: ir.Node) -> kinds.Reshape:
    number = int(attribute(node, "to", 0))
    to = next((kind for kind in ir.DataType if kind == number), None)
    if to not in FLOATING:
        name = f"type {number}" if to is None else to.name.lower()
        raise Unreadable(f"it casts to {name}, which rounds: this cannot be explained")
    known_sizes(node.inputs[0], "its input")
    return kinds.Reshape()


@reads("DequantizeLinear")
def _dequantize(graph: Graph, node: ir.Node) -> kinds.Activation | kinds.Affine:
    """After a QuantizeLinear, the two are read as a Clip without rounding. A DequantizeLinear of an
    integer input is affine.
    """
    quantize = quantizer(node)
    source = quantize or node
    scale = np.asarray(needed_constant(graph, source, 1, "scale"), np.float64)
    zero: NDArray[Any] = np.zeros((), np.uint8)
    if has_input(source, 2):
        zero = np.asarray(needed_constant(graph, source, 2, "zero point"))
    if scale.size != 1 or zero.size != 1:
        raise Unreadable(
            "it has a scale for every channel of an activation: quantise activations by tensor"
        )
    step, offset = float(scale.reshape(())), float(zero.reshape(()))
    if quantize is None:
        sizes = (1,) * len(known_sizes(node.inputs[0], "its input"))
        return kinds.Affine(np.full(sizes, step), np.full(sizes, -step * offset))
    if zero.dtype.kind not in "iu" or step <= 0:
        raise Unreadable(
            f"it quantises to {zero.dtype} in steps of {step}: only integers can be explained"
        )
    limits = np.iinfo(zero.dtype)
    return kinds.Activation("Clip", ((limits.min - offset) * step, (limits.max - offset) * step))
