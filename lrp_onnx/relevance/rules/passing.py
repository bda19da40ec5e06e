"""Rules that pass relevance on: of layers without weights, and of the gradient family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lrp_onnx.plan.kinds import Step
from lrp_onnx.relevance.graph.relevance import Relevance
from lrp_onnx.relevance.layers.layer import Layer
from lrp_onnx.relevance.rules.linear import Epsilon
from lrp_onnx.relevance.rules.rule import Rule, Shares, StabilizedRule


def _routed(layer: Layer, r: Relevance) -> Relevance:
    """``R_in = Jᵀ R`` where every output element equals one input element: from y⊙c to x⊙Jᵀc."""
    if r.is_of(layer.output):
        return Relevance(layer.vjp(r.coefficient, layer.weight), layer.input)
    return Relevance(layer.vjp(r.total, layer.weight))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass(Rule):
    """``R_in = R``: activations, reshapes, and batch normalisations that are not folded.

    Behind a ReLU, relevance a⊙c is also that of z: a later division by z may take `a` instead.
    """

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        if layer.routes:
            return [_routed(layer, r)]
        if layer.rectifies and r.is_of(layer.output):
            return [Relevance(r.coefficient, r.activation, alias=layer.input.name)]
        return [Relevance(r.total)]

    def fits(self, step: Step) -> str | None:
        if not step.kind.one_to_one:
            return "its output has no element for every element of its input"
        return Rule.fits(self, step)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNorm(Epsilon):
    """``s = R / stabilize(z);  R_in = x ⊙ (γs − mean(γs)) / σ`` for z = γ(x − mean(x)) / σ + β: the
    ε-rule with the deviation σ as a constant (AttnLRP, Achtibat et al. 2024, Prop. 3.4; Ali et al.
    2022). What β receives is absorbed.
    """

    def fits(self, step: Step) -> str | None:
        if step.kind.category == "normalization":
            return None
        return "it is no normalisation by the picture's own statistics"

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        return Epsilon.__call__(self, layer.with_fixed_deviation(), r)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradient(Rule):
    """``R_in = Jᵀ R``: what the gradient does. For max pooling it is winner-take-all."""

    conserves: ClassVar[bool] = False

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        return [_routed(layer, r) if layer.routes else Relevance(layer.vjp(r.total, layer.weight))]


@dataclass(frozen=True, slots=True, kw_only=True)
class WinnerTakeAll(Gradient):
    """``R_in = Jᵀ R``: the first maximum of each window takes all of its relevance."""

    conserves: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(Gradient):
    """``R_in = Jᵀ R`` for layers that only move elements: each takes its relevance along.

    Nothing is promised: what a rule like `symmetric` gives to padded zeros has nowhere to go.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class AverageStandIn(StabilizedRule):
    """Max pooling propagated as average pooling: ``z = avg(x); R_in = x ⊙ avgᵀ(R / stabilize(z))``.

    `kernel` 0 means the pool's own kernel, stride and pads; another number means that kernel and
    stride without pads, whatever the pool's own are (the released ECCV 2024 code takes 2).
    """

    kernel: int = 0

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        x, pool = layer.input, layer.as_average(self.kernel)
        one = x.constant(1.0)
        s = r.over(pool.forward(x, one), self.epsilon, signed=self.signed)
        return [Relevance(pool.vjp(s, one), x)]

    def fits(self, step: Step) -> str | None:
        return None if step.kind.category == "max pooling" else "it is no max pooling"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidedRelu(Rule):
    """``R_in = R⁺ where z > 0`` (Springenberg et al. 2015)."""

    conserves: ClassVar[bool] = False

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        return [Relevance(layer.vjp(r.total.pos(), layer.weight))]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeconvRelu(Rule):
    """``R_in = R⁺`` (Zeiler and Fergus 2014)."""

    conserves: ClassVar[bool] = False

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        return [Relevance(r.total.pos())]
