"""What is evaluated, and what of it a results file knows already."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lrp_onnx.errors import RuleError
from lrp_onnx.evaluation.metrics.localisation import ATTENTION_CLASSES
from lrp_onnx.files.writing import make_folder, write_bytes

Row = dict[str, Any]
NEEDING_MASKS = ("pointing", "mass", "rank", "attention")
"""Metrics that a photo without a mask does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is evaluated, and how."""

    model: Path
    photos: Sequence[Path]
    """No two of one file name: by that name labels and masks are found, and results gone on with.
    """
    methods: Sequence[str]
    metrics: Sequence[str] = ("exact", "keio")
    labels: Mapping[str, int] = field(default_factory=dict)
    """File name → class index; without one the predicted class is taken for the label."""
    masks: Mapping[str, Any] = field(default_factory=dict)
    """File name → the object's mask as a picture's path, or
    as boxes (x0, y0, x1, y1) in the photo's pixels.
    """
    steps: int = 50
    patch: int = 1
    seed: int = 0
    results: Path | None = None
    """JSON lines, one a photo and method, that a later run goes on from."""
    provider: str | None = None
    threads: int | None = None
    choices: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of `compiler.Options`."""

    @property
    def settings(self) -> dict[str, Any]:
        """What must be the same for results to be gone on with."""
        return {
            "model": self.model.name,
            "checksum": zlib.crc32(self.model.read_bytes()),
            "choices": {
                name: repr(value)
                for name, value in sorted(self.choices.items())
                if value is not None
            },
            "steps": self.steps,
            "patch": self.patch,
            "seed": self.seed,
        }


def check_labels(request: Request, classes: int) -> None:
    """Raise RuleError where photos cannot be told apart by name, or a label is no class."""
    twice = [
        name for name, many in Counter(photo.name for photo in request.photos).items() if many > 1
    ]
    if twice:
        raise RuleError(
            f"several photos are called {', '.join(sorted(twice)[:5])}: "
            "evaluate one folder at a time"
        )
    wrong = {name: label for name, label in request.labels.items() if not 0 <= label < classes}
    if wrong:
        some = ", ".join(f"{name}: {label}" for name, label in sorted(wrong.items())[:5])
        raise RuleError(
            f"labels are 0 to {classes - 1} for {request.model}; {len(wrong)} are not ({some})"
        )


def resumed(request: Request) -> list[Row]:
    """What the results file already holds of this request; an incomplete last
    line is left out, and so is what lacks a metric or was found with another
    label or mask. Of two rows of a photo and method the later one counts.
    """
    if request.results is None or not request.results.exists():
        if request.results is not None:
            make_folder(request.results.parent)
            write_bytes(
                request.results, (json.dumps({"settings": request.settings}) + "\n").encode()
            )
        return []
    text = request.results.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    rows = [json.loads(line) for line in whole.splitlines()]
    if not rows or rows[0].get("settings") != request.settings:
        raise RuleError(
            f"{request.results} holds results of other settings: name another file, or remove it"
        )
    if whole != text:
        write_bytes(request.results, whole.encode(), force=True)
    asked = {photo.name for photo in request.photos}
    found: dict[tuple[str, str], Row] = {}
    for row in rows[1:]:
        image = row["image"]
        if image not in asked or row["method"] not in request.methods:
            continue
        same = row["label"] == request.labels.get(image, row["target"]) and row[
            "mask"
        ] == mask_text(request, image)
        wanted = [
            metric for metric in request.metrics if row["seen"] or metric not in NEEDING_MASKS
        ]
        if same and all(column in row for metric in wanted for column in _columns(metric)):
            found[image, row["method"]] = row
    return list(found.values())


def _columns(metric: str) -> tuple[str, ...]:
    return ATTENTION_CLASSES if metric == "attention" else (metric,)


def mask_text(request: Request, image: str) -> str | None:
    """Which mask a photo has, as text."""
    source = request.masks.get(image)
    return None if source is None else source.name if isinstance(source, Path) else str(source)


def append(path: Path | None, row: Row) -> None:
    """Add a row to a results file."""
    if path is not None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
