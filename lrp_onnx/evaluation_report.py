"""The `evaluate` command's results as tables and curves."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from lrp_onnx.evaluation.curves import PROTOCOLS
from lrp_onnx.evaluation.intervals import Mean, mean_of

Row = Mapping[str, Any]
PARTS = ("insertion", "deletion", "id")
"""What a protocol says of a map; a table shows the last unless all are asked for."""


def columns_of(rows: Sequence[Row]) -> list[tuple[str, str | None]]:
    """(metric, part or None) in the order that they appear in."""
    found: dict[tuple[str, str | None], None] = {}
    skipped = {"image", "method", "target", "label", "mask", "seen", "probability"}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, Mapping):
                found.update({(name, part): None for part in PARTS})
            elif name not in skipped:
                found[name, None] = None
    return list(found)


def summary(rows: Sequence[Row], *, seed: int = 0) -> dict[str, dict[tuple[str, str | None], Mean]]:
    """Method → column → mean over the photos that have it, with its interval."""
    columns = columns_of(rows)
    found: dict[str, dict[tuple[str, str | None], Mean]] = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        found[method] = {
            (metric, part): mean_of(
                [_value(row, metric, part) for row in mine if row.get(metric) is not None], seed=seed
            )
            for metric, part in columns
        }
    return found


def _value(row: Row, metric: str, part: str | None) -> float:
    return float(row[metric] if part is None else row[metric][part])


def heading(metric: str, part: str | None) -> str:
    """A column's name."""
    return metric if part is None else f"{metric} {part.upper() if part == 'id' else part}"


def shown(columns: Sequence[tuple[str, str | None]]) -> list[tuple[str, str | None]]:
    """The columns of a table for reading: of a protocol only ID."""
    return [column for column in columns if column[1] in (None, "id")]


def markdown(rows: Sequence[Row], *, every: bool = False, seed: int = 0) -> str:
    """A table of means with intervals; `every` also shows insertion and deletion."""
    found = summary(rows, seed=seed)
    columns = columns_of(rows) if every else shown(columns_of(rows))
    lines = [
        "| method | photos | " + " | ".join(heading(*column) for column in columns) + " |",
        "|---|---|" + "---|" * len(columns),
    ]
    for method, means in found.items():
        photos = sum(row["method"] == method for row in rows)
        lines.append(f"| {method} | {photos} | " + " | ".join(str(means[column]) for column in columns) + " |")
    return "\n".join(lines)


def evaluation_table(rows: Sequence[Row], *, seed: int = 0) -> Table:
    """The same for a terminal."""
    found = summary(rows, seed=seed)
    columns = shown(columns_of(rows))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("method", *(heading(*column) for column in columns)):
        table.add_column(name, no_wrap=True)
    for method, means in found.items():
        table.add_row(method, *(str(means[column]) for column in columns))
    return table


def as_json(rows: Sequence[Row], *, seed: int = 0) -> dict[str, Any]:
    """Method → metric → mean, interval and count."""
    return {
        method: {
            heading(*column): {"mean": mean.value, "low": mean.low, "high": mean.high, "photos": mean.count}
            for column, mean in means.items()
        }
        for method, means in summary(rows, seed=seed).items()
    }


def as_csv(rows: Sequence[Row]) -> str:
    """One line a photo and method, every metric's value."""
    columns = columns_of(rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "method", "target", "label", *(heading(*column) for column in columns)])
    for row in rows:
        values = [_value(row, *column) if row.get(column[0]) is not None else "" for column in columns]
        writer.writerow([row["image"], row["method"], row["target"], row["label"], *values])
    return text.getvalue()


def mean_curves(rows: Sequence[Row], protocol: str) -> dict[str, NDArray[np.float64]]:
    """Method → (2, K): mean insertion and deletion curve."""
    found = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        curves = [row[protocol]["curves"] for row in rows if row["method"] == method and protocol in row]
        if curves:
            found[method] = np.mean(np.asarray(curves, np.float64), 0)
    return found


def draw_curves(curves: Mapping[str, NDArray[np.float64]], title: str, *, size: int = 360) -> NDArray[np.uint8]:
    """Insertion beside deletion, (H, W, 3) uint8 RGB; probability upwards, share of pixels to the right. `title` is the
    protocol's name, which tells whether curves start before the first step.
    """
    first = 0 if title not in PROTOCOLS or PROTOCOLS[title].from_zero else 1
    margin, legend = 46, 22 * (1 + len(curves)) + 10
    picture = np.full((size + 2 * margin + legend, 2 * (size + 2 * margin), 3), 255, np.uint8)
    for index, name in enumerate(("insertion", "deletion")):
        left, top = margin + index * (size + 2 * margin), margin
        cv2.rectangle(picture, (left, top), (left + size, top + size), (160, 160, 160), 1)
        _write(picture, f"{title}: {name}", (left, top - 14))
        for height in (0.0, 0.5, 1.0):
            _write(picture, f"{height:.1f}", (left - 34, top + round(size * (1 - height)) + 5))
        _write(picture, "0 %", (left, top + size + 20))
        _write(picture, "100 %", (left + size - 40, top + size + 20))
        for ink, curve in zip(_inks(len(curves)), curves.values(), strict=True):
            xs = left + np.linspace(first / curve.shape[1], 1, curve.shape[1]) * size
            ys = top + size * (1 - curve[index])
            points = np.round(np.stack([xs, ys], 1) * 16).astype(np.int32).reshape(-1, 1, 2)
            cv2.polylines(picture, [points], False, ink, 2, cv2.LINE_AA, 4)
    for row, (ink, name) in enumerate(zip(_inks(len(curves)), curves, strict=True)):
        y = size + 2 * margin + 22 * row
        cv2.line(picture, (margin, y), (margin + 26, y), ink, 3, cv2.LINE_AA)
        _write(picture, name, (margin + 36, y + 5))
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def _inks(many: int) -> list[tuple[int, int, int]]:
    """Colours (BGR) that differ in hue, and neighbours in brightness too."""
    colours = [(180 * index // max(many, 1), 230, 220 if index % 2 else 140) for index in range(many)]
    drawn = cv2.cvtColor(np.asarray([colours], np.uint8).reshape(1, -1, 3), cv2.COLOR_HSV2BGR)[0]
    return [(int(b), int(g), int(r)) for b, g, r in drawn]


def _write(picture: NDArray[np.uint8], text: str, place: tuple[int, int]) -> None:
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
