"""The rules. Each is an equation: how one layer hands the relevance R of its output to its input.

Letters as in Montavon et al., "Layer-Wise Relevance Propagation: An Overview" (2019): x input activation, W weights,
b bias, z = Wx + b, s = R / stabilize(z), c = Wᵀs, R_in = x ⊙ c. x⁺ = max(x, 0), x⁻ = min(x, 0), likewise for W and b.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import ClassVar

from lrp_onnx.errors import RuleError
from lrp_onnx.relevance.graph.builder import Value
from lrp_onnx.relevance.graph.relevance import Relevance
from lrp_onnx.relevance.layers.layer import Layer

SMALL = 1e-6
"""Stabilizer of Zennit's rules and the default here."""
LAB_EPSILON = 1e-5
"""Stabilizer of the C3-LRP authors' released code, added without a sign."""


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """One quotient that a rule formed: what `verify` needs to say where relevance went."""

    quotient: Value
    denominator: Value
    bias: Value
    factor: float
    stabilizer: float = 0.0
    """What of the denominator is stabilizer already."""


@dataclass(slots=True, eq=False)
class Ledger:
    """What a rule noted while it was applied to one layer."""

    terms: list[Term] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule of a layer with one input; calling it returns the relevance of the input.

    `epsilon` is the stabilizer, added to the denominator with its sign if `signed`; `bias` says whether the layer's
    bias is part of the denominator (``keep``: it absorbs relevance) or not (``drop``).
    """

    title: ClassVar[str]
    promise: ClassVar[str] = "conserves"
    """``conserves``: all relevance arrives, but for what `Term`s show as absorbed. ``none``: nothing is promised."""
    epsilon: float = SMALL
    signed: bool = True
    bias: str = "keep"

    def __post_init__(self) -> None:
        if self.bias not in ("keep", "drop"):
            raise RuleError(f"bias={self.bias!r} is not known: it is keep or drop")
        if not 0 <= self.epsilon < inf:
            raise RuleError(f"epsilon={self.epsilon} must be a number that is not negative")

    def __call__(self, layer: Layer, r: Relevance, ledger: Ledger) -> Relevance:
        """The relevance of the layer's input, given that of its output."""
        raise NotImplementedError

    def kept(self, bias: Value) -> Value:
        """`bias`, or 0 if this rule drops it."""
        return bias if self.bias == "keep" else bias.builder.value(0.0)

    def share(
        self,
        layer: Layer,
        r: Relevance,
        terms: Sequence[tuple[Value, Value]],
        bias: Value,
        *,
        ledger: Ledger,
        factor: float = 1.0,
        gate: Callable[[Value], Value] | None = None,
    ) -> Relevance:
        """Hand R out in proportion to Σ xᵢWᵢ over `terms` (xᵢ, Wᵢ): z = Σ Wᵢxᵢ + b; s = R/stabilize(z); R_in =
        factor·Σ xᵢ ⊙ Wᵢᵀs.
        """
        terms = [(x, w) for x, w in terms if x.number != 0.0 and w.number != 0.0]
        bias = self.kept(bias)
        shifts = bias.builder.emission.stabilizer_in_bias and (not self.signed or _is_positive(terms, bias))
        added = self.epsilon if shifts else 0.0
        (x, w), *others = terms
        z = _sum(layer.forward(x, w, bias + added), [layer.forward(x, w) for x, w in others])
        s = r.per(z) if added else r.over(z, self.epsilon, signed=self.signed)
        s = gate(s) if gate else s
        ledger.terms.append(Term(s, z, bias, factor, added))
        parts = [Relevance(layer.vjp(s, w) * factor, x) for x, w in terms]
        return _total(parts)


def _is_positive(terms: Sequence[tuple[Value, Value]], bias: Value) -> bool:
    """Whether the sum of the terms and the bias cannot be negative: the stabilizer is then part of the bias."""
    return bias.nonnegative and all(
        (x.nonnegative and w.nonnegative) or (x.nonpositive and w.nonpositive) for x, w in terms
    )


