"""The files of the `explain` command: pictures, raw values and JSON lines of explanations."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lrp_onnx.contract import C3_REGION, HEATMAP, HEATMAP_RAW, RELEVANCE
from lrp_onnx.errors import OutputError, OutputExistsError
from lrp_onnx.files.writing import make_folder, write_bytes
from lrp_onnx.maps.chain import Chain
from lrp_onnx.maps.resample import Map, resample
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
    explanation: Explanation,
    paths: Paths,
    *,
    style: RenderStyle,
    force: bool,
    outlined: bool = False,
) -> dict[str, Any]:
    """Write the files of one explanation.

    Args:
        explanation: what is written.
        paths: the files.
        style: how the heatmap is drawn.
        force: whether existing files are overwritten.
        outlined: whether the region of C3 is drawn as a line over the picture.

    Returns:
        The data of its JSON line.

    Raises:
        OutputError: a file cannot be written.
    """
    picture, heatmap = _visible(explanation.picture), explanation.heatmap
    region = explanation.region if outlined else None
    drawn = overlay(picture, heatmap, style, mask=region)
    write_png(paths.overlay, drawn, force=force)
    write_png(paths.heatmap, colorize(heatmap, style), force=force)
    write_bytes(paths.values, _npz(explanation), force=force)
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


def sheet(
    rows: Sequence[Explanation], style: RenderStyle, *, outlined: bool = False
) -> NDArray[np.uint8]:
    """Picture, heatmap and overlay of several explanations, one row each, with captions.

    Args:
        rows: at least one explanation.
        style: how heatmaps are drawn.
        outlined: whether the region of C3 is drawn as a line in the overlay.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    panels = [
        panel(
            _visible(explanation.picture),
            explanation.heatmap,
            style,
            mask=explanation.region if outlined else None,
            captions=("picture", "relevance", _caption(explanation)),
            height=SHEET_ROW,
        )
        for explanation in rows
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


def _with_post(explanation: Explanation, post: Chain) -> Explanation:
    """The explanation with another post-processing than the file's own."""
    before = _unprocessed(explanation)
    return replace(explanation, heatmap=post(before), region=post.region(before))


def _unprocessed(explanation: Explanation) -> Map:
    """The map before post-processing, of the picture's size."""
    shown, raw = explanation.heatmap, explanation.heatmap_raw
    if raw is None:
        return shown
    return resample(raw, (shown.shape[0], shown.shape[1]), method="bilinear")


def _npz(explanation: Explanation) -> bytes:
    """The arrays under the names of a compiled file's outputs, and ``scores``."""
    arrays = {
        "scores": explanation.scores,
        HEATMAP: explanation.heatmap,
        HEATMAP_RAW: explanation.heatmap_raw,
        C3_REGION: explanation.region,
        RELEVANCE: explanation.relevance,
    }
    known = {name: values for name, values in arrays.items() if values is not None}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **known)
    return buffer.getvalue()


def write_all(
    explanations: Iterable[Explanation],
    paths_of: Sequence[Paths],
    folder: Path,
    *,
    post: Chain | None,
    style: RenderStyle,
    force: bool,
    outlined: bool = False,
) -> Iterator[dict[str, Any]]:
    """Write the files of every explanation, then all JSON lines and the sheet.

    Args:
        explanations: may be computed one after the other.
        paths_of: the files of each, as `plan_paths` gives them.
        folder: where JSON lines and sheet go; it is created.
        post: post-processing in the place of the file's own, which gives raw maps or has none;
            None shows the file's heatmaps.
        style: how heatmaps are drawn.
        force: whether existing files are overwritten.
        outlined: whether the region of C3 is drawn as a line over the picture.

    Yields:
        The data of every JSON line, after the files of its explanation are written.

    Raises:
        OutputError: a file cannot be written.
    """
    lines: list[str] = []
    rows: list[Explanation] = []
    for explanation, paths in zip(explanations, paths_of, strict=True):
        make_folder(folder)
        shown = explanation if post is None else _with_post(explanation, post)
        line = write(shown, paths, style=style, force=force, outlined=outlined)
        lines.append(json.dumps(line))
        if len(rows) < SHEET_MOST:
            rows.append(shown)
        yield line
    write_bytes(folder / LINES, ("\n".join(lines) + "\n").encode(), force=force)
    write_png(folder / SHEET, sheet(rows, style, outlined=outlined), force=force)
