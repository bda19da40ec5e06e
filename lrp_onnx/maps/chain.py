"""Chains of post-processing steps, written as text: ``c3``, ``quantize:16``,
``average+c3:component=peak``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrp_onnx.maps.c3 import C1C_DEFAULTS, C3_DEFAULTS, c1c, c3
from lrp_onnx.maps.heatmap import COARSE, LEVELS, NORMALIZATIONS, average, normalize, quantize
from lrp_onnx.maps.options import check_choice, check_range, check_whole
from lrp_onnx.maps.resample import METHODS, as_map

Map = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class QuantizeOptions:
    """Options of the step ``quantize``."""

    levels: int = LEVELS

    def __post_init__(self) -> None:
        check_whole("levels", self.levels, least=2)


@dataclass(frozen=True, slots=True)
class NormalizeOptions:
    """Options of the step ``normalize``."""

    mode: str = "symmetric"
    percentile: float = 100.0

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, NORMALIZATIONS)
        check_range("percentile", self.percentile, above=0, most=100)


@dataclass(frozen=True, slots=True)
class AverageOptions:
    """Options of the step ``average``."""

    size: int = COARSE
    expansion: str = "nearest"

    def __post_init__(self) -> None:
        check_whole("size", self.size, least=1)
        check_choice("expansion", self.expansion, tuple(METHODS))


SMOOTH_DEFAULTS = AverageOptions(size=14, expansion="bilinear")
"""What raised insertion, deletion and rank accuracy most in the study (models/EVALUATION.md)."""


@dataclass(frozen=True, slots=True)
class Step:
    """One kind of post-processing that a chain can name."""

    description: str
    """One line, for a list of the steps."""
    defaults: Any
    """A frozen dataclass: its fields are the step's parameters, the first one may be given without its
    name."""
    apply: Callable[[Map, Any], Map]
    """(H, W) float32 and options → (H, W) float32, a new array."""


STEPS: MappingProxyType[str, Step] = MappingProxyType(
    {
        "c3": Step(
            "contour and component choice: keep the largest blob of the 28x28 map (JSAI 2024)",
            C3_DEFAULTS,
            lambda relevance, options: c3(relevance, options).map,
        ),
        "c1c": Step(
            "component choice: keep the blob of the 28x28 map that holds its peak (Iida et al. 2023)",
            C1C_DEFAULTS,
            lambda relevance, options: c1c(relevance, options).map,
        ),
        "quantize": Step(
            "heat quantization: round down to 8 evenly spaced levels (ECCV 2024)",
            QuantizeOptions(),
            lambda relevance, options: quantize(relevance, levels=options.levels),
        ),
        "average": Step(
            "average over a 28x28 grid",
            AverageOptions(),
            lambda relevance, options: average(relevance, size=options.size, expansion=options.expansion),
        ),
        "smooth": Step(
            "average over a 14x14 grid, with bilinear transitions",
            SMOOTH_DEFAULTS,
            lambda relevance, options: average(relevance, size=options.size, expansion=options.expansion),
        ),
        "normalize": Step(
            "scale to -1..1 (symmetric) or, without what is negative, to 0..1 (positive)",
            NormalizeOptions(),
            lambda relevance, options: normalize(relevance, mode=options.mode, percentile=options.percentile),
        ),
    }
)
"""Name of a step → what it is. Chains are made of these."""


def parse_chain(chain: str | Sequence[str]) -> Callable[[ArrayLike], Map]:
    """Return the function that a chain describes.

    A chain is steps joined by ``+``, or a sequence of such texts; a step is ``name``, ``name:value`` for its
    first parameter, or ``name:parameter=value,parameter=value``. Examples: ``c3``, ``quantize:16``,
    ``average+c3:component=peak,threshold=quantile:0.8+quantize``. The empty chain copies.

    Returns:
        A function from a finite (H, W) map to a new (H, W) float32 map.

    Raises:
        ValueError: a step or a parameter is unknown or given twice, or a value does not fit.
    """
    texts = [chain] if isinstance(chain, str) else list(chain)
    # A plus before a digit belongs to a number such as 1e+3; names begin with a letter.
    parts = [part.strip() for text in texts if text.strip() for part in re.split(r"\+(?!\d)", text)]
    steps = [_parse_step(part) for part in parts]

    def run(relevance: ArrayLike) -> Map:
        values = as_map(relevance).copy()
        for step, options in steps:
            values = step.apply(values, options)
        return values

    return run


def post_process(relevance: ArrayLike, chain: str | Sequence[str]) -> Map:
    """Apply a chain (see `parse_chain`) to an (H, W) map; returns (H, W) float32, a new array. Raises
    ValueError."""
    return parse_chain(chain)(relevance)


def _parse_step(text: str) -> tuple[Step, Any]:
    name, _, arguments = text.partition(":")
    if name not in STEPS:
        near = difflib.get_close_matches(name, STEPS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"unknown step {name!r}{hint}; known: {', '.join(STEPS)}")
    step = STEPS[name]
    known = [field.name for field in fields(step.defaults)]
    given: dict[str, int | float | str] = {}
    for position, argument in enumerate(filter(None, arguments.split(","))):
        key, equals, value = (word.strip() for word in argument.partition("="))
        if not equals and position == 0:
            key, value = known[0], key
        if key not in known or key in given:
            reason = "is given twice" if key in given else f"is unknown; known: {', '.join(known)}"
            raise ValueError(f"step {name!r}: parameter {key!r} {reason}")
        given[key] = _literal(value)
    try:
        return step, replace(step.defaults, **given)
    except ValueError as fault:
        raise ValueError(f"step {name!r}: {fault}") from fault


def _literal(text: str) -> int | float | str:
    """Read a parameter's value: a whole number, a number, or else a word."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
