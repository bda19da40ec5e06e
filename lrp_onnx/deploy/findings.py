"""What maps say of photos, in the photos' own size: what annotations are made from."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.contract import C3_REGION, HEATMAP
from lrp_onnx.errors import ImageError, OutputError, first_line, shown
from lrp_onnx.maps.resample import resample
from lrp_onnx.runtime.explanation import Explanation
from lrp_onnx.runtime.images import read_image
from lrp_onnx.runtime.preprocess import Box


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Finding:
    """The relevance of one photo's pixels for one class."""

    path: Path
    """The photo."""
    size: tuple[int, int]
    """Its height and width in pixels."""
    box: Box
    """The part of it that the model sees."""
    target: int
    """The class that is explained."""
    name: str
    """Its name, or its index where it has none."""
    probability: float | None
    """Its probability; None where the model does not tell it."""
    predicted: str
    """The most probable class, as `name`."""
    confidence: float | None
    """The probability of `predicted`."""
    composite: str
    heatmap: NDArray[np.float32]
    """(h, w), over `box`."""
    region: NDArray[np.bool_] | None
    """(s, s), over `box`: the region that C3 keeps; None where it is not known."""

    @classmethod
    def of(cls, explanation: Explanation) -> Finding:
        """The finding of an explanation.

        Raises:
            ImageError: what was explained is no photo.
        """
        best, name, value = explanation.top5[0]
        return cls(
            path=explanation.path,
            size=(explanation.photo.shape[0], explanation.photo.shape[1]),
            box=explanation.box,
            target=explanation.target,
            name=explanation.target_name or str(explanation.target),
            probability=explanation.probability,
            predicted=name or str(best),
            confidence=None if explanation.probability is None else value,
            composite=explanation.composite,
            heatmap=_flat(explanation.heatmap, explanation.path),
            region=explanation.region,
        )

    @classmethod
    def stored(cls, line: Mapping[str, Any], folder: Path) -> Finding:
        """The finding of a line of `explanations.jsonl` in a folder of results.

        Raises:
            ImageError: the photo cannot be read, is none, or is another now.
            OutputError: the arrays cannot be read.
        """
        path, target, best = Path(line["image"]), line["target"], line["top5"][0]
        values = folder / line["files"]["values"]
        try:
            with np.load(values, allow_pickle=False) as arrays:
                heatmap = np.asarray(arrays[HEATMAP], np.float32)
                region = np.asarray(arrays[C3_REGION], np.bool_) if C3_REGION in arrays else None
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise OutputError(
                f"{shown(values)} cannot be read ({first_line(error)}): run explain again, with "
                "--force"
            ) from error
        _flat(heatmap, path)
        photo = read_image(path)
        if hashlib.sha256(path.read_bytes()).hexdigest() != line["sha256"]:
            raise ImageError(
                f"{shown(path)} is not the picture any more that was explained: run explain again"
            )
        return cls(
            path=path,
            size=(photo.shape[0], photo.shape[1]),
            box=Box(**line["box"]),
            target=target["index"],
            name=target["name"] or str(target["index"]),
            probability=target["probability"],
            predicted=best["name"] or str(best["index"]),
            confidence=best.get("probability"),
            composite=line["composite"],
            heatmap=heatmap,
            region=region,
        )

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """The region of C3 in the photo, (H, W) bool of `size`; None where it is not known."""
        if self.region is None:
            return None
        mask = np.zeros(self.size, np.uint8)
        size = self.box.height, self.box.width
        self.box.cut(mask)[:] = resample(self.region, size, method="bilinear") > 0.5
        return mask.astype(np.bool_)

    @property
    def whole(self) -> NDArray[np.float32]:
        """The heatmap over the whole photo, zero where the model does not look: (h, w), as fine as
        `heatmap`.
        """
        rows, columns = self.heatmap.shape
        down, right = rows / self.box.height, columns / self.box.width
        height, width = round(self.size[0] * down), round(self.size[1] * right)
        top = min(round(self.box.top * down), height - rows)
        left = min(round(self.box.left * right), width - columns)
        canvas = np.zeros((height, width), np.float32)
        canvas[top : top + rows, left : left + columns] = self.heatmap
        return canvas


def _flat(heatmap: NDArray[np.float32], path: Path) -> NDArray[np.float32]:
    """The heatmap of a photo; ImageError for those of signals and volumes."""
    if heatmap.ndim != 2:
        raise ImageError(f"{shown(path)} is a signal or a volume, and annotations are of photos")
    return heatmap
