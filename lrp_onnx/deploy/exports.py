"""Explanations as data for tools that show pictures: COCO, Label Studio, FiftyOne.

None of these is imported. All functions take explanations of pictures, as `lrp_onnx.explain` makes
them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.errors import ContractError, shown
from lrp_onnx.runtime.images import Picture
from lrp_onnx.runtime.preprocess import Box

Mask = NDArray[np.bool_]
"""(H, W): the region of C3 in the photo's size."""


class Explained(Protocol):
    """What is read of an explanation; `lrp_onnx.explanation.Explanation` has it."""

    @property
    def path(self) -> Path:
        """The picture's file."""

    @property
    def photo(self) -> Picture:
        """(H, W, 3): the whole picture."""

    @property
    def box(self) -> Box:
        """The part of it that the model sees."""

    @property
    def heatmap(self) -> NDArray[np.float32]:
        """(h, w): the map over this part."""

    @property
    def target(self) -> int:
        """The class that is explained."""

    @property
    def target_name(self) -> str:
        """Its name, or empty."""

    @property
    def probability(self) -> float | None:
        """Its probability, where the model tells it."""

    @property
    def composite(self) -> str:
        """Name of the composite."""

    @property
    def c3(self) -> Mask | None:
        """The region that C3 keeps, in the photo's size."""


def region_of(explanation: Explained) -> Mask:
    """The region of C3, (H, W) in the photo's size.

    Raises:
        ContractError: the compiled file does not give one.
    """
    if explanation.c3 is None:
        raise ContractError(
            f"the explanation of {shown(explanation.path)} has no region of C3: compile the model "
            "with --outputs heatmap,c3"
        )
    return explanation.c3


def coco_rle(mask: Mask) -> dict[str, Any]:
    """A mask (H, W) as COCO's run lengths, column by column: ``size`` [H, W], and ``counts``, the
    text that pycocotools reads.
    """
    counts = _runs(mask.T.ravel())
    text = []
    for number, count in enumerate(counts):
        # From the fourth on, what differs from the run before the last: of the same value.
        text.append(_in_fives(count - counts[number - 2] if number > 2 else count))
    return {"size": list(mask.shape), "counts": "".join(text)}


def _in_fives(number: int) -> str:
    """A signed number as characters of five bits, the lowest first, each with a bit for "more"."""
    found = ""
    while True:
        bits, number = number & 31, number >> 5
        last = number == (-1 if bits & 16 else 0)
        found += chr(48 + bits + (0 if last else 32))
        if last:
            return found


def _runs(values: Mask) -> list[int]:
    """The lengths of the runs of equal values in (N,), of False and True by turns; the first, of
    False, may be 0.
    """
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    edges = [0, *([0] if values.size and values[0] else []), *changes.tolist(), values.size]
    return [end - start for start, end in pairwise(edges)]


def coco_dataset(explanations: Iterable[Explained]) -> dict[str, Any]:
    """The regions of C3 as a dataset of COCO's: a picture, an annotation and a category each.

    An annotation has ``segmentation`` (`coco_rle`), ``bbox`` [x, y, width, height], ``area`` in
    pixels, and ``score``, the class's probability where the model tells it. A category's ``id`` is
    the index of the class. Several explanations of one file share its picture.

    Raises:
        ContractError: an explanation has no region.
    """
    images: dict[str, dict[str, Any]] = {}
    categories: dict[int, dict[str, Any]] = {}
    annotations = []
    for number, one in enumerate(explanations, 1):
        mask = region_of(one)
        height, width = mask.shape
        image = {"file_name": str(one.path), "height": height, "width": width}
        images.setdefault(str(one.path), {"id": len(images) + 1, **image})
        name = one.target_name or f"class {one.target}"
        categories[one.target] = {"id": one.target, "name": name}
        annotation = {
            "id": number,
            "image_id": images[str(one.path)]["id"],
            "category_id": one.target,
            "segmentation": coco_rle(mask),
            "bbox": _bounds(mask),
            "area": int(mask.sum()),
            "iscrowd": 0,
        }
        score = {} if one.probability is None else {"score": float(one.probability)}
        annotations.append(annotation | score)
    return {
        "images": list(images.values()),
        "annotations": annotations,
        "categories": sorted(categories.values(), key=lambda category: category["id"]),
    }


