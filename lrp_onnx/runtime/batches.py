"""Batches of the model's input: pictures read and prepared, signals and volumes, or prepared
tensors with a picture.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.contract import Preprocessing
from lrp_onnx.errors import ImageError
from lrp_onnx.runtime.arrays import drawn, fitted
from lrp_onnx.runtime.images import Picture
from lrp_onnx.runtime.preprocess import Box, preprocess
from lrp_onnx.runtime.sources import ARRAY, Source, path_of, read_source, read_values


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


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """One input, ready to be run and to be drawn."""

    picture: Picture
    """What is drawn: the photo; or a signal's plot, or a volume's slices (see `arrays.drawn`)."""
    box: Box
    """The part of it that the model sees."""
    tensor: NDArray[Any]
    """The model's input without its batch axis."""


Prepare = Callable[[Source], Ready]


def from_picture(source: Source, how: Preprocessing, size: tuple[int, int]) -> Ready:
    """A picture as input of a model of `size`, (height, width).

    Raises:
        ImageError: it cannot be read, or is no picture.
    """
    picture = read_source(source)
    prepared = preprocess(picture, how, *size)
    return Ready(picture, prepared.box, prepared.tensor)


def from_array(source: Source, shape: tuple[int | str | None, ...], layout: str) -> Ready:
    """A signal or a volume as input of a model that takes samples of `shape`; see `arrays.fitted`.

    Raises:
        ImageError: it cannot be read, is a picture, or has another shape.
    """
    values = read_values(source, shape, layout)
    return of_tensor(fitted(values, shape, layout, str(path_of(source))), layout)


def of_tensor(tensor: NDArray[Any], layout: str) -> Ready:
    """A prepared signal or volume, with the drawing of it."""
    picture = drawn(tensor, layout)
    return Ready(picture, Box(0, 0, picture.shape[1], picture.shape[0]), tensor)


def read_batch(sources: Sequence[Source], prepare: Prepare, *, pad_to: int, strict: bool) -> Batch:
    """Read and prepare pictures, or other inputs.

    Args:
        sources: at least one.
        prepare: how one becomes the model's input.
        pad_to: rows of a batch that is shorter.
        strict: whether a picture that cannot be read raises its fault.

    Raises:
        ImageError: a picture cannot be read and `strict` is set.
    """
    started = time.perf_counter()
    ready: dict[int, Ready] = {}
    faults = []
    for row, source in enumerate(sources):
        try:
            ready[row] = prepare(source)
        except ImageError as fault:
            if strict:
                raise
            faults.append((path_of(source), fault))
    paths = tuple(path_of(sources[row]) for row in ready)
    seconds = (time.perf_counter() - started) / len(sources)
    return _batch(paths, ready, faults, pad_to=pad_to, seconds=seconds)


def prepared_batch(tensors: NDArray[Any], how: Preprocessing, layout: str, *, pad_to: int) -> Batch:
    """The batch of tensors (N, …) that are the model's input already, in this order of axes.

    Their pictures are what the preprocessing would have made them of, or drawings of signals and
    volumes.
    """
    started = time.perf_counter()
    ready = {}
    for row, tensor in enumerate(tensors):
        if tensor.ndim == PICTURE_AXES:
            picture = picture_of(tensor, how)
            box = Box(0, 0, picture.shape[1], picture.shape[0])
            ready[row] = Ready(picture, box, tensor)
        else:
            ready[row] = of_tensor(tensor, layout)
    seconds = (time.perf_counter() - started) / len(tensors)
    return _batch((Path(ARRAY),) * len(tensors), ready, [], pad_to=pad_to, seconds=seconds)


def as_input(batch: NDArray[Any], kind: np.dtype[Any]) -> NDArray[Any]:
    """A batch (N, …) in the element type of the model's input.

    Raises:
        ImageError: it has no samples, it holds NaN or infinity, also as numbers of that type, or
            numbers that the type, one of integers, does not have.
    """
    if not len(batch):
        raise ImageError("the batch is empty: give one sample at least")
    if kind.kind in "iu" and batch.dtype != kind:
        limits = np.iinfo(kind)
        lowest, highest = float(batch.min()), float(batch.max())
        fits = limits.min <= lowest and highest <= limits.max and not np.any(batch % 1)
        if not fits:
            raise ImageError(
                f"the batch holds numbers from {lowest:.4g} to {highest:.4g}, and the model's "
                f"input takes whole numbers from {limits.min} to {limits.max} ({kind}): prepare "
                "it so, pictures with --preprocess raw"
            )
    with np.errstate(over="ignore"):  # it is told below
        fed = batch.astype(kind, copy=False)
    finite = fed.dtype.kind not in "fV" or np.isfinite(fed.astype(np.float32, copy=False))
    if not np.all(finite):
        first = int(np.argmin(np.reshape(finite, (len(fed), -1)).all(1)))
        raise ImageError(
            f"sample {first} of the batch holds NaN or infinity as {kind}: what the model makes of "
            "it means nothing; check how it was prepared"
        )
    return fed


PICTURE_AXES = 3
"""Axes of a picture as the model's input, without the batch."""


def _batch(
    paths: tuple[Path, ...],
    ready: Mapping[int, Ready],
    faults: Sequence[tuple[Path, ImageError]],
    *,
    pad_to: int,
    seconds: float,
) -> Batch:
    """A batch of what is ready, row → input."""
    ones = ready.values()
    return Batch(
        paths=paths,
        rows=tuple(ready),
        faults=tuple(faults),
        pictures=tuple(one.picture for one in ones),
        boxes=tuple(one.box for one in ones),
        tensors=_padded([one.tensor for one in ones], pad_to),
        seconds=seconds,
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
