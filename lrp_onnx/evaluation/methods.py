"""Everything that gives a relevance map of a picture from an ONNX file alone: composites, and what
others use.

A method is named as text (see `notation`): a composite or a baseline with its parameters, then
post-processing: ``lrp-resnet``, ``rise(masks=500)``, ``c3-lrp+c3:outside=rank``. A composite's
parameters are how it is compiled, and rules for kinds of steps or for nodes:
``epsilon-plus-flat(start=contrastive, @join=z-plus-join, @upper convolution=gamma(gamma=0.1))``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from lrp_onnx.errors import RuleError
from lrp_onnx.evaluation.baselines import BASELINES, Baseline, Run
from lrp_onnx.evaluation.subject import Maps, Pictures, Subject, Targets, explain_all
from lrp_onnx.maps.chain import NONE, Chain, parse_chain
from lrp_onnx.maps.resample import resample
from lrp_onnx.notation import Call, build, parse, split, suggestion
from lrp_onnx.relevance.composites.assign import START_VALUES
from lrp_onnx.relevance.composites.presets import COMPOSITES
from lrp_onnx.relevance.rules.table import parse_rule


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """A name, and what makes maps of it."""

    name: str
    maps: Run


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A method's maps of some pictures."""

    method: Method
    maps: Maps


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """A composite's parameters but for its rules; None leaves one to the composite."""

    start: str | None = None
    bias: str | None = None
    resolution: tuple[int, int] | None = None
    """(height, width) of the feature map at which relevance stops."""

    def __post_init__(self) -> None:
        if self.start not in (None, *START_VALUES):
            raise RuleError(f"{self.start!r} is no start: it is one of {', '.join(START_VALUES)}")
        if self.bias not in (None, "keep", "drop"):
            raise RuleError(f"{self.bias!r} is no bias: it is keep or drop")


_PARAMETERS = tuple(entry.name for entry in fields(Parameters))


@dataclass(frozen=True, slots=True)
class CompositeMaps:
    """A composite as a method: called on a model, it compiles it and gives what makes maps."""

    composite: str
    parameters: Parameters = Parameters()
    rules: Mapping[str, str] = field(default_factory=dict)
    """Node-name pattern, or kind of step such as ``@first`` → rule as text."""

    def __call__(self, subject: Subject) -> Run:
        """Maps as large as the picture, also where relevance stops at a smaller feature map."""
        stated = {name: getattr(self.parameters, name) for name in _PARAMETERS}
        choices = {name: value for name, value in stated.items() if value is not None}
        # A composite without rules of its own leaves those that the subject is studied with.
        rules = {"rules": dict(self.rules)} if self.rules else {}
        explainer = subject.compiled(composite=self.composite, **choices, **rules)

        def maps(x: Pictures, t: Targets) -> Maps:
            made = explain_all(explainer, "heatmap", x, t)
            if made.shape[1:] == subject.grid(x):
                return made
            return np.stack([resample(one, subject.grid(x), method="bilinear") for one in made])

        return maps


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a method's text says."""

    source: CompositeMaps | Baseline
    post: Chain


def read_method(text: str) -> Recipe:
    """What `text` says, before any model is read.

    Raises:
        RuleError: it names no method, or a parameter, a rule or a step does not fit; the text says
            what there is.
    """
    base, *steps = split(text, "+")
    call = parse(base, what="method")
    try:
        if call.name in COMPOSITES:
            return Recipe(_composite(call), parse_chain("+".join(steps)))
        if call.name in BASELINES:
            source = build(call, BASELINES, what="method")
            return Recipe(source, parse_chain("+".join(steps)))
    except RuleError as error:
        raise RuleError(f"{text}: {error}") from error
    raise RuleError(f"there is no method {call.name!r}; {suggestion(call.name, [*BASELINES, *COMPOSITES])}")


def _composite(call: Call) -> CompositeMaps:
    """A composite with its parameters; what is none of them is a rule for what its name says."""
    own = tuple(pair for pair in call.arguments if pair[0] in _PARAMETERS)
    rules = {key: rule for key, rule in call.arguments if key not in _PARAMETERS}
    parameters = build(Call(call.name, own), {call.name: Parameters()}, what="composite")
    for key, rule in rules.items():
        if not key:
            raise RuleError(f"{rule!r} is not parameter=value")
        try:
            parse_rule(rule)
        except RuleError as error:
            raise RuleError(
                f"{key} is {rule!r}; a composite takes {', '.join(_PARAMETERS)}, and rules for @KIND or a node: {error}"
            ) from error
    return CompositeMaps(call.name, parameters, rules)


def check_method(text: str, subject: Subject | None = None) -> None:
    """Raise RuleError, with what there is, unless `text` names a method that fits the model."""
    source = read_method(text).source
    if subject is not None and isinstance(source, Baseline) and source.reads_features:
        _ = subject.feature


def find_method(text: str, subject: Subject) -> Method:
    """The method that `text` names, its model compiled and loaded.

    Raises:
        RuleError: there is no such method; the text says what there is.
    """
    recipe = read_method(text)
    return Method(text, _then(recipe.post, recipe.source(subject)))


def make_maps(names: Sequence[str], subject: Subject, pictures: Pictures, targets: Targets) -> Iterator[Made]:
    """Every method with its maps of all pictures.

    One model is loaded at a time; methods that differ in post-processing alone share their maps.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(split(name, "+")[0].strip(), []).append(name)
    for base, group in groups.items():
        run = find_method(base, subject).maps
        maps = run(pictures, targets)
        for name in group:
            post = read_method(name).post
            yield Made(Method(name, _then(post, run)), _each(post, maps))


def with_own_post(composite: str) -> str:
    """The method that is a composite with the post-processing that belongs to it."""
    post = COMPOSITES[composite].post
    return composite if post == NONE else f"{composite}+{post}"


def parts_of(text: str) -> tuple[str, dict[str, str], str]:
    """(name, its parameters, post-processing) of a method's text, as written.

    Raises:
        RuleError: brackets or the name cannot be read.
    """
    base, *steps = split(text, "+")
    call = parse(base, what="method")
    return call.name, dict(call.arguments), "+".join(steps)


def _then(post: Chain, run: Run) -> Run:
    return (lambda x, t: _each(post, run(x, t))) if post.steps else run


def _each(post: Chain, maps: Maps) -> Maps:
    return np.stack([post(one) for one in maps]) if post.steps else maps