def _bounds(mask: Mask) -> list[int]:
    """x, y, width and height of what is in a mask; zeros where nothing is."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not rows.size:
        return [0, 0, 0, 0]
    x, y = int(columns[0]), int(rows[0])
    return [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]


LENGTHS = (4, 8, 12, 16)
"""Bits of a run's length in Label Studio's format: the shortest that holds it is taken."""


def label_studio_rle(mask: Mask) -> list[int]:
    """A mask (H, W) as the bytes of Label Studio's brush: run lengths of a picture of four
    channels, row by row.
    """
    bits = [f"{mask.size * 4:032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in LENGTHS)]
    for number, pixels in enumerate(_runs(mask.ravel())):
        value = f"{255 * (number % 2):08b}"
        left = pixels * 4
        while left:
            run = min(left, 1 << LENGTHS[-1])
            which = next(i for i, size in enumerate(LENGTHS) if run <= 1 << size)
            bits.append(f"1{which:02b}{run - 1:0{LENGTHS[which]}b}{value}")
            left -= run
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8))


def label_studio_task(
    explanations: Sequence[Explained],
    image: str,
    *,
    from_name: str = "tag",
    to_name: str = "image",
) -> dict[str, Any]:
    """A task of Label Studio's with the regions of C3 of one picture as brush strokes to correct.

    Args:
        explanations: of one picture, for one class or several.
        image: the picture's address, as Label Studio's browser reaches it.
        from_name: name of the ``BrushLabels`` in the project's labelling interface.
        to_name: name of its ``Image``.

    Raises:
        ContractError: an explanation has no region.
    """
    results = []
    for number, one in enumerate(explanations, 1):
        mask = region_of(one)
        height, width = mask.shape
        results.append(
            {
                "id": f"c3-{number}",
                "type": "brushlabels",
                "from_name": from_name,
                "to_name": to_name,
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {
                    "format": "rle",
                    "rle": label_studio_rle(mask),
                    "brushlabels": [one.target_name or f"class {one.target}"],
                },
            }
        )
    composites = sorted({one.composite for one in explanations})
    prediction: dict[str, Any] = {
        "model_version": f"lrp-onnx {', '.join(composites)}",
        "result": results,
    }
    known = [one.probability for one in explanations if one.probability is not None]
    if known:
        prediction["score"] = float(max(known))
    return {"data": {to_name: image}, "predictions": [prediction]}


def fiftyone_heatmap(explanation: Explained) -> dict[str, Any]:
    """What ``fiftyone.Heatmap`` takes: ``map`` (h, w) float32 over the whole photo, 0 where the
    model does not see it, and ``range``, which FiftyOne else takes for 0 to 1.

    The range of a map with relevance against the class is symmetric, so that 0 is in its middle.
    """
    whole = whole_map(explanation)
    most = float(np.abs(whole).max()) or 1.0
    return {"map": whole, "range": [-most if whole.min() < 0 else 0.0, most]}


def whole_map(explanation: Explained) -> NDArray[np.float32]:
    """The heatmap over the whole photo, (h, w), at its own resolution; 0 outside `box`."""
    box, heatmap = explanation.box, explanation.heatmap
    photo = explanation.photo.shape[:2]
    rows, columns = heatmap.shape
    down, across = rows / box.height, columns / box.width
    top, left = round(box.top * down), round(box.left * across)
    shape = (
        max(math.ceil(photo[0] * down - 0.5), top + rows),
        max(math.ceil(photo[1] * across - 0.5), left + columns),
    )
    whole = np.zeros(shape, np.float32)
    whole[top : top + rows, left : left + columns] = heatmap
    return whole
