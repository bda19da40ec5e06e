"""C3 and C1C as operators: the region that is kept, and the map."""

from __future__ import annotations

import numpy as np

from lrp_onnx.maps.c3 import RANK_MARGIN, C3Options, parse_threshold
from lrp_onnx.relevance.graph.builder import Value
from lrp_onnx.relevance.post.components import component, outside
from lrp_onnx.relevance.post.grid import (
    LIMIT,
    Grid,
    exact,
    indicator,
    larger,
    order_statistic,
    where,
)


def coarse_map(grid: Grid, options: C3Options) -> Grid:
    """The map on the coarse grid, (N, size, size).

    Products are in float64 where the emission has `doubles`: the result, and with it the region,
    then equals Python's.
    """
    size = (options.size, options.size)
    return grid.resampled(size, options.reduction, double=grid.value.builder.emission.doubles)


def region(coarse: Grid, options: C3Options, *, contour: bool) -> Grid:
    """The pixels that are kept, as a 0/1 mask (N, size, size).

    Args:
        coarse: the coarse map.
        options: see `maps.c3`.
        contour: whether the contour counts (C3) or the component alone (C1C).
    """
    mask = above(coarse, options.threshold)
    peak = coarse.value if options.component == "peak" else None
    chosen = component(mask, options.connectivity, peak)
    # A component lies completely in the contour or completely outside (see `maps.c3`): if an empty
    # AND leaves the component, the contour decides nothing.
    if not contour or options.empty == "component":
        return chosen
    filled = coarse.of(outside(mask).value * -1.0 + 1.0)
    outline = component(filled, 8)
    overlap = coarse.of(chosen.value * outline.value).largest()
    kept = chosen.value * overlap
    if options.empty == "contour":
        kept = kept + outline.value * (overlap * -1.0 + 1.0)
    return coarse.of(kept)


def masked(grid: Grid, coarse: Grid, mask: Grid, options: C3Options) -> Grid:
    """The map that C3 and C1C give, of the size of `grid`."""
    zero = mask.value.constant(0.0)
    if options.outside == "zero":
        kept = coarse.of(where(mask.value, coarse.value, zero))
        return kept.resampled(grid.size, options.expansion)
    expanded = coarse.resampled(grid.size, options.expansion)
    inside = mask.resampled(grid.size, "nearest").value
    values, builder = expanded.value, zero.builder
    highest = grid.of(where(inside, builder.value(-LIMIT), values)).largest()
    lowest = grid.of(where(inside, values, builder.value(LIMIT))).smallest()
    margin = grid.of(values.abs()).largest() * RANK_MARGIN
    shift = larger(highest - lowest + margin, zero)
    lowered = larger(values - shift, builder.value(-LIMIT))
    return grid.of(where(inside, values, lowered))


def above(coarse: Grid, threshold: str | float) -> Grid:
    """1 where the coarse map is above its threshold, else 0.

    Compared in float64 where the emission has `doubles`. Elsewhere the mean is rounded to float32
    twice, once of the map and once of what is left: values whose distance from the mean is below
    float32's precision may fall on either side.
    """
    values, builder = coarse.value, coarse.value.builder
    double = builder.emission.doubles
    kind, number = parse_threshold(threshold)
    if kind == "value":
        return coarse.of(indicator("Greater", values, builder.value(float(np.float32(number)))))
    compared = coarse.of(exact(values) if double else values)
    if kind == "quantile":
        level = order_statistic(compared, number, double=double)
        return coarse.of(indicator("Greater", compared.value, level))
    if double:
        level = builder.node("Div", compared.total(), _count(coarse, np.float64))
        return coarse.of(indicator("Greater", compared.value, level))
    for _ in range(2):
        mean = builder.node("Div", compared.total(), _count(coarse, np.float32))
        compared = coarse.of(compared.value - mean)
    return coarse.of(indicator("Greater", compared.value, builder.value(0.0)))


def _count(grid: Grid, kind: type[np.floating]) -> Value:
    return grid.value.builder.stored(np.asarray(grid.size[0] * grid.size[1], kind))
