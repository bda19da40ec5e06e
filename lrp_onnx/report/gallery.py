"""The files of the `explain` command: pictures, raw values and JSON lines of explanations."""

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
"""Height in pixels of a row of the sheet, and its largest number of rows."""
SMALLEST_OVERLAY = 288
"""Height in pixels below which a picture is enlarged before its overlay is drawn."""


@dataclass(frozen=True, slots=True)
class Paths:
    """The files of one explanation."""

    overlay: Path
    heatmap: Path
    values: Path

    @classmethod
    def of(cls, folder: Path, stem: str) -> Paths:
        """The files in `folder` whose names begin with `stem`."""
        return cls(
            folder / f"{stem}.overlay.png", folder / f"{stem}.heatmap.png", folder / f"{stem}.npz"
        )


def plan_paths(
    folder: Path, pictures: Sequence[Path], *, each: int = 1, force: bool
) -> list[Paths]:
    """The files of all explanations. Nothing is written.

    Args:
        folder: where the files go.
        pictures: the pictures. Those of equal names get the name of their folder in front.
        each: explanations per picture; more than one are numbered from 1.
        force: whether existing files are overwritten.

    Returns:
        `each` entries for every picture, in the order of `pictures`.

    Raises:
        OutputError: `folder` is a file.
        OutputExistsError: a file exists and `force` is not set.
    """
    endings = [f".{number + 1}" for number in range(each)] if each > 1 else [""]
    paths_of = [
        Paths.of(folder, stem + ending) for stem in _unique_stems(pictures) for ending in endings
    ]
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file: name a folder with -o/--output")
    results = [path for p in paths_of for path in (p.overlay, p.heatmap, p.values)]
    results += [folder / LINES, folder / SHEET]
    existing = [path for path in results if path.exists()]
    if existing and not force:
        raise OutputExistsError(
            f"{existing[0]} and {len(existing) - 1} other results exist: give another -o/--output, "
            "or --force to overwrite them"
        )
    return paths_of


def _unique_stems(pictures: Sequence[Path]) -> list[str]:
    """The shortest names that differ: stem, file name, with the folder, with a number."""
    for name in (
        lambda p: p.stem,
        lambda p: p.name,
        lambda p: f"{p.resolve().parent.name}-{p.name}",
    ):
        stems = [name(picture) for picture in pictures]
        if max(Counter(stems).values(), default=1) == 1:
            return stems
    return [f"{index:06d}-{picture.name}" for index, picture in enumerate(pictures)]


def write(
    explanation: Explanation, heatmap: Map, paths: Paths, *, style: RenderStyle, force: bool
) -> dict[str, Any]:
    """Write the files of one explanation.

    Args:
        explanation: what is written.
        heatmap: its (H, W) heatmap after post-processing.
        paths: the files.
        style: how the heatmap is drawn.
        force: whether existing files are overwritten.

    Returns:
        The data of its JSON line.

    Raises:
        OutputError: a file cannot be written.
    """
    write_png(paths.overlay, overlay(_visible(explanation.picture), heatmap, style), force=force)
    write_png(paths.heatmap, colorize(heatmap, style), force=force)
    write_bytes(paths.values, _npz(explanation, heatmap), force=force)
    return {
        "image": str(explanation.path),
        "target": {"index": explanation.target, "name": explanation.target_name},
        "top5": _top(explanation),
        "start": {"from": explanation.start, "value": explanation.start_value},
        "sums": _sums(explanation.heatmap_raw),
        "provider": explanation.provider,
        "seconds": dict(explanation.seconds),
        "files": {
            "overlay": paths.overlay.name,
            "heatmap": paths.heatmap.name,
            "values": paths.values.name,
        },
    }


def _sums(heatmap: Map | None) -> dict[str, float] | None:
    """The sums of all, of the positive and of the negative relevance; None of no map."""
    if heatmap is None:
        return None
    values = heatmap.astype(np.float64)
    return {
        "all": values.sum(),
        "positive": values[values > 0].sum(),
        "negative": values[values < 0].sum(),
    }


def sheet(rows: Sequence[tuple[Explanation, Map]], style: RenderStyle) -> NDArray[np.uint8]:
    """Picture, heatmap and overlay of several explanations, one row each, with captions.

    Args:
        rows: at least one explanation with its (H, W) heatmap after post-processing.
        style: how heatmaps are drawn.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    panels = [
        panel(
            _visible(explanation.picture),
            heatmap,
            style,
            captions=("picture", "relevance", _caption(explanation)),
            height=SHEET_ROW,
        )
        for explanation, heatmap in rows
    ]
    width = max(p.shape[1] for p in panels)
    padded = [
        np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in panels
    ]
    return np.concatenate(padded)


def _caption(explanation: Explanation) -> str:
    """The explained class, and its probability (of a feature map, its mean) if it is one of the
    best five.
    """
    values = {index: value for index, _, value in explanation.top5}
    name = explanation.target_name or str(explanation.target)
    if explanation.target not in values:
        return name
    value = values[explanation.target]
    return f"{name} {value:.3g}" if explanation.kind == "features" else f"{name} {value:.0%}"


def _visible(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture, at least `SMALLEST_OVERLAY` pixels high."""
    rows, columns = picture.shape[:2]
    if rows >= SMALLEST_OVERLAY:
        return picture
    size = (round(columns * SMALLEST_OVERLAY / rows), SMALLEST_OVERLAY)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def _top(explanation: Explanation) -> list[Mapping[str, Any]]:
    """The best classes with their ``probability``; channels of a feature map have a ``mean``."""
    measure = "mean" if explanation.kind == "features" else "probability"
    return [
        {"index": index, "name": name, measure: value} for index, name, value in explanation.top5
    ]


def _npz(explanation: Explanation, heatmap: Map) -> bytes:
    arrays: dict[str, NDArray[Any]] = {"scores": explanation.scores}
    if explanation.heatmap_raw is not None:
        arrays["heatmap"] = explanation.heatmap_raw
    if heatmap is not explanation.heatmap_raw:
        arrays["post_processed"] = heatmap
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
    """Write the files of every explanation, then all JSON lines and the sheet.

    Args:
        explanations: may be computed one after the other.
        paths_of: the files of each, as `plan_paths` gives them.
        folder: where JSON lines and sheet go; it is created.
        post: post-processing of the maps that the file gives raw; None shows the file's own
            heatmaps.
        style: how heatmaps are drawn.
        force: whether existing files are overwritten.

    Yields:
        The data of every JSON line, after the files of its explanation are written.

    Raises:
        OutputError: a file cannot be written.
    """
    lines: list[str] = []
    rows: list[tuple[Explanation, Map]] = []
    for explanation, paths in zip(explanations, paths_of, strict=True):
        make_folder(folder)
        raw = explanation.heatmap_raw
        heatmap = explanation.heatmap if post is None or raw is None else post(raw)
        line = write(explanation, heatmap, paths, style=style, force=force)
        lines.append(json.dumps(line))
        if len(rows) < SHEET_MOST:
            rows.append((explanation, heatmap))
        yield line
    write_bytes(folder / LINES, ("\n".join(lines) + "\n").encode(), force=force)
    write_png(folder / SHEET, sheet(rows, style), force=force)
