"""Preprocessing: from a picture to a model's input, and its text form."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from lrp_onnx.contract import LARGEST, SMALLEST, Preprocessing
from lrp_onnx.errors import ImageError
from lrp_onnx.notation import build, write

PRESETS: dict[str, tuple[Preprocessing, str]] = {
    "imagenet": (
        Preprocessing(),
        "RGB/255, ImageNet mean and std; shorter side to the input size, centre crop",
    ),
    "imagenet-stretch": (
        Preprocessing(resize="stretch"),
        "as imagenet, but the whole picture stretched to the input size",
    ),
    "torchvision": (
        Preprocessing(crop_fraction=0.875, interpolation="area"),
        "as imagenet, but shorter side to 8/7 of the input size (256 for 224), antialiased",
    ),
    "zero-one": (Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3), "RGB/255"),
    "raw": (Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, divisor=1.0), "RGB, 0 to 255"),
    "tf": (Preprocessing(mean=(1.0,) * 3, std=(1.0,) * 3, divisor=127.5), "RGB, -1 to 1"),
    "caffe": (
        Preprocessing(mean=(103.939, 116.779, 123.68), std=(1.0,) * 3, divisor=1.0, channels="BGR"),
        "BGR, 0 to 255, minus the ImageNet mean",
    ),
    "cifar10": (
        Preprocessing(mean=(0.4914, 0.4822, 0.4465), std=(0.2471, 0.2435, 0.2616)),
        "RGB/255, CIFAR-10 mean and std",
    ),
}
"""Name of a preset → (preprocessing, description)."""

CHOICES = {
    "channels": ("RGB", "BGR", "GRAY"),
    "layout": ("auto", "NCHW", "NHWC"),
    "resize": ("crop", "stretch"),
    "interpolation": ("bilinear", "area", "cubic", "nearest"),
}
_INTERPOLATION = {
    "bilinear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "cubic": cv2.INTER_CUBIC,
    "nearest": cv2.INTER_NEAREST,
}


@dataclass(frozen=True, slots=True)
class Box:
    """The part of a picture that the model sees, in the picture's pixels."""

    left: int
    top: int
    width: int
    height: int

    def cut(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """This part of a picture (H, W, 3), at full resolution; a view."""
        return picture[self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A picture as the model's input."""

    tensor: NDArray[np.float32]
    """(C, H, W) or (H, W, C) float32."""
    box: Box
    """The part of the picture that `tensor` shows."""


def parse_preprocessing(text: str) -> Preprocessing:
    """The preprocessing that a text describes: a preset, with or without changes.

    Example: ``imagenet:resize=stretch,mean=0.5/0.5/0.5`` (see `notation`).

    Raises:
        ImageError: a preset or a parameter is unknown, or a value does not fit.
    """
    specs = {name: spec for name, (spec, _) in PRESETS.items()}
    return checked(build(text, specs, what="preprocessing preset", error=ImageError))


def written(spec: Preprocessing) -> str:
    """The shortest text that `parse_preprocessing` reads as `spec`, whatever its layout."""
    presets = {name: preset for name, (preset, _) in PRESETS.items()}
    return write(replace(of_every_channel(spec), layout="auto"), presets, digits=6)


def of_every_channel(spec: Preprocessing) -> Preprocessing:
    """The same preprocessing with a mean and a standard deviation for every channel."""
    if spec.channels == "GRAY":
        return spec
    mean, std = (values * 3 if len(values) == 1 else values for values in (spec.mean, spec.std))
    return replace(spec, mean=mean, std=std)


def assumed(channels: int) -> Preprocessing:
    """What is assumed of a model that nothing says it of: ImageNet's for three channels, pixels
    from 0 to 1 for one.
    """
    if channels == 1:
        return Preprocessing(mean=(0.0,), std=(1.0,), channels="GRAY")
    return Preprocessing()


def checked(spec: Preprocessing) -> Preprocessing:
    """`spec` itself, if it is valid.

    Raises:
        ImageError: a value is not one of `CHOICES` or out of range, or values do not fit each
            other.
    """
    for name, allowed in CHOICES.items():
        if getattr(spec, name) not in allowed:
            raise ImageError(
                f"preprocessing {name}={getattr(spec, name)}: {name} is one of {', '.join(allowed)}"
            )
    channels = 1 if spec.channels == "GRAY" else 3
    if len(spec.mean) not in (1, channels) or len(spec.std) not in (1, channels):
        raise ImageError(
            f"preprocessing for {spec.channels} needs {channels} values of mean and std, or 1 value"
        )
    numbers = (*spec.mean, *spec.std, spec.divisor)
    if not all(map(math.isfinite, numbers)) or max(map(abs, numbers)) > LARGEST:
        raise ImageError(f"preprocessing needs finite mean, std and divisor, up to {LARGEST:,.0f}")
    if min(*spec.std, spec.divisor) < SMALLEST or not 0 < spec.crop_fraction <= 1:
        raise ImageError(
            f"preprocessing needs std and divisor above 0 ({SMALLEST:g} or more) and a "
            "crop_fraction above 0 and up to 1"
        )
    return spec


def input_size(shape: list[int | str | None], spec: Preprocessing) -> tuple[int, int]:
    """(height, width) of a model's input of `shape`.

    Raises:
        ImageError: the shape does not fit `spec`, or leaves height or width open.
    """
    channels = 1 if spec.channels == "GRAY" else 3
    axis = 3 if spec.layout == "NHWC" else 1
    if len(shape) != 4 or shape[axis] != channels:
        layout, other = ("NCHW", "NHWC") if axis == 1 else ("NHWC", "NCHW")
        if len(shape) == 4 and not {1, 3} & {shape[1], shape[3]}:
            raise ImageError(
                f"the model's input has shape {shape}, with {shape[axis]} channels, and pictures "
                "have 1 or 3: prepare arrays of this shape and give them in Python, "
                "Explainer(FILE)(array)"
            )
        if len(shape) == 4 and shape[axis] == 1:
            raise ImageError(
                f"the model's input has shape {shape}, for grey pictures: change the "
                "preprocessing, for example to zero-one:channels=GRAY,mean=0,std=1"
            )
        raise ImageError(
            f"the model's input has shape {shape}, which is not {layout} with {channels} "
            f"channel(s): change the preprocessing, for example to layout={other} or "
            f"channels={'RGB' if channels == 1 else 'GRAY'}"
        )
    height, width = (shape[2], shape[3]) if axis == 1 else (shape[1], shape[2])
    if not isinstance(height, int) or not isinstance(width, int):
        raise ImageError(
            f"the model's input has shape {shape}: its height and width must be fixed, "
            "see --input-size"
        )
    return height, width


def preprocess(
    picture: NDArray[np.uint8], spec: Preprocessing, height: int, width: int
) -> Prepared:
    """A picture, (H, W, 3) uint8 RGB, as input for a model of `height` × `width`.

    ``input = (resized / divisor − mean) / std``, channel by channel.
    """
    box = crop_box(picture.shape[0], picture.shape[1], spec, height, width)
    enlarges = height > box.height or width > box.width
    # OpenCV's area averaging becomes nearest-neighbour where a side grows.
    name = "bilinear" if spec.interpolation == "area" and enlarges else spec.interpolation
    resized = cv2.resize(box.cut(picture), (width, height), interpolation=_INTERPOLATION[name])
    if spec.channels == "BGR":
        resized = resized[:, :, ::-1]
    elif spec.channels == "GRAY":
        resized = cv2.cvtColor(resized, cv2.COLOR_RGB2GRAY)[:, :, None]
    mean, std = np.asarray(spec.mean, np.float32), np.asarray(spec.std, np.float32)
    values = (resized.astype(np.float32) / np.float32(spec.divisor) - mean) / std
    if spec.layout != "NHWC":
        values = values.transpose(2, 0, 1)
    return Prepared(np.ascontiguousarray(values), box)


def crop_box(rows: int, columns: int, spec: Preprocessing, height: int, width: int) -> Box:
    """The part of a picture of `rows` × `columns` that a model of `height` × `width` sees.

    ``stretch``: the centred `Preprocessing.crop_fraction` of its height and width. ``crop``: the
    largest centred part with the model's aspect ratio, times `Preprocessing.crop_fraction`.
    """
    if spec.resize == "stretch":
        sides = rows * spec.crop_fraction, columns * spec.crop_fraction
    else:
        scale = spec.crop_fraction * min(rows / height, columns / width)
        sides = height * scale, width * scale
    cut_height, cut_width = (max(1, round(side)) for side in sides)
    return Box((columns - cut_width) // 2, (rows - cut_height) // 2, cut_width, cut_height)
