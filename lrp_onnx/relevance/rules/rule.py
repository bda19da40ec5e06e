"""What a rule is: a frozen dataclass whose call hands the
relevance of a layer's output to its inputs.

Letters as in Montavon et al., "Layer-Wise Relevance Propagation: An Overview" (2019): x input
activation, W weights, b bias, z = Wx + b, s = R / stabilize(z), c = Wᵀs, R_in = x ⊙ c. x⁺ = max(x,
0), x⁻ = min(x, 0), likewise for W and b.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import ClassVar

from lrp_onnx.errors import RuleError
from lrp_onnx.plan.kinds import Join, Step
from lrp_onnx.relevance.graph.builder import Value
from lrp_onnx.relevance.graph.relevance import Relevance
from lrp_onnx.relevance.layers.layer import Layer, Terms

SMALL = 1e-6
"""Stabilizer of Zennit's rules and the default here."""

SERVED = {
    "join": "the residual Add",
    "product": "products",
    "concatenation": "concatenations",
    "matrix product": "products of two matrices",
}
"""Category of merging layers → what people call them."""
Shares = Sequence[Relevance | None]
"""What each input of a layer gets, in their order; None for nothing at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule of a layer, a sum, a product or a whole residual block."""

    serves: ClassVar[tuple[str, ...]] = ()
    """The categories of merging layers that it is for, such
    as ``join``; layers with one input where it is empty.
    """
    conserves: ClassVar[bool] = True
    """Whether all relevance arrives, but for what bias and stabilizer absorb."""
    whole_block: ClassVar[bool] = False
    """Whether it takes the residual block that its join closes as one layer."""

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        """The relevance of every input of `layer`, given `r`, that of its output."""
        raise NotImplementedError

    def fits(self, step: Step) -> str | None:
        """Why the rule cannot serve `step`, or None where it can."""
        if not self.serves:
            return "that is a rule of layers with one input" if step.kind.merges else None
        if step.kind.category in self.serves:
            return None
        return f"that is a rule of {' and '.join(SERVED[category] for category in self.serves)}"


def closes_a_block(step: Step) -> str | None:
    """Why `step` is not the join of a residual block, or None where it is."""
    closes = isinstance(step.kind, Join) and step.kind.roles
    return None if closes else "it closes no residual block"


@dataclass(frozen=True, slots=True, kw_only=True)
class StabilizedRule(Rule):
    """A rule that divides: `epsilon` is added to the
    denominator, with the denominator's sign if `signed`.
    """

    epsilon: float = SMALL
    signed: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon < inf:
            raise RuleError(f"epsilon={self.epsilon} must be a number that is not negative")

    def share(
        self,
        layer: Layer,
        r: Relevance,
        terms: Terms,
        bias: Value,
        *,
        factor: float = 1.0,
        gate: Callable[[Value], Value] | None = None,
        positive: bool = False,
    ) -> Relevance:
        """Hand R out in proportion to Σ xᵢWᵢ over `terms` (xᵢ, Wᵢ): z = Σ Wᵢxᵢ + b; s =
        R/stabilize(z); R_in = factor·Σ xᵢ ⊙ Wᵢᵀs. `gate` is applied to s. `positive` promises that
        z > 0 wherever R is not 0: its sign need not be looked at.
        """
        terms = [(x, w) for x, w in terms if x.number != 0.0 and w.number != 0.0]
        signed = self.signed and not positive
        z, held = layer.denominator(terms, bias, self.epsilon, signed=signed)
        if positive:
            z = z.at_least(held) if held else z.pos()
        s = r.over(z, self.epsilon, signed=signed, held=held, bias=bias, factor=factor, gate=gate)
        first, *rest = [Relevance(layer.vjp(s, w) * factor, x) for x, w in terms]
        return sum(rest, start=first)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearRule(StabilizedRule):
    """A rule of linear layers: `bias` says whether the layer's bias is part of the denominator,
    where it absorbs relevance (``keep``), or not (``drop``).
    """

    bias: str = "keep"

    def __post_init__(self) -> None:
        StabilizedRule.__post_init__(self)
        if self.bias not in ("keep", "drop"):
            raise RuleError(f"bias={self.bias!r} is not known: it is keep or drop")

    def kept(self, bias: Value) -> Value:
        """`bias`, or 0 if this rule drops it."""
        return bias if self.bias == "keep" else bias.constant(0.0)
