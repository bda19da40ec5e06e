"""Methods that compute relevance maps from an ONNX file: composites and baselines.

A method is written as text (see `notation`): a composite or a baseline with its parameters, then
post-processing: ``lrp-resnet``, ``rise(masks=500)``, ``c3-lrp+c3:outside=rank``. A composite takes
`Parameters`, and rules for kinds of steps or for nodes:
``epsilon-plus-flat(start=contrastive, @join=z-plus-join, @upper convolution=gamma(gamma=0.1))``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from lrp_onnx.errors import RuleError
from lrp_onnx.evaluation.baselines import BASELINES, Baseline, Run
from lrp_onnx.evaluation.subject import Maps, Pictures, Subject, Targets, explain_all
from lrp_onnx.maps.chain import NONE, Chain, parse_chain
from lrp_onnx.notation import Call, build, parse, split, suggestion
from lrp_onnx.relevance.composites.presets import COMPOSITES
from lrp_onnx.relevance.rules.table import parse_rule
from lrp_onnx.relevance.start import START_VALUES


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """A method that is ready to run on a model."""

    name: str
    """The method as text."""
    maps: Run
    """The function that computes its maps, post-processed."""


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A method with its maps of the pictures."""

    method: Method
    maps: Maps
    raw: Maps
    """The maps before post-processing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """A composite's parameters, except rules; None stands for the composite's own."""

    start: str | None = None
    bias: str | None = None
    resolution: tuple[int, int] | str | None = None
    """Where relevance stops, see `Options.resolution`."""

    def __post_init__(self) -> None:
        if self.start not in (None, *START_VALUES):
            raise RuleError(f"{self.start!r} is not a start; use {', '.join(START_VALUES)}")
        if self.bias not in (None, "keep", "drop"):
            raise RuleError(f"{self.bias!r} is not a bias; use keep or drop")


REMEMBERED = 256_000_000
"""Bytes of maps that methods which differ in post-processing share."""
_PARAMETERS = tuple(entry.name for entry in fields(Parameters))


@dataclass(frozen=True, slots=True)
class CompositeMaps:
    """A composite as a method: called on a model, it compiles the model."""

    composite: str
    parameters: Parameters = Parameters()
    rules: Mapping[str, str] = field(default_factory=dict)
    """Node-name pattern, or kind of step such as ``@first`` → rule as text."""

    def __call__(self, subject: Subject) -> Run:
        """The function that computes maps, always of the picture's size."""
        values = {name: getattr(self.parameters, name) for name in _PARAMETERS}
        choices = {name: value for name, value in values.items() if value is not None}
        # Without rules in the method's text, the rules of the subject apply.
        rules = {"rules": dict(self.rules)} if self.rules else {}
        explainer = subject.compiled(composite=self.composite, **choices, **rules)

        return lambda x, t: explain_all(explainer, "heatmap", x, t)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A method as read from its text, before a model is loaded."""

    source: CompositeMaps | Baseline
    post: Chain


def read_method(text: str) -> Recipe:
    """Read a method's text; no model is loaded.

    Raises:
        RuleError: the method is unknown, or a parameter, a rule or a step does not fit. The message
            lists what is known.
    """
    base, *steps = split(text, "+")
    several = [part.strip() for part in split(base, ",")]
    if len(several) > 1 and ":" not in base:
        raise RuleError(
            f"{text!r} is several methods: give each its own option, as in "
            + " ".join(f"--method {part}" for part in several)
        )
    call = parse(base, what="method")
    try:
        if call.name in COMPOSITES:
            return Recipe(_composite(call), parse_chain("+".join(steps)))
        if call.name in BASELINES:
            source = build(call, BASELINES, what="method")
            return Recipe(source, parse_chain("+".join(steps)))
    except RuleError as error:
        raise RuleError(f"{text}: {error}") from error
    raise RuleError(
        f"there is no method {call.name!r}; {suggestion(call.name, [*BASELINES, *COMPOSITES])}"
    )


def _composite(call: Call) -> CompositeMaps:
    """A composite with its parameters; other arguments are rules for nodes or kinds of steps."""
    values = tuple(pair for pair in call.arguments if pair[0] in _PARAMETERS)
    rules = {key: rule for key, rule in call.arguments if key not in _PARAMETERS}
    parameters = build(Call(call.name, values), {call.name: Parameters()}, what="composite")
    for key, rule in rules.items():
        if not key:
            raise RuleError(f"{rule!r} is not parameter=value")
        try:
            parse_rule(rule)
        except RuleError as error:
            raise RuleError(
                f"{key} is {rule!r}; a composite takes {', '.join(_PARAMETERS)}, "
                f"and rules for @KIND or a node: {error}"
            ) from error
    return CompositeMaps(call.name, parameters, rules)


def check_method(text: str, subject: Subject | None = None) -> None:
    """Raise RuleError unless `text` is a method and, if `subject` is given, fits that model."""
    source = read_method(text).source
    if subject is None or not isinstance(source, Baseline):
        return
    if source.reads_features:
        _ = subject.feature_map  # raises RuleError where there is none
    if source.reads_attention:
        _ = subject.attention_layers


def find_method(text: str, subject: Subject) -> Method:
    """The method that `text` describes, with its model compiled and loaded.

    Raises:
        RuleError: see `read_method`.
    """
    recipe = read_method(text)
    return Method(text, _post_processed(recipe.source(subject), recipe.post))


def make_maps(
    names: Sequence[str],
    subject: Subject,
    pictures: Pictures,
    targets: Targets,
    *,
    keep: Callable[[str, Run], Run] = lambda method, run: run,
) -> Iterator[Made]:
    """Compute the maps of several methods, with one model loaded at a time.

    Methods that differ only in post-processing share one computation.

    Args:
        names: methods as text.
        subject: the model.
        pictures: (N, …), as the model takes them.
        targets: (N,): the class to explain of each picture.
        keep: of a method without post-processing and the function that makes its maps, the function
            to call instead.

    Yields:
        Every method with its maps (N, H, W), grouped by what they share.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(split(name, "+")[0].strip(), []).append(name)
    for base, group in groups.items():
        run = keep(base, find_method(base, subject).maps)
        run = _remembered(run) if len(group) > 1 else run
        maps = run(pictures, targets)
        for name in group:
            post = read_method(name).post
            yield Made(Method(name, _post_processed(run, post)), _apply(post, maps), maps)


def _remembered(run: Run) -> Run:
    """The function without computing the same maps twice: methods that differ in post-processing
    alone are asked for the same ones, of other pictures too. Up to `REMEMBERED` bytes are kept.
    """
    known: dict[bytes, Maps] = {}

    def maps(x: Pictures, t: Targets) -> Maps:
        digest = hashlib.sha256(x.tobytes())
        digest.update(np.asarray(t).tobytes())
        key = digest.digest()
        if key in known:
            return known[key]
        found = run(x, t)
        if sum(one.nbytes for one in known.values()) + found.nbytes <= REMEMBERED:
            known[key] = found
        return found

    return maps


def with_own_post(composite: str) -> str:
    """The text of the method: a composite with its own post-processing."""
    post = COMPOSITES[composite].post
    return composite if post == NONE else f"{composite}+{post}"


def _post_processed(run: Run, post: Chain) -> Run:
    return (lambda x, t: _apply(post, run(x, t))) if post.steps else run


def _apply(post: Chain, maps: Maps) -> Maps:
    return np.stack([post(relevance) for relevance in maps]) if post.steps else maps
