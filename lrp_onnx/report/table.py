"""Results as a table for spreadsheets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lrp_onnx.files.spreadsheet import csv_line
from lrp_onnx.report.results import Line

COLUMNS = (
    "image",
    "class",
    "class_name",
    "probability",
    "label",
    "right",
    "explained",
    "explained_name",
    "explained_probability",
    "sum",
    "sum_positive",
    "sum_negative",
    "overlay",
    "heatmap",
    "values",
    "error",
)


def table_of(lines: Iterable[Line], labels: Mapping[str, int]) -> Iterator[bytes]:
    """A CSV file part by part: UTF-8 with the mark that spreadsheets look for.

    Args:
        lines: explanations and faults.
        labels: file name → true class.

    Yields:
        The line of `COLUMNS`, and then one for every line. Texts can do nothing
        to a spreadsheet or a terminal (see `csv_line`).
    """
    yield b"\xef\xbb\xbf" + csv_line(COLUMNS).encode()
    for line in lines:
        cells = _cells(line, labels.get(Path(line["image"]).name))
        yield csv_line(cells.get(column) for column in COLUMNS).encode()


def _cells(line: Line, label: int | None) -> dict[str, Any]:
    """Column → value."""
    if "error" in line:
        return {"image": line["image"], "label": label, "error": line["error"]}
    best, target, sums = line["top5"][0], line["target"], line["sums"] or {}
    return {
        "image": line["image"],
        "class": best["index"],
        "class_name": best["name"],
        "probability": best.get("probability"),
        "label": label,
        "right": None if label is None else "yes" if label == best["index"] else "no",
        "explained": target["index"],
        "explained_name": target["name"],
        "explained_probability": target["probability"],
        "sum": sums.get("all"),
        "sum_positive": sums.get("positive"),
        "sum_negative": sums.get("negative"),
        **line["files"],
    }
