"""Every rule by its name, and as text: ``epsilon(epsilon=0.25, bias=drop)`` (see `notation`)."""

from __future__ import annotations

from lrp_onnx.notation import build, write
from lrp_onnx.relevance.rules import attention, joins, passing, spread
from lrp_onnx.relevance.rules import linear as rules
from lrp_onnx.relevance.rules.rule import Rule

RULES: dict[str, Rule] = {
    **rules.LINEAR,
    "z-box": rules.ZBox(),
    "spread": spread.Spread(),
    "pass": passing.Pass(),
    "layer-norm": passing.LayerNorm(),
    "norm": rules.Norm(),
    "gradient": passing.Gradient(),
    "route": passing.Route(),
    "winner-take-all": passing.WinnerTakeAll(),
    "average": passing.AverageStandIn(),
    "guided-relu": passing.GuidedRelu(),
    "deconv-relu": passing.DeconvRelu(),
    "block": rules.WholeBlock(),
    "ratio": joins.Ratio(),
    "symmetric": joins.Symmetric(),
    "main-only": joins.MainOnly(),
    "skip-only": joins.SkipOnly(),
    "signed": joins.Signed(),
    "z-plus-join": joins.ZPlusJoin(),
    "gradient-join": joins.GradientJoin(),
    "gate": joins.Gate(),
    "gradient-product": joins.GradientProduct(),
    "parts": joins.Parts(),
    "halves": attention.Halves(),
    "values": attention.Values(),
    "softmax": attention.SoftmaxTaylor(),
}
"""Every rule by its name, with its default parameters."""

DIGITS = 6
"""Of numbers in a rule's text: a z-box's bounds are computed, and no reader needs more of them."""


def rule_text(rule: Rule) -> str:
    """``name(parameter=value, …)`` with the parameters that differ from their defaults."""
    return write(rule, RULES, digits=DIGITS)


def parse_rule(text: str) -> Rule:
    """The rule that `text` names.

    Raises:
        RuleError: a name, a parameter or a value is not known; it lists what there is.
    """
    return build(text, RULES, what="rule")
