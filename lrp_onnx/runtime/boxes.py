"""Boxes that a detector's outputs hold, so that the one that is explained can be marked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.errors import ContractError
from lrp_onnx.selection import FORMATS, selected

_TEXT = re.compile(rf"(?:(?P<format>{'|'.join(FORMATS)}):)?(?P<place>.+)", re.DOTALL)
RELATIVE = 1.5
"""Up to this, coordinates count as shares of the model's input, else as its pixels."""
Shares = tuple[float, float, float, float]
"""Top, left, bottom and right as shares of what the model sees."""


@dataclass(frozen=True, slots=True)
class Boxes:
    """Where the boxes are: ``cxcywh:output0[:, :4, :]``."""

    output: str
    """Name of the output, (N, …, 4, …)."""
    indices: str
    """The four coordinates and all boxes in it, as text; empty for all of it."""
    format: str = "cxcywh"
    """One of `FORMATS`."""

    @classmethod
    def of(cls, text: str, shapes: Mapping[str, Any]) -> Boxes:
        """The boxes that a text names.

        Args:
            text: ``FORMAT:NAME[indices]``; without a format it is ``cxcywh``.
            shapes: the model's outputs by name.

        Raises:
            ContractError: there is no such output.
        """
        found = _TEXT.fullmatch(text)
        assert found is not None  # any text fits
        name, indices = selected(found["place"])
        try:
            _slices(indices)
        except (ValueError, TypeError):
            raise ContractError(f"boxes={text!r}: [{indices}] are not indices") from None
        if name not in shapes:
            raise ContractError(
                f"boxes={text!r}: no output is called {name!r}; there are {', '.join(shapes)}"
            )
        return cls(name, indices, found["format"] or "cxcywh")

    def place(self, values: NDArray[Any], index: int, size: tuple[int, int]) -> Shares:
        """Where a box is.

        Args:
            values: the output for one picture.
            index: the box's number.
            size: (height, width) of the model's input.

        Raises:
            ContractError: the output does not hold four coordinates of so many boxes.
        """
        part = values[_slices(self.indices)] if self.indices else values
        axes = [axis for axis, length in enumerate(part.shape) if length == 4]
        if part.ndim != 2 or not axes:
            raise ContractError(
                f"'{self.output}', as --boxes names it, has shape {part.shape} for one picture; "
                "boxes are (4, boxes) or (boxes, 4): write for example --boxes "
                f"'{self.output}[:, :4, :]'"
            )
        box = part[:, index] if axes[0] == 0 else part[index]
        return _shares(self.format, box.astype(np.float64), size)


def _slices(indices: str) -> tuple[Any, ...]:
    """Indices behind the batch's, as NumPy takes them."""
    parts = [part.strip() for part in indices.split(",")][1:]
    return tuple(
        slice(*(int(n) if n.strip() else None for n in part.split(":")))
        if ":" in part
        else int(part)
        for part in parts
    )


def _shares(form: str, box: NDArray[np.float64], size: tuple[int, int]) -> Shares:
    """A box's corners as shares."""
    if np.abs(box).max() > RELATIVE:
        height, width = size
        box = box / (width, height, width, height)
    x, y, right, bottom = (float(value) for value in box)
    if form == "cxcywh":
        x, y, right, bottom = x - right / 2, y - bottom / 2, x + right / 2, y + bottom / 2
    elif form == "xywh":
        right, bottom = x + right, y + bottom
    top, left, low, end = (min(max(value, 0.0), 1.0) for value in (y, x, bottom, right))
    return top, left, low, end
