"""The `compare` command: the heatmaps of several methods side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lrp_onnx.compiler import Options
from lrp_onnx.contract import PREDICTED
from lrp_onnx.errors import ImageError, shown
from lrp_onnx.evaluation.black_box import subject_for
from lrp_onnx.evaluation.methods import check_method, find_method, read_method, with_own_post
from lrp_onnx.files.writing import check_writable
from lrp_onnx.relevance.composites.presets import DEFAULT, default_for
from lrp_onnx.report.legend import BAR, beside, color_bar
from lrp_onnx.report.render import (
    STYLE,
    RenderStyle,
    check_ending,
    colorize,
    grid,
    overlay,
    write_picture,
)
from lrp_onnx.report.text import Line, class_label
from lrp_onnx.runtime.classes import class_of
from lrp_onnx.runtime.images import Picture, find_images, read_image

DEFAULT_METHODS = (
    with_own_post(DEFAULT),
    "lrp-resnet",
    "epsilon-plus-flat",
    "epsilon-gamma-box",
    "c3-lrp",
    with_own_post("c3-lrp"),
    "guided-backprop",
    "grad-cam",
    "occlusion",
)
TILE = 224
"""Height of a picture in the grid, in pixels."""
LETTERS = 16
"""Size of the letters below the grid, in pixels."""


def compare_file(
    model: Path,
    image: str,
    output: Path,
    *,
    options: Options,
    methods: Sequence[str] = (),
    target: str | None = None,
    top: int | None = None,
    columns: int = 5,
    overlaid: bool = False,
    provider: str | None = None,
    threads: int | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Write the grid of heatmaps to `output`: a PNG, JPEG or WebP file, as its name ends.

    Args:
        model: an ONNX file, compiled or not.
        image: the picture to explain.
        output: the file.
        options: how the model is read.
        methods: composites or baselines; empty for `DEFAULT_METHODS`, the first of them the
            default of the model's family.
        target: a class index or name; None for the predicted class.
        top: how many of the most probable classes are shown instead, one below the other.
        columns: pictures in a row of the grid.
        overlaid: whether relevance is drawn over the picture.
        provider: ``cpu`` or ``cuda``; None for CUDA if it is available.
        threads: CPU threads; None for all cores.
        force: whether an existing file is overwritten.

    Returns:
        ``image``, ``classes`` (index, name, probability), ``methods`` and ``output``.

    Raises:
        RuleError: a method is unknown.
        OutputError: the grid cannot be written.
        ImageError, and what `compile_model` raises.
    """
    names = list(dict.fromkeys(methods or DEFAULT_METHODS))
    for name in names:
        check_method(name)
    check_ending(output)
    check_writable(output, force=force)
    path = _one_picture(image)
    subject = subject_for(
        model, names, provider=provider, threads=threads, choices=options.about_model
    )
    if not methods:
        names[0] = with_own_post(default_for(subject.plan))
    picture = read_image(path)
    prepared = subject.prepare(picture)
    tensor = prepared.tensor[None]
    probabilities = subject.probabilities(tensor)[0]
    order = np.argsort(-probabilities, kind="stable")
    if top is None:
        requested = PREDICTED if target is None else class_of(target)
        (index,) = subject.classes.indices(requested, 1)
        explained = [int(index) if index >= 0 else int(order[0])]
    else:
        explained = [int(index) for index in order[:top]]
    maps = [find_method(m, subject).maps for m in names]
    labels = [class_label(index, subject.classes.name(index)) for index in explained]
    visible = _enlarged(prepared.box.cut(picture))
    grids, signed = [], False
    for index, label in zip(explained, labels, strict=True):
        found = [run(tensor, np.array([index]))[0] for run in maps]
        tiles, has_both = _tiles(visible, dict(zip(names, found, strict=True)), overlaid=overlaid)
        caption = f"{label}, {100 * probabilities[index]:.0f} %"
        grids.append(grid([(visible, caption), *tiles], columns=columns, height=TILE))
        signed |= has_both
    drawn = np.vstack(grids)
    subject_of_bar = labels[0] if len(labels) == 1 else "the class"
    foot = _legend(subject_of_bar, drawn.shape[1], signed=signed, overlaid=overlaid)
    margins = ((LETTERS, LETTERS // 2), (LETTERS, LETTERS), (0, 0))
    whole = np.pad(np.vstack([drawn, foot]), margins, constant_values=255)
    write_picture(output, whole, force=force)
    classes = [
        {"index": i, "name": subject.classes.name(i), "probability": float(probabilities[i])}
        for i in explained
    ]
    return {"image": str(path), "classes": classes, "methods": names, "output": str(output)}


def _tiles(
    visible: Picture, maps: Mapping[str, NDArray[np.float32]], *, overlaid: bool
) -> tuple[list[tuple[Picture, str]], bool]:
    """A tile of every method's map, and whether any has relevance against the class."""
    tiles, signed = [], False
    for method, relevance in maps.items():
        scale = RenderStyle(colors=read_method(method).post.colors).scale([relevance])
        if overlaid:
            tile = overlay(visible, relevance, scale=scale)
        else:
            tile = colorize(relevance, shape=visible.shape[:2], scale=scale)
        tiles.append((tile, method))
        signed |= scale.scheme == "diverging"
    return tiles, signed


def sentence(made: Mapping[str, Any]) -> str:
    """What `compare_file` returns, as one line of text."""
    classes = "; ".join(
        f"{class_label(one['index'], one['name'])}, {100 * one['probability']:.0f} %"
        for one in made["classes"]
    )
    return f"{made['image']}: {classes}, by {len(made['methods'])} methods → {made['output']}"


def _one_picture(image: str) -> Path:
    """The picture to explain.

    Raises:
        ImageError: there is none, or there are several.
    """
    found = find_images([image])
    if len(found) > 1:
        raise ImageError(
            f"{shown(image)} is {len(found)} pictures, and compare shows one: name it, for example "
            f"{shown(found[0])}"
        )
    return found[0]


def _legend(name: str, width: int, *, signed: bool, overlaid: bool) -> Picture:
    """What the colours mean: every map has a scale of its own, so that values are shares."""
    scheme, ends, ticks = "sequential", ("no relevance", f"for {name}"), ["0", "1"]
    if signed:
        scheme, ends = "diverging", (f"against {name}", f"for {name}")
        ticks = ["−1", "0", "1"]
    bar_width = min(width, BAR * LETTERS)
    bar = color_bar(scheme, bar_width, LETTERS, ends=ends, ticks=ticks, over=overlaid)
    words = (
        "Every map has a scale of its own: 1 is the magnitude that "
        f"{STYLE.percentile:g} % of its values stay below."
    )
    return beside(bar, [Line(words)], width, LETTERS)


def _enlarged(picture: Picture) -> Picture:
    """The picture, at least `TILE` pixels high."""
    rows, columns = picture.shape[:2]
    if rows >= TILE:
        return picture
    size = (round(columns * TILE / rows), TILE)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC), np.uint8)
