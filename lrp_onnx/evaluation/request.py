"""What is evaluated, and the results of it that a file holds already."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lrp_onnx.errors import RuleError
from lrp_onnx.evaluation.metrics.localisation import ATTENTION
from lrp_onnx.files.writing import append_line, make_folder, write_bytes

Result = Mapping[str, Any]
"""One photo under one method: what was explained, and every metric's value."""
NEEDING_MASKS = ("pointing", "mass", "rank", "attention")
"""Metrics that need the object's mask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is evaluated, and how."""

    model: Path
    photos: Sequence[Path]
    """No two of one file name: labels, masks and earlier results are found by that name."""
    methods: Sequence[str]
    metrics: Sequence[str] = ("exact", "keio")
    labels: Mapping[str, int] = field(default_factory=dict)
    """File name → class index; without one the predicted class is taken for the label."""
    masks: Mapping[str, Any] = field(default_factory=dict)
    """File name → the object's mask as a picture's path, or as boxes (x0, y0, x1, y1) in the
    photo's pixels.
    """
    steps: int = 50
    patch: int = 1
    seed: int = 0
    results: Path | None = None
    """A file of JSON lines, one a photo and method, that a later run goes on from."""
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
            "choices": {name: repr(value) for name, value in sorted(self.choices.items()) if value is not None},
            "steps": self.steps,
            "patch": self.patch,
            "seed": self.seed,
        }


def check_labels(request: Request, classes: int) -> None:
    """Compare photos and labels with a model of so many `classes`.

    Raises:
        RuleError: two photos have one name, or a label is no class.
    """
    counts = Counter(photo.name for photo in request.photos)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        names = ", ".join(twice[:5])
        raise RuleError(f"several photos are called {names}: evaluate one folder at a time")
    wrong = sorted((name, label) for name, label in request.labels.items() if not 0 <= label < classes)
    if wrong:
        first = ", ".join(f"{name}: {label}" for name, label in wrong[:5])
        raise RuleError(f"labels are 0 to {classes - 1} for {request.model}; {len(wrong)} are not ({first})")


def resumed(request: Request) -> list[Result]:
    """The results of this request that its file holds already; an empty file is begun.

    Left out are an incomplete last line, and what lacks a metric or was made with another label or
    mask. Of two results of a photo and method the later one counts.

    Raises:
        RuleError: the file holds results of other settings, or is damaged.
        OutputError: it cannot be written.
    """
    path = request.results
    if path is None:
        return []
    if not path.exists():
        make_folder(path.parent)
        write_bytes(path, (json.dumps({"settings": request.settings}) + "\n").encode())
        return []
    settings, *stored = _stored(path) or [{}]
    if settings.get("settings") != request.settings:
        raise RuleError(f"{path} holds results of other settings: name another file, or remove it")
    asked = {photo.name for photo in request.photos}
    results = {(one["image"], one["method"]): one for one in stored if one["image"] in asked and _answers(one, request)}
    return list(results.values())


def _stored(path: Path) -> list[Result]:
    """Every whole line of a results file; an incomplete last one is cut off."""
    try:
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        lines: list[Result] = [json.loads(line) for line in whole.splitlines()]
    except (OSError, ValueError) as error:
        raise RuleError(f"{path} cannot be gone on with: {error}; name another file") from error
    if whole != text:
        write_bytes(path, whole.encode(), force=True)
    return lines


def _answers(result: Result, request: Request) -> bool:
    """Whether a stored result is one of this request's methods, with the same label and mask and
    with all metrics.
    """
    image = result["image"]
    if result["method"] not in request.methods:
        return False
    same_label = result["label"] == request.labels.get(image, result["target"])
    same_mask = result["mask"] == mask_text(request, image)
    needed = [name for name in request.metrics if result["seen"] or name not in NEEDING_MASKS]
    columns = [column for metric in needed for column in _columns(metric)]
    return same_label and same_mask and all(column in result for column in columns)


def _columns(metric: str) -> tuple[str, ...]:
    return ATTENTION if metric == "attention" else (metric,)


def mask_text(request: Request, image: str) -> str | None:
    """Which mask a photo has, as text."""
    source = request.masks.get(image)
    return None if source is None else source.name if isinstance(source, Path) else str(source)


def append(path: Path | None, result: Result) -> None:
    """Add a result to a results file, if there is one; raises OutputError."""
    if path is not None:
        append_line(path, json.dumps(result))
