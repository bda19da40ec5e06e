"""What of an output is explained, where a run says it: the pixels of a mask, or the similarity to a
reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.errors import ImageError, shown
from lrp_onnx.files.reading import check_readable
from lrp_onnx.maps.resample import resample
from lrp_onnx.runtime.arrays import MOST_BYTES
from lrp_onnx.runtime.images import Picture
from lrp_onnx.runtime.preprocess import Box
from lrp_onnx.runtime.sources import ARRAY, Source, path_of, read_source

MaskSource: TypeAlias = str | PathLike[str] | NDArray[Any]
"""A mask: a picture file, of which what is not black counts, a ``.npy`` file or an array (h, w) of
weights from 0 to 1 or of bools. It covers the whole photo, whatever its size.
"""
BLACK = 127
"""The brightest value of a mask's picture that does not count."""
VECTORS = ("logits", "features", "scores", "other")
"""Kinds of outputs that may be embeddings."""


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """The pixels of an output (C, H, W) of which a class is explained."""

    weights: NDArray[np.float64]
    """(H, W), with a sum of 1."""

    @classmethod
    def read(cls, source: MaskSource, photo: Picture, box: Box, size: tuple[int, int]) -> Mask:
        """A mask of a photo, at the (height, width) `size` of the output.

        Raises:
            ImageError: it cannot be read, is no mask, or nothing of it is seen by the model.
        """
        name = str(source) if isinstance(source, str | PathLike) else "the mask"
        whole = resample(_weights(source, name), photo.shape[:2], method="bilinear")
        seen = whole[box.top : box.top + box.height, box.left : box.left + box.width]
        weights = resample(seen, size).astype(np.float64)
        if weights.sum() <= 0:
            raise ImageError(f"{shown(name)} marks nothing of what the model sees of its photo")
        return cls(weights / weights.sum())

    @property
    def inside(self) -> NDArray[np.bool_]:
        """(H, W): pixels of which at least half are explained."""
        return np.asarray(self.weights >= 0.5 * self.weights.max())

    def scores(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """The mean over the mask of every class of an output (C, H, W)."""
        return np.asarray((values.astype(np.float64) * self.weights).sum((1, 2)))

    def start(
        self, values: NDArray[Any], kind: str, start: str, target: int
    ) -> NDArray[np.float32]:
        """Relevance to start from, (C, H, W): its sum is the mean over the mask of what `start`
        (``logit``, ``probability``, ``one``, ``contrastive``) names; of a softmax's output, which
        does not tell logits, always ``one``.
        """
        if kind in ("logit", "probability"):
            z = _logits(kind, values) * (1 if target else -1)
            amount = {"one": np.ones_like(z), "probability": 1 / (1 + np.exp(-z))}.get(start, z)
            return np.asarray(amount * self.weights, np.float32)
        z = _logits(kind, values)
        amount = np.zeros_like(z)
        if start == "one" or kind in ("probabilities", "log-probabilities"):
            amount[target] = 1
        elif start == "probability":
            amount[target] = _chances(kind, z)[target]
        else:
            amount[target] = z[target]
            if start == "contrastive" and kind != "sigmoids" and len(z) > 1:
                others = np.delete(np.arange(len(z)), target)
                amount[others] = -z[others] * _softmax(z[others])
        return np.asarray(amount * self.weights, np.float32)


def _weights(source: MaskSource, name: str) -> NDArray[np.float32]:
    """The weights (h, w) of a mask."""
    if isinstance(source, str | PathLike) and Path(source).suffix.lower() != ".npy":
        return np.asarray(read_source(source).max(2) > BLACK, np.float32)
    values = _array(Path(source), name) if isinstance(source, str | PathLike) else source
    values = np.asarray(values)
    fits = values.ndim == 2 and values.size and values.dtype.kind in "fiub"
    if not fits or not np.isfinite(values).all() or values.min() < 0:
        raise ImageError(
            f"{shown(name)} has shape {values.shape} and type {values.dtype}: a mask is (height, "
            "width), of bools or of numbers that are not negative"
        )
    if values.dtype == np.uint8 and values.max() > 1:
        return (values > BLACK).astype(np.float32)
    return values.astype(np.float32)


def _array(path: Path, name: str) -> NDArray[Any]:
    """The array in a ``.npy`` file."""
    try:
        check_readable(path, MOST_BYTES)
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise ImageError(f"{shown(name)} cannot be read as an array of NumPy: {error}") from error


def _logits(kind: str, values: NDArray[Any]) -> NDArray[np.float64]:
    """The values of an output, before the sigmoid if they are a sigmoid's."""
    z = values.astype(np.float64)
    if kind in ("sigmoids", "probability"):
        p = z.clip(1e-12, 1 - 1e-12)
        return np.asarray(np.log(p / (1 - p)))
    return z


def _chances(kind: str, z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-z))) if kind == "sigmoids" else _softmax(z)


