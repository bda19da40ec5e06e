"""Composites: named lists of (which steps, which rule). The first match wins; no match is an error."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lrp_onnx import plan
from lrp_onnx.errors import RuleError
from lrp_onnx.plan import Plan, Role, Step
from lrp_onnx.relevance.joins import GradientJoin, JoinRule, MainOnly, Ratio, Signed, Symmetric
from lrp_onnx.relevance.notation import AnyRule, parse_rule
from lrp_onnx.relevance.rules import (
    LAB_EPSILON,
    AlphaBeta,
    AverageStandIn,
    Block,
    DeconvRelu,
    Epsilon,
    Flat,
    Gamma,
    Gradient,
    GuidedRelu,
    Norm,
    Pass,
    Rule,
    WinnerTakeAll,
    ZBox,
    ZPlus,
)

START_VALUES = ("logit", "probability", "one")
"""What relevance starts from at the target: its logit, its softmax probability, or 1."""

Predicate = Callable[[Plan, Step], bool]
Entry = tuple[str, AnyRule]

WHICH: dict[str, Predicate] = {
    "first": lambda of, step: step.name in of.first,
    "convolution": lambda of, step: isinstance(step.layer, plan.Convolution),
    "dense": lambda of, step: isinstance(step.layer, plan.Dense),
    "affine": lambda of, step: isinstance(step.layer, plan.Affine),
    "average pooling": lambda of, step: isinstance(step.layer, plan.AveragePool | plan.GlobalAverage),
    "max pooling": lambda of, step: isinstance(step.layer, plan.MaxPool),
    "activation": lambda of, step: isinstance(step.layer, plan.Relu),
    "identity join": lambda of, step: _join_role(of, step) is Role.IDENTITY,
    "block join": lambda of, step: _join_role(of, step) is not None,
    "join": lambda of, step: isinstance(step.layer, plan.Join),
    "reshape": lambda of, step: isinstance(step.layer, plan.Reshape),
    "everything": lambda of, step: not isinstance(step.layer, plan.Join),
}
"""What an entry of a composite can speak of. A dense layer that is a 1×1 convolution is a convolution."""


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
    """Node-name pattern (``*`` and ``?``) → rule as text; earlier patterns win."""
    box: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Lowest and highest possible model input per channel, for z-box rules that do not state theirs."""


_LAB = {"epsilon": LAB_EPSILON, "signed": False, "bias": "drop"}
_TAIL: tuple[Entry, ...] = (("reshape", Pass()),)
_ZENNIT: tuple[Entry, ...] = (
    ("activation", Pass()),
    ("join", Signed()),
    ("average pooling", Norm()),
    ("affine", Pass()),
    ("max pooling", WinnerTakeAll()),
    *_TAIL,
)
_ZENNIT_SOURCE = "Zennit (Anders et al. 2021)"
_INVESTIGATE: tuple[Entry, ...] = (
    ("activation", Pass()),
    ("join", Signed(epsilon=1e-7)),
    ("average pooling", Norm(epsilon=1e-7)),
    ("affine", Epsilon(epsilon=1e-7)),
    ("max pooling", WinnerTakeAll()),
    *_TAIL,
)
_INVESTIGATE_SOURCE = "iNNvestigate (Alber et al. 2019)"
_GRADIENT: tuple[Entry, ...] = (("join", GradientJoin()), ("everything", Gradient()))
_REFERENCE: tuple[Entry, ...] = (
    ("first", ZPlus(ones=True, epsilon=LAB_EPSILON, signed=False, bias="drop")),
    ("convolution", ZPlus(epsilon=LAB_EPSILON, signed=False, bias="drop")),
    ("dense", ZPlus(epsilon=LAB_EPSILON, signed=False, bias="drop")),
    ("max pooling", AverageStandIn(kernel=2, epsilon=LAB_EPSILON, signed=False)),
    ("average pooling", Norm(epsilon=LAB_EPSILON, signed=False)),
    ("activation", Pass()),
    ("affine", Pass()),
    *_TAIL,
)


def _reference(title: str, *joins: Entry) -> Composite:
    return Composite(
        title=title,
        source="released code of Otsuki et al., ECCV 2024",
        start="probability",
        fold_batch_norm=False,
        entries=(*joins, *_REFERENCE),
    )


def _zennit(title: str, *entries: Entry) -> Composite:
    return Composite(title=title, source=_ZENNIT_SOURCE, entries=(*entries, *_ZENNIT))


def _investigate(title: str, *entries: Entry) -> Composite:
    return Composite(title=title, source=_INVESTIGATE_SOURCE, entries=(*entries, *_INVESTIGATE))


