"""Which classes to explain: by index, by name, by rank, or not at all."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.contract import PREDICTED
from lrp_onnx.errors import ContractError, ImageError, shown

Target = int | str | Sequence[int | str] | NDArray[np.int64] | None
MOST_DIGITS = 19
"""Digits of an index are fewer."""


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def class_of(text: str) -> int | str:
    """A class as a user writes it: an index, or else a name."""
    digits = text.removeprefix("-")
    return int(text) if digits.isdecimal() and len(digits) < MOST_DIGITS else text


@dataclass(frozen=True, slots=True)
class Classes:
    """A model's classes, by index from 0 and by name where names are known."""

    count: int
    names: tuple[str, ...]
    lowest: int = PREDICTED
    """The lowest target that is allowed: -1 is the predicted class, -k the class of the k-th
    largest logit.
    """

    @classmethod
    def of(cls, count: int, names: tuple[str, ...]) -> Classes:
        """So many classes, with these names.

        Raises:
            ContractError: there are names, and not as many as classes.
        """
        if names and len(names) != count:
            raise ContractError(
                f"there are {len(names)} class names and the model has {count} classes: give one "
                "name per class"
            )
        return cls(count, names)

    def name(self, index: int) -> str:
        """The name of a class, or "" where names are unknown."""
        return self.names[index] if self.names else ""

    def indices(self, target: Target, count: int | None) -> NDArray[np.int64]:
        """The targets as class indices.

        Args:
            target: an index or a name, or a sequence of them; None for the predicted class.
            count: how many pictures there are: one target stands for all of them. None allows any
                number of targets.

        Returns:
            (count,) int64, or as many as `target` has; -k is the class of the k-th largest logit.

        Raises:
            ImageError: a target is not a class of the model, or their number is not 1 or `count`.
        """
        if target is None:
            target = PREDICTED
        if isinstance(target, str):
            target = self._index_of(target)
        elif isinstance(target, Sequence):
            target = [self._index_of(item) if isinstance(item, str) else item for item in target]
        indices = np.asarray(target)
        asked = indices.reshape(-1)
        if indices.dtype == np.object_ and all(map(_is_whole, indices.flat)):
            # numbers beyond int64 are no classes either
            indices = np.clip(indices, self.lowest - 1, self.count, dtype=np.object_)
            indices = np.asarray(indices, np.int64)
        many = indices.ndim == 1 and len(indices) > 0
        fits = indices.ndim == 0 or (many and (count is None or len(indices) in (1, count)))
        if indices.dtype.kind not in "iu" or not fits:
            several = "a list of them" if count is None else f"{count} indices, one per sample"
            raise ImageError(
                f"the target is {target!r}; it must be a class index, a class name, or {several}"
            )
        flat = indices.reshape(-1)
        invalid = asked[(flat < self.lowest) | (flat >= self.count)]
        if invalid.size:
            ranks = "-1 for the predicted class"
            if self.lowest < PREDICTED:
                ranks = f"-1 to {self.lowest} for the most probable classes"
            raise ImageError(
                f"there is no class {int(invalid[0])}: "
                f"classes are 0 to {self.count - 1}, or {ranks}"
            )
        shape = (count,) if count is not None else (indices.size,)
        return np.ascontiguousarray(np.broadcast_to(indices.astype(np.int64), shape))

    def _index_of(self, name: str) -> int:
        having = [index for index, known in enumerate(self.names) if known == name]
        if len(having) > 1:
            what = f"are called {name!r}" if name else "have no name"
            raise ImageError(
                f"{len(having)} classes {what}, {having[0]} and {having[1]} among them: give the "
                "index"
            )
        if having and name:
            return having[0]
        if not any(self.names):
            raise ImageError(
                f"the class {name!r} is not known: the file has no class names; "
                "give an index, or --classes FILE"
            )
        close = difflib.get_close_matches(name, self.names, 3, 0.4)
        hint = f"there are {shown(', '.join(self.names[:10]))} …"
        if close:
            hint = f"did you mean {shown(', '.join(close))}?"
        raise ImageError(f"there is no class {name!r}: {hint}")
