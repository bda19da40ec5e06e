"""Activation functions: their derivatives, as one table.
What each computes stands in `plan.functions`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isinf, pi, sqrt

import numpy as np

from lrp_onnx.plan import kinds
from lrp_onnx.plan.functions import FUNCTIONS
from lrp_onnx.relevance.graph.builder import POSITIVE, Value
from lrp_onnx.relevance.layers.layer import Node

BLOCK = 8
"""ONNX Runtime's CPU kernels keep channels in blocks of this many (or twice) where every operator
around them can. A comparison cannot; a depthwise convolution with a tanh behind it can.
"""
STEEP = 1e30
"""Steep enough that every positive float32 activation above 1e-29 becomes 1."""


class ActivationLayer(Node[kinds.Activation]):
    """A function of every element alone; its derivative stands in `DERIVATIVES`."""

    __slots__ = ()

    @property
    def rectifies(self) -> bool:
        return FUNCTIONS[self.kind.function].rectifies

    def vjp(self, s: Value, w: Value) -> Value:
        return DERIVATIVES[self.kind.function](self, s)

    @property
    def parameter(self) -> float:
        """The one parameter of a function that has one."""
        (value,) = self.kind.parameters
        return value


Pullback = Callable[[ActivationLayer, Value], Value]
"""``f'(x) ⊙ s`` of a layer and a cotangent s."""
Slope = Callable[[Value, Value], Value]
"""``f'(x)`` of an input x and an output f(x)."""


def _slope(derivative: Slope) -> Pullback:
    return lambda layer, s: s * derivative(layer.input, layer.output)


def _relu(layer: ActivationLayer, s: Value) -> Value:
    """s where the output is positive: masked, or multiplied where
    that keeps the runtime's layout.
    """
    if s.vanishes == layer.output.name:
        return s
    shape = layer.step.output_shape
    channels = shape[1] if len(shape) == 4 else None
    blocked = layer.builder.emission.blocked_masks and layer.builder.batch is None
    if blocked and channels and channels % BLOCK == 0:
        return s * _alive(layer.output, channels)
    return layer.output.where_positive(s)


def _alive(output: Value, channels: int) -> Value:
    """1 where the output is positive, 0 where it is zero, as ``tanh(STEEP · a)``."""
    steep = output.builder.array(np.full((channels, 1, 1, 1), STEEP))
    attributes = {"group": channels, "kernel_shape": (1, 1)}
    scaled = output.builder.node("Conv", output, steep, attributes=attributes)
    return output.builder.node("Tanh", scaled, sign=POSITIVE)


def _clip(layer: ActivationLayer, s: Value) -> Value:
    """s strictly between the bounds."""
    low, high = layer.kind.parameters
    inside = s if isinf(low) else (layer.output - low).where_positive(s)
    return inside if isinf(high) else (layer.output - high).where_negative(inside)


def _hard_sigmoid(layer: ActivationLayer, s: Value) -> Value:
    """The slope strictly between 0 and 1."""
    slope, _ = layer.kind.parameters
    inside = layer.output.where_positive(s * slope)
    return (layer.output - 1.0).where_negative(inside)


def _prelu(layer: ActivationLayer, s: Value) -> Value:
    assert layer.kind.slopes is not None
    return layer.input.where_positive(s, s * layer.builder.array(layer.kind.slopes[None]))


def _leaky_relu(layer: ActivationLayer, s: Value) -> Value:
    return layer.input.where_positive(s, s * layer.parameter)


def _elu(layer: ActivationLayer, s: Value) -> Value:
    return s * layer.input.where_positive(1.0, layer.output + layer.parameter)


def _max(layer: ActivationLayer, s: Value) -> Value:
    assert layer.kind.slopes is not None
    return (layer.input - layer.builder.array(layer.kind.slopes[None])).where_positive(s)


def _selu(layer: ActivationLayer, s: Value) -> Value:
    alpha, gamma = layer.kind.parameters
    return s * layer.input.where_positive(gamma, layer.output + alpha * gamma)


