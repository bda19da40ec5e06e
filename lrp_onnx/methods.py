"""Everything that gives a relevance map of a picture from an ONNX file alone: composites, and what others use.

A method is named as text: a composite or a baseline, with parameters in brackets, then post-processing:
``lrp-resnet``, ``rise(masks=500)``, ``c3-lrp+c3:outside=rank``.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrp_onnx.baselines import BASELINES, Run
from lrp_onnx.errors import RuleError
from lrp_onnx.maps.chain import parse_chain
from lrp_onnx.relevance.presets import COMPOSITES
from lrp_onnx.subject import Subject, in_parts


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """A name, and what makes maps of it."""

    name: str
    maps: Run


def check_method(text: str) -> None:
    """Raise RuleError, with what there is, unless `text` names a method."""
    _taken_apart(text)


def find_method(text: str, subject: Subject) -> Method:
    """The method that `text` names, its model compiled and loaded; raises RuleError with what there is."""
    base, parameters, post = _taken_apart(text)
    if base in COMPOSITES:
        maps: Run = partial(in_parts, subject.compiled(composite=base), "heatmap")
    else:
        maps = BASELINES[base](subject, **parameters)
    if post is None:
        return Method(text, maps)
    return Method(text, lambda x, t: np.stack([post(one) for one in maps(x, t)]))


def _taken_apart(text: str) -> tuple[str, dict[str, float], Callable[[ArrayLike], NDArray[np.float32]] | None]:
    """(composite or baseline, its parameters, post-processing or None)."""
    name, plus, chain = text.partition("+")
    base, parameters = _parse(name)
    if base not in BASELINES and base not in COMPOSITES:
        known = [*BASELINES, *COMPOSITES]
        close = difflib.get_close_matches(base, known, 2)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"
        raise RuleError(f"there is no method {base!r}; {hint}")
    takes = list(inspect.signature(BASELINES[base]).parameters)[1:] if base in BASELINES else []
    if unknown := sorted(set(parameters) - set(takes)):
        said = f"it takes {', '.join(takes)}" if takes else "it takes none"
        raise RuleError(f"{text}: {base} has no parameter {unknown[0]!r}; {said}")
    try:
        return base, parameters, parse_chain(chain) if plus else None
    except ValueError as error:
        raise RuleError(f"{text}: {error}") from error


def _parse(text: str) -> tuple[str, dict[str, float]]:
    matched = re.fullmatch(r"([a-z0-9-]+)(?:\(([^()]*)\))?", text.strip())
    if matched is None:
        raise RuleError(f"{text!r} is no method: write a name, or name(parameter=number)")
    parameters = {}
    for part in filter(None, (matched[2] or "").split(",")):
        key, equals, value = (word.strip() for word in part.partition("="))
        try:
            parameters[key] = float(value) if equals else float("nan")
        except ValueError:
            raise RuleError(f"{text}: {key} is a number") from None
    return matched[1], parameters
