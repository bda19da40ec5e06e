"""Composites: named lists of (which steps, which rule). The first match wins; no match is an error."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lrp_onnx.errors import RuleError
from lrp_onnx.plan import kinds
from lrp_onnx.plan.plan import Plan, Role, Step
from lrp_onnx.relevance.rules.joins import Gate, JoinRule, MainOnly, Parts
from lrp_onnx.relevance.rules.linear import Block, Rule, ZBox
from lrp_onnx.relevance.rules.passing import Pass
from lrp_onnx.relevance.rules.table import AnyRule, parse_rule, rule_text

START_VALUES = ("logit", "probability", "one", "contrastive")
"""What relevance starts from: the target's logit, its softmax probability, 1, or every logit times the gradient of the
target's log-odds with respect to it (see `emit.start_relevance`).
"""
KIND = "@"
"""Before the name of a kind of step, in place of a node's name."""

Predicate = Callable[[Plan, Step], bool]
Entry = tuple[str, AnyRule]

WHICH: dict[str, Predicate] = {
    "preparation": lambda of, step: step in of.preparation and isinstance(step.kind, kinds.Affine),
    "first": lambda of, step: step.name in of.first,
    "convolution": lambda of, step: isinstance(step.kind, kinds.Convolution),
    "dense": lambda of, step: isinstance(step.kind, kinds.Dense),
    "affine": lambda of, step: isinstance(step.kind, kinds.Affine),
    "average pooling": lambda of, step: isinstance(step.kind, kinds.AveragePool | kinds.GlobalAverage),
    "max pooling": lambda of, step: isinstance(step.kind, kinds.MaxPool),
    "activation": lambda of, step: isinstance(step.kind, kinds.Activation),
    "identity join": lambda of, step: _join_role(of, step) is Role.IDENTITY,
    "block join": lambda of, step: _join_role(of, step) is not None,
    "join": lambda of, step: isinstance(step.kind, kinds.Join),
    "reshape": lambda of, step: isinstance(step.kind, kinds.Reshape | kinds.Transpose),
    "routing": lambda of, step: isinstance(step.kind, kinds.Subsample | kinds.ZeroPad | kinds.Resample | kinds.Expand),
    "normalization": lambda of, step: isinstance(step.kind, kinds.Normalization),
    "gate path": lambda of, step: isinstance(step.kind, kinds.Softmax) and step.name in of.gated,
    "concatenation": lambda of, step: isinstance(step.kind, kinds.Concat),
    "product": lambda of, step: isinstance(step.kind, kinds.Product),
    "lower convolution": lambda of, step: 0 <= _depth(of, step) < 0.5,
    "upper convolution": lambda of, step: _depth(of, step) >= 0.5,
    "everything": lambda of, step: not isinstance(step.kind, kinds.Merging),
}
"""What an entry of a composite can speak of. A dense layer that is a 1×1 convolution is a convolution."""


def _depth(of: Plan, step: Step) -> float:
    """Share of the convolutions that come before this one: 0 at the picture, below 1 at the logits; −1 for others."""
    names = [other.name for other in of.steps if isinstance(other.kind, kinds.Convolution)]
    return names.index(step.name) / len(names) if step.name in names else -1.0


def _join_role(of: Plan, step: Step) -> Role | None:
    return next((block.role for block in of.blocks if block.join is step), None)


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
    post: str = "none"
    """The post-processing that belongs to its maps, as a chain of steps (see `maps.chain`)."""
    colors: str = "auto"
    """``diverging``, ``sequential`` or ``auto``: how its maps are drawn where neither the start nor
    the post-processing decides.
    """