def _celu(layer: ActivationLayer, s: Value) -> Value:
    return s * layer.input.where_positive(1.0, layer.output * (1 / layer.parameter) + 1.0)


def _power(layer: ActivationLayer, s: Value) -> Value:
    """``exponent · xᵉ⁻¹``; for other exponents than 2 and 3 as ``exponent · y / x``, 0 at 0."""
    x, exponent = layer.input, layer.parameter
    if exponent in (2.0, 3.0):
        return s * (x * 2.0 if exponent == 2.0 else x * x * 3.0)
    return s * x.where_zero(0.0, layer.output / x.where_zero(1.0, x)) * exponent


def _sqrt(layer: ActivationLayer, s: Value) -> Value:
    """``1 / (2y)``, 0 at 0."""
    y = layer.output
    return y.where_zero(0.0, s * 0.5 / y.where_zero(1.0, y))


def _apply(op: str, x: Value) -> Value:
    return x.builder.node(op, x)


def _bell(x: Value) -> Value:
    """``exp(−x²)``."""
    return _apply("Exp", -(x * x))


def _gelu(x: Value, a: Value) -> Value:
    """``Φ(x) + x·φ(x)``."""
    cumulative = (_apply("Erf", x * (1 / sqrt(2))) + 1.0) * 0.5
    return cumulative + x * _bell(x * (1 / sqrt(2))) * (1 / sqrt(2 * pi))


def _gelu_tanh(x: Value, a: Value) -> Value:
    """With ``u = √(2/π)·(x + 0.044715·x³)``: ``½(1 + tanh u) + ½·x·(1 − tanh² u)·u'``."""
    scale, cube = sqrt(2 / pi), 0.044715
    t = _apply("Tanh", (x + x * x * x * cube) * scale)
    slope = (x * x * (3 * cube) + 1.0) * scale
    return (t + 1.0) * 0.5 + x * slope * (-(t * t) + 1.0) * 0.5


def _hardswish(x: Value, a: Value) -> Value:
    """0 below −3, 1 above 3, ``(2x + 3) / 6`` between."""
    between = (x * 2.0 + 3.0) * (1 / 6)
    return (x - 3.0).where_positive(1.0, (x + 3.0).where_positive(between))


def _mish(x: Value, a: Value) -> Value:
    t = _apply("Tanh", _apply("Softplus", x))
    return t + x * (-(t * t) + 1.0) * _apply("Sigmoid", x)


def _softsign(x: Value, a: Value) -> Value:
    far = x.abs() + 1.0
    return x.builder.value(1.0) / (far * far)


DERIVATIVES: Mapping[str, Pullback] = {
    "Relu": _relu,
    "Clip": _clip,
    "LeakyRelu": _leaky_relu,
    "PRelu": _prelu,
    "Sigmoid": _slope(lambda x, a: a - a * a),
    "HardSigmoid": _hard_sigmoid,
    "Abs": lambda layer, s: layer.input.where_positive(s, layer.input.where_negative(-s)),
    "Celu": _celu,
    "Elu": _elu,
    "Erf": _slope(lambda x, a: _bell(x) * (2 / sqrt(pi))),
    "Exp": _slope(lambda x, a: a),
    "Gelu": _slope(_gelu),
    "GeluTanh": _slope(_gelu_tanh),
    "HardSwish": _slope(_hardswish),
    "Max": _max,
    "Mish": _slope(_mish),
    "Pow": _power,
    "Reciprocal": lambda layer, s: -(s * (layer.output / layer.input)),
    "Selu": _selu,
    "Softplus": _slope(lambda x, a: _apply("Sigmoid", x)),
    "Softsign": _slope(_softsign),
    "Sqrt": _sqrt,
    "Tanh": _slope(lambda x, a: -(a * a) + 1.0),
}
"""The name of a function → what it does to a cotangent."""
