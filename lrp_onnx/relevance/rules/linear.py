"""Rules that share relevance out: of linear layers, of pools, of a residual block as one layer.

Letters as in `rule`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import ClassVar

from lrp_onnx.errors import RuleError
from lrp_onnx.plan.kinds import Step
from lrp_onnx.relevance.graph.relevance import Relevance
from lrp_onnx.relevance.layers.layer import Layer
from lrp_onnx.relevance.rules.rule import LinearRule, Rule, Shares, StabilizedRule, closes_a_block

REFERENCE_EPSILON = 1e-5
"""Stabilizer of the C3-LRP authors' released code, added without a sign."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Epsilon(LinearRule):
    """``s = R / (z + ε·sign z);  R_in = x ⊙ Wᵀs`` (Bach et al. 2015).

    At ε = 0 it is LRP-0, which telescopes to Gradient × Input.
    """

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        x, w = layer.input, layer.weight
        z = layer.output if self.bias == "keep" else layer.forward(x, w)
        s = r.over(z, self.epsilon, signed=self.signed, bias=self.kept(layer.bias))
        return [Relevance(layer.vjp(s, w), x)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm(StabilizedRule):
    """``R_in = x ⊙ Wᵀ(R / stabilize(z))``: the ε-rule under the name it has for pools, x/Σx."""

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        x, w = layer.input, layer.weight
        s = r.over(layer.output, self.epsilon, signed=self.signed, bias=layer.bias)
        return [Relevance(layer.vjp(s, w), x)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gamma(LinearRule):
    """Favour what helps: W + γW⁺ (Montavon et al. 2019), in the form of four terms for signed x and
    z (Andéol et al. 2021).

    Where z > 0, the contributions are x⁺(W + γW⁺) + x⁻(W + γW⁻).
    Where z < 0, they are x⁺(W + γW⁻) + x⁻(W + γW⁺).
    For x ≥ 0 and z > 0 it is the plain rule.
    """

    gamma: float = 0.25

    def __post_init__(self) -> None:
        LinearRule.__post_init__(self)
        if not 0 <= self.gamma < inf:
            raise RuleError(f"gamma={self.gamma} must be a number that is not negative")

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        if self.gamma == 0.0:
            return Epsilon(epsilon=self.epsilon, signed=self.signed, bias=self.bias)(layer, r)
        # As a⁺ = (a + |a|)/2 and a⁻ = (a − |a|)/2, the contributions are g·xW + h·sign(z)·|xW| with
        # g = 1 + γ/2 and h = γ/2: of their sum, and so of g and h, only the ratio counts.
        g, h = 1 + self.gamma / 2, self.gamma / 2
        if self.bias == "keep":
            return [replace(self, epsilon=self.epsilon / g)._shared(layer, r, 1.0, h / g)]
        # Without the bias xW may cancel against |xW|: this h is exact.
        return [self._shared(layer, r, g, h)]

    def _shared(self, layer: Layer, r: Relevance, g: float, h: float) -> Relevance:
        """Relevance in proportion to ``g·xW + h·sign(z)·|xW|``."""
        if not layer.input.nonnegative or not r.positive_only(layer.output):
            return self._of_any_sign(layer, r, g, h)
        w, b, z = layer.weight, self.kept(layer.bias), layer.output
        terms, bias = [(layer.input, w * g + w.abs() * h)], b * g + b.abs() * h
        if self.bias == "keep":  # the denominator is z and what γ adds to it
            return self.share(layer, r, terms, bias, positive=True)
        return self.share(layer, r, terms, bias, gate=z.where_positive)

    def _of_any_sign(self, layer: Layer, r: Relevance, g: float, h: float) -> Relevance:
        """Three products: with σ = sign(z) and ``u = R / (gσΣxW + hΣ|xW| + ε)`` it is
        ``R_in = x ⊙ Wᵀ(gσu) + |x| ⊙ h|W|ᵀu``.
        """
        x, w, b, z = layer.input, layer.weight, self.kept(layer.bias), layer.output
        positive, keep = r.positive_only(z), self.bias == "keep"
        sign = z.constant(1.0) if positive else z.signum()
        total = r.standing_for(z).abs() if keep else layer.forward(x, w) * sign
        size, weight, size_of_b = x.abs(), w.abs() * h, b.abs() * h
        joint = self.epsilon if keep and self.signed else 0.0
        q, held = layer.denominator([(size, weight)], size_of_b, joint, signed=True)
        e = total * g + q
        if self.signed or positive:
            u = r.over(e, self.epsilon, signed=self.signed, held=held, bias=size_of_b)
            v = (u * (sign * g)).absorbed(b)
        else:
            s = r.over(e * sign, self.epsilon, signed=False)
            u, v = (s * sign).absorbed(size_of_b), (s * g).absorbed(b)
        return Relevance(layer.vjp(v, w), x) + Relevance(layer.vjp(u, weight), size)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZPlus(LinearRule):
    """``R_in = x⁺⊙W⁺ᵀs + x⁻⊙W⁻ᵀs`` with ``z = W⁺x⁺ + W⁻x⁻ (+ b⁺)``: α1β0 (Bach et al. 2015;
    Montavon et al. 2017 for x ≥ 0).

    `ones` puts ones in the place of the input, as the C3-LRP authors' released code does at the
    first layer.
    """

    ones: bool = False

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        x, w, b = layer.input, layer.weight, layer.bias
        if self.ones:
            x = w.constant(1.0)
        terms = [(x.pos(), w.pos()), (x.neg(), w.neg())]
        return [self.share(layer, r, terms, self.kept(b.pos()))]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlphaBeta(LinearRule):
    """``R_in = α·(xW)⁺/Σ(xW)⁺·R − β·(xW)⁻/Σ(xW)⁻·R`` with ``α − β = 1`` and
    ``(xW)⁺ = x⁺W⁺ + x⁻W⁻`` (Bach et al. 2015).
    """

    alpha: float = 2.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        LinearRule.__post_init__(self)
        if not 0 <= self.beta < inf or not abs(self.alpha - self.beta - 1.0) <= 1e-9:
            raise RuleError(
                f"alpha={self.alpha} and beta={self.beta} "
                "must be non-negative and differ by exactly 1"
            )

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        x, w, b = layer.input, layer.weight, layer.bias
        terms = [(x.pos(), w.pos()), (x.neg(), w.neg())]
        helps = self.share(layer, r, terms, self.kept(b.pos()), factor=self.alpha)
        if self.beta == 0.0 or (w.nonnegative and x.nonnegative):
            return [helps]
        terms = [(x.pos(), w.neg()), (x.neg(), w.pos())]
        return [helps + self.share(layer, r, terms, self.kept(b.neg()), factor=-self.beta)]


@dataclass(frozen=True, slots=True, kw_only=True)
class WSquare(LinearRule):
    """``R_in = (W²)ᵀ(R / ΣW²)``: by the weights alone (Montavon et al. 2017).

    Zennit adds b² to the denominator: ``bias=keep``.
    """

    bias: str = "drop"

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        w, b = layer.weight, layer.bias
        squares, bias = w.squared(), b.squared()
        return [self.share(layer, r, [(w.constant(1.0), squares)], self.kept(bias))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flat(StabilizedRule):
    """``R_in = 1ᵀ(R / Σ1)``: evenly over the receptive field (Lapuschkin et al. 2019)."""

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        one = layer.weight.constant(1.0)
        return [self.share(layer, r, [(one, layer.weight.ones_like())], one * 0.0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ZBox(StabilizedRule):
    """``z = Wx − W⁺l − W⁻h;  R_in = x⊙Wᵀs − l⊙W⁺ᵀs − h⊙W⁻ᵀs`` for inputs in [l, h] (Montavon et al.
    2017).

    `low` and `high` are in the units of the model's input, one value or one per channel. Where they
    are not given, they are the lowest and the highest value that a pixel can have, by how pictures
    are prepared.
    """

    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        StabilizedRule.__post_init__(self)
        if len(self.low) != len(self.high):
            raise RuleError(
                f"low has {len(self.low)} values and high {len(self.high)}: give as many of each"
            )
        bounds = zip(self.low, self.high, strict=True)
        if not all(-inf < low <= 0 <= high < inf and low < high for low, high in bounds):
            raise RuleError(
                f"low={self.low} and high={self.high} must enclose 0: low ≤ 0 ≤ high, low < high"
            )

    def fits(self, step: Step) -> str | None:
        channels = step.input_shape[1]
        if self.low and len(self.low) not in (1, channels):
            return f"the rule has {len(self.low)} bounds, its input {channels} channels"
        return StabilizedRule.fits(self, step)

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        x, w = layer.input, layer.weight
        low, high = layer.fill(self.low), layer.fill(self.high)
        terms = [(x, w), (-low, w.pos()), (-high, w.neg())]
        return [self.share(layer, r, terms, w.constant(0.0))]


LINEAR: dict[str, Rule] = {
    "epsilon": Epsilon(),
    "gamma": Gamma(),
    "z-plus": ZPlus(),
    "alpha-beta": AlphaBeta(),
    "w-square": WSquare(),
    "flat": Flat(),
}
"""Rules of convolutions and dense layers that need nothing but the layer, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeBlock(Norm):
    """C3-LRP Eq. 1: the ε-rule with the whole residual block as the layer (Doublet et al., JSAI
    2024).

    ``s = R / (y + ε);  R_in = x ⊙ J_blockᵀ s``: the block's Jacobian stands in the place of W.
    ε = 0 is the telescoped limit: Gradient × Input through the block.
    """

    conserves: ClassVar[bool] = False
    whole_block: ClassVar[bool] = True
    epsilon: float = REFERENCE_EPSILON
    signed: bool = False

    def fits(self, step: Step) -> str | None:
        return closes_a_block(step)
