"""The rules of the residual Add: how the relevance of a sum is shared among its operands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from lrp_onnx.plan.plan import Role
from lrp_onnx.relevance.graph.builder import Value
from lrp_onnx.relevance.graph.relevance import Relevance
from lrp_onnx.relevance.rules.linear import SMALL, Ledger, Term

TINY = 1e-30
"""Keeps 0/0 from being NaN where a share is taken of nothing; far below any activation's rounding error."""


class JoinLayer(Protocol):
    """What a rule of the residual Add may ask: operands and what they are."""

    @property
    def inputs(self) -> tuple[Value, ...]:
        """The operands."""

    @property
    def output(self) -> Value:
        """Their sum."""

    def vjps(self, s: Value) -> tuple[Value, ...]:
        """The vector-Jacobian product for every operand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRule:
    """A rule of the residual Add ``y = Σ hᵢ``; calling it returns the relevance of every operand, None for nothing at
    all.
    """

    title: ClassVar[str]
    promise: ClassVar[str] = "conserves"

    def __call__(self, layer: JoinLayer, r: Relevance, roles: Sequence[Role], ledger: Ledger) -> list[Relevance | None]:
        """The relevance of each operand, given that of the sum; `roles` say what each operand's branch is."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio(JoinRule):
    """``Rᵢ = R·|hᵢ| / Σ|h|``: bounded and conserving (Otsuki et al., ECCV 2024). Where all operands are 0, so is the
    share.
    """

    title: ClassVar[str] = "share by magnitude, |h| / Σ|h|"

    def __call__(self, layer: JoinLayer, r: Relevance, roles: Sequence[Role], ledger: Ledger) -> list[Relevance | None]:
        return _by_share(r, [h.abs() for h in _operands(layer, r, roles)])


def _operands(layer: JoinLayer, r: Relevance, roles: Sequence[Role]) -> tuple[Value, ...]:
    """The operands; the main branch of two as what the rectified sum leaves beside the shortcut, where that is all that
    counts: then no runtime has to keep the branch and the sum apart from the activation behind them.
    """
    operands = layer.inputs
    wanted = layer.output.builder.emission.remainders and len(operands) == 2 and Role.MAIN in roles
    if not wanted or r.activation is None or r.alias != layer.output.name:
        return operands
    main = roles.index(Role.MAIN)
    rest = r.activation - operands[1 - main]
    return (rest, operands[1]) if main == 0 else (operands[0], rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZPlusJoin(JoinRule):
    """``Rᵢ = R·max(hᵢ, 0) / Σ max(h, 0)``: bounded and aware of signs. Where no operand is positive, nothing is
    handed on.
    """

    title: ClassVar[str] = "share by positive part, h⁺ / Σh⁺"

    def __call__(self, layer: JoinLayer, r: Relevance, roles: Sequence[Role], ledger: Ledger) -> list[Relevance | None]:
        return _by_share(r, [h.pos() for h in layer.inputs])


def _by_share(r: Relevance, weights: Sequence[Value]) -> list[Relevance | None]:
    total = weights[0]
    for weight in weights[1:]:
        total = total + weight
    quotient = r.per(total + TINY)
    return [Relevance(quotient, weight) for weight in weights]


@dataclass(frozen=True, slots=True, kw_only=True)
class Symmetric(JoinRule):
    """``Rᵢ = R / n``: every branch the same (Otsuki et al., ECCV 2024)."""

    title: ClassVar[str] = "every branch the same share"

    def __call__(self, layer: JoinLayer, r: Relevance, roles: Sequence[Role], ledger: Ledger) -> list[Relevance | None]:
        part = Relevance(r.total * (1.0 / len(layer.inputs)))
        return [part for _ in layer.inputs]


@dataclass(frozen=True, slots=True, kw_only=True)
class MainOnly(JoinRule):
    """``R_main = R``, shortcuts get nothing."""

    title: ClassVar[str] = "all to the main branch"

    def __call__(self, layer: JoinLayer, r: Relevance, roles: Sequence[Role], ledger: Ledger) -> list[Relevance | None]:
        return [r if role is Role.MAIN else None for role in roles]


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipOnly(JoinRule):
    """``R_shortcut = R``, the main branch gets nothing (several shortcuts share by magnitude)."""

    title: ClassVar[str] = "all to the shortcut"

    def __call__(self, layer: JoinLayer, r: Relevance, roles: Sequence[Role], ledger: Ledger) -> list[Relevance | None]:
        shortcuts = [i for i, role in enumerate(roles) if role is not Role.MAIN]
        if len(shortcuts) == 1:
            return [r if i == shortcuts[0] else None for i in range(len(roles))]
        shares = _by_share(r, [layer.inputs[i].abs() for i in shortcuts])
        return [shares[shortcuts.index(i)] if i in shortcuts else None for i in range(len(roles))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed(JoinRule):
    """``Rᵢ = hᵢ·R / stabilize(Σh)``: the ε-rule of the Add (Zennit's Norm). Blows up where the branches cancel."""

    title: ClassVar[str] = "signed share, h / Σh; unstable where branches cancel"
    epsilon: float = SMALL
    signed: bool = True

    def __call__(self, layer: JoinLayer, r: Relevance, roles: Sequence[Role], ledger: Ledger) -> list[Relevance | None]:
        y = layer.output
        s = r.over(y, self.epsilon, signed=self.signed)
        ledger.terms.append(Term(s, y, y.builder.value(0.0), 1.0))
        return [Relevance(s, h) for h in layer.inputs]


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientJoin(JoinRule):
    """``Rᵢ = R``: what the gradient does at a sum."""

    title: ClassVar[str] = "gradient of a sum: all to every branch"
    promise: ClassVar[str] = "none"

    def __call__(self, layer: JoinLayer, r: Relevance, roles: Sequence[Role], ledger: Ledger) -> list[Relevance | None]:
        return [Relevance(r.total) for _ in layer.inputs]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate(JoinRule):
    """``R_signal = R``: the gate of a product is a constant, the signal takes all (Arras et al. 2017)."""

    title: ClassVar[str] = "product: the signal takes all, the gate is a constant"

    def __call__(self, layer: JoinLayer, r: Relevance, roles: Sequence[Role], ledger: Ledger) -> list[Relevance | None]:
        return [r if role is not Role.GATE else None for role in roles]


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientProduct(Gate):
    """``R_signal = g ⊙ R, R_gate = Σ x ⊙ R``: what the gradient does at a product."""

    title: ClassVar[str] = "gradient of a product: to signal and gate"
    promise: ClassVar[str] = "none"

    def __call__(self, layer: JoinLayer, r: Relevance, roles: Sequence[Role], ledger: Ledger) -> list[Relevance | None]:
        return [Relevance(back) for back in layer.vjps(r.total)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts(JoinRule):
    """``Rᵢ = R`` where operand i stands in the concatenation: nothing is shared, every element keeps its own."""

    title: ClassVar[str] = "concatenation: every element keeps its relevance"

    def __call__(self, layer: JoinLayer, r: Relevance, roles: Sequence[Role], ledger: Ledger) -> list[Relevance | None]:
        if r.activation is not None and r.activation.name == layer.output.name:
            backs = layer.vjps(r.coefficient)
            return [Relevance(back, x) for back, x in zip(backs, layer.inputs, strict=True)]
        return [Relevance(back) for back in layer.vjps(r.total)]
