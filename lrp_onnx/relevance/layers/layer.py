"""Layers as rules see them: inputs, an output, a weight,
``forward`` and ``vjp`` (the transpose of forward).

`forward` is without bias unless one is given; `vjp(s, w)` is the vector-Jacobian product: ⟨s,
forward(x, w)⟩ = ⟨vjp(s, w), x⟩ for linear layers. A residual block is itself a layer: its forward
is what the graph already computes, its vjp the composition of its steps' vjps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from lrp_onnx.errors import RuleError
from lrp_onnx.plan.kinds import Kind, Role, Step
from lrp_onnx.relevance.graph.builder import Builder, Value
from lrp_onnx.relevance.graph.relevance import Relevance

K = TypeVar("K", bound=Kind)
Terms = Sequence[tuple[Value, Value]]
"""Inputs and weights: ``Σ Wᵢ xᵢ``."""


class Layer(Protocol):
    """What a rule may ask of a layer."""

    @property
    def inputs(self) -> tuple[Value, ...]:
        """The activations that enter."""

    @property
    def input(self) -> Value:
        """The activation that enters a layer of one input."""

    @property
    def output(self) -> Value:
        """The tensor that the forward graph computes, bias included."""

    @property
    def roles(self) -> tuple[Role, ...]:
        """What each input is: the branches of a residual
        block, the signal and the gate of a product.
        """

    @property
    def weight(self) -> Value:
        """W; the number 1 where a layer's weights are fixed (pools)."""

    @property
    def bias(self) -> Value:
        """b, broadcastable to the output; the number 0 where there is none."""

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        """``W x``, or ``W x + b`` with `b` broadcastable to the output."""

    def denominator(
        self, terms: Terms, bias: Value, epsilon: float, *, signed: bool
    ) -> tuple[Value, float]:
        """``Σ Wᵢ xᵢ + b``, and the stabilizer that it holds already: `epsilon` where the runtime
        adds it for nothing and it needs no sign, else 0.
        """

    def vjp(self, s: Value, w: Value) -> Value:
        """``Wᵀ s``."""

    def vjps(self, s: Value) -> tuple[Value, ...]:
        """The vector-Jacobian product for every input."""

    def operands(self, r: Relevance) -> tuple[Value, ...]:
        """The inputs of a sum whose relevance is `r`, in the form that costs the runtime least."""

    def fill(self, values: Sequence[float]) -> Value:
        """A number, or one number per channel, as a tensor of the input's shape with batch 1."""

    @property
    def routes(self) -> bool:
        """Whether every output element equals one input element, so
        that ``y⊙c → x⊙vjp(c)`` holds.
        """

    @property
    def rectifies(self) -> bool:
        """Whether the output equals the input wherever it
        is not zero, so that a⊙c may be divided by either.
        """

    def as_average(self, kernel: int) -> Layer:
        """A max pooling as an average pooling; RuleError for other layers."""

    def with_fixed_deviation(self) -> Layer:
        """A normalisation whose divisor counts as a constant: it is linear then. RuleError for
        other layers.
        """

    def subsampled(self) -> tuple[Layer, Layer]:
        """A strided 1×1 convolution in two: the windows around the positions that it reads, and the
        convolution of these positions, at stride 1. RuleError for other layers.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Node(Generic[K]):
    """What all layers of one step share."""

    builder: Builder
    step: Step
    kind: K
    inputs: tuple[Value, ...]
    output: Value

    @property
    def routes(self) -> bool:
        return self.kind.moves

    @property
    def rectifies(self) -> bool:
        return False

    @property
    def roles(self) -> tuple[Role, ...]:
        return (Role.MAIN,) * len(self.inputs)

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        raise RuleError(
            f"{self.step.op} '{self.step.name}' is not linear: "
            "the rule given to it serves only linear layers"
        )

    def denominator(
        self, terms: Terms, bias: Value, epsilon: float, *, signed: bool
    ) -> tuple[Value, float]:
        positive = bias.nonnegative and all((x.sign * w.sign).nonnegative for x, w in terms)
        fits = self.builder.emission.stabilizer_in_bias and (positive or not signed)
        held = epsilon if fits else 0.0
        (x, w), *others = terms
        first, *rest = [self.forward(x, w, bias + held), *(self.forward(x, w) for x, w in others)]
        return sum(rest, start=first), held

    def vjp(self, s: Value, w: Value) -> Value:
        raise NotImplementedError

    def vjps(self, s: Value) -> tuple[Value, ...]:
        return tuple(self.vjp(s, self.weight) for _ in self.inputs)

    def operands(self, r: Relevance) -> tuple[Value, ...]:
        return self.inputs

    def as_average(self, kernel: int) -> Layer:
        raise RuleError(
            f"{self.step.op} '{self.step.name}' is no max pooling: the rule average does not fit it"
        )

    def with_fixed_deviation(self) -> Layer:
        raise RuleError(
            f"{self.step.op} '{self.step.name}' is no normalisation: the rule layer-norm does not "
            "fit it"
        )

    def subsampled(self) -> tuple[Layer, Layer]:
        raise RuleError(
            f"{self.step.op} '{self.step.name}' is no strided 1x1 convolution: the rule spread "
            "does not fit it"
        )

    @property
    def input(self) -> Value:
        return self.inputs[0]

    @property
    def weight(self) -> Value:
        return self.builder.value(1.0)

    @property
    def bias(self) -> Value:
        return self.builder.value(0.0)

    def fill(self, values: Sequence[float]) -> Value:
        vector = self.builder.array(values)
        return self.expand(vector.reshape(1, -1, *(1 for _ in self.step.input_shape[2:])))

    def expand(self, x: Value) -> Value:
        """`x` broadcast to the input's shape; a batch stays what it is."""
        return self.builder.node("Expand", x, self.builder.integers(self._sizes()), sign=x.sign)

    def _sizes(self) -> tuple[int, ...]:
        """The input's shape with batch 1."""
        return 1, *(size for size in self.step.input_shape[1:] if size is not None)

    def _tensor(self, x: Value) -> Value:
        """A number as a tensor of the input's shape; anything else as it is."""
        return self.expand(x) if x.number is not None else x


