"""Post-processing of heatmaps: steps, and chains of steps written as text.

A chain is one step, or several joined by ``+``: ``c3``, ``quantize:16``,
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
from lrp_onnx.maps.resample import METHODS, Map, Mask, as_map
from lrp_onnx.notation import build, split, write


class MapStep:
    """One kind of post-processing: a frozen dataclass of its parameters, called on a map."""

    __slots__ = ()
    one_sided: ClassVar[bool] = False
    """Whether the step keeps only relevance for the class, so that colours need one side only."""
    decides: ClassVar[bool] = False
    """Whether the step compares values with thresholds, so that rounding may change much."""
    of_pictures: ClassVar[bool] = False
    """Whether the step is for maps (H, W) alone, not for those of signals and volumes."""

    def __call__(self, relevance: Map) -> Map:
        """(H, W) float32 → (H, W) float32, a new array; most steps take maps of any `Map`."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class C3(C3Options, MapStep):
    """C3, contour and component choice: keep the largest blob of the 28x28 map (JSAI 2024)."""

    one_sided: ClassVar[bool] = True
    decides: ClassVar[bool] = True
    of_pictures: ClassVar[bool] = True

    def __call__(self, relevance: Map) -> Map:
        return c3(relevance, self).map


@dataclass(frozen=True, slots=True)
class C1C(C3Options, MapStep):
    """C1C, component choice: keep the blob of the 28x28 map with its peak (Iida et al. 2023)."""

    one_sided: ClassVar[bool] = True
    decides: ClassVar[bool] = True
    of_pictures: ClassVar[bool] = True
    component: str = "peak"

    def __call__(self, relevance: Map) -> Map:
        return c1c(relevance, self).map


@dataclass(frozen=True, slots=True)
class Quantize(MapStep):
    """Heat quantization: round down to evenly spaced levels (ECCV 2024)."""

    decides: ClassVar[bool] = True
    levels: int = LEVELS

    def __post_init__(self) -> None:
        check_whole("levels", self.levels, least=2)

    def __call__(self, relevance: Map) -> Map:
        return quantize(relevance, levels=self.levels)


@dataclass(frozen=True, slots=True)
class Average(MapStep):
    """The average over every cell of a grid, 28x28 by default."""

    size: int = COARSE
    expansion: str = "nearest"

    def __post_init__(self) -> None:
        check_whole("size", self.size, least=1)
        check_choice("expansion", self.expansion, tuple(METHODS))

    def __call__(self, relevance: Map) -> Map:
        return average(relevance, size=self.size, expansion=self.expansion)


@dataclass(frozen=True, slots=True)
class SmoothAverage(Average):
    """The average over a 14x14 grid, expanded bilinearly.

    Of the steps tried, it improved insertion, deletion and rank accuracy most (see
    models/EVALUATION.md).
    """

    size: int = 14
    expansion: str = "bilinear"


@dataclass(frozen=True, slots=True)
class Normalize(MapStep):
    """Scaling to -1..1 (``symmetric``), or of positive relevance to 0..1 (``positive``)."""

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
"""Name of a step → the step with its default parameters."""
NONE = "none"
"""The name of the chain without steps."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Steps of post-processing, in order."""

    steps: tuple[MapStep, ...] = ()

    def __call__(self, relevance: ArrayLike) -> Map:
        """Apply all steps to a map.

        Args:
            relevance: (H, W), finite.

        Returns:
            (H, W) float32, a new array.

        Raises:
            ValueError: `relevance` is not a finite map.
        """
        values = as_map(relevance).copy()
        for step in self.steps:
            values = step(values)
        return values

    def region(self, relevance: ArrayLike) -> Mask | None:
        """The region that the last C3 or C1C of the chain keeps of a map (H, W).

        Returns:
            (s, s) bool, see `C3Result.mask`; None where the chain has neither.

        Raises:
            ValueError: `relevance` is not a finite map.
        """
        for place, step in reversed(list(enumerate(self.steps))):
            if isinstance(step, C3 | C1C):
                choose = c3 if isinstance(step, C3) else c1c
                return choose(Chain(self.steps[:place])(relevance), step).mask
        return None

    def __str__(self) -> str:
        """The text that `parse_chain` reads as this chain."""
        return "+".join(write(step, STEPS) for step in self.steps) or NONE

    @property
    def of_pictures(self) -> tuple[MapStep, ...]:
        """The steps that are for pictures alone."""
        return tuple(step for step in self.steps if step.of_pictures)

    def for_axes(self, axes: int) -> Chain:
        """The chain for maps of so many axes: without steps for pictures where they are not two."""
        return self if axes == 2 else Chain(tuple(s for s in self.steps if not s.of_pictures))

    @property
    def outlined(self) -> bool:
        """Whether the region that is kept needs an outline to be seen: values outside are not 0."""
        return any(isinstance(s, C3 | C1C) and s.outside == "rank" for s in self.steps)

    @property
    def colors(self) -> str:
        """``sequential`` where a step keeps only relevance for the class; ``auto`` where the map's
        sign decides.
        """
        return "sequential" if any(step.one_sided for step in self.steps) else "auto"


def parse_chain(chain: str | Sequence[str]) -> Chain:
    """The chain that a text describes.

    Args:
        chain: steps joined by ``+``, or a sequence of such texts. ``none`` and an empty text are
            the chain without steps, which returns a copy of the map.

    Raises:
        RuleError: a step or a parameter is unknown, a parameter is given twice, or a value does not
            fit.
    """
    texts = [chain] if isinstance(chain, str) else list(chain)
    steps: list[MapStep] = []
    for text in texts:
        if text.strip() not in ("", NONE):
            steps += [build(part, STEPS, what="step") for part in split(text, "+")]
    return Chain(tuple(steps))
