"""Inputs that are no pictures: signals and volumes, read from files, and drawn."""

from __future__ import annotations

import wave
from math import ceil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lrp_onnx.errors import ImageError, first_line, shown
from lrp_onnx.files.missing import advice
from lrp_onnx.files.reading import check_readable
from lrp_onnx.maps.flat import Tiles, montage

ARRAYS = frozenset({".npy", ".wav"})
"""Endings of files that hold a signal or a volume."""
MOST_BYTES = 1 << 32
"""Larger files are refused."""
WIDTH, LANE, LOWEST = 960, 96, 240
"""Pixels of a plot's width (a montage's is near it), of each channel's height, and of a plot's
least height.
"""
MOST_LANES = 16
"""Signals of more channels are drawn as a picture, a row for each."""
LINE, AXIS, PAPER = 0, 150, 255
"""Greys of a plot: the signal, lines between channels and ticks, the ground."""
TICKS = 8
"""The most numbers along the time axis."""


def read_array(path: Path) -> NDArray[Any]:
    """The array of an .npy file, or a .wav file's samples, (channels, samples) float32, -1 to 1.

    Raises:
        ImageError: the file is missing, no file but a pipe or a device, damaged, larger than
            `MOST_BYTES`, or holds something else.
    """
    try:
        check_readable(path, MOST_BYTES)
        if path.suffix.lower() == ".wav":
            return _samples(path)
        values = np.load(path, allow_pickle=False)
        if not isinstance(values, np.ndarray):
            raise ValueError("it is an archive of several arrays")
        return values
    except FileNotFoundError:
        raise ImageError(f"there is no file {shown(path)}{advice(path)}") from None
    except (OSError, ValueError, EOFError, wave.Error, MemoryError) as error:
        raise ImageError(
            f"{shown(path)} cannot be read ({first_line(error)}): save one array of numbers with "
            "numpy.save, or 16-bit PCM as .wav"
        ) from error


def _samples(path: Path) -> NDArray[np.float32]:
    with wave.open(str(path), "rb") as file:
        width, channels = file.getsampwidth(), file.getnchannels()
        data = file.readframes(file.getnframes())
    if width not in (1, 2, 4):
        raise ValueError(f"its samples have {8 * width} bits")
    samples = np.frombuffer(data, {1: "u1", 2: "<i2", 4: "<i4"}[width]).astype(np.float32)
    scaled = (samples - 128) / 128 if width == 1 else samples / np.float32(2 ** (8 * width - 1))
    return np.ascontiguousarray(scaled.reshape(-1, channels).T)


def fitted(
    values: NDArray[Any], shape: tuple[int | str | None, ...], layout: str, name: str
) -> NDArray[np.float32]:
    """An array as one sample of a model's input; a missing axis of one channel is added.

    Args:
        values: (C, L) or (C, D, H, W), in the order of the model's input; without C where it is 1.
        shape: one sample's, without the batch; None or a name where a size is open.
        layout: the order of the input's axes, as ``NCL``.
        name: of the file, for errors.

    Raises:
        ImageError: it has another shape, or holds no finite real numbers.
    """
    channels = layout.index("C") - 1
    one = values[0] if values.ndim == len(shape) + 1 and len(values) == 1 else values
    if one.ndim == len(shape) - 1 and shape[channels] in (1, None):
        one = np.expand_dims(one, channels)
    if one.ndim != len(shape) or any(
        isinstance(size, int) and size != own for size, own in zip(shape, one.shape, strict=True)
    ):
        sizes = ", ".join(map(str, shape))
        raise ImageError(
            f"{shown(name)} is an array of the shape {values.shape}, and the model takes "
            f"({sizes}), {layout[1:]}: cut, resample or transpose it"
        )
    if one.dtype.kind not in "fiub" or not np.isfinite(one).all():
        raise ImageError(f"{shown(name)} does not hold finite real numbers: {one.dtype}")
    return np.ascontiguousarray(one, np.float32)


def read_drawing(path: Path, size: tuple[int, ...], layout: str) -> NDArray[np.uint8]:
    """The drawing of a signal or a volume of a file, whose axes behind the channels have `size`.

    Raises:
        ImageError: the file cannot be read, or has another shape.
    """
    shape: list[int | None] = list(size)
    shape.insert(layout.index("C") - 1, None)
    return drawn(fitted(read_array(path), tuple(shape), layout, str(path)), layout)


