"""The part of an output that is explained, as text such as ``scores[:, 4:, 120]``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

Range = tuple[int, int]
"""First index, and the one after the last."""
FORMATS = ("cxcywh", "xyxy", "xywh")
"""What four coordinates of a box may be: centre and size; left, top, right and bottom; left, top
and size.
"""
_SELECTED = re.compile(r"(?P<name>.+)\[(?P<indices>[-\d:,\sa-z]+)\]", re.DOTALL)
_PART = re.compile(r"(?P<word>mean|max)?\s*(?P<range>[^a-z]*)")
_LARGEST_SIZE = 1 << 62


def selected(text: str) -> tuple[str, str]:
    """An output's name and the indices after it, ``logits[:, :, 3, 4]`` → (``logits``,
    ``:, :, 3, 4``); no indices are an empty text.
    """
    found = _SELECTED.fullmatch(text)
    if not found or not re.search(r"[\d:]", found["indices"]):
        return text, ""
    return found["name"], found["indices"]


@dataclass(frozen=True, slots=True)
class Selection:
    """The part of an output (N, …) that is explained.

    One axis holds the classes: of (N, C, H, W) the second one, of other outputs the only one with a
    range. Along the others it is the mean over the selected elements, or the largest of them.
    """

    ranges: tuple[Range, ...]
    """Of every axis but the batch."""
    axis: int
    """The axis of the classes; 0 is the batch."""
    largest: bool = False
    """Whether the largest value along the other axes is explained, not the mean."""

    @classmethod
    def of(cls, indices: str, shape: Sequence[int | None]) -> Selection:
        """The selection that text makes of a tensor of `shape`.

        For every axis there is an index or a range; ``mean`` or ``max`` stands for a whole axis, or
        before a range. Examples: ``:, :, 12, 30:40`` (classes at some pixels), ``:, 4:, max``
        (classes of the box that has the largest score), ``:, 120, :`` (those of box 120).

        Raises:
            ValueError: it is not one of these for every axis, or an index is out of range.
        """
        texts = [part.strip() for part in indices.split(",")]
        if len(shape) < 2 or None in shape[1:]:
            raise ValueError(
                f"it has shape {tuple(shape)}: indices need two axes or more, of known sizes"
            )
        parts = [_PART.fullmatch(text) for text in texts]
        if len(texts) != len(shape) or texts[0] != ":" or None in parts:
            raise ValueError(
                f"[{indices}] is not an index, a range, mean or max for each of its {len(shape)} "
                f"axes, the first of them ':', e.g. {example(shape)}"
            )
        words = [part["word"] or "" for part in parts[1:] if part]
        bounds = [part["range"].strip() or ":" for part in parts[1:] if part]
        sizes = [size or 0 for size in shape[1:]]
        ranges = tuple(_range(text, size) for text, size in zip(bounds, sizes, strict=True))
        if {"mean", "max"} <= set(words):
            raise ValueError("it is either the mean or the max of several elements, not both")
        axis = _axis_of_classes(words, bounds, shape)
        several = any(high - low > 1 for i, (low, high) in enumerate(ranges, 1) if i != axis)
        return cls(ranges, axis, "max" in words and several)

    @classmethod
    def read(cls, text: str) -> Selection | None:
        """The inverse of `str`; None of an empty text."""
        if not text:
            return None
        inner = text.strip("[]")
        return cls.of(inner, (None, *[_LARGEST_SIZE] * inner.count(",")))

    def __str__(self) -> str:
        """Text that `of` and `read` read."""
        texts = [self._part(axis) for axis in range(1, len(self.ranges) + 1)]
        return f"[:, {', '.join(texts)}]"

    def _part(self, axis: int) -> str:
        low, high = self.ranges[axis - 1]
        text = str(low) if high == low + 1 else f"{low}:{high}"
        if axis == self.axis:
            return text
        plain = len(self.ranges) == 3 and self.axis == 1
        several = high > low + 1 and (self.largest or not plain)
        moved = axis == 1 and len(self.ranges) == 3 and not plain
        return f"{'max' if self.largest else 'mean'} {text}" if several or moved else text

    @property
    def classes(self) -> int:
        """The number of classes."""
        low, high = self.ranges[self.axis - 1]
        return high - low

    @property
    def others(self) -> tuple[int, ...]:
        """The axes along which the mean or the largest value is taken."""
        return tuple(axis for axis in range(1, len(self.ranges) + 1) if axis != self.axis)

    @property
    def several(self) -> bool:
        """Whether a class has several elements."""
        return any(high - low > 1 for low, high in (self.ranges[axis - 1] for axis in self.others))

    def scores(self, values: NDArray[Any]) -> NDArray[Any]:
        """The selected part of an output, (N, …) → (N, classes) float64."""
        part = values[(slice(None), *(slice(*one) for one in self.ranges))].astype("float64")
        found: NDArray[Any] = part.max(self.others) if self.largest else part.mean(self.others)
        return found

    def found(self, values: NDArray[Any], target: int) -> tuple[Range, ...]:
        """The ranges that are explained of the class `target` of one output (…): those of its
        largest value where that is what is explained.
        """
        if not self.largest:
            return self.ranges
        low, high = self.ranges[self.axis - 1]
        chosen = low + min(target, high - low - 1)
        ranges = [*self.ranges]
        ranges[self.axis - 1] = (chosen, chosen + 1)
        part = values[tuple(slice(*one) for one in ranges)]
        position = int(part.argmax())
        for axis in reversed(range(part.ndim)):
            position, index = divmod(position, part.shape[axis])
            first = ranges[axis][0] + index
            ranges[axis] = (first, first + 1)
        ranges[self.axis - 1] = self.ranges[self.axis - 1]
        return tuple(ranges)

    def place(self, values: NDArray[Any], target: int) -> tuple[float, float, float, float] | None:
        """Top, left, bottom and right of the pixels that are explained of the class `target` of one
        output (C, H, W), as shares of it; None where the output has no pixels.
        """
        if len(self.others) != 2:
            return None
        ranges = self.found(values, target)
        (top, bottom), (left, right) = (ranges[axis - 1] for axis in self.others)
        height, width = (values.shape[axis - 1] for axis in self.others)
        return top / height, left / width, bottom / height, right / width

    def box(self, values: NDArray[Any], target: int) -> int | None:
        """The index of the box that is explained of the class `target` of one output of rank 2,
        (classes, boxes) or (boxes, classes); None where there are several, or none.
        """
        if len(self.others) != 1:
            return None
        low, high = self.found(values, target)[self.others[0] - 1]
        return low if high == low + 1 else None


def example(shape: Sequence[int | None]) -> str:
    """Indices that fit a tensor of `shape`, as text."""
    rest = {2: "0", 3: ":, 0", 4: ":, 12, 30:40"}.get(len(shape), ", ".join("0" * (len(shape) - 1)))
    return f"[:, {rest}]"


def _axis_of_classes(words: Sequence[str], bounds: Sequence[str], shape: Sequence[Any]) -> int:
    """The axis that holds the classes."""
    if len(shape) == 4 and not words[0]:
        return 1
    pairs = list(enumerate(zip(words, bounds, strict=True), start=1))
    bare = [axis for axis, (word, text) in pairs if not word and ":" in text]
    single = [axis for axis, (word, text) in pairs if not word and ":" not in text]
    if len(bare) == 1 or (not bare and single):
        return (bare or single)[0]
    listed = " and ".join(f"axis {axis}" for axis in bare) or "none"
    raise ValueError(
        f"one axis holds the classes, and {listed} can be it: write an index, mean or max for the "
        f"others, as in [:, :, {', '.join(['max'] * (len(shape) - 2))}]"
    )


def _range(text: str, size: int) -> Range:
    """``3``, ``3:7``, ``:`` or ``-1`` as a range of `size` indices."""
    first, colon, last = text.partition(":")
    try:
        low = int(first) if first.strip() or not colon else 0
        high = int(last) if last.strip() else size
    except ValueError:
        raise ValueError(f"{text!r} is not an index or a range such as 3:7") from None
    low += size if low < 0 else 0
    high = high + (size if high < 0 else 0) if colon else low + 1
    if not 0 <= low < high <= size:
        raise ValueError(f"{text} is not within 0 to {size - 1}")
    return low, high
