"""Activations: what bends every element alone."""

from __future__ import annotations

from math import isinf

from lrp_onnx import kinds
from lrp_onnx.relevance.builder import Value
from lrp_onnx.relevance.layer import Node


class ReluLayer(Node):
    """``max(x, 0)``."""

    __slots__ = ()

    @property
    def rectifies(self) -> bool:
        return True

    def vjp(self, s: Value, w: Value) -> Value:
        return self.output.where_positive(s)


class ClipLayer(Node):
    """``min(max(x, low), high)``: its gradient is 1 strictly between the bounds and 0 elsewhere."""

    __slots__ = ()

    def vjp(self, s: Value, w: Value) -> Value:
        clip = self.step.layer
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
        hard = self.step.layer
        assert isinstance(hard, kinds.HardSigmoid)
        inside = self.output.where_positive(s * hard.slope)
        return (self.output - 1.0).where_negative(inside)


class LeakyReluLayer(Node):
    """``x`` where x > 0, else ``slope · x``."""

    __slots__ = ()

    def vjp(self, s: Value, w: Value) -> Value:
        leaky = self.step.layer
        assert isinstance(leaky, kinds.LeakyRelu)
        return self.input.where_positive(s, s * leaky.slope)
