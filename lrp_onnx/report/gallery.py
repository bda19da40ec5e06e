"""The files of the `explain` command: of every picture, and of all at the end of a run."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.contract import C3_REGION, HEATMAP, HEATMAP_RAW, RELEVANCE
from lrp_onnx.errors import ImageError
from lrp_onnx.files.writing import write_bytes
from lrp_onnx.maps.chain import Chain
from lrp_onnx.maps.resample import Map, resample
from lrp_onnx.report.entry import Entry, Failed
from lrp_onnx.report.figure import figure
from lrp_onnx.report.page import Page
from lrp_onnx.report.render import (
    RenderStyle,
    colorize,
    height_within,
    overlay,
    panel,
    with_height,
    write_png,
)
from lrp_onnx.report.results import SHEET, TABLE, Line, Paths, Results
from lrp_onnx.report.table import table_of
from lrp_onnx.runtime.arrays import read_drawing
from lrp_onnx.runtime.classes import Classes
from lrp_onnx.runtime.explanation import WITHOUT_PROBABILITIES, Explanation, measure_of
from lrp_onnx.runtime.images import read_image
from lrp_onnx.runtime.preprocess import Box

SHEET_ROW, SHEET_MOST = 224, 12
"""Height in pixels of a row of the sheet, and its largest number of rows."""
SMALLEST_OVERLAY = 288
"""Height in pixels below which a picture is enlarged before its overlay is drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How explanations are shown."""

    style: RenderStyle
    post: Chain | None = None
    """Post-processing in the place of the file's own, which gives raw maps or has none; None shows
    the file's heatmaps.
    """
    outlined: bool = False
    """Whether the region of C3 is drawn as a line over the picture."""
    method: str = ""
    """How relevance was computed, in words."""

    def of(self, explanation: Explanation) -> Explanation:
        """The explanation as it is shown: with this post-processing."""
        return explanation if self.post is None else _with_post(explanation, self.post)


def write_picture(
    results: Results, explanations: Sequence[Explanation], drawing: Drawing
) -> list[Line]:
    """Write the files of a picture, then its lines.

    Args:
        results: where they go.
        explanations: all explanations of one picture, as they are shown.
        drawing: how they are shown.

    Returns:
        The lines.

    Raises:
        OutputError: a file cannot be written.
    """
    results.begin()
    picture = explanations[0].path
    files = results.paths(picture)
    whole = figure(explanations, drawing.style, method=drawing.method, outlined=drawing.outlined)
    write_png(files[0].figure, whole, force=True)
    lines = [
        _write(explanation, paths, drawing)
        for explanation, paths in zip(explanations, files, strict=True)
    ]
    return results.add(picture, lines)


@dataclass(slots=True)
class Report:
    """The HTML page of a run, which grows picture by picture in their order."""

    labels: Mapping[str, int]
    """File name → true class."""
    classes: Classes
    chain: Chain
    """The post-processing that is shown."""
    page: Page
    empty: dict[str, str] = field(default_factory=dict)
    """The pictures whose maps explain nothing: file name → why, as a clause."""

    def add(self, explanations: Sequence[Explanation]) -> None:
        """Add the explanations of a picture, as they are shown."""
        path = explanations[0].path
        self.empty.update((path.name, one.nothing) for one in explanations if one.nothing)
        label = self.labels.get(path.name)
        known = label is not None and 0 <= label < self.classes.count
        name = self.classes.name(label) if label is not None and known else ""
        self.page.add(Entry.of(explanations, label=label, label_name=name, chain=self.chain))

    def add_fault(self, line: Line) -> None:
        """Add a picture that cannot be read, from its line."""
        self.page.add(Failed(line["image"], line["error"]))

    def add_stored(self, results: Results, picture: Path | str) -> None:
        """Add a picture from what the folder has of it; one that is changed or gone is left out."""
        lines = results.stored(picture)
        if lines and "error" in lines[0]:
            self.add_fault(lines[0])
        elif explanations := list(_read(results, lines)):
            self.add(explanations)


def finish(results: Results, labels: Mapping[str, int], drawing: Drawing, *, key: str) -> None:
    """Put the lines in order, and make the table and the sheet from what is in the folder.

    Args:
        results: the folder, which lacks no picture.
        labels: file name → true class, for the table.
        drawing: how explanations are shown.
        key: what the files at the end are made from, see `finish_key`.

    Raises:
        OutputError: a file cannot be written.
    """
    results.put_in_order()
    write_bytes(results.folder / TABLE, table_of(results.lines(), labels), force=True)
    rows = islice(stored_explanations(results), SHEET_MOST)
    if (drawn := sheet(rows, drawing)) is not None:
        write_png(results.folder / SHEET, drawn, force=True)
    results.finish(key)


def finish_key(labels: Mapping[str, int], report: str) -> str:
    """What the files at the end depend on beside the lines and the settings."""
    return f"{zlib.crc32(json.dumps([report, sorted(labels.items())]).encode()):08x}"


def stored_explanations(results: Results) -> Iterator[Explanation]:
    """The explanations in a folder, one after the other, read from its files.

    Those whose photo is changed or gone, or whose values are damaged, are left out.
    """
    yield from _read(results, results.lines())


def _read(results: Results, lines: Iterable[Line]) -> Iterator[Explanation]:
    for line in lines:
        if "error" in line or not results.is_unchanged(line):
            continue
        try:
            yield _read_back(line, results.folder)
        except (ImageError, OSError, ValueError, LookupError, BadZipFile, zlib.error):
            continue


def _read_back(line: Line, folder: Path) -> Explanation:
    """The explanation that a line and its files hold."""
    with np.load(folder / line["files"]["values"], allow_pickle=False) as file:
        arrays = dict(file)
    path, measure = Path(line["image"]), measure_of(line["output"])
    return Explanation(
        path=path,
        photo=_photo(path, arrays[HEATMAP], line.get("layout", "NCHW")),
        box=Box(**line["box"]),
        heatmap=arrays[HEATMAP],
        heatmap_raw=arrays.get(HEATMAP_RAW),
        region=arrays.get(C3_REGION),
        relevance=arrays.get(RELEVANCE),
        scores=arrays["scores"],
        top5=tuple((best["index"], best["name"], best[measure]) for best in line["top5"]),
        target=line["target"]["index"],
        target_name=line["target"]["name"],
        start=line["start"]["from"],
        start_value=line["start"]["value"],
        provider=line["provider"],
        seconds=line["seconds"],
        kind=line["output"],
        probability=line["target"]["probability"],
        composite=line["composite"],
        post=line["post"],
        marked=tuple(line["marked"]) if line.get("marked") else None,
        layout=line.get("layout", "NCHW"),
        mask=arrays.get("mask"),
    )


def _photo(path: Path, heatmap: Map, layout: str) -> NDArray[np.uint8]:
    """The picture of a file, or the drawing of its signal or volume."""
    if heatmap.ndim == 2:
        return read_image(path)
    return read_drawing(path, heatmap.shape, layout)


def _write(explanation: Explanation, paths: Paths, drawing: Drawing) -> Line:
    """Write the files of one explanation; returns its line."""
    picture, heatmap = _visible(explanation.picture), explanation.heatmap
    region = explanation.region if drawing.outlined else None
    drawn = overlay(picture, heatmap, drawing.style, mask=region)
    write_png(paths.overlay, drawn, force=True)
    write_png(paths.heatmap, colorize(heatmap, drawing.style), force=True)
    write_bytes(paths.values, explanation.npz(), force=True)
    return {
        "image": str(explanation.path),
        "target": {
            "index": explanation.target,
            "name": explanation.target_name,
            "probability": explanation.probability,
        },
        "top5": _top(explanation),
        "output": explanation.kind,
        "start": {"from": explanation.start, "value": explanation.start_value},
        "sums": explanation.sums,
        "composite": explanation.composite,
        "post": explanation.post,
        "box": asdict(explanation.box),
        "marked": explanation.marked,
        "layout": explanation.layout,
        "provider": explanation.provider,
        "seconds": dict(explanation.seconds),
        "files": paths.names,
    }


def sheet(rows: Iterable[Explanation], drawing: Drawing) -> NDArray[np.uint8] | None:
    """Picture, heatmap and overlay of several explanations, one row each, with captions.

    Args:
        rows: explanations, of which one at a time is held.
        drawing: how they are shown; their heatmaps are post-processed already.

    Returns:
        (H, W, 3) uint8 RGB; None of no rows.
    """
    panels = [
        panel(
            _visible(explanation.picture),
            explanation.heatmap,
            drawing.style,
            mask=explanation.region if drawing.outlined else None,
            captions=("picture", "relevance", _caption(explanation)),
            height=height_within(explanation.picture, SHEET_ROW),
        )
        for explanation in rows
    ]
    width = max((p.shape[1] for p in panels), default=0)
    padded = [
        np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in panels
    ]
    return np.concatenate(padded) if padded else None


def _caption(explanation: Explanation) -> str:
    """The explained class, and its value if it is one of the best five."""
    values = {index: value for index, _, value in explanation.top5}
    name = explanation.target_name or str(explanation.target)
    if explanation.target not in values:
        return name
    value = values[explanation.target]
    return (
        f"{name} {value:.3g}"
        if explanation.kind in WITHOUT_PROBABILITIES
        else f"{name} {value:.0%}"
    )


def _visible(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture, at least `SMALLEST_OVERLAY` pixels high unless that makes it too wide."""
    height = height_within(picture, SMALLEST_OVERLAY)
    return with_height(picture, height) if height > picture.shape[0] else picture


def _top(explanation: Explanation) -> list[Mapping[str, Any]]:
    """The best classes with their value, named as `measure_of` has it."""
    measure = measure_of(explanation.kind)
    return [
        {"index": index, "name": name, measure: value} for index, name, value in explanation.top5
    ]


def _with_post(explanation: Explanation, post: Chain) -> Explanation:
    """The explanation with another post-processing than the file's own."""
    before = _unprocessed(explanation)
    return replace(explanation, heatmap=post(before), region=post.region(before), post=str(post))


def _unprocessed(explanation: Explanation) -> Map:
    """The map before post-processing, of the picture's size."""
    shown, raw = explanation.heatmap, explanation.heatmap_raw
    if raw is None:
        return shown
    return resample(raw, shown.shape, method="bilinear")
