"""Averaging, quantizing and normalizing maps, as `maps.heatmap` does."""

from __future__ import annotations

import numpy as np

from lrp_onnx.relevance.graph.builder import Builder, Value
from lrp_onnx.relevance.post.grid import (
    Grid,
    exact,
    indicator,
    larger,
    order_statistic,
    rounded,
    smaller,
)


def average(grid: Grid, *, size: int, expansion: str, double: bool = False) -> Grid:
    """See `maps.heatmap.average`; `double` computes in float64, as Python does."""
    coarse = grid.resampled((size,) * len(grid.size), "area", double=double)
    return coarse.resampled(grid.size, expansion, double=double)


def normalize(grid: Grid, *, mode: str, percentile: float) -> Grid:
    """See `maps.heatmap.normalize`."""
    values = grid.value.pos() if mode == "positive" else grid.value
    magnitudes = grid.of(values.abs())
    scale = most = magnitudes.largest()
    if percentile < 100:
        scale = order_statistic(magnitudes, percentile / 100, double=False)
        scale = scale.where_zero(most, scale)
    builder = values.builder
    scaled = values / scale.where_zero(1.0, scale)
    return grid.of(smaller(larger(scaled, builder.value(-1.0)), builder.value(1.0)))


def quantize(grid: Grid, *, levels: int) -> Grid:
    """See `maps.heatmap.quantize`.

    A value's bin is first estimated by division and then corrected by comparing the value with the
    bins themselves: rounding in the division moves no value to another bin. Where the emission has
    `doubles`, bins are computed in float64 and the result equals Python's; elsewhere bins may
    differ in the last place of float32.
    """
    values = grid.value
    builder = values.builder
    double = builder.emission.doubles
    low, high = grid.smallest(), grid.largest()
    first, last = (exact(low), exact(high)) if double else (low, high)
    count = _number(builder, levels - 1, double=double)
    step = builder.node("Div", builder.node("Sub", last, first), count)

    def bin_of(place: Value) -> Value:
        """The bin at a place, float32; the last one is the maximum itself."""
        at = builder.node("Mul", exact(place) if double else place, step)
        at = builder.node("Add", at, first)
        inner = rounded(at) if double else at
        return builder.node(
            "Where",
            builder.node("Less", place, builder.value(levels - 1.0)),
            smaller(inner, high),
            high,
        )

    wide = rounded(step) if double else step
    estimate = builder.node("Floor", (values - low) / wide.where_zero(1.0, wide))
    place = smaller(larger(estimate, builder.value(0.0)), builder.value(levels - 1.0))
    place = larger(place - indicator("Less", values, bin_of(place)), builder.value(0.0))
    following = smaller(place + 1.0, builder.value(levels - 1.0))
    above = bin_of(following)
    reached = builder.node("Less", values, above)
    return grid.of(builder.node("Where", reached, bin_of(place), above))


def _number(builder: Builder, number: float, *, double: bool) -> Value:
    """A number in the element type of what is computed."""
    return builder.stored(np.asarray(number, np.float64 if double else np.float32))
