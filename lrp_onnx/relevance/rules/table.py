"""Rules as text: ``epsilon(epsilon=0.25, bias=drop)``. One notation for composites, overrides, plans and metadata."""

from __future__ import annotations

import difflib
import re
from dataclasses import MISSING, Field, fields
from typing import Any

from lrp_onnx.errors import RuleError
from lrp_onnx.relevance.rules import joins, passing
from lrp_onnx.relevance.rules import linear as rules
from lrp_onnx.relevance.rules.rule import Rule

RULES: dict[str, type[Rule]] = {
    "epsilon": rules.Epsilon,
    "gamma": rules.Gamma,
    "z-plus": rules.ZPlus,
    "alpha-beta": rules.AlphaBeta,
    "w-square": rules.WSquare,
    "flat": rules.Flat,
    "z-box": rules.ZBox,
    "pass": passing.Pass,
    "norm": rules.Norm,
    "gradient": passing.Gradient,
    "route": passing.Route,
    "winner-take-all": passing.WinnerTakeAll,
    "average": passing.AverageStandIn,
    "guided-relu": passing.GuidedRelu,
    "deconv-relu": passing.DeconvRelu,
    "block": rules.Block,
    "ratio": joins.Ratio,
    "symmetric": joins.Symmetric,
    "main-only": joins.MainOnly,
    "skip-only": joins.SkipOnly,
    "signed": joins.Signed,
    "z-plus-join": joins.ZPlusJoin,
    "gradient-join": joins.GradientJoin,
    "gate": joins.Gate,
    "gradient-product": joins.GradientProduct,
    "parts": joins.Parts,
}
"""Every rule by its name."""

_NAMES = {rule: name for name, rule in RULES.items()}
_FORM = re.compile(r"\s*([a-z0-9-]+)\s*(?:\((.*)\))?\s*", re.DOTALL)


def rule_text(rule: Rule) -> str:
    """``name(parameter=value, …)`` with the parameters that differ from their defaults."""
    stated = [f"{f.name}={_text(getattr(rule, f.name))}" for f in fields(rule) if getattr(rule, f.name) != _default(f)]
    return f"{_NAMES[type(rule)]}({', '.join(stated)})" if stated else _NAMES[type(rule)]


def parse_rule(text: str) -> Rule:
    """The rule that `text` names; raises RuleError with what exists where a name, a parameter or a value is not
    known.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise RuleError(
            f"{text!r} is not a rule: write NAME or NAME(parameter=value, …), for example epsilon(epsilon=0.25)"
        )
    name, inside = match[1], match[2] or ""
    if name not in RULES:
        close = difflib.get_close_matches(name, RULES, 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise RuleError(f"there is no rule {name!r}{hint}; there are {', '.join(sorted(RULES))}")
    known = {f.name: f for f in fields(RULES[name])}
    given: dict[str, Any] = {}
    for part in filter(None, (p.strip() for p in inside.split(","))):
        key, equals, value = (p.strip() for p in part.partition("="))
        if not equals or key not in known:
            raise RuleError(f"the rule {name} has no parameter {key!r}; it has {', '.join(known) or 'none'}")
        given[key] = _parse_value(value, _default(known[key]), f"{name}({key}={value})")
    return RULES[name](**given)


def _default(entry: Field[Any]) -> Any:
    assert entry.default is not MISSING
    return entry.default


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "/".join(f"{v:g}" for v in value)
    return (
        {True: "true", False: "false"}[value]
        if isinstance(value, bool)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def _parse_value(text: str, default: Any, where: str) -> Any:
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(default, tuple):
            return tuple(float(part) for part in text.split("/"))
        return type(default)(text)
    except (ValueError, KeyError):
        kind = {bool: "true or false", tuple: "a number, or numbers joined by /"}.get(
            type(default), f"a {type(default).__name__}"
        )
        raise RuleError(f"{where}: the value must be {kind}") from None
