"""How Hugging Face's image processors and timm say how pictures become a model's input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lrp_onnx.contract import LARGEST, SMALLEST, Preprocessing

_RESAMPLE = {0: "nearest", "nearest": "nearest"}
"""Interpolations of other libraries that do not average; all others do when they shrink."""
CONVNEXT = ("convnext", "resnet", "regnet", "van", "cvt")
"""Beginnings of the names of Hugging Face's ConvNext processor and of models that use it."""
CONVNEXT_SHARE, CONVNEXT_WHOLE = 224 / 256, 384
"""The part that it cuts out where nothing is said, and the side from which it stretches instead."""
SHORTEST = ("clip", "mobilenet", "mobilevit", "poolformer", "bit", "levit")
"""The same of processors to which a number is a picture's shorter side."""
SQUARE = ("deit", "beit")
"""The same of those that make a square of it even if they cut out a part. Without a part to cut out
the others do so too.
"""
LONGEST_SIDE = 1 << 15
"""Most pixels of a side that can be a model's."""


def of_preprocessor(values: Mapping[str, Any]) -> Preprocessing:
    """The preprocessing of Hugging Face's image processors: resize, crop, rescale, normalise.

    Args:
        values: ``preprocessor_config.json``, and ``model_type`` of ``config.json``.

    Raises:
        ValueError, TypeError, LookupError, ArithmeticError: values are missing or do not fit.
    """
    factor = float(values.get("rescale_factor", 1 / 255)) if values.get("do_rescale", True) else 1.0
    mean, std = _normalisation(values)
    gray = isinstance(values.get("image_mean"), list) and len(mean) == 1
    flips = values.get("do_flip_channel_order", False)
    stretches, fraction = _cut_out(values)
    return Preprocessing(
        mean=mean,
        std=std,
        divisor=round(1 / factor, 9),
        channels="BGR" if flips else "GRAY" if gray else "RGB",
        resize="stretch" if stretches else "crop",
        crop_fraction=fraction,
        interpolation=_interpolation(values.get("resample")),
    )


def _normalisation(values: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation; processors that turn the order of channels have none."""
    if not values.get("do_normalize", "do_flip_channel_order" not in values):
        return (0.0,), (1.0,)
    if "image_mean" not in values or "image_std" not in values:
        raise ValueError("it has no image_mean and image_std")
    mean, std = _floats(values["image_mean"]), _floats(values["image_std"])
    if values.get("rescale_offset", False):  # pixels of -1 to 1
        mean = tuple(value + 1 for value in mean)
    if values.get("include_top", False):  # EfficientNet divides twice
        std = tuple(value * value for value in std)
    return mean, std


def _cut_out(values: Mapping[str, Any]) -> tuple[bool, float]:
    """Whether a processor stretches pictures, and the part that it then cuts out."""
    names = ("image_processor_type", "feature_extractor_type", "model_type")
    kind = next((str(values[name]) for name in names if values.get(name)), "")
    kind = kind.replace("_", "").lower()
    resized, cut = values.get("size"), cut_of(values)
    before, after = _shorter(resized), _shorter(cut)
    share = float(values.get("crop_pct") or 1.0)
    if kind.startswith(CONVNEXT) or (not kind and "crop_pct" in values and cut is None):
        whole = before >= CONVNEXT_WHOLE
        return whole, 1.0 if whole else float(values.get("crop_pct") or CONVNEXT_SHARE)
    if before and after:
        share = min(1.0, share * after / before)
    if kind.startswith("levit"):  # it enlarges the size by itself
        share *= CONVNEXT_SHARE
    if isinstance(resized, dict):
        return "shortest_edge" not in resized, share
    return not kind.startswith(SHORTEST) and (kind.startswith(SQUARE) or cut is None), share


def cut_of(values: Mapping[str, Any]) -> Any:
    """The size that a processor of Hugging Face cuts out; None where it does not."""
    cut = values.get("crop_size")
    return cut if values.get("do_center_crop", cut is not None) else None


def of_timm(values: Mapping[str, Any]) -> Preprocessing:
    """timm's ``pretrained_cfg``."""
    mode = values.get("crop_mode") or "center"
    if mode not in ("center", "squash"):
        raise ValueError(f"the crop_mode {mode!r}: center and squash are read")
    return Preprocessing(
        mean=_floats(values["mean"]),
        std=_floats(values["std"]),
        channels="GRAY" if (values.get("input_size") or (3,))[0] == 1 else "RGB",
        resize="stretch" if mode == "squash" else "crop",
        crop_fraction=float(values.get("crop_pct") or 1.0),
        interpolation=_interpolation(values.get("interpolation")),
    )


def possible(spec: Preprocessing) -> Preprocessing:
    """The preprocessing itself; ValueError where no picture can be prepared so."""
    numbers = (*spec.mean, *spec.std, spec.divisor, spec.crop_fraction)
    if not all(map(math.isfinite, numbers)) or max(map(abs, numbers)) > LARGEST:
        raise ValueError("numbers that are not finite, or huge")
    if min(*spec.std, spec.divisor, spec.crop_fraction) < SMALLEST or spec.crop_fraction > 1:
        raise ValueError("a divisor that is not above 0, or a crop of more than the picture")
    if {len(spec.mean), len(spec.std)} - {1, 1 if spec.channels == "GRAY" else 3}:
        raise ValueError(f"{len(spec.mean)} means and {len(spec.std)} standard deviations")
    return spec


def _interpolation(name: Any) -> str:
    """Ours; bilinear and bicubic of other libraries average when they shrink, as ``area`` does."""
    return _RESAMPLE.get(name, "area")


def _floats(values: Any) -> tuple[float, ...]:
    numbers = values if isinstance(values, list | tuple) else [values]
    return tuple(map(float, numbers))


def _shorter(size: Any) -> float:
    """The shorter side of a size in any of its forms; 0 where there is none."""
    if isinstance(size, dict):
        sides = [float(v) for v in size.values() if isinstance(v, int | float)]
        return min(sides, default=0.0)
    return float(size) if isinstance(size, int | float) else 0.0


def pair(size: Any) -> tuple[int, int] | None:
    """(height, width) of a size in any of its forms, or None."""
    if isinstance(size, dict):
        edge = size.get("shortest_edge")
        size = (size.get("height", edge), size.get("width", edge))
    if isinstance(size, int):
        size = (size, size)
    if isinstance(size, list | tuple) and len(size) == 2 and all(type(s) is int for s in size):
        height, width = size
        return (height, width) if min(size) > 0 and max(size) <= LONGEST_SIDE else None
    return None
