"""One method's paired differences to others, and which of them stand after correction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lrp_onnx.evaluation.metrics.comparisons import holm, sign_flip_test
from lrp_onnx.evaluation.metrics.intervals import difference_of
from tools.study.run import by_method, paired, plain

FLIPS = 100_000
"""Draws of every p-value: the least is 1 of them, times the number of all comparisons."""


def comparisons(
    rows: Sequence[Mapping[str, Any]],
    ours: str,
    metrics: Sequence[str],
    *,
    without: Iterable[str],
) -> dict[str, dict[str, list[float]]]:
    """Metric → rival → mean of the paired differences of `ours` to it, low and high end, p-value.

    `without` are methods in `rows` that are no rivals.
    """
    by = by_method(rows)
    rivals = [name for name in by if name not in (ours, *without)]
    found: dict[str, dict[str, list[float]]] = {}
    for metric in metrics:
        for rival in rivals:
            mine, theirs = paired(by[ours], by[rival], metric)
            p = sign_flip_test(np.subtract(mine, theirs), flips=FLIPS)
            found.setdefault(metric, {})[rival] = [*plain(difference_of(mine, theirs)), p]
    return found


def corrected(cases: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str, str], float]:
    """(case, metric, rival) → p-value after Holm's correction over all of them."""
    keys = [
        (name, metric, rival)
        for name, found in cases.items()
        for metric, rivals in found["comparisons"].items()
        for rival in rivals
    ]
    p_values = [cases[name]["comparisons"][metric][rival][3] for name, metric, rival in keys]
    return dict(zip(keys, holm(p_values), strict=True))