def _softmax(z: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(z - z.max(0))
    return np.asarray(powers / powers.sum(0))


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What an output, an embedding, is compared with: the vector of a picture, or any other."""

    name: str
    vector: NDArray[np.float32]
    """In the shape of what is explained, without its batch."""

    def cosine(self, values: NDArray[Any]) -> float:
        """The cosine similarity of an output's values to the reference."""
        one, two = values.astype(np.float64), self.vector.astype(np.float64)
        norms = float(np.linalg.norm(one) * np.linalg.norm(two))
        return float((one * two).sum() / norms) if norms else 0.0

    def start(self, values: NDArray[Any], start: str) -> NDArray[np.float32]:
        """Relevance to start from: the terms of the dot product, or the reference for a start of
        ``one``.
        """
        if start == "one":
            return np.asarray(self.vector, np.float32)
        terms = values.astype(np.float64) * self.vector
        return np.asarray(terms, np.float32)


def reference_vector(
    source: Source, shape: Sequence[int], sample: Sequence[Any] = ()
) -> NDArray[np.float32] | None:
    """The vector in a ``.npy`` file or a floating array; None where the source is a picture, or has
    the shape of one of the model's signals or volumes, `sample`, with or without axes of size 1.

    Raises:
        ImageError: it has not the shape of what is explained, `shape`.
    """
    name = shown(str(path_of(source)))
    if isinstance(source, str | PathLike):
        if Path(source).suffix.lower() != ".npy":
            return None
        vector = _array(Path(source), name)
    elif isinstance(source, np.ndarray) and source.dtype.kind == "f":
        vector = source
    else:
        return None
    if vector.ndim == len(shape) + 1 and len(vector) == 1:
        vector = vector[0]
    inputs = (tuple(sample), tuple(size for size in sample if size != 1))
    if sample and vector.shape != tuple(shape) and vector.shape in inputs:
        return None
    if vector.shape != tuple(shape) or vector.dtype.kind not in "fiu":
        raise ImageError(
            f"the reference {'' if name == ARRAY else name + ' '}has shape {vector.shape}; what is "
            f"explained has shape {tuple(shape)}"
        )
    if not np.isfinite(vector).all() or not vector.any():
        raise ImageError(f"the reference {name} is zero or not finite")
    return vector.astype(np.float32)


Focused: TypeAlias = Mask | Reference
"""What of one picture's output is explained."""


@dataclass(frozen=True, slots=True, eq=False)
class Focus:
    """What of every picture's output is explained: masks, or a reference."""

    masks: Sequence[MaskSource] = ()
    """One for every picture; empty for none."""
    reference: Reference | None = None

    @classmethod
    def of(
        cls,
        mask: MaskSource | Sequence[MaskSource] | None,
        reference: Reference | None,
        pictures: int,
    ) -> Focus | None:
        """The focus for so many pictures; None without a mask and a reference.

        Raises:
            ImageError: there are several masks, and not one for every picture.
        """
        if mask is None:
            return None if reference is None else cls(reference=reference)
        single = isinstance(mask, str | PathLike) or getattr(mask, "ndim", 3) == 2
        masks = [cast(MaskSource, mask)] * pictures if single else list(cast(Any, mask))
        if len(masks) != pictures:
            raise ImageError(f"there are {len(masks)} masks for {pictures} pictures: give one each")
        return cls(masks=masks)

    def part(self, part: slice, rows: Sequence[int]) -> Focus:
        """The focus for the pictures in `rows` of a part of all."""
        if not self.masks:
            return self
        masks = self.masks[part]
        return Focus(masks=[masks[row] for row in rows])

    def at(self, index: int, photo: Picture, box: Box, values: NDArray[Any]) -> Focused:
        """What of one picture's output is explained.

        Raises:
            ImageError: its mask cannot be used.
        """
        if self.reference is not None:
            return self.reference
        height, width = values.shape[1:]
        return Mask.read(self.masks[index], photo, box, (height, width))
