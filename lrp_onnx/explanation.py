"""The explanation of a picture that draws and saves itself."""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Callable
from dataclasses import fields
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.errors import OutputError, OutputExistsError, shown
from lrp_onnx.files.writing import write_bytes
from lrp_onnx.maps.chain import Chain, parse_chain
from lrp_onnx.maps.resample import resample
from lrp_onnx.relevance.composites.presets import COMPOSITES
from lrp_onnx.report.marks import with_marks
from lrp_onnx.report.render import RenderStyle, encoded, height_within, overlay, with_height
from lrp_onnx.runtime import explanation
from lrp_onnx.runtime.images import Picture
from lrp_onnx.runtime.preprocess import Box

PICTURES = (".png", ".jpg", ".jpeg")
"""Endings of files that hold the overlay."""
SMALLEST, NOTEBOOK = 288, 360
"""Height in pixels below which a picture is enlarged before it is drawn, and in notebooks."""
DIMMED = 0.5
"""Brightness of the part of a picture that the model does not see."""


def style_of(chain: Chain, start: str, composite: str) -> RenderStyle:
    """The colours of heatmaps.

    The post-processing decides first: a chain that keeps only relevance for the class needs one
    side of the colours. Then the start: a contrastive one gives relevance for and against a class,
    which needs two sides, even in a map that has only one. Then the composite, if its name is
    known.
    """
    if chain.colors != "auto":
        return RenderStyle(colors=chain.colors)
    if start == "contrastive":
        return RenderStyle(colors="diverging")
    known = COMPOSITES.get(composite)
    return RenderStyle(colors=known.colors) if known else RenderStyle()


