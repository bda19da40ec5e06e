"""Rows of results as means with intervals: as data, as CSV, as Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.evaluation.metrics.intervals import Mean, mean_of
from lrp_onnx.evaluation.request import Result

PARTS = ("insertion", "deletion", "id")
"""The numbers of a protocol; a table shows the last one, unless all are wanted."""
NO_METRICS = {"image", "method", "target", "label", "mask", "seen", "probability"}
"""Of a result, what is no metric."""
Column = tuple[str, str | None]
"""(metric, part of a protocol or None)."""


def columns_of(rows: Sequence[Result]) -> list[Column]:
    """The columns of some results, in the order that they appear in."""
    columns: dict[Column, None] = {}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, Mapping):
                columns.update({(name, part): None for part in PARTS})
            elif name not in NO_METRICS:
                columns[name, None] = None
    return list(columns)


def summary(rows: Sequence[Result], *, seed: int = 0) -> dict[str, dict[Column, Mean]]:
    """Method → column → mean over the photos that have it, with its interval."""
    columns = columns_of(rows)
    means: dict[str, dict[Column, Mean]] = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        means[method] = {
            (metric, part): mean_of(
                [_value(row, metric, part) for row in own if row.get(metric) is not None], seed=seed
            )
            for metric, part in columns
        }
    return means


def _value(row: Result, metric: str, part: str | None) -> float:
    return float(row[metric] if part is None else row[metric][part])


def heading(metric: str, part: str | None) -> str:
    """A column's name."""
    return metric if part is None else f"{metric} {part.upper() if part == 'id' else part}"


def shown(columns: Sequence[Column]) -> list[Column]:
    """The columns of a table for reading: of a protocol only ID."""
    return [column for column in columns if column[1] in (None, "id")]


def markdown(rows: Sequence[Result], *, every: bool = False, seed: int = 0) -> str:
    """A table of means with intervals; `every` also shows insertion and deletion."""
    means_of = summary(rows, seed=seed)
    columns = columns_of(rows) if every else shown(columns_of(rows))
    lines = [
        "| method | photos | " + " | ".join(heading(*column) for column in columns) + " |",
        "|---|---|" + "---|" * len(columns),
    ]
    for method, means in means_of.items():
        photos = sum(row["method"] == method for row in rows)
        lines.append(f"| {method} | {photos} | " + " | ".join(str(means[column]) for column in columns) + " |")
    return "\n".join(lines)


def as_json(rows: Sequence[Result], *, seed: int = 0) -> dict[str, Any]:
    """Method → metric → mean, interval and count."""
    return {
        method: {
            heading(*column): {"mean": mean.value, "low": mean.low, "high": mean.high, "photos": mean.count}
            for column, mean in means.items()
        }
        for method, means in summary(rows, seed=seed).items()
    }


def as_csv(rows: Sequence[Result]) -> str:
    """One line a photo and method, every metric's value."""
    columns = columns_of(rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "method", "target", "label", *(heading(*column) for column in columns)])
    for row in rows:
        values = [_value(row, *column) if row.get(column[0]) is not None else "" for column in columns]
        writer.writerow([row["image"], row["method"], row["target"], row["label"], *values])
    return text.getvalue()


def mean_curves(rows: Sequence[Result], protocol: str) -> dict[str, NDArray[np.float64]]:
    """Method → (2, K): mean insertion and deletion curve."""
    means = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        curves = [row[protocol]["curves"] for row in rows if row["method"] == method and protocol in row]
        if curves:
            means[method] = np.mean(np.asarray(curves, np.float64), 0)
    return means
