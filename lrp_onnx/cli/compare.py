"""The `compare` command: the heatmaps of several methods side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from lrp_onnx.compiler import Options
from lrp_onnx.contract import PREDICTED
from lrp_onnx.evaluation.black_box import subject_for
from lrp_onnx.evaluation.methods import check_method, find_method, with_own_post
from lrp_onnx.files.writing import check_writable
from lrp_onnx.relevance.composites.presets import DEFAULT
from lrp_onnx.report.render import STYLE, colorize, grid, overlay, write_png
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
    """Write the grid of heatmaps to `output`, a PNG file.

    Args:
        model: an ONNX file, not compiled.
        image: the picture to explain.
        output: the PNG file.
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
    check_writable(output, force=force)
    path = find_images([image])[0]
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
    caption = f"{subject.classes.name(explained) or explained} {probabilities[explained]:.0%}"
    tiles = [(visible, caption)]
    for name in names:
        (relevance,) = find_method(name, subject).maps(tensor, np.array([explained]))
        if overlaid:
            tile = overlay(visible, relevance, STYLE)
        else:
            tile = colorize(relevance, STYLE, shape=visible.shape[:2])
        tiles.append((tile, name))
    write_png(output, grid(tiles, columns=columns, height=TILE), force=force)
    return f"{path}: {caption}, by {len(names)} methods → {output}"


def _enlarged(picture: Picture) -> Picture:
    """The picture, at least `TILE` pixels high."""
    rows, columns = picture.shape[:2]
    if rows >= TILE:
        return picture
    size = (round(columns * TILE / rows), TILE)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC), np.uint8)