def drawn(sample: NDArray[np.float32], layout: str) -> NDArray[np.uint8]:
    """A signal as a plot along time, a volume as a montage of slices: (H, W, 3) uint8 RGB.

    A map over it is `maps.flat.flat` of the sample's map.
    """
    values = np.moveaxis(sample, layout.index("C") - 1, 0)
    return _plot(values) if values.ndim == 2 else _montage(values)


def _montage(volume: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Slices of a volume (C, D, H, W): RGB of three channels, else grey, their mean."""
    colors = volume if len(volume) == 3 else volume.mean(0, keepdims=True)
    grey = _scaled(np.moveaxis(colors, 0, -1))
    whole = montage(np.repeat(grey, 3 // grey.shape[-1], axis=-1), between=PAPER)
    factor = max(1, round(WIDTH / whole.shape[1]))
    picture = np.rint(whole).astype(np.uint8).repeat(factor, 0).repeat(factor, 1)
    tiles = Tiles.of(*volume.shape[1:])
    size = [(side + tiles.gap) * factor for side in volume.shape[2:]]
    for place, slice_number in enumerate(range(0, volume.shape[1], tiles.step)):
        row, column = divmod(place, tiles.columns)
        _write(picture, str(slice_number), (column * size[1] + 5, row * size[0] + 17), light=True)
    return picture


def _scaled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values from 0 for the lowest to 255 for the highest."""
    low, span = float(values.min()), float(np.ptp(values))
    return np.asarray((values - low) * (255 / span if span else 0), np.float32)


def _plot(signal: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The channels of a signal (C, L), one below the other, dark on white."""
    channels, length = signal.shape
    if channels > MOST_LANES:
        rows = np.repeat(_scaled(signal), ceil(LOWEST / channels), axis=0)
        return np.repeat(np.rint(rows).astype(np.uint8)[..., None], 3, axis=2)
    lane = max(LANE, LOWEST // channels)
    picture = np.full((lane * channels + LANE // 4, WIDTH, 3), PAPER, np.uint8)
    across = (np.arange(length) + 0.5) * (WIDTH / length) - 0.5
    for channel, values in enumerate(signal):
        heights = (1 - _scaled(values) / 255) * 0.86 + 0.07
        points = np.stack([across, (channel + heights) * lane], 1)
        fixed = np.rint(points * 16).astype(np.int32)  # in sixteenths of a pixel
        cv2.polylines(picture, [fixed], False, (LINE,) * 3, 2, cv2.LINE_AA, shift=4)
        below = (channel + 1) * lane
        cv2.line(picture, (0, below), (WIDTH, below), (AXIS,) * 3, 1)
    _number(picture, length)
    return picture


def _number(picture: NDArray[np.uint8], length: int) -> None:
    """Ticks and numbers of samples along the lower border, in place."""
    step = _round(length / TICKS)
    bottom = picture.shape[0]
    for sample in range(0, length, step):
        x = round((sample + 0.5) * WIDTH / length)
        cv2.line(picture, (x, bottom - LANE // 4), (x, bottom - LANE // 4 + 5), (LINE,) * 3, 1)
        _write(picture, str(sample), (min(x + 3, WIDTH - 40), bottom - 6))


def _write(
    picture: NDArray[np.uint8], text: str, place: tuple[int, int], *, light: bool = False
) -> None:
    """Small letters with an edge, dark on light or light on dark, in place; `place` is their lower
    left.
    """
    edge, ink = (LINE, PAPER) if light else (PAPER, LINE)
    for grey, thickness in ((edge, 3), (ink, 1)):
        cv2.putText(
            picture,
            text,
            place,
            cv2.FONT_HERSHEY_SIMPLEX,
            0.45,
            (grey,) * 3,
            thickness,
            cv2.LINE_AA,
        )


def _round(least: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, … that is not below `least`."""
    power = 1
    while True:
        for digit in (1, 2, 5):
            if digit * power >= least:
                return digit * power
        power *= 10
