"""Results as a table for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

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
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What the text of a cell may not begin with: a spreadsheet would compute it."""


def table_of(lines: Iterable[Line], labels: Mapping[str, int]) -> Iterator[bytes]:
    """A CSV file part by part: UTF-8 with the mark that spreadsheets look for.

    Args:
        lines: explanations and faults.
        labels: file name → true class.

    Yields:
        The line of `COLUMNS`, and then one for every line. A text that a spreadsheet would take for
        a formula begins with an apostrophe.
    """
    yield b"\xef\xbb\xbf" + _row(COLUMNS)
    for line in lines:
        cells = _cells(line, labels.get(Path(line["image"]).name))
        yield _row([cells.get(column) for column in COLUMNS])


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


def _row(cells: Iterable[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow([_harmless(cell) for cell in cells])
    return text.getvalue().encode(errors="backslashreplace")


def _harmless(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell
