"""Layers as rules see them: an input, an output, a weight, ``forward`` and ``vjp`` (the transpose of forward).

`forward` is always without bias; `vjp(s, w)` is the vector-Jacobian product: ⟨s, forward(x, w)⟩ = ⟨vjp(s, w), x⟩ for
linear layers. A residual block is itself a layer: its forward is what the graph already computes, its vjp the
composition of its steps' vjps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lrp_onnx.errors import RuleError
from lrp_onnx.plan import kinds, plan
from lrp_onnx.relevance.graph.builder import Builder, Value


class Layer(Protocol):
    """What a rule may ask of a layer with one input."""

    @property
    def input(self) -> Value:
        """The activation that enters."""

    @property
    def output(self) -> Value:
        """The tensor that the forward graph computes, bias included."""

    @property
    def weight(self) -> Value:
        """W; the number 1 where a layer's weights are fixed (pools)."""

    @property
    def bias(self) -> Value:
        """b, broadcastable to the output; the number 0 where there is none."""

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        """``W x``, or ``W x + b`` with `b` broadcastable to the output."""

    def vjp(self, s: Value, w: Value) -> Value:
        """``Wᵀ s``."""

    def fill(self, x: Value) -> Value:
        """`x`, a number or a vector of one value per channel, as a tensor of the input's shape with batch 1."""

    @property
    def routes(self) -> bool:
        """Whether every output element equals one input element, so that ``y⊙c → x⊙vjp(c)`` holds."""

    @property
    def rectifies(self) -> bool:
        """Whether the output equals the input wherever it is not zero, so that a⊙c may be divided by either."""

    def as_average(self, kernel: int) -> tuple[kinds.AveragePool, tuple[int, ...]]:
        """A max pooling as an average pooling and its input's shape with batch 1; RuleError for other layers."""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """What all layers of one step share."""

    builder: Builder
    step: plan.Step
    inputs: tuple[Value, ...]
    output: Value

    @property
    def routes(self) -> bool:
        return False

    @property
    def rectifies(self) -> bool:
        return False

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        raise RuleError(
            f"{self.step.op} '{self.step.name}' is not linear: the rule given to it serves only linear layers"
        )

    def vjp(self, s: Value, w: Value) -> Value:
        raise NotImplementedError

    def vjps(self, s: Value) -> tuple[Value, ...]:
        """The vector-Jacobian product for every input."""
        return tuple(self.vjp(s, self.weight) for _ in self.inputs)

    def as_average(self, kernel: int) -> tuple[kinds.AveragePool, tuple[int, ...]]:
        raise RuleError(f"{self.step.op} '{self.step.name}' is no max pooling: the rule average does not fit it")

    @property
    def input(self) -> Value:
        return self.inputs[0]

    @property
    def weight(self) -> Value:
        return self.builder.value(1.0)

    @property
    def bias(self) -> Value:
        return self.builder.value(0.0)

    def fill(self, x: Value) -> Value:
        if x.number is None:
            x = x.reshape(1, -1, *(1 for _ in self.step.input_shape[2:]))
        return self.expand(x)

    def expand(self, x: Value) -> Value:
        """`x` broadcast to the input's shape; a batch stays what it is."""
        shape = self.builder.integers(self._sizes())
        return self.builder.node("Expand", x, shape, signs=(x.nonnegative, x.nonpositive))

    def _sizes(self) -> tuple[int, ...]:
        """The input's shape with batch 1."""
        return 1, *(size for size in self.step.input_shape[1:] if size is not None)

    def _tensor(self, x: Value) -> Value:
        return self.fill(x) if x.number is not None else x


@dataclass(frozen=True, slots=True, eq=False)
class BlockLayer:
    """A whole residual block as one layer: ``vjp`` runs through everything in it, ReLUs and shortcut included."""

    builder: Builder
    input: Value
    output: Value
    backward: Callable[[Value], Value]

    @property
    def weight(self) -> Value:
        """Not used: a block's Jacobian has no weight of its own."""
        return self.builder.value(1.0)

    @property
    def bias(self) -> Value:
        """0: what biases inside the block absorb is not told apart."""
        return self.builder.value(0.0)

    @property
    def routes(self) -> bool:
        """No."""
        return False

    @property
    def rectifies(self) -> bool:
        """No."""
        return False

    def as_average(self, kernel: int) -> tuple[kinds.AveragePool, tuple[int, ...]]:
        """Not a pooling."""
        raise RuleError("a residual block is no max pooling")

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        """Not linear; the graph's own output serves."""
        raise RuleError("a residual block is not linear: its bias cannot be dropped")

    def vjp(self, s: Value, w: Value) -> Value:
        """``Jᵀ s`` with J the block's Jacobian at the picture."""
        return self.backward(s)

    def fill(self, x: Value) -> Value:
        """Not used."""
        raise RuleError("a residual block's input is never replaced")
