"""Everything that gives a relevance map of a picture from
an ONNX file alone: composites, and what others use.

A method is named as text: a composite or a baseline, with parameters in brackets, then
post-processing: ``lrp-resnet``, ``rise(masks=500)``, ``c3-lrp+c3:outside=rank``. A composite's
parameters are how it is compiled: ``start``, ``bias``, ``resolution``, and rules for kinds of steps
or for nodes:
``epsilon-plus-flat(start=contrastive, @join=z-plus-join, @upper convolution=gamma(gamma=0.1))``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

from lrp_onnx.errors import RuleError
from lrp_onnx.evaluation.baselines import BASELINES, Baseline, Run
from lrp_onnx.evaluation.subject import Maps, Pictures, Subject, Targets, in_parts
from lrp_onnx.maps.chain import Chain, parse_chain
from lrp_onnx.maps.resample import resample
from lrp_onnx.notation import Call, build, parse, split, suggestion
from lrp_onnx.relevance.composites.presets import COMPOSITES, DEFAULT
from lrp_onnx.relevance.rules.table import parse_rule
from lrp_onnx.relevance.start import START_VALUES

DEFAULT_METHOD = f"{DEFAULT}+{COMPOSITES[DEFAULT].post}"
"""The default composite with its own post-processing."""


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


def check_method(text: str, subject: Subject | None = None) -> None:
    """Raise RuleError, with what there is, unless `text`
    names a method, and one that fits the model if given.
    """
    read = _read(text)
    if subject is not None and isinstance(read.maker, Baseline) and read.maker.reads_features:
        _ = subject.feature


def find_method(text: str, subject: Subject) -> Method:
    """The method that `text` names, its model compiled and
    loaded; raises RuleError with what there is.
    """
    read = _read(text)
    return Method(text, _then(read.chain, read.maker(subject)))


def make_maps(
    names: Sequence[str], subject: Subject, pictures: Pictures, targets: Targets
) -> Iterator[Made]:
    """Every method with its maps of all pictures. One model is loaded at a time; methods that
    differ in post-processing alone share their maps.
    """
    bases: dict[str, list[str]] = {}
    for name in names:
        bases.setdefault(split(name, "+")[0].strip(), []).append(name)
    for base, variants in bases.items():
        method = find_method(base, subject)
        maps = method.maps(pictures, targets)
        for name in variants:
            chain = _read(name).chain
            yield Made(
                Method(name, _then(chain, method.maps)), _each(chain, maps) if chain.steps else maps
            )


def _then(chain: Chain, run: Run) -> Run:
    return (lambda x, t: _each(chain, run(x, t))) if chain.steps else run


def _each(chain: Chain, maps: Maps) -> Maps:
    return np.stack([chain(one) for one in maps])


@dataclass(frozen=True, slots=True)
class Compiling:
    """A composite as a method: how the model is compiled, beside its name."""

    composite: str
    start: str | None = None
    bias: str | None = None
    resolution: tuple[int, int] | None = None
    rules: Mapping[str, str] = field(default_factory=dict)
    """Kinds of steps (``@join``) or patterns of node names → rule as text."""

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("start", self.start, START_VALUES),
            ("bias", self.bias, ("keep", "drop")),
        ):
            if value not in (None, *allowed):
                raise RuleError(f"{value!r} is no {name}: it is {', '.join(allowed)}")
        for rule in self.rules.values():
            parse_rule(rule)

    def __call__(self, subject: Subject) -> Run:
        """Maps as large as the picture, also where relevance stops at a smaller feature map."""
        stated = {f.name: getattr(self, f.name) for f in fields(self)}
        explainer = subject.compiled(**{name: value for name, value in stated.items() if value})

        def maps(x: Pictures, t: Targets) -> Maps:
            relevance = in_parts(explainer, "heatmap", x, t)
            if relevance.shape[1:] == subject.grid(x):
                return relevance
            return np.stack(
                [resample(one, subject.grid(x), method="bilinear") for one in relevance]
            )

        return maps


@dataclass(frozen=True, slots=True)
class _Read:
    """A method's text, read."""

    maker: Callable[[Subject], Run]
    chain: Chain


def _read(text: str) -> _Read:
    """What a method's text describes; raises RuleError with what there is."""
    first, *steps = split(text, "+")
    try:
        return _Read(_maker(parse(first, what="method")), parse_chain(steps))
    except RuleError as error:
        raise RuleError(f"{text}: {error}") from error


def _maker(call: Call) -> Callable[[Subject], Run]:
    if call.name not in COMPOSITES:
        if call.name not in BASELINES:
            raise RuleError(
                f"there is no method {call.name!r}; "
                f"{suggestion(call.name, [*BASELINES, *COMPOSITES])}"
            )
        return build(call, BASELINES, what="method")
    own = [field.name for field in fields(Compiling) if field.name not in ("composite", "rules")]
    choices = Call(call.name, tuple((key, value) for key, value in call.arguments if key in own))
    rules = {key: value for key, value in call.arguments if key not in own}
    if unknown := [key for key in rules if not key]:
        raise RuleError(f"{rules[unknown[0]]!r} is not parameter=value")
    compiling = build(choices, {call.name: Compiling(call.name)}, what="method")
    try:
        return replace(compiling, rules=rules)
    except RuleError as error:
        raise RuleError(
            f"a composite takes {', '.join(own)}, and rules for @KIND or a node: {error}"
        ) from error