COMPOSITES: dict[str, Composite] = {
    "c3-lrp": Composite(
        title="C3-LRP to the letter: every residual block one layer of the epsilon rule (Eq. 1), epsilon rule elsewhere",
        source="Doublet et al., JSAI 2024",
        entries=(
            ("block join", Block()),
            ("join", Signed(epsilon=LAB_EPSILON, signed=False)),
            ("dense", Epsilon(epsilon=LAB_EPSILON, signed=False, bias="drop")),
            ("convolution", Epsilon(epsilon=LAB_EPSILON, signed=False)),
            ("affine", Epsilon(epsilon=LAB_EPSILON, signed=False)),
            ("average pooling", Norm(epsilon=LAB_EPSILON, signed=False)),
            ("max pooling", WinnerTakeAll()),
            ("activation", Pass()),
            *_TAIL,
        ),
    ),
    "c3-lrp-zplus": Composite(
        title="C3-LRP on what its authors' code probably was: Eq. 1 at the blocks, z+ and their stand-ins elsewhere (our reading)",
        source="Doublet et al., JSAI 2024, with the base of Otsuki et al., ECCV 2024",
        start="probability",
        entries=(("block join", Block()), ("join", Ratio()), *_REFERENCE),
    ),
    "lrp-resnet": Composite(
        title="relevance split by magnitude at every shortcut, z+ elsewhere; conserves relevance",
        source="Otsuki et al., ECCV 2024, with clean pooling and first layer",
        entries=(
            ("join", Ratio()),
            ("convolution", ZPlus(epsilon=1e-9, bias="drop")),
            ("dense", ZPlus(epsilon=1e-9, bias="drop")),
            ("affine", Pass()),
            ("average pooling", Norm(epsilon=1e-9)),
            ("max pooling", WinnerTakeAll()),
            ("activation", Pass()),
            *_TAIL,
        ),
    ),
    "lrp-resnet-reference": _reference(
        "the released ECCV 2024 code: split by magnitude, stand-ins included", ("join", Ratio())
    ),
    "lrp-resnet-reference-symmetric": _reference("its ablation: shortcuts take half", ("join", Symmetric())),
    "lrp-resnet-reference-main-only": _reference(
        "its ablation: identity shortcuts take nothing, projections by magnitude",
        ("identity join", MainOnly()),
        ("join", Ratio()),
    ),
    "lrp-resnet-reference-main-only-symmetric": _reference(
        "its ablation: identity shortcuts take nothing, projections half",
        ("identity join", MainOnly()),
        ("join", Symmetric()),
    ),
    "epsilon-plus": _zennit(
        "epsilon rule on dense layers, z+ on convolutions", ("convolution", ZPlus()), ("dense", Epsilon())
    ),
    "epsilon-plus-flat": _zennit(
        "epsilon-plus with the flat rule on the first layer",
        ("first", Flat()),
        ("convolution", ZPlus()),
        ("dense", Epsilon()),
    ),
    "epsilon-alpha2-beta1": _zennit(
        "epsilon on dense layers, alpha2-beta1 on convolutions", ("convolution", AlphaBeta()), ("dense", Epsilon())
    ),
    "epsilon-alpha2-beta1-flat": _zennit(
        "epsilon-alpha2-beta1 with the flat rule on the first layer",
        ("first", Flat()),
        ("convolution", AlphaBeta()),
        ("dense", Epsilon()),
    ),
    "epsilon-gamma-box": _zennit(
        "epsilon on dense layers, gamma 0.25 on convolutions, z-box on the first",
        ("first", ZBox(low=(), high=())),
        ("convolution", Gamma()),
        ("dense", Epsilon()),
    ),
    "excitation-backprop": Composite(
        title="excitation backpropagation: z+ everywhere",
        source="Zhang et al. 2016, as in Zennit",
        entries=(
            ("join", Signed()),
            ("average pooling", Norm()),
            ("convolution", ZPlus()),
            ("dense", ZPlus()),
            ("affine", Pass()),
            ("activation", Pass()),
            ("max pooling", WinnerTakeAll()),
            *_TAIL,
        ),
    ),
    "guided-backprop": Composite(
        title="gradient with negative signals cut at every ReLU",
        source="Springenberg et al. 2015",
        entries=(("activation", GuidedRelu()), *_GRADIENT),
    ),
    "deconvnet": Composite(
        title="gradient with ReLU applied to the signal instead of its mask",
        source="Zeiler and Fergus 2014",
        entries=(("activation", DeconvRelu()), *_GRADIENT),
    ),
    "gradient": Composite(
        title="the gradient of the target", source="Simonyan et al. 2014", start="one", entries=_GRADIENT
    ),
    "gradient-x-input": Composite(
        title="the gradient of the target times the input",
        source="Shrikumar et al. 2016",
        start="one",
        entries=_GRADIENT,
        times_input=True,
    ),
    "lrp-z": _investigate(
        "LRP-0 everywhere",
        ("convolution", Epsilon(epsilon=0.0)),
        ("dense", Epsilon(epsilon=0.0)),
        ("affine", Epsilon(epsilon=0.0)),
        ("average pooling", Norm(epsilon=0.0)),
        ("join", Signed(epsilon=0.0)),
    ),
    "lrp-epsilon": _investigate(
        "epsilon rule everywhere, epsilon 1e-7",
        ("convolution", Epsilon(epsilon=1e-7)),
        ("dense", Epsilon(epsilon=1e-7)),
    ),
    "preset-a": _investigate(
        "epsilon 0.1 on dense layers, alpha1-beta0 on convolutions",
        ("convolution", ZPlus(epsilon=1e-7)),
        ("dense", Epsilon(epsilon=0.1)),
    ),
    "preset-a-flat": _investigate(
        "preset-a with the flat rule on the first layer",
        ("first", Flat()),
        ("convolution", ZPlus(epsilon=1e-7)),
        ("dense", Epsilon(epsilon=0.1)),
    ),
    "preset-b": _investigate(
        "epsilon 0.1 on dense layers, alpha2-beta1 on convolutions",
        ("convolution", AlphaBeta(epsilon=1e-7)),
        ("dense", Epsilon(epsilon=0.1)),
    ),
    "preset-b-flat": _investigate(
        "preset-b with the flat rule on the first layer",
        ("first", Flat()),
        ("convolution", AlphaBeta(epsilon=1e-7)),
        ("dense", Epsilon(epsilon=0.1)),
    ),
}
"""Every composite by its name."""

