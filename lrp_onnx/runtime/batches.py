"""Batches of the model's input: pictures read and prepared, or prepared tensors with a picture."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.contract import Preprocessing
from lrp_onnx.errors import ImageError
from lrp_onnx.runtime.images import Picture
from lrp_onnx.runtime.preprocess import Box, preprocess
from lrp_onnx.runtime.sources import ARRAY, Source, path_of, read_source


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Pictures for one run."""

    paths: tuple[Path, ...]
    rows: tuple[int, ...]
    """The place of every picture among those that the run was to have."""
    faults: tuple[tuple[Path, ImageError], ...]
    """The pictures that cannot be read."""
    pictures: tuple[Picture, ...]
    boxes: tuple[Box, ...]
    """The part of every picture that the model sees."""
    tensors: NDArray[Any]
    """The model's input. Rows after those of the pictures are zeros that fill the batch."""
    seconds: float
    """Time to read and prepare one picture."""


def read_batch(
    sources: Sequence[Source],
    how: Preprocessing,
    size: tuple[int, int],
    *,
    pad_to: int,
    strict: bool,
) -> Batch:
    """Read and prepare pictures.

    Args:
        sources: at least one picture.
        how: how a picture becomes the model's input.
        size: (height, width) of the model's input.
        pad_to: rows of a batch that is shorter.
        strict: whether a picture that cannot be read raises its fault.

    Raises:
        ImageError: a picture cannot be read and `strict` is set.
    """
    started = time.perf_counter()
    pictures: dict[int, Picture] = {}
    faults = []
    for row, source in enumerate(sources):
        try:
            pictures[row] = read_source(source)
        except ImageError as fault:
            if strict:
                raise
            faults.append((path_of(source), fault))
    prepared = [preprocess(picture, how, *size) for picture in pictures.values()]
    return Batch(
        paths=tuple(path_of(sources[row]) for row in pictures),
        rows=tuple(pictures),
        faults=tuple(faults),
        pictures=tuple(pictures.values()),
        boxes=tuple(one.box for one in prepared),
        tensors=_padded([one.tensor for one in prepared], pad_to),
        seconds=(time.perf_counter() - started) / len(sources),
    )


def prepared_batch(tensors: NDArray[Any], how: Preprocessing, *, pad_to: int) -> Batch:
    """The batch of tensors (N, …) that are the model's input already.

    Their pictures are what the preprocessing would have made them of.
    """
    started = time.perf_counter()
    pictures = tuple(picture_of(tensor, how) for tensor in tensors)
    return Batch(
        paths=(Path(ARRAY),) * len(tensors),
        rows=tuple(range(len(tensors))),
        faults=(),
        pictures=pictures,
        boxes=tuple(Box(0, 0, picture.shape[1], picture.shape[0]) for picture in pictures),
        tensors=_padded(list(tensors), pad_to),
        seconds=(time.perf_counter() - started) / len(tensors),
    )


def picture_of(tensor: NDArray[Any], how: Preprocessing) -> Picture:
    """The picture (H, W, 3) uint8 RGB that became the model's input by `how`; of a tensor with
    another number of channels their mean, grey from its lowest to its highest value.

    Args:
        tensor: (C, H, W), or (H, W, C) where the layout is NHWC.
        how: the preprocessing.
    """
    values = np.asarray(tensor, np.float32)
    values = values if how.layout == "NHWC" else values.transpose(1, 2, 0)
    if values.shape[2] == (1 if how.channels == "GRAY" else 3):
        mean, std = np.asarray(how.mean, np.float32), np.asarray(how.std, np.float32)
        values = (values * std + mean) * np.float32(how.divisor)
    else:
        values = values.mean(2, keepdims=True)
        span = float(np.ptp(values))
        values = (values - values.min()) * (255 / span if span else 0)
    rgb = values[:, :, ::-1] if how.channels == "BGR" else values
    return np.repeat(rgb, 3 // rgb.shape[2], axis=2).round().clip(0, 255).astype(np.uint8)


def _padded(tensors: list[NDArray[Any]], rows: int) -> NDArray[Any]:
    """The tensors and zeros up to `rows`; empty where there are none."""
    if not tensors:
        return np.empty(0, np.float32)
    return np.stack(tensors + [np.zeros_like(tensors[0])] * (rows - len(tensors)))
