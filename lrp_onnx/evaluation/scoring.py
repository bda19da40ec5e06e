"""Probabilities of masked pictures, in batches; equal pictures are scored once."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from lrp_onnx.contract import Preprocessing
from lrp_onnx.evaluation.subject import Pictures, Subject
from lrp_onnx.maps.resample import Mask

MASKED_AT_ONCE = 64
"""Masked pictures that are computed at once: fewer need less memory, more are not faster."""


class Scorer:
    """Collects masked pictures and scores every different one once, in batches.

    Args:
        subject: the model.
        picture: (1, …), as the model takes it.
        fills: name of a fill → what hidden pixels become, (1, …), see `fill`.
    """

    def __init__(self, subject: Subject, picture: Pictures, fills: Mapping[str, Pictures]) -> None:
        self._subject, self._picture, self._fills = subject, picture, fills
        self._places: dict[tuple[str, bytes], int] = {}
        self._masks: list[tuple[str, Mask]] = []

    def ask(self, fill: str, keep: Mask) -> list[int]:
        """Add the picture under every mask of `keep`, (K, H, W) bool; `fill` names what hides.

        Returns:
            (K,) rows of `scores`.
        """
        places = []
        for mask in keep:
            # A mask that keeps all pixels gives the same picture with every fill.
            key = ("whole" if mask.all() else fill, np.packbits(mask).tobytes())
            if key not in self._places:
                self._places[key] = len(self._masks)
                self._masks.append((fill, mask))
            places.append(self._places[key])
        return places

    def scores(self) -> NDArray[np.float64]:
        """(different pictures, classes) float64: the probabilities of all pictures added so far."""
        classes = self._subject.classes.count
        scores = np.empty((len(self._masks), classes))
        for name, fill in self._fills.items():
            places = [i for i, (used, _) in enumerate(self._masks) if used == name]
            for first in range(0, len(places), MASKED_AT_ONCE):
                part = places[first : first + MASKED_AT_ONCE]
                keep = np.stack([self._masks[i][1] for i in part])
                masked = self._subject.masked(self._picture, keep, fill)
                scores[part] = self._subject.probabilities(masked)
        return scores


def fill(name: str, picture: Pictures, subject: Subject) -> Pictures:
    """The values that hidden pixels take.

    Args:
        name: ``black``; ``mean``, the colour that preprocessing subtracts, or the picture's mean
            colour where preprocessing subtracts none; ``blur``, the picture blurred by a Gaussian
            of standard deviation 5 and 11 × 11 pixels for pictures of 224 × 224, and in proportion
            for other sizes; ``noise``, Gaussian noise of every channel's mean and standard
            deviation in the picture, the same for the same seed.
        picture: (1, …), as the model takes it.
        subject: the model, which says how pictures become input.

    Returns:
        (1, …) float32 in the model's units.
    """
    axes = tuple(axis for axis in (1, 2, 3) if axis != subject.channels)
    if name == "mean":
        if any(subject.preprocessing.mean):
            return np.zeros_like(picture)
        return np.broadcast_to(picture.mean(axes, keepdims=True), picture.shape).astype(np.float32)
    if name == "black":
        spec: Preprocessing = subject.preprocessing
        mean, std = np.asarray(spec.mean, np.float64), np.asarray(spec.std, np.float64)
        values = (-mean / std).astype(np.float32)
        shape = [1, 1, 1, 1]
        shape[subject.channels] = len(values)
        return np.broadcast_to(values.reshape(shape), picture.shape).astype(np.float32)
    if name == "noise":
        mean, deviation = picture.mean(axes, keepdims=True), picture.std(axes, keepdims=True)
        noise = np.random.default_rng(subject.seed).normal(size=picture.shape)
        return np.asarray(mean + deviation * noise, np.float32)
    one = np.moveaxis(picture[0], subject.channels - 1, 2)
    share = min(one.shape[:2]) / 224
    side = 2 * max(1, round(5 * share)) + 1
    blurred = cv2.GaussianBlur(np.ascontiguousarray(one), (side, side), 5 * share)
    restored = np.moveaxis(blurred.reshape(one.shape), 2, subject.channels - 1)
    return np.ascontiguousarray(restored[None])
