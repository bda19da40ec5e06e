"""The request of an evaluation, and the file of its results."""

from __future__ import annotations

import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lrp_onnx.errors import ImageError, OutputError, RuleError
from lrp_onnx.evaluation.baselines import Baseline
from lrp_onnx.evaluation.kept import Kept, forget
from lrp_onnx.evaluation.methods import read_method
from lrp_onnx.evaluation.metrics.localisation import ATTENTION_CLASSES
from lrp_onnx.files.writing import append_line, make_folder, write_bytes

Result = Mapping[str, Any]
"""The result of one photo and method: what was explained, and the value of every metric."""
NEEDING_MASKS = ("pointing", "mass", "rank", "attention")
"""Metrics that need the object's mask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is evaluated, and how."""

    model: Path
    photos: Sequence[Path]
    """Their file names must differ: labels, masks and stored results refer to them."""
    methods: Sequence[str]
    metrics: Sequence[str] = ("exact", "keio")
    labels: Mapping[str, int] = field(default_factory=dict)
    """File name → class index; a photo without one takes the predicted class as its label."""
    masks: Mapping[str, Any] = field(default_factory=dict)
    """File name → the object's mask: the path of a picture, or boxes (x0, y0, x1, y1) in pixels."""
    steps: int = 50
    """Steps of insertion and deletion curves."""
    patch: int = 1
    """Side in pixels of the squares that are inserted or deleted."""
    seed: int = 0
    """Seed of ties, random masks and noise."""
    results: Path | None = None
    """A file of JSON lines, one per photo and method, which a later run continues.

    Beside it lie the maps of unfinished results, in a folder that is removed in the end.
    """
    provider: str | None = None
    threads: int | None = None
    choices: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of `compiler.Options`."""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that stored results must share with this request."""
        sources = [read_method(name).source for name in self.methods]
        others = any(isinstance(source, Baseline) and source.reads_others for source in sources)
        return {
            **({"photos": self.photos_checksum} if others else {}),
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

    @property
    def photos_checksum(self) -> int:
        """Of all photos, names and content; raises ImageError where one cannot be read."""
        checksum = 0
        for photo in self.photos:
            try:
                content = photo.read_bytes()
            except OSError as error:
                raise ImageError(f"{photo} cannot be read: {error.strerror or error}") from error
            checksum = zlib.crc32(content, zlib.crc32(os.fsencode(photo.name), checksum))
        return checksum

    @property
    def kept(self) -> Kept:
        """Where maps lie while they are not scored, of this request and these photos alone."""
        if self.results is None:
            return Kept(None, "")
        key = {"settings": self.settings, "photos": self.photos_checksum}
        return Kept(self.results, json.dumps(key, sort_keys=True))


def check_labels(request: Request, classes: int) -> None:
    """Check the photos' names and labels.

    Args:
        request: what is evaluated.
        classes: the model's number of classes.

    Raises:
        RuleError: two photos have the same name, or a label is not a class.
    """
    counts = Counter(photo.name for photo in request.photos)
    repeated = sorted(name for name, count in counts.items() if count > 1)
    if repeated:
        names = ", ".join(repeated[:5])
        raise RuleError(f"several photos are called {names}: evaluate one folder at a time")
    invalid = sorted(
        (name, label) for name, label in request.labels.items() if not 0 <= label < classes
    )
    if invalid:
        first = ", ".join(f"{name}: {label}" for name, label in invalid[:5])
        raise RuleError(
            f"labels are 0 to {classes - 1} for {request.model}; {len(invalid)} are not ({first})"
        )


def resumed(request: Request, say: Callable[[str], None] = lambda text: None) -> list[Result]:
    """The results of this request in its results file; a missing file is created.

    What follows the last line's end is removed, and damaged lines do not count, which `say` is
    told. A result is ignored if it lacks a metric or has another label or mask. Of two results of a
    photo and method the later one counts.

    Raises:
        RuleError: the file has results of other settings, or its first line is damaged.
        OutputError: it cannot be written.
    """
    path = request.results
    if path is None:
        return []
    if not path.exists() or not _read(path).strip(b"\0\r\n "):  # all zeros: after a power cut
        forget(path)  # another run's
        make_folder(path.parent)
        write_bytes(path, _line({"settings": request.settings}), force=True)
        return []
    data = _read(path)
    whole = data[: data.rfind(b"\n") + 1]
    settings, stored = _parsed(path, whole)
    if settings != request.settings:
        raise RuleError(f"{path} holds results of other settings: name another file, or remove it")
    if whole != data:
        write_bytes(path, whole, force=True)
    if damaged := len(whole.splitlines()) - 1 - len(stored):
        say(f"{path}: lines that are damaged do not count: {damaged}")
    images = {photo.name for photo in request.photos}
    results = {
        (result["image"], result["method"]): result
        for result in stored
        if result["image"] in images and _answers(result, request)
    }
    return list(results.values())


def put_in_order(request: Request, results: Iterable[Result]) -> None:
    """Write the results file anew where its lines are not these results, then those of other photos
    and methods, each once.

    Raises:
        RuleError, OutputError: it cannot be read, or written.
    """
    path = request.results
    if path is None:
        return
    data = _read(path)
    own = {(result["image"], result["method"]): result for result in results}
    _, stored = _parsed(path, data)
    others = {(result["image"], result["method"]): result for result in stored}
    ordered = (*own.values(), *(result for key, result in others.items() if key not in own))
    lines = [_line({"settings": request.settings}), *map(_line, ordered)]
    if data != b"".join(lines):
        write_bytes(path, lines, force=True)


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RuleError(
            f"{path} cannot be continued: {error.strerror or error}; name another file"
        ) from error


def _parsed(path: Path, data: bytes) -> tuple[Any, list[Result]]:
    """The settings and the results in a results file; lines that are damaged are left out.

    Raises:
        RuleError: the line of the settings is damaged.
    """
    first, *others = data.splitlines() or [b""]
    try:
        settings = json.loads(first)["settings"]
    except (ValueError, LookupError, TypeError) as error:
        raise RuleError(
            f"{path} cannot be continued: its first line, which holds the settings, is damaged: "
            "name another file, or remove it"
        ) from error
    return settings, [result for line in others if (result := _result(line)) is not None]


def _result(line: bytes) -> Result | None:
    """A result, or None of a line that is damaged."""
    try:
        result = json.loads(line)
        texts = (result["image"], result["method"])
        known = {"target", "label", "mask", "seen", "probability"} <= result.keys()
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return result if known and all(isinstance(text, str) for text in texts) else None


def _answers(result: Result, request: Request) -> bool:
    """Whether a stored result has a method of the request, its label and mask, and all metrics."""
    image = result["image"]
    if result["method"] not in request.methods:
        return False
    same_label = result["label"] == request.labels.get(image, result["target"])
    same_mask = result["mask"] == mask_text(request, image)
    needed = [name for name in request.metrics if result["seen"] or name not in NEEDING_MASKS]
    columns = [column for metric in needed for column in _columns(metric)]
    return same_label and same_mask and all(column in result for column in columns)


def _columns(metric: str) -> tuple[str, ...]:
    return ATTENTION_CLASSES if metric == "attention" else (metric,)


def mask_text(request: Request, image: str) -> str | None:
    """The photo's mask as text: a file name or boxes; None where it has none."""
    source = request.masks.get(image)
    if source is None:
        return None
    return source.name if isinstance(source, Path) else str(source)


def append(path: Path | None, result: Result) -> None:
    """Append a result to a results file; `path` None does nothing.

    Raises:
        OutputError: the file cannot be written, or is gone: a new one would lack the settings.
    """
    if path is None:
        return
    if not path.exists():
        raise OutputError(f"{path} cannot be written: it was removed while it was in use")
    append_line(path, json.dumps(result))
