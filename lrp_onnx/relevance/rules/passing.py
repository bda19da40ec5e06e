"""The rules of layers without weights, and of the gradient family: what is passed on rather than shared out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lrp_onnx.relevance.graph.relevance import Relevance
from lrp_onnx.relevance.layers.layer import Layer
from lrp_onnx.relevance.layers.linear import average_pool, spread
from lrp_onnx.relevance.rules.linear import Ledger, Rule, Term


def _routed(layer: Layer, r: Relevance) -> Relevance:
    """``R_in = Jᵀ R`` where every output element equals one input element: from y⊙c to x⊙Jᵀc."""
    if r.activation is not None and r.activation.name == layer.output.name:
        return Relevance(layer.vjp(r.coefficient, layer.weight), layer.input)
    return Relevance(layer.vjp(r.total, layer.weight))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass(Rule):
    """``R_in = R``: activations, reshapes, and batch normalisations that are not folded.

    Behind a ReLU the relevance a⊙c is noted to be that of z, so that a later division by z may take `a` instead.
    """

    title: ClassVar[str] = "pass relevance through unchanged"

    def __call__(self, layer: Layer, r: Relevance, ledger: Ledger) -> Relevance:
        if layer.routes:
            return _routed(layer, r)
        if layer.rectifies and r.activation is not None and r.activation.name == layer.output.name:
            return Relevance(r.coefficient, r.activation, alias=layer.input.name)
        return Relevance(r.total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradient(Rule):
    """``R_in = Jᵀ R``: what the gradient does. For max pooling it is winner-take-all."""

    title: ClassVar[str] = "gradient; winner-take-all at max pooling"
    promise: ClassVar[str] = "none"

    def __call__(self, layer: Layer, r: Relevance, ledger: Ledger) -> Relevance:
        return _routed(layer, r) if layer.routes else Relevance(layer.vjp(r.total, layer.weight))


@dataclass(frozen=True, slots=True, kw_only=True)
class WinnerTakeAll(Gradient):
    """``R_in = Jᵀ R``: the first maximum of each window takes all of its relevance."""

    title: ClassVar[str] = "max pooling: the maximum takes all"
    promise: ClassVar[str] = "conserves"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(Gradient):
    """``R_in = Jᵀ R`` for layers that only move elements: each takes its relevance along.

    Nothing is promised: what a rule like `symmetric` gives to padded zeros has nowhere to go.
    """

    title: ClassVar[str] = "subsampling and zero padding: elements take their relevance along"


@dataclass(frozen=True, slots=True, kw_only=True)
class AverageStandIn(Rule):
    """Max pooling propagated as average pooling: ``z = avg(x); R_in = x ⊙ avgᵀ(R / stabilize(z))``.

    `kernel` 0 means the pool's own kernel, stride and pads; another number means that kernel and stride without pads,
    whatever the pool's own are (the released ECCV 2024 code takes 2).
    """

    title: ClassVar[str] = "max pooling treated as average pooling"
    kernel: int = 0

    def __call__(self, layer: Layer, r: Relevance, ledger: Ledger) -> Relevance:
        x = layer.input
        pool, sizes = layer.as_average(self.kernel)
        z = average_pool(x, pool)
        s = r.over(z, self.epsilon, signed=self.signed)
        ledger.terms.append(Term(s, z, x.builder.value(0.0), 1.0))
        return Relevance(spread(s, pool, sizes), x)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidedRelu(Rule):
    """``R_in = R⁺ where z > 0`` (Springenberg et al. 2015)."""

    title: ClassVar[str] = "ReLU of guided backpropagation"
    promise: ClassVar[str] = "none"

    def __call__(self, layer: Layer, r: Relevance, ledger: Ledger) -> Relevance:
        return Relevance(layer.vjp(r.total.pos(), layer.weight))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeconvRelu(Rule):
    """``R_in = R⁺`` (Zeiler and Fergus 2014)."""

    title: ClassVar[str] = "ReLU of deconvnet"
    promise: ClassVar[str] = "none"

    def __call__(self, layer: Layer, r: Relevance, ledger: Ledger) -> Relevance:
        return Relevance(r.total.pos())