DEFAULT = "c3-lrp"


def find_composite(name: str) -> Composite:
    """The composite called `name`; raises RuleError with the nearest names."""
    if name not in COMPOSITES:
        close = difflib.get_close_matches(name, COMPOSITES, 2)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise RuleError(f"there is no composite {name!r}; {hint}`lrp-onnx composites` lists them all")
    return COMPOSITES[name]


def assign(of: Plan, composite: Composite, choices: Choices = Choices()) -> dict[str, Assigned]:
    """Every step's rule, by the step's name.

    Raises:
        RuleError: for every step without a rule, every override that fits no step, and every rule that does not fit its step.
    """
    overrides = [(pattern, parse_rule(text)) for pattern, text in choices.overrides.items()]
    assigned: dict[str, Assigned] = {}
    faults = [
        f"the override {pattern!r} fits no node; `lrp-onnx plan` lists them"
        for pattern, _ in overrides
        if not any(_fits(pattern, step) for step in of.steps)
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


def _fits(pattern: str, step: Step) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in step.nodes)


def _find(of: Plan, composite: Composite, overrides: Sequence[tuple[str, AnyRule]], step: Step) -> Assigned | None:
    for pattern, rule in overrides:
        if _fits(pattern, step):
            return Assigned(rule, f"override {pattern}")
    for which, rule in composite.entries:
        if WHICH[which](of, step):
            return Assigned(rule, which)
    return None


def _completed(of: Plan, step: Step, found: Assigned, choices: Choices) -> Assigned:
    """The rule with the user's choices in it, checked against its step."""
    rule = found.rule
    is_join = isinstance(step.layer, plan.Join)
    if isinstance(rule, Block):
        if _join_role(of, step) is None:
            raise RuleError(f"{step.op} '{step.name}' closes no residual block: the rule block does not fit it")
        return found
    if is_join != isinstance(rule, JoinRule):
        raise RuleError(
            f"{step.op} '{step.name}' cannot have the rule {type(rule).__name__}: "
            f"that is a rule of {'layers with one input' if is_join else 'the residual Add'}"
        )
    if isinstance(rule, Pass) and not isinstance(step.layer, plan.Relu | plan.Affine | plan.Reshape):
        raise RuleError(
            f"{step.op} '{step.name}' cannot have the rule pass: its output has no element for every element of its input"
        )
    if isinstance(rule, MainOnly) and _join_role(of, step) is None:
        raise RuleError(f"{step.op} '{step.name}' closes no residual block: it has no main branch")
    if isinstance(rule, Rule) and choices.bias is not None:
        rule = replace(rule, bias=choices.bias)
    if isinstance(rule, ZBox) and not rule.low:
        rule = _boxed(rule, step, choices)
    return Assigned(rule, found.why)


def _boxed(rule: ZBox, step: Step, choices: Choices) -> ZBox:
    channels = step.input_shape[1]
    if choices.box is None or len(choices.box[0]) not in (1, channels):
        raise RuleError(
            f"the z-box rule of '{step.name}' needs the lowest and highest possible input: say how pictures are prepared "
            "(--preprocess), or override it with z-box(low=…, high=…)"
        )
    return replace(rule, low=choices.box[0], high=choices.box[1])
