"""Post-processing as text: steps joined by ``+``, such as ``c3``, ``quantize:16`` or
``average+c3:component=peak`` (see `notation`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from numpy.typing import ArrayLike

from lrp_onnx.maps.c3 import C3Options, c1c, c3
from lrp_onnx.maps.heatmap import COARSE, LEVELS, NORMALIZATIONS, average, normalize, quantize
from lrp_onnx.maps.options import check_choice, check_range, check_whole
from lrp_onnx.maps.resample import METHODS, Map, as_map
from lrp_onnx.notation import build, split, write


class MapStep:
    """One kind of post-processing: a frozen dataclass of its parameters, called on a map."""

    __slots__ = ()
    one_sided: ClassVar[bool] = False
    """Whether a step keeps only what speaks for the class: one side of the colours will do."""

    def __call__(self, relevance: Map) -> Map:
        """(H, W) float32 → (H, W) float32, a new array."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class C3(C3Options, MapStep):
    """C3, contour and component choice: keep the largest blob of the 28x28 map (JSAI 2024)."""

    one_sided: ClassVar[bool] = True

    def __call__(self, relevance: Map) -> Map:
        return c3(relevance, self).map


@dataclass(frozen=True, slots=True)
class C1C(C3Options, MapStep):
    """C1C, component choice: keep the blob of the 28x28 map with its peak (Iida et al. 2023)."""

    one_sided: ClassVar[bool] = True
    component: str = "peak"

    def __call__(self, relevance: Map) -> Map:
        return c1c(relevance, self).map


@dataclass(frozen=True, slots=True)
class Quantize(MapStep):
    """Heat quantization: round down to evenly spaced levels (ECCV 2024)."""

    levels: int = LEVELS

    def __post_init__(self) -> None:
        check_whole("levels", self.levels, least=2)

    def __call__(self, relevance: Map) -> Map:
        return quantize(relevance, levels=self.levels)


@dataclass(frozen=True, slots=True)
class Average(MapStep):
    """The average over a grid, 28x28 by default."""

    size: int = COARSE
    expansion: str = "nearest"

    def __post_init__(self) -> None:
        check_whole("size", self.size, least=1)
        check_choice("expansion", self.expansion, tuple(METHODS))

    def __call__(self, relevance: Map) -> Map:
        return average(relevance, size=self.size, expansion=self.expansion)


@dataclass(frozen=True, slots=True)
class SmoothAverage(Average):
    """The average over a 14x14 grid with bilinear transitions, which raised insertion, deletion and
    rank accuracy most (models/EVALUATION.md).
    """

    size: int = 14
    expansion: str = "bilinear"


@dataclass(frozen=True, slots=True)
class Normalize(MapStep):
    """Scaling to -1..1 (``symmetric``) or, without what is negative, to 0..1 (``positive``)."""

    mode: str = "symmetric"
    percentile: float = 100.0

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, NORMALIZATIONS)
        check_range("percentile", self.percentile, above=0, most=100)

    def __call__(self, relevance: Map) -> Map:
        return normalize(relevance, mode=self.mode, percentile=self.percentile)


STEPS: Mapping[str, MapStep] = MappingProxyType(
    {
        "c3": C3(),
        "c1c": C1C(),
        "quantize": Quantize(),
        "average": Average(),
        "smooth": SmoothAverage(),
        "normalize": Normalize(),
    }
)
"""Every step by its name, with its default parameters."""
NONE = "none"
"""The name of the chain without steps."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Steps of post-processing, in order."""

    steps: tuple[MapStep, ...] = ()

    def __call__(self, relevance: ArrayLike) -> Map:
        """A finite (H, W) map → a new (H, W) float32 map; raises ValueError where it is no map."""
        values = as_map(relevance).copy()
        for step in self.steps:
            values = step(values)
        return values

    def __str__(self) -> str:
        """The text that `parse_chain` reads as this chain."""
        return "+".join(write(step, STEPS) for step in self.steps) or NONE

    @property
    def colors(self) -> str:
        """``sequential`` where a step keeps only what speaks for the class, else ``auto``: the
        map's sign decides.
        """
        return "sequential" if any(step.one_sided for step in self.steps) else "auto"


def parse_chain(chain: str | Sequence[str]) -> Chain:
    """The chain that a text describes.

    Args:
        chain: steps joined by ``+``, or several such texts; ``none`` and nothing at all are the
            chain without steps, which copies.

    Raises:
        RuleError: a step or a parameter is unknown or stands twice, or a value does not fit.
    """
    texts = [chain] if isinstance(chain, str) else list(chain)
    parts = [part for text in texts if text.strip() not in ("", NONE) for part in split(text, "+")]
    return Chain(tuple(build(part, STEPS, what="step") for part in parts))
