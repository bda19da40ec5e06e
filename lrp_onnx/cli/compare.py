"""The `compare` command: the heatmaps of several methods side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from lrp_onnx.compiler import Options
from lrp_onnx.contract import PREDICTED
from lrp_onnx.errors import ImageError, shown
from lrp_onnx.evaluation.black_box import subject_for
from lrp_onnx.evaluation.methods import check_method, find_method, read_method, with_own_post
from lrp_onnx.files.writing import check_writable
from lrp_onnx.relevance.composites.presets import DEFAULT
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
    columns: int = 5,
    overlaid: bool = False,
    provider: str | None = None,
    threads: int | None = None,
    force: bool = False,
) -> str:
    """Write the grid of heatmaps to `output`: a PNG, JPEG or WebP file, as its name ends.

    Args:
        model: an ONNX file, not compiled.
        image: the picture to explain.
        output: the file.
        options: how the model is read.
        methods: composites or baselines; empty for `DEFAULT_METHODS`.
        target: a class index or name; None for the predicted class.
        columns: pictures in a row of the grid.
        overlaid: whether relevance is drawn over the picture.
        provider: ``cpu`` or ``cuda``; None for CUDA if it is available.
        threads: CPU threads; None for all cores.
        force: whether an existing file is overwritten.

    Returns:
        One line of text: picture, class and output.

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
    choices = {
        "explain": options.explain,
        "input_size": options.input_size,
        "preprocessing": options.preprocessing,
        "labels": options.labels,
    }
    subject = subject_for(model, names, provider=provider, threads=threads, choices=choices)
    picture = read_image(path)
    prepared = subject.prepare(picture)
    tensor = prepared.tensor[None]
    probabilities = subject.probabilities(tensor)[0]
    predicted = int(probabilities.argmax())
    requested = PREDICTED if target is None else class_of(target)
    (index,) = subject.classes.indices(requested, 1)
    explained = int(index) if index >= 0 else predicted
    visible = _enlarged(prepared.box.cut(picture))
    name = class_label(explained, subject.classes.name(explained))
    caption = f"{name}, {100 * probabilities[explained]:.0f} %"
    maps = [find_method(m, subject).maps(tensor, np.array([explained]))[0] for m in names]
    styles = [RenderStyle(colors=read_method(method).post.colors) for method in names]
    scales = [style.scale([m]) for style, m in zip(styles, maps, strict=True)]
    tiles = [(visible, caption)]
    for method, relevance, scale in zip(names, maps, scales, strict=True):
        if overlaid:
            tile = overlay(visible, relevance, scale=scale)
        else:
            tile = colorize(relevance, shape=visible.shape[:2], scale=scale)
        tiles.append((tile, method))
    drawn = grid(tiles, columns=columns, height=TILE)
    signed = any(scale.scheme == "diverging" for scale in scales)
    foot = _legend(name, drawn.shape[1], signed=signed, overlaid=overlaid)
    margins = ((LETTERS, LETTERS // 2), (LETTERS, LETTERS), (0, 0))
    whole = np.pad(np.vstack([drawn, foot]), margins, constant_values=255)
    write_picture(output, whole, force=force)
    return f"{path}: {caption}, by {len(names)} methods → {output}"


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