@dataclass(frozen=True, slots=True)
class Assigned:
    """A step's rule and why it has it."""

    rule: AnyRule
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What a user may change about a composite."""

    bias: str | None = None
    """``keep`` or ``drop`` the bias in every rule's denominator; None leaves it to the composite."""
    overrides: Mapping[str, str] = field(default_factory=dict)
    """Node-name pattern (``*`` and ``?``), or a kind of step such as ``@first`` → rule as text; earlier ones win."""
    box: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Lowest and highest possible model input per channel, for z-box rules that do not state theirs."""


def depends_on_exporter(of: Plan, composite: Composite) -> list[str]:
    """Why another export of the same network may have another map under `composite`: one note for each reason."""
    notes = []
    if not composite.fold_batch_norm:
        kept = sum(isinstance(s.kind, kinds.Affine) for s in of.steps) - len(of.preparation)
        notes.append(
            f"this composite takes batch normalisation for a layer of its own, and this file keeps {max(kept, 0)} of "
            "them: where an exporter has folded others, its file has another map"
        )
    prepared = [step for step in of.preparation if isinstance(step.kind, kinds.Affine)]
    if prepared and not isinstance(_head(of, composite, prepared[0]), Pass):
        notes.append(
            f"the file prepares the picture itself ('{prepared[0].name}' and what follows): this composite's map is "
            "of the file's own input, not of the prepared picture"
        )
    return notes


def _head(of: Plan, composite: Composite, step: Step) -> AnyRule | None:
    return next((rule for which, rule in composite.entries if WHICH[which](of, step)), None)


def assign(of: Plan, composite: Composite, choices: Choices = Choices()) -> dict[str, Assigned]:
    """Every step's rule, by the step's name.

    Raises:
        RuleError: for every step without a rule, every override that fits no step, and every rule that does not fit
        its step.
    """
    overrides = [(pattern, parse_rule(text)) for pattern, text in choices.overrides.items()]
    assigned: dict[str, Assigned] = {}
    faults = [
        f"the override {pattern!r} fits no {'step' if pattern.startswith(KIND) else 'node'}; `lrp-onnx plan` lists them"
        for pattern, _ in overrides
        if not any(_fits(pattern, of, step) for step in of.steps)
    ]
    for step in of.steps:
        found = _find(of, composite, overrides, step)
        if found is None:
            faults.append(f"{step.op} '{step.name}' has no rule in this composite: give it one by an override")
            continue
        try:
            assigned[step.name] = _completed(of, step, found, choices)
        except RuleError as fault:
            faults.append(str(fault))
    if faults:
        raise RuleError("; ".join(faults))
    return assigned


def applied_rules(of: Plan, assigned: Mapping[str, Assigned]) -> dict[str, str]:
    """Every step's rule as text; steps of a block that is one layer say which block decides for them."""
    texts = {name: rule_text(found.rule) for name, found in assigned.items()}
    for block in of.blocks:
        if isinstance(assigned[block.join.name].rule, Block):
            texts |= {step.name: f"inside {block.name}" for step in block.steps if step is not block.join}
    return texts


def _fits(pattern: str, of: Plan, step: Step) -> bool:
    if pattern.startswith(KIND):
        kind = pattern.removeprefix(KIND)
        if kind not in WHICH:
            raise RuleError(
                f"there is no kind of step {pattern!r}; there are {', '.join(KIND + name for name in WHICH)}"
            )
        return WHICH[kind](of, step)
    return any(fnmatch.fnmatchcase(name, pattern) for name in step.nodes)


def _find(of: Plan, composite: Composite, overrides: Sequence[tuple[str, AnyRule]], step: Step) -> Assigned | None:
    for pattern, rule in overrides:
        if _fits(pattern, of, step):
            return Assigned(rule, f"override {pattern}")
    for which, rule in composite.entries:
        if WHICH[which](of, step):
            return Assigned(rule, which)
    return None


def _completed(of: Plan, step: Step, found: Assigned, choices: Choices) -> Assigned:
    """The rule with the user's choices in it, checked against its step."""
    rule = found.rule
    is_join = isinstance(step.kind, kinds.Merging)
    if isinstance(rule, Block):
        if _join_role(of, step) is None:
            raise RuleError(f"{step.op} '{step.name}' closes no residual block: the rule block does not fit it")
        return found
    if is_join != isinstance(rule, JoinRule):
        raise RuleError(
            f"{step.op} '{step.name}' cannot have the rule {type(rule).__name__}: "
            f"that is a rule of {'layers with one input' if is_join else 'the residual Add'}"
        )
    if is_join and not isinstance(step.kind, _merging(rule)):
        raise RuleError(
            f"{step.op} '{step.name}' cannot have the rule {type(rule).__name__}: gate and gradient-product are rules "
            "of products, parts of concatenations, all others of sums"
        )
    if isinstance(rule, Pass) and not isinstance(
        step.kind, kinds.Activation | kinds.Affine | kinds.Normalization | kinds.Reshape | kinds.Transpose
    ):
        raise RuleError(
            f"{step.op} '{step.name}' cannot have the rule pass: its output has no element for every element "
            f"of its input"
        )
    if isinstance(rule, MainOnly) and _join_role(of, step) is None:
        raise RuleError(f"{step.op} '{step.name}' closes no residual block: it has no main branch")
    if isinstance(rule, Rule) and choices.bias is not None:
        rule = replace(rule, bias=choices.bias)
    if isinstance(rule, ZBox):
        rule = _boxed(rule, step, choices)
    return Assigned(rule, found.why)


def _merging(rule: AnyRule) -> type[kinds.Merging]:
    """What kind of merging the rule is for."""
    return kinds.Product if isinstance(rule, Gate) else kinds.Concat if isinstance(rule, Parts) else kinds.Join


def _boxed(rule: ZBox, step: Step, choices: Choices) -> ZBox:
    channels = step.input_shape[1]
    if rule.low and len(rule.low) not in (1, channels):
        raise RuleError(f"the z-box rule of '{step.name}' has {len(rule.low)} bounds, its input {channels} channels")
    if rule.low:
        return rule
    if choices.box is None or len(choices.box[0]) not in (1, channels):
        raise RuleError(
            f"the z-box rule of '{step.name}' needs the lowest and highest possible input: say how pictures "
            f"are prepared "
            "(--preprocess), or override it with z-box(low=…, high=…)"
        )
    return replace(rule, low=choices.box[0], high=choices.box[1])
