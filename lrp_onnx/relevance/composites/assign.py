"""Composites: named lists of (which steps, which rule).

The first match wins; no match is an error.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import prod

from lrp_onnx.errors import RuleError
from lrp_onnx.plan import kinds
from lrp_onnx.plan.kinds import Role, Step
from lrp_onnx.plan.plan import Plan
from lrp_onnx.plan.text import INSIDE
from lrp_onnx.relevance.rules.linear import ZBox
from lrp_onnx.relevance.rules.passing import Pass
from lrp_onnx.relevance.rules.rule import LinearRule, Rule
from lrp_onnx.relevance.rules.spread import Spread, why_not_subsampling
from lrp_onnx.relevance.rules.table import parse_rule, rule_text

OVERRIDE = "override "
"""Before the pattern of an override, in the reason for a rule."""
SOFTMAX_HINT = ", or take the composite attn-lrp"
KIND = "@"
"""Before the name of a kind of step, in place of a node's name."""

Predicate = Callable[[Plan, Step], bool]
Entry = tuple[str, Rule]
"""Which steps, as a key of `WHICH`, and their rule."""


def _category(*names: str) -> Predicate:
    return lambda plan, step: step.kind.category in names


def _shortcut(*roles: Role) -> Predicate:
    """Joins of residual blocks whose shortcut is one of `roles`."""
    return lambda plan, step: isinstance(step.kind, kinds.Join) and step.kind.shortcut in roles


def _depth(plan: Plan, step: Step) -> float:
    """Share of the convolutions that come before this one: 0 at the picture, below 1 at the logits.

    −1 for other steps.
    """
    if step.kind.category != "convolution":
        return -1.0
    places = _convolutions(plan)
    return places[step.output] / len(places)


@lru_cache(maxsize=8)
def _convolutions(plan: Plan) -> dict[str, int]:
    """The output of every convolution → how many come before it.

    Of parallel branches the one with the most convolutions is first, then the one with the most
    weights: in which order a file has them is the exporter's choice.
    """
    steps = {step.output: step for step in plan.steps}
    sizes: dict[str, tuple[int, int]] = {}
    for step in plan.steps:
        count, weights = max((sizes.get(name, (0, 0)) for name in step.inputs), default=(0, 0))
        own = prod(step.kind.weight.shape) if isinstance(step.kind, kinds.Weighted) else 0
        sizes[step.output] = (count + (step.kind.category == "convolution"), weights + own)
    places: dict[str, int] = {}
    done: set[str] = set()
    waiting = [plan.logits]  # each is looked at again when all that comes before it is done
    while waiting:
        step = steps[waiting[-1]]
        if before := [name for name in step.inputs if name in steps and name not in done]:
            waiting.append(max(before, key=sizes.__getitem__))
            continue
        done.add(waiting.pop())
        if step.kind.category == "convolution":
            places[step.output] = len(places)
    return places


def _subsamples(plan: Plan, step: Step) -> bool:
    """Whether it is a strided 1×1 convolution, as projection shortcuts have."""
    return why_not_subsampling(step) is None


WHICH: dict[str, Predicate] = {
    "preparation": lambda plan, step: step in plan.preparation and step.kind.category == "affine",
    "first": lambda plan, step: step.name in plan.first,
    "convolution": _category("convolution"),
    "subsampling convolution": _subsamples,
    "dense": _category("dense"),
    "affine": _category("affine"),
    "average pooling": _category("average pooling"),
    "max pooling": _category("max pooling"),
    "activation": _category("activation"),
    "identity join": _shortcut(Role.IDENTITY),
    "block join": _shortcut(Role.IDENTITY, Role.PROJECTION),
    "join": _category("join"),
    "reshape": _category("reshape"),
    "routing": _category("routing"),
    "normalization": _category("normalization"),
    "gate path": lambda plan, step: step.kind.category == "softmax" and step.name in plan.gated,
    "concatenation": _category("concatenation"),
    "elementwise product": lambda plan, step: (
        isinstance(step.kind, kinds.Product) and not step.kind.axes
    ),
    "product": _category("product"),
    "attention": lambda plan, step: kinds.attends(step),
    "matrix product": _category("matrix product"),
    "softmax": _category("softmax"),
    "lower convolution": lambda plan, step: 0 <= _depth(plan, step) < 0.5,
    "upper convolution": lambda plan, step: _depth(plan, step) >= 0.5,
    "everything": lambda plan, step: not step.kind.merges,
}
"""Which steps an entry of a composite is for.

A dense layer that is a 1×1 convolution is a convolution, and so is one that is the same at every
position of channels-last pictures or of tokens.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Composite:
    """A named way to explain: rules by kind of step, and where to start."""

    title: str
    source: str
    entries: tuple[Entry, ...]
    start: str = "logit"
    fold_batch_norm: bool = True
    times_input: bool = False
    """Whether what arrives at the input is multiplied by it (Gradient × Input)."""
    resolution: str = "full"
    """Where relevance stops, as `outputs.feature_map` reads it."""
    post: str = "none"
    """The post-processing that belongs to its maps, as a chain of steps (see `maps.chain`)."""
    colors: str = "auto"
    """``diverging``, ``sequential`` or ``auto``: how its maps are drawn where neither the start nor
    the post-processing decides.
    """


@dataclass(frozen=True, slots=True)
class Assigned:
    """A step's rule and why it has it."""

    rule: Rule
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What a user may change about a composite."""

    bias: str | None = None
    """``keep`` or ``drop`` the bias in the denominators of rules that have one; None leaves it to
    the composite.
    """
    overrides: Mapping[str, str] = field(default_factory=dict)
    """Pattern of node names (``*`` and ``?``), or kind of step such as ``@first`` → rule as text.

    Earlier ones win.
    """
    box: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Lowest and highest possible model input per channel, for z-box rules without bounds."""


