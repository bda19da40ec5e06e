"""Chains of post-processing (`maps.chain`) as operators."""

from __future__ import annotations

from lrp_onnx.maps.c3 import C3Options
from lrp_onnx.maps.chain import C1C, C3, Average, Chain, MapStep, Normalize, Quantize
from lrp_onnx.relevance.graph.builder import Value
from lrp_onnx.relevance.post.grid import Grid
from lrp_onnx.relevance.post.region import coarse_map, masked, region
from lrp_onnx.relevance.post.scaling import average, normalize, quantize


def post_processed(raw: Value, size: tuple[int, int], chain: Chain) -> Value:
    """The maps after every step of the chain, (N, H, W), for the maps `raw` of `size` (H, W)."""
    grid = Grid(raw, size)
    for step in chain.steps:
        grid = applied(step, grid)
    return grid.value


def region_of(raw: Value, size: tuple[int, int], chain: Chain) -> tuple[Value, int]:
    """The region that the last C3 or C1C of the chain keeps, as a 0/1 mask (N, s, s), and s.

    A chain without one is followed by C3 with its default options, applied to `raw`.
    """
    places = [i for i, step in enumerate(chain.steps) if isinstance(step, C3Options)]
    last = places[-1] if places else 0
    step = chain.steps[last] if places else C3()
    before = post_processed(raw, size, Chain(chain.steps[:last]) if places else Chain())
    assert isinstance(step, C3Options)
    coarse = coarse_map(Grid(before, size), step)
    return region(coarse, step, contour=isinstance(step, C3)).value, step.size


def applied(step: MapStep, grid: Grid) -> Grid:
    """The maps after one step.

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
            return average(grid, size=step.size, expansion=step.expansion)
        case Normalize():
            return normalize(grid, mode=step.mode, percentile=step.percentile)
    raise TypeError(f"{type(step).__name__} has no operators: write them in relevance/post/")
