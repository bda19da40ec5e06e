"""Activations that ONNX Runtime fuses, with a bias or a residual sum before them, and Swish."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi, sqrt

import onnx_ir as ir

from lrp_onnx.model.normalize.parts import Parts, Unsplittable, splits

PARAMETERS = {
    "Elu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Selu": ("alpha", "gamma"),
    "Sigmoid": (),
    "Softplus": (),
    "Softsign": (),
    "Tanh": (),
}
"""Activations that a matrix product may have behind it → their attributes."""


def gelu(parts: Parts, x: ir.Value) -> ir.Value:
    """``x/2 · (1 + erf(x/√2))``."""
    error = parts("Erf", parts("Div", x, sqrt(2.0)))
    return parts("Mul", parts("Mul", x, parts("Add", error, 1.0)), 0.5)


def fast_gelu(parts: Parts, x: ir.Value) -> ir.Value:
    """``x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))``."""
    cubic = parts("Add", x, parts("Mul", parts("Pow", x, 3.0), 0.044715))
    bounded = parts("Tanh", parts("Mul", cubic, sqrt(2.0 / pi)))
    return parts("Mul", parts("Mul", x, 0.5), parts("Add", bounded, 1.0))


def biased(parts: Parts, x: ir.Value, slot: int) -> ir.Value:
    """`x` plus the node's optional input in `slot`."""
    bias = parts.input(slot)
    return x if bias is None else parts("Add", x, bias)


def activated(parts: Parts, x: ir.Value) -> ir.Value:
    """`x` after the activation that the node's attributes state."""
    stated = str(parts.stated("activation", ir.AttributeType.STRING, ""))
    if not stated:
        return x
    if stated not in PARAMETERS:
        raise Unsplittable(f"its activation is {stated}: {', '.join(PARAMETERS)} are read")
    return parts(
        stated,
        x,
        **{
            name: parts.number(f"activation_{name}", 0.0)
            for name in PARAMETERS[stated]
            if f"activation_{name}" in parts.fused.attributes
        },
    )


@splits("com.microsoft.Gelu", "com.microsoft.BiasGelu")
def _gelu(parts: Parts) -> Sequence[ir.Value]:
    return [gelu(parts, biased(parts, parts.needed(0), 1))]


@splits("com.microsoft.FastGelu")
def _fast_gelu(parts: Parts) -> Sequence[ir.Value]:
    return [fast_gelu(parts, biased(parts, parts.needed(0), 1))]


@splits("com.microsoft.GemmFastGelu")
def _product_fast_gelu(parts: Parts) -> Sequence[ir.Value]:
    product = parts("MatMul", parts.needed(0), parts.needed(1))
    return [fast_gelu(parts, biased(parts, product, 2))]


def _swish(parts: Parts, alpha: float) -> Sequence[ir.Value]:
    """``x · sigmoid(alpha · x)``."""
    x = parts.needed(0)
    return [parts("Mul", x, parts("Sigmoid", x if alpha == 1.0 else parts("Mul", x, float(alpha))))]


@splits("com.microsoft.QuickGelu")
def _quick_gelu(parts: Parts) -> Sequence[ir.Value]:
    return _swish(parts, parts.number("alpha", 1.702))


@splits("Swish", since=24)
def _standard_swish(parts: Parts) -> Sequence[ir.Value]:
    return _swish(parts, parts.number("alpha", 1.0))


@splits("com.microsoft.BiasAdd")
def _bias_add(parts: Parts) -> Sequence[ir.Value]:
    return [parts("Add", biased(parts, parts.needed(0), 1), parts.needed(2))]


@splits("com.microsoft.BiasSplitGelu")
def _split_gelu(parts: Parts) -> Sequence[ir.Value]:
    """The first half of the channels times the GELU of the second."""
    (width,) = parts.sizes(parts.needed(1), -1)
    x = biased(parts, parts.needed(0), 1)
    signal, gate = parts.several("Split", 2, x, [width // 2] * 2, axis=-1)
    return [parts("Mul", signal, gelu(parts, gate))]
