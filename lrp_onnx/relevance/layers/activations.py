"""Activations: what bends every element alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isinf, pi, sqrt

import numpy as np

from lrp_onnx.plan import kinds
from lrp_onnx.relevance.graph.builder import Value
from lrp_onnx.relevance.layers.layer import Node

BLOCK = 8
"""ONNX Runtime's CPU kernels keep channels in blocks of this many (or twice) where every operator around them can. A
comparison cannot; a depthwise convolution with a tanh behind it can.
"""
STEEP = 1e30
"""Steep enough that every positive float32 activation above 1e-29 becomes 1."""


class ReluLayer(Node):
    """``max(x, 0)``."""

    __slots__ = ()

    @property
    def rectifies(self) -> bool:
        return True

    def vjp(self, s: Value, w: Value) -> Value:
        if s.vanishes == self.output.name:
            return s
        channels = self.step.output_shape[1] if len(self.step.output_shape) == 4 else None
        blocked = self.builder.emission.blocked_masks and self.builder.batch is None
        if blocked and channels and channels % BLOCK == 0:
            return s * self._alive(channels)
        return self.output.where_positive(s)

    def _alive(self, channels: int) -> Value:
        """1 where the output is positive, 0 where it is zero, as ``tanh(STEEP · a)``."""
        steep = self.builder.array(np.full((channels, 1, 1, 1), STEEP))
        attributes = {"group": channels, "kernel_shape": (1, 1)}
        return self.builder.node(
            "Tanh", self.builder.node("Conv", self.output, steep, attributes=attributes), signs=(True, False)
        )


class ClipLayer(Node):
    """``min(max(x, low), high)``: its gradient is 1 strictly between the bounds and 0 elsewhere."""

    __slots__ = ()

    def vjp(self, s: Value, w: Value) -> Value:
        clip = self.step.kind
        assert isinstance(clip, kinds.Clip)
        inside = s if isinf(clip.low) else (self.output - clip.low).where_positive(s)
        return inside if isinf(clip.high) else (self.output - clip.high).where_negative(inside)


class SigmoidLayer(Node):
    """``a = 1 / (1 + exp(−x))``: its derivative is a(1 − a)."""

    __slots__ = ()

    def vjp(self, s: Value, w: Value) -> Value:
        return s * (self.output - self.output * self.output)


class HardSigmoidLayer(Node):
    """``min(max(slope · x + offset, 0), 1)``: its derivative is the slope strictly between the bounds."""

    __slots__ = ()

    def vjp(self, s: Value, w: Value) -> Value:
        hard = self.step.kind
        assert isinstance(hard, kinds.HardSigmoid)
        inside = self.output.where_positive(s * hard.slope)
        return (self.output - 1.0).where_negative(inside)


class LeakyReluLayer(Node):
    """``x`` where x > 0, else ``slope · x``."""

    __slots__ = ()

    def vjp(self, s: Value, w: Value) -> Value:
        leaky = self.step.kind
        assert isinstance(leaky, kinds.LeakyRelu)
        return self.input.where_positive(s, s * leaky.slope)


class PReluLayer(Node):
    """``x`` where x > 0, else ``slope · x``."""

    __slots__ = ()

    def vjp(self, s: Value, w: Value) -> Value:
        learned = self.step.kind
        assert isinstance(learned, kinds.PRelu)
        return self.input.where_positive(s, s * self.builder.array(learned.slope[None]))


class SmoothLayer(Node):
    """A smooth activation; its derivative stands in `SMOOTH`."""

    __slots__ = ()

    def vjp(self, s: Value, w: Value) -> Value:
        smooth = self.step.kind
        assert isinstance(smooth, kinds.Smooth)
        return s * SMOOTH[smooth.function](self.input, self.output, smooth.alpha)


def _apply(op: str, x: Value) -> Value:
    return x.builder.node(op, x)


def _bell(x: Value) -> Value:
    """``exp(−x²)``."""
    return _apply("Exp", -(x * x))


def _elu(x: Value, a: Value, alpha: float) -> Value:
    return x.where_positive(1.0, a + alpha)


def _gelu(x: Value, a: Value, alpha: float) -> Value:
    """``Φ(x) + x·φ(x)``."""
    cumulative = (_apply("Erf", x * (1 / sqrt(2))) + 1.0) * 0.5
    return cumulative + x * _bell(x * (1 / sqrt(2))) * (1 / sqrt(2 * pi))


def _gelu_tanh(x: Value, a: Value, alpha: float) -> Value:
    """With ``u = √(2/π)·(x + 0.044715·x³)``: ``½(1 + tanh u) + ½·x·(1 − tanh² u)·u'``."""
    scale, cube = sqrt(2 / pi), 0.044715
    t = _apply("Tanh", (x + x * x * x * cube) * scale)
    slope = (x * x * (3 * cube) + 1.0) * scale
    return (t + 1.0) * 0.5 + x * slope * (-(t * t) + 1.0) * 0.5


def _hardswish(x: Value, a: Value, alpha: float) -> Value:
    """0 below −3, 1 above 3, ``(2x + 3) / 6`` between."""
    between = (x * 2.0 + 3.0) * (1 / 6)
    return (x - 3.0).where_positive(1.0, (x + 3.0).where_positive(between))


def _silu(x: Value, a: Value, alpha: float) -> Value:
    sigmoid = _apply("Sigmoid", x)
    return sigmoid + a * (-sigmoid + 1.0)


def _mish(x: Value, a: Value, alpha: float) -> Value:
    t = _apply("Tanh", _apply("Softplus", x))
    return t + x * (-(t * t) + 1.0) * _apply("Sigmoid", x)


def _softsign(x: Value, a: Value, alpha: float) -> Value:
    far = x.abs() + 1.0
    return x.builder.value(1.0) / (far * far)


SMOOTH: Mapping[str, Callable[[Value, Value, float], Value]] = {
    "elu": _elu,
    "erf": lambda x, a, alpha: _bell(x) * (2 / sqrt(pi)),
    "exp": lambda x, a, alpha: a,
    "gelu": _gelu,
    "gelu-tanh": _gelu_tanh,
    "hardswish": _hardswish,
    "mish": _mish,
    "pow": lambda x, a, alpha: x * 2.0 if alpha == 2.0 else x * x * 3.0,
    "silu": _silu,
    "softplus": lambda x, a, alpha: _apply("Sigmoid", x),
    "softsign": _softsign,
    "tanh": lambda x, a, alpha: -(a * a) + 1.0,
}
"""What is computed → its derivative, from the input x, the output a, and the parameter."""
