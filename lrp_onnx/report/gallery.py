"""The `explain` command's work: every picture's explanation as pictures, raw values and one JSON
line.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lrp_onnx.errors import OutputError, OutputExistsError
from lrp_onnx.files.writing import make_folder, write_bytes
from lrp_onnx.maps.resample import Map
from lrp_onnx.report.render import RenderStyle, colorize, overlay, panel, write_png
from lrp_onnx.runtime.explanation import Explanation

LINES = "explanations.jsonl"
SHEET = "sheet.png"
SHEET_ROW, SHEET_MOST = 224, 12
"""Height of a row of the sheet in pixels, and its most rows."""
SMALLEST_OVERLAY = 288
"""Height in pixels below which a picture is enlarged for its overlay."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Where one picture's results go."""

    overlay: Path
    heatmap: Path
    values: Path

    @classmethod
    def of(cls, folder: Path, stem: str) -> Paths:
        """The three files of the picture called `stem`."""
        return cls(folder / f"{stem}.overlay.png", folder / f"{stem}.heatmap.png", folder / f"{stem}.npz")


def plan_paths(folder: Path, pictures: Sequence[Path], *, each: int = 1, force: bool) -> list[Paths]:
    """Where every explanation's results go.

    `each` of them a picture, numbered where that is more than one. Pictures of the same name from
    different folders get their folder's name in front.

    Raises:
        OutputError: `folder` is a file.
        OutputExistsError: a result exists and `force` is not set.
    """
    endings = [f".{number + 1}" for number in range(each)] if each > 1 else [""]
    paths_of = [Paths.of(folder, stem + ending) for stem in _unique_stems(pictures) for ending in endings]
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file: name a folder with -o/--output")
    results = [path for p in paths_of for path in (p.overlay, p.heatmap, p.values)] + [
        folder / LINES,
        folder / SHEET,
    ]
    existing = [path for path in results if path.exists()]
    if existing and not force:
        raise OutputExistsError(
            f"{existing[0]} and {len(existing) - 1} other results exist: give another -o/--output, "
            "or --force to overwrite them"
        )
    return paths_of


def _unique_stems(pictures: Sequence[Path]) -> list[str]:
    for name in (lambda p: p.stem, lambda p: p.name, lambda p: f"{p.resolve().parent.name}-{p.name}"):
        stems = [name(picture) for picture in pictures]
        if max(Counter(stems).values(), default=1) == 1:
            return stems
    return [f"{index:06d}-{picture.name}" for index, picture in enumerate(pictures)]


def write(explanation: Explanation, shown: Map, paths: Paths, *, style: RenderStyle, force: bool) -> dict[str, Any]:
    """Write one picture's files; `shown` is its map after post-processing.

    Returns:
        Its JSON line as data.

    Raises:
        OutputError: a file cannot be written.
    """
    write_png(paths.overlay, overlay(_visible(explanation.picture), shown, style), force=force)
    write_png(paths.heatmap, colorize(shown, style), force=force)
    write_bytes(paths.values, _npz(explanation, shown), force=force)
    return {
        "image": str(explanation.path),
        "target": {"index": explanation.target, "name": explanation.target_name},
        "top5": _top(explanation.top5),
        "start": {"from": explanation.start, "value": explanation.start_value},
        "sums": _sums(explanation.heatmap),
        "provider": explanation.provider,
        "seconds": dict(explanation.seconds),
        "files": {"overlay": paths.overlay.name, "heatmap": paths.heatmap.name, "values": paths.values.name},
    }


def _sums(heatmap: Map) -> dict[str, float]:
    """What the map sums to, and how much of it is positive and negative."""
    values = heatmap.astype(np.float64)
    return {"all": values.sum(), "positive": values[values > 0].sum(), "negative": values[values < 0].sum()}


def sheet(rows: Sequence[tuple[Explanation, Map]], style: RenderStyle) -> NDArray[np.uint8]:
    """One picture of several: picture, heatmap and overlay side by side, a row each, with what was
    explained below.
    """
    panels = [
        panel(
            _visible(explanation.picture),
            shown,
            style,
            captions=("picture", "relevance", _caption(explanation)),
            height=SHEET_ROW,
        )
        for explanation, shown in rows
    ]
    width = max(p.shape[1] for p in panels)
    padded = [np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in panels]
    return np.concatenate(padded)


def _caption(explanation: Explanation) -> str:
    chance = next((f" {p:.0%}" for index, _, p in explanation.top5 if index == explanation.target), "")
    return f"{explanation.target_name or explanation.target}{chance}"


def _visible(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A small picture enlarged, so that an overlay on it can be seen."""
    rows, columns = picture.shape[:2]
    if rows >= SMALLEST_OVERLAY:
        return picture
    size = (round(columns * SMALLEST_OVERLAY / rows), SMALLEST_OVERLAY)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def _top(top: Iterable[tuple[int, str, float]]) -> list[Mapping[str, Any]]:
    return [{"index": index, "name": name, "probability": probability} for index, name, probability in top]


def _npz(explanation: Explanation, shown: Map) -> bytes:
    arrays: dict[str, NDArray[Any]] = {"heatmap": explanation.heatmap, "scores": explanation.scores}
    if shown is not explanation.heatmap:
        arrays["post_processed"] = shown
    if explanation.relevance is not None:
        arrays["relevance"] = explanation.relevance
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def write_all(
    explanations: Iterable[Explanation],
    paths_of: Sequence[Paths],
    folder: Path,
    *,
    post: Callable[[Map], Map] | None,
    style: RenderStyle,
    force: bool,
) -> Iterator[dict[str, Any]]:
    """Write every explanation's files as it comes, then all lines and the sheet; yields each line's
    data.
    """
    lines: list[str] = []
    rows: list[tuple[Explanation, Map]] = []
    for explanation, paths in zip(explanations, paths_of, strict=True):
        make_folder(folder)
        shown = post(explanation.heatmap) if post else explanation.heatmap
        line = write(explanation, shown, paths, style=style, force=force)
        lines.append(json.dumps(line))
        if len(rows) < SHEET_MOST:
            rows.append((explanation, shown))
        yield line
    write_bytes(folder / LINES, ("\n".join(lines) + "\n").encode(), force=force)
    write_png(folder / SHEET, sheet(rows, style), force=force)
