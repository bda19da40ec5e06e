"""Photos to judge maps on: what the model sees, the label, the object's mask."""

from __future__ import annotations

import csv
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
from lrp_onnx.runtime.images import ENCODING, read_image
from lrp_onnx.runtime.preprocess import preprocess

CORNERS = ("x0", "y0", "x1", "y1")
"""Columns of a box: left, top, right, bottom, in the photo's pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """One photo as the model takes it."""

    path: Path
    tensor: Pictures
    """(1, …)"""
    label: int | None
    mask: Mask | None
    """(H, W) of the model's input."""


def load_photo(path: Path, subject: Subject, label: int | None, mask_source: Path | Sequence[Any] | None) -> Photo:
    """The photo as the model takes it.

    Args:
        path: the photo.
        subject: the model, which says how pictures are prepared.
        label: the class index, if known.
        mask_source: where the object is: a picture's path (what is more than half as light as its
            lightest pixel), or one box or several (x0, y0, x1, y1). Where the model does not see
            the object there is no mask.

    Raises:
        ImageError: the photo or the mask cannot be read, or they do not fit.
    """
    explainer = subject.explainer
    height, width = subject.size
    picture = read_image(path)
    prepared = preprocess(picture, explainer.preprocessing, height, width)
    mask = None
    if mask_source is not None:
        whole = _mask(mask_source, picture.shape[:2])
        cut = prepared.box.cut(np.repeat(whole[..., None], 3, 2))[..., 0]
        mask = cv2.resize(cut, (width, height), interpolation=cv2.INTER_LINEAR) > 127
        mask = mask if mask.any() else None
    return Photo(path, prepared.tensor[None], label, mask)


def _mask(source: Path | Sequence[Any], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A mask of the photo's size, 0 or 255."""
    if isinstance(source, Path):
        grey = read_image(source)[..., 0]
        if grey.shape != tuple(shape):
            raise ImageError(f"the mask {source} has {grey.shape} pixels, its photo {tuple(shape)}")
        return np.where(grey > grey.max() / 2, 255, 0).astype(np.uint8)
    boxes = [source] if isinstance(source[0], int | float) else source
    mask = np.zeros(shape, np.uint8)
    for left, top, right, bottom in np.maximum(np.asarray(boxes, np.int64), 0):
        mask[top : bottom + 1, left : right + 1] = 255
    return mask


def read_boxes(path: Path) -> dict[str, list[tuple[int, ...]]]:
    """File name → boxes (x0, y0, x1, y1), from a CSV with the columns ``file,x0,y0,x1,y1``, one
    line a box; nothing without such columns, and no box for a line without numbers there.

    Raises:
        ImageError: the table cannot be read, or a box is not four numbers.
    """
    try:
        with path.open(newline="", encoding=ENCODING) as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ImageError(f"the table {path} cannot be read: {error}") from error
    columns = {"file", *CORNERS}
    boxes: dict[str, list[tuple[int, ...]]] = {}
    for row in rows if rows and columns <= set(rows[0]) else ():
        if all(row[corner] for corner in CORNERS):
            try:
                box = tuple(int(float(row[corner])) for corner in CORNERS)
            except ValueError as error:
                raise ImageError(f"{path}: the box of {row['file']} is no four numbers: {error}") from error
            boxes.setdefault(Path(row["file"]).name, []).append(box)
    return boxes


def find_masks(folder: Path, photos: Sequence[Path]) -> dict[str, Path]:
    """File name → the PNG of the same stem in `folder`."""
    masks = {photo.name: folder / f"{photo.stem}.png" for photo in photos}
    return {name: path for name, path in masks.items() if path.is_file()}
