"""Photos to score maps on: the model's input, the label, the object's mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lrp_onnx.errors import ImageError
from lrp_onnx.evaluation.subject import Pictures, Subject
from lrp_onnx.maps.resample import Mask
from lrp_onnx.runtime.images import read_image, table_rows

CORNERS = ("x0", "y0", "x1", "y1")
"""Columns of a box: left, top, right, bottom, in the photo's pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """A photo as the model's input, with label and mask."""

    path: Path
    tensor: Pictures
    """(1, …) float32: the model's input."""
    label: int | None
    """Class index; None where unknown."""
    mask: Mask | None
    """(H, W) bool, of the model's input size; None where unknown or where the object is cut off."""


def load_photo(
    path: Path, subject: Subject, label: int | None, mask_source: Path | Sequence[Any] | None
) -> Photo:
    """Read a photo and its mask.

    Args:
        path: the photo.
        subject: the model, which says how pictures become input.
        label: the class index, if known.
        mask_source: the object: the path of a picture of the photo's size, whose object pixels are
            more than half as light as its lightest pixel; or one box or several
            (x0, y0, x1, y1) in pixels; or None.

    Raises:
        ImageError: the photo or the mask cannot be read, or their sizes differ.
    """
    height, width = subject.size
    picture = read_image(path)
    prepared = subject.prepare(picture)
    mask = None
    if mask_source is not None:
        full = _mask(mask_source, picture.shape[:2])
        cut = prepared.box.cut(np.repeat(full[..., None], 3, 2))[..., 0]
        mask = cv2.resize(cut, (width, height), interpolation=cv2.INTER_LINEAR) > 127
        mask = mask if mask.any() else None
    return Photo(path, prepared.tensor[None], label, mask)


def _mask(source: Path | Sequence[Any], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """(H, W) uint8 of the photo's size: 255 on the object, else 0."""
    if isinstance(source, Path):
        grey = read_image(source)[..., 0]
        if grey.shape != tuple(shape):
            raise ImageError(
                f"the mask {source} has {grey.shape} pixels; its photo has {tuple(shape)}"
            )
        return np.where(grey > grey.max() / 2, 255, 0).astype(np.uint8)
    boxes = [source] if isinstance(source[0], int | float) else source
    mask = np.zeros(shape, np.uint8)
    for left, top, right, bottom in np.maximum(np.asarray(boxes, np.int64), 0):
        mask[top : bottom + 1, left : right + 1] = 255
    return mask


def read_boxes(path: Path) -> dict[str, list[tuple[int, ...]]]:
    """Boxes from a CSV file with the columns ``file,x0,y0,x1,y1``, one line per box.

    Returns:
        File name → boxes (x0, y0, x1, y1) in pixels. A line with an empty column has no box; a file
        without these columns has none at all.

    Raises:
        ImageError: the file cannot be read, or a box is not four numbers.
    """
    rows = table_rows(path)
    columns = {"file", *CORNERS}
    boxes: dict[str, list[tuple[int, ...]]] = {}
    for row in rows if rows and columns <= set(rows[0]) else ():
        if all(row[corner] for corner in CORNERS):
            try:
                box = tuple(int(float(row[corner])) for corner in CORNERS)
            except ValueError as error:
                raise ImageError(
                    f"{path}: the box of {row['file']} is not four numbers: {error}"
                ) from error
            boxes.setdefault(Path(row["file"]).name, []).append(box)
    return boxes


def find_masks(folder: Path, photos: Sequence[Path]) -> dict[str, Path]:
    """File name of a photo → the PNG with the same stem in `folder`, for photos that have one."""
    masks = {photo.name: folder / f"{photo.stem}.png" for photo in photos}
    return {name: path for name, path in masks.items() if path.is_file()}
