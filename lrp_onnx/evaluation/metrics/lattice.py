"""The lattice of a method's maps: how much relevance depends on where a column lies on the grid of
strides, and on which side of the picture.

Pictures as a whole have no left and no right, and nothing in them has the period of the network's
strides: over many photos, columns should be equally relevant. Rows are left out, since pictures do
have a top and a bottom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.maps.resample import Map

Profile = Mapping[str, Sequence[float]]
"""``phases``, a number for each column of a period; ``edges``, of the first and last columns."""
PARTS = ("phase", "border")
"""The numbers of a lattice."""
EDGE = 8
"""The outer columns are one part in `EDGE` of the picture's width on either side."""


def profile(relevance: Map, period: int) -> dict[str, list[float]]:
    """The mean |R| of columns, as a multiple of that of all columns.

    Args:
        relevance: (H, W).
        period: the deepest stride in pixels, at least 1.

    Returns:
        ``phases``: (period,), the mean over columns of equal phase, in whole periods from the left
        (of one period if the picture is narrower: the columns that there are). ``edges``: the mean
        over the first and over the last eighth of the columns. Zeros for a map of zeros.
    """
    columns = np.abs(relevance.astype(np.float64)).mean(0)
    columns = columns / (columns.mean() or 1.0)
    period = min(period, len(columns))
    whole = columns[: len(columns) // period * period]
    edge = max(1, len(columns) // EDGE)
    edges = (columns[:edge].mean(), columns[-edge:].mean())
    phases = whole.reshape(-1, period).mean(0)
    return {
        "phases": [round(float(value), 6) for value in phases],
        "edges": [round(float(value), 6) for value in edges],
    }


def values_of(profiles: Sequence[Profile], part: str) -> NDArray[np.float64]:
    """(N, K): what one of `PARTS` is computed from."""
    name = "phases" if part == "phase" else "edges"
    return np.asarray([found[name] for found in profiles], np.float64)


def ratio(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest over the smallest of the last axis, (…, K) → (…); at least 1, infinite where the
    smallest is 0 and the largest is not, and 1 where all are 0.

    Of means over photos it is the lattice: 1 is none.
    """
    low, high = means.min(-1), means.max(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(high == low, 1.0, high / low))