def depends_on_exporter(plan: Plan, composite: Composite) -> list[str]:
    """Why another export of the same network may have another map: one note for each reason."""
    notes = []
    if not composite.fold_batch_norm:
        kept = sum(s.kind.category == "affine" for s in plan.steps) - len(plan.preparation)
        notes.append(
            "this composite takes batch normalisation for a layer of its own, and this file keeps "
            f"{max(kept, 0)} of them: where an exporter has folded others, its file has another map"
        )
    prepared = [step for step in plan.preparation if step.kind.category == "affine"]
    if prepared and not isinstance(_head(plan, composite, prepared[0]), Pass):
        notes.append(
            f"the file prepares the picture itself ('{prepared[0].name}' and what follows): this "
            "composite's map is of the file's own input, not of the prepared picture"
        )
    return notes


def _head(plan: Plan, composite: Composite, step: Step) -> Rule | None:
    return next((rule for which, rule in composite.entries if WHICH[which](plan, step)), None)


def assign(plan: Plan, composite: Composite, choices: Choices = Choices()) -> dict[str, Assigned]:
    """Every step's rule, by the step's name.

    Raises:
        RuleError: a step has no rule, an override fits no step, or a rule does not fit its step;
            all faults at once.
    """
    overrides = [(pattern, parse_rule(text)) for pattern, text in choices.overrides.items()]
    assigned: dict[str, Assigned] = {}
    faults = [
        f"the override {pattern!r} fits no {_noun(pattern)}; `lrp-onnx plan` lists them"
        for pattern, _ in overrides
        if not any(_fits(pattern, plan, step) for step in plan.steps)
    ]
    for step in plan.steps:
        first = _find(plan, composite, overrides, step)
        if first is None:
            faults.append(
                f"{step.op} '{step.name}' has no rule in this composite: give it one by an override"
                + SOFTMAX_HINT * (step.kind.category == "softmax")
            )
            continue
        try:
            assigned[step.name] = _completed(step, first, choices)
        except RuleError as fault:
            faults.append(str(fault))
    if faults:
        raise RuleError("; ".join(faults))
    return assigned


def applied_rules(plan: Plan, assigned: Mapping[str, Assigned]) -> dict[str, str]:
    """Every step's rule as text, or which block's rule decides for the step."""
    texts = {name: rule_text(entry.rule) for name, entry in assigned.items()}
    for block in plan.blocks:
        if assigned[block.join.name].rule.whole_block:
            inner = [step.name for step in block.steps if step is not block.join]
            texts |= dict.fromkeys(inner, INSIDE + block.name)
    return texts


def _noun(pattern: str) -> str:
    return "step" if pattern.startswith(KIND) else "node"


def _fits(pattern: str, plan: Plan, step: Step) -> bool:
    if pattern.startswith(KIND):
        kind = pattern.removeprefix(KIND)
        if kind not in WHICH:
            raise RuleError(
                f"there is no kind of step {pattern!r}; there are "
                f"{', '.join(KIND + name for name in WHICH)}"
            )
        return WHICH[kind](plan, step)
    return any(fnmatch.fnmatchcase(name, pattern) for name in step.nodes)


def _find(
    plan: Plan, composite: Composite, overrides: Sequence[tuple[str, Rule]], step: Step
) -> Assigned | None:
    for pattern, rule in overrides:
        if _fits(pattern, plan, step):
            return Assigned(rule, OVERRIDE + pattern)
    for which, rule in composite.entries:
        if WHICH[which](plan, step):
            return Assigned(rule, which)
    return None


def _completed(step: Step, assigned: Assigned, choices: Choices) -> Assigned:
    """The rule with the user's choices in it, checked against its step."""
    rule = assigned.rule
    if (why := rule.fits(step)) is not None:
        raise RuleError(f"{step.op} '{step.name}' cannot have the rule {rule_text(rule)}: {why}")
    if isinstance(rule, LinearRule) and choices.bias is not None:
        rule = replace(rule, bias=choices.bias)
    if isinstance(rule, Spread) and choices.bias is not None:
        rule = rule.with_bias(choices.bias)
    if isinstance(rule, ZBox) and not rule.low:
        rule = _boxed(rule, step, choices)
    return Assigned(rule, assigned.why)


def _boxed(rule: ZBox, step: Step, choices: Choices) -> ZBox:
    """The rule with the bounds of the model's input."""
    if choices.box is None or len(choices.box[0]) not in (1, step.input_shape[1]):
        raise RuleError(
            f"the z-box rule of '{step.name}' needs the lowest and highest possible input: say how "
            "pictures are prepared (--preprocess), or override it, of signals too, with "
            "@first=z-box(low=…, high=…)"
        )
    return replace(rule, low=choices.box[0], high=choices.box[1])
