"""Means of results with confidence intervals, as data, CSV and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.evaluation.metrics import lattice
from lrp_onnx.evaluation.metrics.intervals import Mean, mean_of, statistic_of
from lrp_onnx.evaluation.request import Result
from lrp_onnx.files.spreadsheet import csv_line

PARTS = ("insertion", "deletion", "id")
"""The numbers of a protocol; short tables show only the last one."""
NO_METRICS = {"image", "method", "target", "label", "mask", "seen", "probability"}
"""Keys of a result that are not metrics."""
LATTICE = "lattice"
"""The metric whose values are profiles."""
Column = tuple[str, str | None]
"""(metric, part of a protocol or None)."""


def columns_of(rows: Sequence[Result]) -> list[Column]:
    """The columns of results, in order of appearance."""
    columns: dict[Column, None] = {}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, Mapping):
                parts = lattice.PARTS if name == LATTICE else PARTS
                columns.update({(name, part): None for part in parts})
            elif name not in NO_METRICS:
                columns[name, None] = None
    return list(columns)


def summary(rows: Sequence[Result], *, seed: int = 0) -> dict[str, dict[Column, Mean]]:
    """Method → column → mean over the photos that have a value, with its confidence interval.

    The lattice is not a mean of photos: it is that of their mean profile.
    """
    columns = columns_of(rows)
    means: dict[str, dict[Column, Mean]] = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        rows_of_method = [row for row in rows if row["method"] == method]
        means[method] = {}
        for metric, part in columns:
            scored = [row for row in rows_of_method if row.get(metric) is not None]
            if metric == LATTICE and part is not None:
                profiles = lattice.values_of([row[metric] for row in scored], part)
                mean = statistic_of(profiles, lattice.ratio, seed=seed)
            else:
                values = [_value(row, metric, part) for row in scored]
                mean = mean_of(values, seed=seed)
            means[method][metric, part] = mean
    return means


def _value(row: Result, metric: str, part: str | None) -> float:
    if metric == LATTICE and part is not None:
        return float(lattice.ratio(lattice.values_of([row[metric]], part)[0]))
    return float(row[metric] if part is None else row[metric][part])


def heading(metric: str, part: str | None) -> str:
    """The heading of a column: ``exact insertion``, ``exact ID``, ``sparseness``."""
    if part is None:
        return metric
    return f"{metric} ID" if part == "id" else f"{metric} {part}"


def shown(columns: Sequence[Column]) -> list[Column]:
    """The columns of a short table: ID is the only part of a protocol."""
    return [column for column in columns if column[1] in (None, "id", *lattice.PARTS)]


def markdown(rows: Sequence[Result], *, every: bool = False, seed: int = 0) -> str:
    """A Markdown table of means with intervals; `every` adds insertion and deletion."""
    means_of = summary(rows, seed=seed)
    columns = columns_of(rows) if every else shown(columns_of(rows))
    lines = [
        "| method | photos | " + " | ".join(heading(*column) for column in columns) + " |",
        "|---|---|" + "---|" * len(columns),
    ]
    for method, means in means_of.items():
        photos = sum(row["method"] == method for row in rows)
        cells = [method, str(photos), *(str(means[column]) for column in columns)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def as_json(rows: Sequence[Result], *, seed: int = 0) -> dict[str, Any]:
    """Method → heading of a column → mean, interval (low, high) and number of photos."""
    return {
        method: {
            heading(*column): {
                "mean": mean.value,
                "low": mean.low,
                "high": mean.high,
                "photos": mean.count,
            }
            for column, mean in means.items()
        }
        for method, means in summary(rows, seed=seed).items()
    }


def as_csv(rows: Sequence[Result]) -> str:
    """A CSV table: one line per photo and method, with the value of every metric."""
    columns = columns_of(rows)
    headings = [heading(*column) for column in columns]
    lines = [csv_line(["image", "method", "target", "label", *headings], end="\n")]
    for row in rows:
        values = [
            _value(row, *column) if row.get(column[0]) is not None else "" for column in columns
        ]
        about = [row["image"], row["method"], row["target"], row["label"]]
        lines.append(csv_line([*about, *values], end="\n"))
    return "".join(lines)


def mean_curves(rows: Sequence[Result], protocol: str) -> dict[str, NDArray[np.float64]]:
    """Method → (2, K): its mean insertion and deletion curve under a protocol."""
    means = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        curves = [
            row[protocol]["curves"] for row in rows if row["method"] == method and protocol in row
        ]
        if curves:
            means[method] = np.mean(np.asarray(curves, np.float64), 0)
    return means
