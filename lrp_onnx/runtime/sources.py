"""Pictures as Python code has them: files, bytes, PIL's images and arrays."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray

from lrp_onnx.errors import ImageError, first_line, shown
from lrp_onnx.runtime.arrays import ARRAYS, read_array
from lrp_onnx.runtime.images import Picture, check_size, decoded_image, on_white, read_image

ARRAY, BYTES = "<array>", "<bytes>"
"""What stands for the path of a picture that is no file."""


@runtime_checkable
class PilImage(Protocol):
    """What is used of a PIL image. PIL itself is never imported."""

    mode: str
    size: tuple[int, int]
    info: Mapping[Any, Any]

    def convert(self, mode: str) -> Any:
        """The image in another mode."""


Source: TypeAlias = str | os.PathLike[str] | bytes | NDArray[Any] | PilImage
"""One picture: a file, the bytes of a picture file, a PIL image, or an array, (H, W, 3) RGB, (H, W)
grey or (H, W, 4) RGBA, all uint8. Or one signal or volume: an .npy or .wav file, or an array in the
order of the model's axes.
"""


def is_source(value: object) -> bool:
    """Whether `value` is one thing, not several in a list or another iterable."""
    single = (str, os.PathLike, bytes, bytearray, memoryview, PilImage)
    if isinstance(value, single) or hasattr(value, "__array__") or hasattr(value, "read"):
        return True
    return not isinstance(value, Iterable)


def path_of(source: Source) -> Path:
    """The path of a picture's file, or what stands for it."""
    if isinstance(source, str | os.PathLike):
        return Path(source)
    return Path(BYTES if isinstance(source, bytes | bytearray | memoryview) else ARRAY)


def read_source(source: Source) -> Picture:
    """The picture as (H, W, 3) uint8 RGB.

    Files and their bytes are turned as their EXIF data says; PIL images and arrays stay as they
    are. Transparent pixels are mixed with white.

    Raises:
        ImageError: it cannot be read, or is no picture.
    """
    if isinstance(source, str | os.PathLike):
        return read_image(Path(source))
    if isinstance(source, bytes | bytearray | memoryview):
        return decoded_image(bytes(source), BYTES)
    if isinstance(source, PilImage):
        return _of_array(_of_pil(source))
    if hasattr(source, "__array__"):
        return _of_array(as_array(source))
    raise ImageError(
        f"an object of the type {type(source).__name__} is no picture: give a path, the bytes of a "
        "picture file, a PIL image, or an array (H, W, 3) uint8 RGB"
    )


def read_values(source: Source, shape: tuple[int | str | None, ...], layout: str) -> NDArray[Any]:
    """The array of a signal or a volume: an .npy or .wav file, or an array.

    `shape` and `layout` are those of one sample of the model's input, for errors.

    Raises:
        ImageError: it cannot be read, or is a picture.
    """
    what = "signals" if len(shape) == len("CL") else "volumes"
    wanted = f"{what} of shape ({', '.join(map(str, shape))}), {layout[1:]}"
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.suffix.lower() in ARRAYS:
            return read_array(path)
        raise ImageError(
            f"{shown(path)} is no array: the model takes {wanted}, as "
            ".npy files (numpy.save) or .wav"
        )
    if hasattr(source, "__array__") and not isinstance(source, PilImage):
        return as_array(source)
    raise ImageError(
        f"an object of the type {type(source).__name__} is no array: the model takes {wanted}"
    )


def as_array(values: Any) -> NDArray[Any]:
    """An array, or a tensor of another library that NumPy can read.

    Raises:
        ImageError: NumPy cannot read it, as a tensor on a GPU.
    """
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ImageError(
            f"a {type(values).__name__} cannot become a NumPy array ({first_line(error)}): "
            "convert it first, for example with .detach().cpu().numpy()"
        ) from error


def _of_pil(image: PilImage) -> NDArray[Any]:
    """A PIL image as an array (H, W, 3) or (H, W, 4)."""
    check_size("the PIL image", *image.size)
    if image.mode in ("I", "F") or ";" in image.mode:
        raise ImageError(
            f"the PIL image has the mode {image.mode}, with more than 8 bits: "
            "scale its values to 0 to 255 and convert it to RGB"
        )
    clear = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    try:
        return np.asarray(image.convert("RGBA" if clear else "RGB"))
    except (OSError, ValueError, SyntaxError) as error:  # what PIL raises of damaged files
        raise ImageError(f"the PIL image cannot be read: {first_line(error)}") from error


def _of_array(values: NDArray[Any]) -> Picture:
    fault = _array_fault(values)
    if fault:
        raise ImageError(
            f"an array of the type {values.dtype} and the shape {values.shape} is no picture: "
            f"{fault}"
        )
    check_size("the array", values.shape[1], values.shape[0])
    if values.shape[2:] == (4,):
        return on_white(np.ascontiguousarray(values[:, :, :3]), values)
    if values.shape[2:] == (3,):
        return np.array(values)  # a copy: the caller's may change
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(values), cv2.COLOR_GRAY2RGB), np.uint8)


def _array_fault(values: NDArray[Any]) -> str:
    """Why an array is no picture, and what to do, as a clause; empty for a picture."""
    channels = (1, 3, 4)
    shape = values.shape
    if values.dtype != np.uint8:
        return _type_fault(values)
    if 0 in shape:
        return "it has no pixels"
    if len(shape) == 2 or (len(shape) == 3 and shape[2] in channels):
        return ""
    if len(shape) == 3 and shape[0] in channels:
        return "its channels are in front: image.transpose(1, 2, 0) puts them last"
    return "it must be (H, W, 3) RGB, (H, W) grey or (H, W, 4) RGBA"


def _type_fault(values: NDArray[Any]) -> str:
    """What to do with an array that is not uint8."""
    what = "pictures are uint8, 0 to 255: "
    if values.dtype.kind not in "fiub" or values.size == 0:
        return f"{what}convert it"
    lowest, highest = float(values.min()), float(values.max())
    axes = ", with channels last"
    if lowest >= 0 and highest <= 1:
        return f"{what}(image * 255).round().astype(np.uint8) makes it one{axes}"
    if lowest >= 0 and highest <= 255:
        return f"{what}image.round().astype(np.uint8) makes it one{axes}"
    return (
        f"{what}where it is the model's prepared input, give it with a batch axis, in the model's "
        "own shape: image[None]"
    )