def _sum(total: Value, parts: Sequence[Value]) -> Value:
    for part in parts:
        total = total + part
    return total


def _total(parts: Sequence[Relevance]) -> Relevance:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Epsilon(Rule):
    """``s = R / (z + ε·sign z);  R_in = x ⊙ Wᵀs`` (Bach et al. 2015). At ε = 0: LRP-0, which telescopes to Gradient ×
    Input.
    """

    title: ClassVar[str] = "epsilon rule; epsilon=0 is LRP-0"

    def __call__(self, layer: Layer, r: Relevance, ledger: Ledger) -> Relevance:
        x, w = layer.input, layer.weight
        z, b = (layer.output, layer.bias) if self.bias == "keep" else (layer.forward(x, w), self.kept(layer.bias))
        s = r.over(z, self.epsilon, signed=self.signed)
        ledger.terms.append(Term(s, z, b, 1.0))
        return Relevance(layer.vjp(s, w), x)


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm(Epsilon):
    """``R_in = x ⊙ Wᵀ(R / stabilize(z))``: the ε-rule under the name it has for pools, x/Σx."""

    title: ClassVar[str] = "share by the input's part of the sum, x / Σx (pools)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gamma(Rule):
    """Favour what helps: W + γW⁺ (Montavon et al. 2019), in the four-term form for signed x and z (Andéol et al. 2021).

    Where z > 0: x⁺(W + γW⁺) + x⁻(W + γW⁻); where z < 0: x⁺(W + γW⁻) + x⁻(W + γW⁺). For x ≥ 0 and z > 0 it is the
    plain rule.
    """

    title: ClassVar[str] = "gamma rule, generalised to signed inputs and outputs"
    gamma: float = 0.25

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        if not 0 <= self.gamma < inf:
            raise RuleError(f"gamma={self.gamma} must be a number that is not negative")

    def __call__(self, layer: Layer, r: Relevance, ledger: Ledger) -> Relevance:
        x, w, b, z = layer.input, layer.weight, layer.bias, layer.output
        raised, lowered = w + w.pos() * self.gamma, w + w.neg() * self.gamma
        helps = self.share(
            layer,
            r,
            [(x.pos(), raised), (x.neg(), lowered)],
            b + b.pos() * self.gamma,
            ledger=ledger,
            gate=z.where_positive,
        )
        if r.positive_only(z):
            return helps
        hurts = self.share(
            layer,
            r,
            [(x.pos(), lowered), (x.neg(), raised)],
            b + b.neg() * self.gamma,
            ledger=ledger,
            gate=z.where_negative,
        )
        return helps + hurts