@dataclass(frozen=True, slots=True, eq=False)
class BlockLayer:
    """A whole residual block as one layer: ``vjp`` runs
    through everything in it, ReLUs and shortcut included.

    It is not linear and has no weight of its own: what its biases absorb is not told apart.
    """

    builder: Builder
    input: Value
    output: Value
    backward: Callable[[Value], Value]

    @property
    def inputs(self) -> tuple[Value, ...]:
        return (self.input,)

    @property
    def roles(self) -> tuple[Role, ...]:
        return (Role.MAIN,)

    @property
    def weight(self) -> Value:
        return self.builder.value(1.0)

    @property
    def bias(self) -> Value:
        return self.builder.value(0.0)

    @property
    def routes(self) -> bool:
        return False

    @property
    def rectifies(self) -> bool:
        return False

    def vjp(self, s: Value, w: Value) -> Value:
        """``Jᵀ s`` with J the block's Jacobian at the picture."""
        return self.backward(s)

    def vjps(self, s: Value) -> tuple[Value, ...]:
        return (self.backward(s),)

    def operands(self, r: Relevance) -> tuple[Value, ...]:
        return self.inputs

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        raise RuleError("a residual block is not linear: its bias cannot be dropped")

    def denominator(
        self, terms: Terms, bias: Value, epsilon: float, *, signed: bool
    ) -> tuple[Value, float]:
        raise RuleError("a residual block is not linear: only its own rule fits it")

    def fill(self, values: Sequence[float]) -> Value:
        raise RuleError("a residual block's input is never replaced")

    def as_average(self, kernel: int) -> Layer:
        raise RuleError("a residual block is no max pooling")

    def with_fixed_deviation(self) -> Layer:
        raise RuleError("a residual block is no normalisation")

    def subsampled(self) -> tuple[Layer, Layer]:
        raise RuleError("a residual block is no convolution")
