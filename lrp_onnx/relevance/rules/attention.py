"""The rules of attention: of the product of two activations, of the softmax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lrp_onnx.plan.kinds import MatrixProduct, Quotient, Role, Step
from lrp_onnx.relevance.graph.relevance import Relevance
from lrp_onnx.relevance.layers.layer import Layer
from lrp_onnx.relevance.rules.rule import Rule, Shares, StabilizedRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Halves(StabilizedRule):
    """``s = R / (2·stabilize(z));  R_A = A ⊙ (s Bᵀ), R_B = B ⊙ (Aᵀ s)`` for z = AB: half to each
    factor, also of a product of single elements (AttnLRP, Achtibat et al. 2024, Prop. 3.2, 3.3).
    """

    serves: ClassVar[tuple[str, ...]] = ("matrix product", "product")

    def fits(self, step: Step) -> str | None:
        if isinstance(step.kind, Quotient):
            return "it divides by a norm, which has no half of its own"
        return StabilizedRule.fits(self, step)

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        s = r.over(layer.output, self.epsilon, signed=self.signed)
        backs = layer.vjps(s * 0.5)
        return [Relevance(back, x) for back, x in zip(backs, layer.inputs, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Values(StabilizedRule):
    """``R_V = V ⊙ Aᵀ(R / stabilize(z))`` for z = AV with attention A, which counts as a constant
    and takes nothing (CP-LRP, Ali et al. 2022).
    """

    serves: ClassVar[tuple[str, ...]] = ("matrix product",)

    def fits(self, step: Step) -> str | None:
        kind = step.kind
        if isinstance(kind, MatrixProduct) and kind.attention is None:
            return "neither of its factors is a softmax's"
        return StabilizedRule.fits(self, step)

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        s = r.over(layer.output, self.epsilon, signed=self.signed)
        backs = zip(layer.vjps(s), layer.inputs, layer.roles, strict=True)
        return [None if role is Role.GATE else Relevance(back, x) for back, x, role in backs]


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftmaxTaylor(Rule):
    """``R_in = x ⊙ (R − p·ΣR)`` for p = softmax(x): its first-order Taylor expansion at x, whose
    constant part takes the rest (AttnLRP, Achtibat et al. 2024, Eq. 3.1).
    """

    conserves: ClassVar[bool] = False

    def fits(self, step: Step) -> str | None:
        return None if step.kind.category == "softmax" else "it is no softmax"

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        c = r.over(layer.output, 0.0)  # R = p ⊙ c, and the vjp of c is p ⊙ (c − Σ p⊙c)
        return [Relevance(layer.vjp(c, layer.weight), layer.input)]