@dataclass(frozen=True, slots=True, kw_only=True)
class ZPlus(Rule):
    """``R_in = x⁺⊙W⁺ᵀs + x⁻⊙W⁻ᵀs`` with z = W⁺x⁺ + W⁻x⁻ (+ b⁺): α1β0 (Bach et al. 2015; Montavon et al. 2017 for x ≥
    0).

    `ones` puts ones in the place of the input, as the C3-LRP authors' released code does at the first layer.
    """

    title: ClassVar[str] = "z+ rule, alpha=1 beta=0"
    ones: bool = False

    def __call__(self, layer: Layer, r: Relevance, ledger: Ledger) -> Relevance:
        x, w, b = layer.input, layer.weight, layer.bias
        if self.ones:
            x = w.builder.value(1.0)
        return self.share(layer, r, [(x.pos(), w.pos()), (x.neg(), w.neg())], b.pos(), ledger=ledger)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlphaBeta(Rule):
    """``R_in = α·(xW)⁺/Σ(xW)⁺·R − β·(xW)⁻/Σ(xW)⁻·R`` with α − β = 1 and (xW)⁺ = x⁺W⁺ + x⁻W⁻ (Bach et al. 2015)."""

    title: ClassVar[str] = "alpha-beta rule, alpha - beta = 1"
    alpha: float = 2.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        if not 0 <= self.beta < inf or not abs(self.alpha - self.beta - 1.0) <= 1e-9:
            raise RuleError(f"alpha={self.alpha} and beta={self.beta} must be non-negative and differ by exactly 1")

    def __call__(self, layer: Layer, r: Relevance, ledger: Ledger) -> Relevance:
        x, w, b = layer.input, layer.weight, layer.bias
        helps = self.share(
            layer, r, [(x.pos(), w.pos()), (x.neg(), w.neg())], b.pos(), ledger=ledger, factor=self.alpha
        )
        if self.beta == 0.0 or (w.nonnegative and x.nonnegative):
            return helps
        return helps + self.share(
            layer, r, [(x.pos(), w.neg()), (x.neg(), w.pos())], b.neg(), ledger=ledger, factor=-self.beta
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WSquare(Rule):
    """``R_in = (W²)ᵀ(R / ΣW²)``: by the weights alone (Montavon et al. 2017). Zennit adds b² to the denominator:
    ``bias=keep``.
    """

    title: ClassVar[str] = "w-squared rule (first layer)"
    bias: str = "drop"

    def __call__(self, layer: Layer, r: Relevance, ledger: Ledger) -> Relevance:
        w, b = layer.weight, layer.bias
        squares = [(v * v).signed(nonnegative=True) for v in (w, b)]
        return self.share(layer, r, [(w.builder.value(1.0), squares[0])], squares[1], ledger=ledger)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flat(Rule):
    """``R_in = 1ᵀ(R / Σ1)``: evenly over the receptive field (Lapuschkin et al. 2019)."""

    title: ClassVar[str] = "flat rule (first layer)"

    def __call__(self, layer: Layer, r: Relevance, ledger: Ledger) -> Relevance:
        one = layer.weight.builder.value(1.0)
        return self.share(layer, r, [(one, layer.weight.ones_like())], one * 0.0, ledger=ledger)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZBox(Rule):
    """``z = Wx − W⁺l − W⁻h;  R_in = x⊙Wᵀs − l⊙W⁺ᵀs − h⊙W⁻ᵀs`` for inputs in [l, h] (Montavon et al. 2017).

    `low` and `high` are in the units of the model's input, one value or one per channel.
    """

    title: ClassVar[str] = "z-box rule for inputs between low and high (first layer)"
    low: tuple[float, ...] = (-1.0,)
    high: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        if len(self.low) != len(self.high):
            raise RuleError(f"low has {len(self.low)} values and high {len(self.high)}: give as many of each")
        if not all(-inf < low <= 0 <= high < inf and low < high for low, high in zip(self.low, self.high, strict=True)):
            raise RuleError(f"low={self.low} and high={self.high} must enclose 0: low ≤ 0 ≤ high, low < high")

    def __call__(self, layer: Layer, r: Relevance, ledger: Ledger) -> Relevance:
        x, w = layer.input, layer.weight
        low, high = (layer.fill(w.builder.array(bound)) for bound in (self.low, self.high))
        terms = [(x, w), (-low, w.pos()), (-high, w.neg())]
        return self.share(layer, r, terms, w.builder.value(0.0), ledger=ledger)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block(Epsilon):
    """C3-LRP Eq. 1: the ε-rule with the whole residual block as the layer (Doublet et al., JSAI 2024).

    ``s = R / (y + ε);  R_in = x ⊙ J_blockᵀ s``. ε = 0 is the telescoped limit: Gradient × Input through the block.
    """

    title: ClassVar[str] = "C3-LRP Eq. 1: the residual block is one layer of the epsilon rule"
    promise: ClassVar[str] = "none"
    epsilon: float = LAB_EPSILON
    signed: bool = False
