"""Which classes to explain: by index, by name, by rank, or not at all."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.contract import PREDICTED
from lrp_onnx.errors import ImageError

Target = int | str | Sequence[int | str] | NDArray[np.int64] | None


def class_of(text: str) -> int | str:
    """A class as a user writes it: an index, or else a name."""
    return int(text) if text.lstrip("-").isdecimal() else text


@dataclass(frozen=True, slots=True)
class Classes:
    """A model's classes, by index from 0 and by name where names are known."""

    count: int
    names: tuple[str, ...]
    lowest: int = PREDICTED
    """The lowest index that may be asked for: -1 is the predicted class, -k the one of the k-th
    largest logit.
    """

    def name(self, index: int) -> str:
        """The name of a class, or ""."""
        return self.names[index] if self.names else ""

    def indices(self, target: Target, count: int | None) -> NDArray[np.int64]:
        """(count,) int64: `target` for every picture; as many as it has where `count` is None.

        Raises:
            ImageError: it is no class of the model, or not one or `count` of them.
        """
        if target is None:
            target = PREDICTED
        if isinstance(target, str):
            target = self._index_of(target)
        elif isinstance(target, Sequence):
            target = [self._index_of(one) if isinstance(one, str) else one for one in target]
        indices = np.asarray(target)
        many = indices.ndim == 1 and len(indices) > 0
        fits = indices.ndim == 0 or (many and (count is None or len(indices) in (1, count)))
        if indices.dtype.kind not in "iu" or not fits:
            several = "a list of them" if count is None else f"{count} indices, one a sample,"
            raise ImageError(f"the target is {target!r}: a class index, a class name, or {several} are expected")
        wrong = np.atleast_1d(indices)[np.atleast_1d((indices < self.lowest) | (indices >= self.count))]
        if wrong.size:
            ranks = "-1 for the predicted one" if self.lowest == PREDICTED else f"-1 to {self.lowest} for the best ones"
            raise ImageError(f"there is no class {int(wrong[0])}: classes are 0 to {self.count - 1}, or {ranks}")
        shape = (count,) if count is not None else (indices.size,)
        return np.ascontiguousarray(np.broadcast_to(indices.astype(np.int64), shape))

    def _index_of(self, name: str) -> int:
        if name in self.names:
            return self.names.index(name)
        if not self.names:
            raise ImageError(
                f"the class {name!r} is not known: the file has no class names; give an index, or --classes FILE"
            )
        close = difflib.get_close_matches(name, self.names, 3, 0.4)
        hint = f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(self.names[:10])} …"
        raise ImageError(f"there is no class {name!r}: {hint}")
