"""The rules of the residual Add: how the relevance of a sum is shared among its operands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from lrp_onnx.errors import RuleError
from lrp_onnx.plan.kinds import Role, Step
from lrp_onnx.relevance.graph.builder import Value
from lrp_onnx.relevance.graph.relevance import Relevance
from lrp_onnx.relevance.layers.layer import Layer
from lrp_onnx.relevance.rules.rule import Rule, Shares, StabilizedRule, closes_a_block

TINY = 1e-30
"""Keeps the share of nothing, 0/0, from being NaN; far below any activation's rounding error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio(Rule):
    """``Rᵢ = R·|hᵢ| / Σ|h|``: bounded and conserving (Otsuki et al., ECCV 2024).

    Where all operands are 0, so is the share.
    """

    serves: ClassVar[tuple[str, ...]] = ("join",)

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        return _by_share(r, [h.abs() for h in layer.operands(r)])


@dataclass(frozen=True, slots=True, kw_only=True)
class ZPlusJoin(Rule):
    """``Rᵢ = R·wᵢ / Σw`` with ``w = max(h, −δh)``: bounded, conserving, and aware of signs.

    Operands that are not positive count with the share δ = `negative` of their magnitude: they
    decide only where none is positive. At δ = 0 nothing is handed on there.
    """

    serves: ClassVar[tuple[str, ...]] = ("join",)
    negative: float = 1e-9

    def __post_init__(self) -> None:
        if not 0 <= self.negative < 1:
            raise RuleError(f"negative={self.negative} must be a number from 0 to below 1")

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        # Behind a ReLU there is relevance only where the sum, and so an operand, is positive.
        if self.negative == 0.0 or r.positive_only(layer.output):
            shares = _by_share(r, [h.pos() for h in layer.inputs])
            return [
                share if h.nonnegative else replace(share, alias=h.name)
                for share, h in zip(shares, layer.inputs, strict=True)
            ]
        weights = [h if h.nonnegative else h.leaky(-self.negative) for h in layer.inputs]
        return _by_share(r, weights)


def _by_share(r: Relevance, weights: Sequence[Value]) -> list[Relevance]:
    quotient = r.per(sum(weights[1:], start=weights[0]) + TINY)
    return [Relevance(quotient, weight) for weight in weights]


@dataclass(frozen=True, slots=True, kw_only=True)
class Symmetric(Rule):
    """``Rᵢ = R / n``: every branch the same (Otsuki et al., ECCV 2024)."""

    serves: ClassVar[tuple[str, ...]] = ("join",)

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        part = Relevance(r.total * (1.0 / len(layer.inputs)))
        return [part for _ in layer.inputs]


@dataclass(frozen=True, slots=True, kw_only=True)
class MainOnly(Rule):
    """``R_main = R``, shortcuts get nothing."""

    serves: ClassVar[tuple[str, ...]] = ("join",)

    def fits(self, step: Step) -> str | None:
        return Rule.fits(self, step) or closes_a_block(step)

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        return [r if role is Role.MAIN else None for role in layer.roles]


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipOnly(Rule):
    """``R_shortcut = R``, the main branch gets nothing (several shortcuts share by magnitude)."""

    serves: ClassVar[tuple[str, ...]] = ("join",)

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        shortcuts = [i for i, role in enumerate(layer.roles) if role is not Role.MAIN]
        if len(shortcuts) == 1:
            return [r if i == shortcuts[0] else None for i in range(len(layer.roles))]
        parts = _by_share(r, [layer.inputs[i].abs() for i in shortcuts])
        shares = dict(zip(shortcuts, parts, strict=True))
        return [shares.get(i) for i in range(len(layer.roles))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed(StabilizedRule):
    """``Rᵢ = hᵢ·R / stabilize(Σh)``: the ε-rule of the Add (Zennit's Norm).

    It blows up where the branches cancel.
    """

    serves: ClassVar[tuple[str, ...]] = ("join",)

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        s = r.over(layer.output, self.epsilon, signed=self.signed)
        return [Relevance(s, h) for h in layer.inputs]


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientJoin(Rule):
    """``Rᵢ = R``: what the gradient does at a sum."""

    serves: ClassVar[tuple[str, ...]] = ("join",)
    conserves: ClassVar[bool] = False

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        return [Relevance(r.total) for _ in layer.inputs]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate(Rule):
    """``R_signal = R``: the gate counts as a constant, the signal takes all (Arras et al. 2017).
    Where neither factor is a gate, each takes half (AttnLRP, Achtibat et al. 2024, Eq. 3.3).
    """

    serves: ClassVar[tuple[str, ...]] = ("product",)

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        if Role.GATE not in layer.roles:
            return [Relevance(r.total * 0.5) for _ in layer.inputs]
        return [r if role is not Role.GATE else None for role in layer.roles]


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientProduct(Rule):
    """``R_signal = g ⊙ R, R_gate = Σ x ⊙ R``, and ``R_A = R Bᵀ, R_B = Aᵀ R`` for z = AB: what the
    gradient does at a product.
    """

    serves: ClassVar[tuple[str, ...]] = ("product", "matrix product")
    conserves: ClassVar[bool] = False

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        return [Relevance(back) for back in layer.vjps(r.total)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts(Rule):
    """``Rᵢ = R`` where operand i stands in the concatenation: every element keeps its own. What
    constants in it receive (a class token) is absorbed, as by a bias.
    """

    serves: ClassVar[tuple[str, ...]] = ("concatenation",)

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        if layer.bias.number != 0.0:
            s = r.absorbed(layer.bias)
            return [Relevance(back) for back in layer.vjps(s)]
        if r.is_of(layer.output):
            backs = layer.vjps(r.coefficient)
            return [Relevance(back, x) for back, x in zip(backs, layer.inputs, strict=True)]
        return [Relevance(back) for back in layer.vjps(r.total)]
