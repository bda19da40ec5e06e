"""Everything that gives a relevance map of a picture from an ONNX file alone: composites, and what others use.

A method is named as text: a composite or a baseline, with parameters in brackets, then post-processing:
``lrp-resnet``, ``rise(masks=500)``, ``c3-lrp+c3:outside=rank``.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import partial

import numpy as np

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


def find_method(text: str, subject: Subject) -> Method:
    """The method that `text` names; raises RuleError with what there is."""
    name, plus, chain = text.partition("+")
    base, parameters = _parse(name)
    if base in COMPOSITES and not parameters:
        explainer = subject.compiled(composite=base)
        maps: Run = partial(in_parts, explainer, "heatmap")
    elif base in BASELINES:
        try:
            maps = BASELINES[base](subject, **parameters)
        except TypeError as error:
            raise RuleError(f"{text}: {error}") from error
    else:
        known = [*BASELINES, *COMPOSITES]
        close = difflib.get_close_matches(base, known, 2)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"
        raise RuleError(f"there is no method {base!r}; {hint}")
    if not plus:
        return Method(text, maps)
    try:
        post = parse_chain(chain)
    except ValueError as error:
        raise RuleError(f"{text}: {error}") from error
    return Method(text, lambda x, t: np.stack([post(one) for one in maps(x, t)]))


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
