"""Chains of post-processing (`maps.chain`) as operators."""

from __future__ import annotations

from collections.abc import Sequence

from lrp_onnx.maps.c3 import C3Options
from lrp_onnx.maps.chain import C1C, C3, Average, Chain, MapStep, Normalize, Quantize
from lrp_onnx.relevance.graph.builder import Value
from lrp_onnx.relevance.post.grid import Grid
from lrp_onnx.relevance.post.region import coarse_map, masked, region
from lrp_onnx.relevance.post.scaling import average, normalize, quantize


def post_processed(raw: Value, size: tuple[int, ...], chain: Chain) -> Value:
    """The maps after every step of the chain, for the maps `raw` of `size`: (N, H, W) and (H, W),
    or with one or three axes in place of H and W.
    """
    return _processed(raw, size, chain.steps, decides=False)


def _processed(
    raw: Value, size: tuple[int, ...], steps: Sequence[MapStep], *, decides: bool
) -> Value:
    """The maps after `steps`; `decides` tells whether something behind them has a threshold, for
    which values have to be as exact as Python's.
    """
    grid = Grid(raw, size)
    for index, step in enumerate(steps):
        later = decides or any(following.decides for following in steps[index + 1 :])
        grid = applied(step, grid, double=later and raw.builder.emission.doubles)
    return grid.value


def region_of(raw: Value, size: tuple[int, ...], chain: Chain) -> tuple[Value, int]:
    """The region that the last C3 or C1C of the chain keeps, as a 0/1 mask (N, s, s), and s.

    A chain without one is followed by C3 with its default options, applied to `raw`.
    """
    places = [i for i, step in enumerate(chain.steps) if isinstance(step, C3Options)]
    last = places[-1] if places else 0
    step = chain.steps[last] if places else C3()
    assert isinstance(step, C3Options)
    before = raw
    if places:
        before = _processed(raw, size, chain.steps[:last], decides=True)
    coarse = coarse_map(Grid(before, size), step)
    return region(coarse, step, contour=isinstance(step, C3)).value, step.size


def applied(step: MapStep, grid: Grid, *, double: bool) -> Grid:
    """The maps after one step, computed in float64 where it has a choice and `double` is set.

    Raises:
        TypeError: the step has no operators.
    """
    match step:
        case C3() | C1C():
            coarse = coarse_map(grid, step)
            return masked(grid, coarse, region(coarse, step, contour=isinstance(step, C3)), step)
        case Quantize():
            return quantize(grid, levels=step.levels)
        case Average():
            return average(grid, size=step.size, expansion=step.expansion, double=double)
        case Normalize():
            return normalize(grid, mode=step.mode, percentile=step.percentile)
    raise TypeError(f"{type(step).__name__} has no operators: write them in relevance/post/")
