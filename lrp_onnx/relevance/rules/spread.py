"""The rule of strided shortcuts: relevance for the window that they subsample."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lrp_onnx.notation import build, write
from lrp_onnx.plan.kinds import Convolution, Step
from lrp_onnx.relevance.graph.relevance import Relevance
from lrp_onnx.relevance.layers.layer import Layer
from lrp_onnx.relevance.rules.joins import TINY
from lrp_onnx.relevance.rules.linear import LINEAR
from lrp_onnx.relevance.rules.rule import LinearRule, Rule, Shares


def why_not_subsampling(step: Step) -> str | None:
    """Why `step` is no strided 1×1 convolution without pads, or None where it is."""
    kind = step.kind
    if isinstance(kind, Convolution) and set(kind.weight.shape[2:]) == {1} != set(kind.strides):
        return None if not any(kind.pads) else "it pads"
    return "it is no strided 1x1 convolution"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread(Rule):
    """A strided 1×1 convolution reads one position in four; `rule` decides what each of them takes,
    and the window around it shares that by its activations.

    ``R_in(p) = |x(p)| Σᵢ g(p, i) R(i) / Σ_q g(q, i) |x(q)|`` with R(i) the relevance of the
    position i that is read, channel by channel. Ours: without it the shortcut hands everything to
    the positions that it happens to read, which shows as a lattice.
    """

    rule: str = "z-plus"

    def __post_init__(self) -> None:
        _ = self.base  # raises RuleError

    @property
    def base(self) -> Rule:
        """The rule of the positions that are read."""
        return build(self.rule, LINEAR, what="rule")

    def with_bias(self, bias: str) -> Spread:
        """The rule whose base keeps or drops the bias, where it has that choice."""
        base = self.base
        if not isinstance(base, LinearRule):
            return self
        return replace(self, rule=write(replace(base, bias=bias), LINEAR))

    def fits(self, step: Step) -> str | None:
        return why_not_subsampling(step)

    def __call__(self, layer: Layer, r: Relevance) -> Shares:
        windows, points = layer.subsampled()
        (share,) = self.base(points, r)
        assert share is not None
        one, size = layer.weight.constant(1.0), layer.input.abs()
        each = share.per(windows.forward(size, one) + TINY)
        return [Relevance(windows.vjp(each, one), size)]
