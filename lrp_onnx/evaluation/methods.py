"""Everything that gives a relevance map of a picture from an ONNX file alone: composites, and what others use.

A method is named as text: a composite or a baseline, with parameters in brackets, then post-processing:
``lrp-resnet``, ``rise(masks=500)``, ``c3-lrp+c3:outside=rank``. A composite's parameters are how it is compiled:
``start``, ``bias``, ``resolution``, and rules for kinds of steps or for nodes:
``epsilon-plus-flat(start=contrastive, @join=z-plus-join, @upper convolution=gamma(gamma=0.1))``.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrp_onnx.errors import RuleError
from lrp_onnx.evaluation.baselines import BASELINES, OF_FEATURES, Run
from lrp_onnx.evaluation.subject import Classes, Maps, Pictures, Subject, in_parts
from lrp_onnx.maps.chain import parse_chain
from lrp_onnx.maps.resample import resample
from lrp_onnx.relevance.composites.presets import COMPOSITES
from lrp_onnx.relevance.rules.table import parse_rule
from lrp_onnx.relevance.start import START_VALUES

Post = Callable[[ArrayLike], NDArray[np.float32]]


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
    """Raise RuleError, with what there is, unless `text` names a method, and one that fits the model if given."""
    base, _, _ = _taken_apart(text)
    if subject is not None and base in OF_FEATURES:
        _ = subject.feature


def find_method(text: str, subject: Subject) -> Method:
    """The method that `text` names, its model compiled and loaded; raises RuleError with what there is."""
    base, parameters, post = _taken_apart(text)
    maps = _composite(base, parameters, subject) if base in COMPOSITES else BASELINES[base](subject, **parameters)
    return Method(text, _then(post, maps))


def make_maps(names: Sequence[str], subject: Subject, pictures: Pictures, targets: Classes) -> Iterator[Made]:
    """Every method with its maps of all pictures. One model is loaded at a time; methods that differ in post-processing
    alone share their maps.
    """
    bases: dict[str, list[str]] = {}
    for name in names:
        bases.setdefault(_split(name, "+")[0].strip(), []).append(name)
    for base, some in bases.items():
        found = find_method(base, subject)
        maps = found.maps(pictures, targets)
        for name in some:
            post = _taken_apart(name)[2]
            yield Made(Method(name, _then(post, found.maps)), maps if post is None else _each(post, maps))


def _then(post: Post | None, run: Run) -> Run:
    return run if post is None else lambda x, t: _each(post, run(x, t))


def _each(post: Post, maps: Maps) -> Maps:
    return np.stack([post(one) for one in maps])


def _composite(name: str, choices: dict[str, Any], subject: Subject) -> Run:
    """A composite's maps, as large as the picture where relevance stops at a smaller feature map."""
    explainer = subject.compiled(composite=name, **choices)

    def maps(x: Pictures, t: Classes) -> Maps:
        found = in_parts(explainer, "heatmap", x, t)
        if found.shape[1:] == subject.grid(x):
            return found
        return np.stack([resample(one, subject.grid(x), method="bilinear") for one in found])

    return maps


def _taken_apart(text: str) -> tuple[str, dict[str, Any], Post | None]:
    """(composite or baseline, its parameters, post-processing or None)."""
    base, given, chain = parts_of(text)
    if base not in BASELINES and base not in COMPOSITES:
        known = [*BASELINES, *COMPOSITES]
        close = difflib.get_close_matches(base, known, 2)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"
        raise RuleError(f"there is no method {base!r}; {hint}")
    parameters = _choices(text, given) if base in COMPOSITES else _numbers(text, base, given)
    try:
        return base, parameters, parse_chain(chain) if chain else None
    except ValueError as error:
        raise RuleError(f"{text}: {error}") from error


def parts_of(text: str) -> tuple[str, dict[str, str], str]:
    """(name, its parameters, post-processing), as written; raises RuleError where the brackets or the name cannot be
    read.
    """
    first, *chain = _split(text, "+")
    matched = re.fullmatch(r"\s*([a-z0-9-]+)\s*(?:\((.*)\))?\s*", first)
    if matched is None:
        raise RuleError(f"{first!r} is no method: write a name, or name(parameter=number)")
    given = {}
    for part in filter(None, map(str.strip, _split(matched[2] or "", ","))):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals:
            raise RuleError(f"{text}: {part!r} is not parameter=value")
        given[key] = value
    return matched[1], given, "+".join(chain)


def _choices(text: str, given: dict[str, str]) -> dict[str, Any]:
    """A composite's parameters as fields of `compiler.Options`."""
    found: dict[str, Any] = {}
    rules = {key: value for key, value in given.items() if key not in _COMPILED}
    for key, value in rules.items():
        try:
            parse_rule(value)
        except RuleError as error:
            raise RuleError(
                f"{text}: {key} is {value!r}; a composite takes {', '.join(_COMPILED)}, and rules for @KIND or a node: "
                f"{error}"
            ) from error
    for key, value in given.items():
        if key in _COMPILED:
            try:
                found[key] = _COMPILED[key](value)
            except (KeyError, ValueError):
                raise RuleError(f"{text}: {value!r} is no {key}") from None
    return found | {"rules": rules} if rules else found


_COMPILED: dict[str, Callable[[str], Any]] = {
    "start": lambda text: {name: name for name in START_VALUES}[text],
    "bias": lambda text: {name: name for name in ("keep", "drop")}[text],
    "resolution": lambda text: tuple(int(side) for side in (text.split("x") * 2)[:2]),
}
"""Parameters of every composite; other keys are kinds of steps or node patterns."""


def _numbers(text: str, base: str, given: dict[str, str]) -> dict[str, float]:
    """A baseline's parameters."""
    takes = list(inspect.signature(BASELINES[base]).parameters)[1:]
    if unknown := sorted(set(given) - set(takes)):
        said = f"it takes {', '.join(takes)}" if takes else "it takes none"
        raise RuleError(f"{text}: {base} has no parameter {unknown[0]!r}; {said}")
    try:
        return {key: float(value) for key, value in given.items()}
    except ValueError:
        raise RuleError(f"{text}: a parameter of {base} is a number") from None


def _split(text: str, mark: str) -> list[str]:
    """`text` cut at every `mark` outside brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == mark and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