class Explanation(explanation.Explanation):
    """A picture and the relevance of its pixels for one class, ready to be drawn and saved.

    The fields are those of `runtime.explanation.Explanation`: ``heatmap`` (H, W) float32,
    ``target``, ``target_name``, ``probability``, ``top5``, ``scores``, ``photo``, ``box``, ….
    In a notebook it shows itself.
    """

    __slots__ = ()

    @property
    def c3(self) -> NDArray[np.bool_] | None:
        """The region that C3 keeps, (H'', W'') bool in the size of `photo`; None where the file
        does not give it. ``photo[explanation.c3]`` are its pixels.
        """
        if self.region is None:
            return None
        mask = np.zeros(self.photo.shape[:2], np.uint8)
        size = self.box.height, self.box.width
        self.box.cut(mask)[:] = resample(self.region, size, method="bilinear") > 0.5
        return mask.astype(np.bool_)

    def overlay(self, *, outline: bool = True, height: int | None = None) -> Picture:
        """The heatmap over the photo; what the model does not see of it is dimmed.

        Args:
            outline: whether the region of C3 is drawn as a line, where the file gives it, and the
                mask, pixels or box of an output that are explained.
            height: height of the result in pixels; None for the photo's.

        Returns:
            (H'', W'', 3) uint8 RGB, a new array.
        """
        photo, box = self.photo, self.box
        if height is not None:
            photo = with_height(photo, height)
            box = _scaled(box, photo.shape[1] / self.photo.shape[1], height / self.photo.shape[0])
        drawn: Picture = np.rint(photo * DIMMED).astype(np.uint8)
        mask = self.region if outline else None
        box.cut(drawn)[:] = overlay(box.cut(photo), self.heatmap, self.style, mask=mask)
        return with_marks(drawn, box, self) if outline else drawn

    @property
    def style(self) -> RenderStyle:
        """The colours of the heatmap, see `style_of`."""
        return style_of(parse_chain(self.post), self.start, self.composite)

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Write the explanation, completely or not at all, and return the path.

        Args:
            path: its ending says what is written. ``.png``, ``.jpg``: the overlay. ``.npz``: the
                arrays, under the names of a compiled file's outputs, and ``scores``. ``.json``:
                `to_dict`.
            force: whether an existing file is overwritten.

        Raises:
            OutputExistsError: the file exists and `force` is not set.
            OutputError: the ending is another, or the file cannot be written.
        """
        path = Path(path)
        ending = path.suffix.lower()
        writers: dict[str, Callable[[], bytes]] = {
            **dict.fromkeys(PICTURES, lambda: encoded(self._visible(SMALLEST), ending)),
            ".npz": self.npz,
            ".json": lambda: json.dumps(self.to_dict(), indent=2).encode() + b"\n",
        }
        if ending not in writers:
            raise OutputError(
                f"{shown(path)} cannot be written: an explanation is saved as "
                f"{', '.join(writers)}; its ending says which"
            )
        if path.exists() and not force:
            raise OutputExistsError(f"{shown(path)} exists: give another path, or force=True")
        return write_bytes(path, writers[ending](), force=force)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays as data that JSON can hold; what is not finite is None."""
        measure = explanation.measure_of(self.kind)
        sizes = self.heatmap.shape
        *depth, rows, columns = sizes if len(sizes) > 1 else (1, *sizes)
        return {
            "image": str(self.path),
            "height": self.photo.shape[0],
            "width": self.photo.shape[1],
            "box": {f.name: int(getattr(self.box, f.name)) for f in fields(Box)},
            "target": {
                "index": self.target,
                "name": self.target_name,
                "probability": _finite(self.probability),
            },
            "top5": [
                {"index": index, "name": name, measure: _finite(value)}
                for index, name, value in self.top5
            ],
            "kind": self.kind,
            "composite": self.composite,
            "post": self.post,
            "start": {"from": self.start, "value": _finite(self.start_value)},
            "heatmap": {
                **({"depth": depth[0]} if depth else {}),
                "height": rows,
                "width": columns,
                "lowest": _finite(self.heatmap.min()),
                "highest": _finite(self.heatmap.max()),
            },
            "region": None if self.region is None else _finite(self.region.mean()),
            "sums": self.sums and {name: _finite(value) for name, value in self.sums.items()},
            "provider": self.provider,
            "seconds": {name: _finite(value) for name, value in self.seconds.items()},
        }

    def _visible(self, least: int, most: int | None = None) -> Picture:
        """The overlay, at least `least` and at most `most` pixels high, or flatter where it would
        be too wide.
        """
        rows = self.photo.shape[0]
        height = height_within(self.photo, max(least, rows if most is None else min(rows, most)))
        if most is None:
            height = max(height, rows)
        return self.overlay(height=None if height == rows else height)

    def _sentence(self) -> str:
        """The class and its probability in words."""
        name = f"{self.target_name} ({self.target})" if self.target_name else f"class {self.target}"
        return name if self.probability is None else f"{name}, {self.probability:.1%}"

    def __repr__(self) -> str:
        """One line: the picture, the class and its probability."""
        return f"<Explanation of {shown(self.path)}: {shown(self._sentence())}>"

    def _repr_html_(self) -> str:
        """The overlay and the class, for notebooks: nothing outside the text is needed."""
        data = base64.b64encode(encoded(self._visible(NOTEBOOK, NOTEBOOK), ".jpg")).decode()
        sentence, name = escape(shown(self._sentence())), escape(shown(self.path.name))
        method = escape(shown(f"{self.composite}, {self.post}"))
        return (
            '<figure style="margin:0">'
            f'<img alt="Relevance for {sentence} in {name}" style="max-width:100%"'
            f' src="data:image/jpeg;base64,{data}">'
            f"<figcaption><b>{sentence}</b><br>{name} · {method}</figcaption></figure>"
        )


def _scaled(box: Box, across: float, down: float) -> Box:
    """A box in a picture that is so many times as wide and as high."""
    left, right = round(box.left * across), round((box.left + box.width) * across)
    top, bottom = round(box.top * down), round((box.top + box.height) * down)
    return Box(left, top, max(1, right - left), max(1, bottom - top))


def _finite(value: Any) -> float | None:
    """A number as JSON can hold it."""
    return None if value is None or not math.isfinite(value) else float(value)
