"""The explanation of a picture, and probabilities from a model's output."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.contract import C3_REGION, HEATMAP, HEATMAP_RAW, OUTPUTS, RELEVANCE, SINGLE
from lrp_onnx.runtime.images import Picture
from lrp_onnx.runtime.preprocess import Box
from lrp_onnx.selection import Selection

KINDS = OUTPUTS
"""What an output may hold, best first: of several outputs the first of these is read."""
ROUNDING = 1e-6
"""Relevance in a map, without its signs and over that at the logits, up to which it is what
rounding left of it.
"""
SIMILARITY = "similarity"
"""What is read where the similarity to a reference is explained: a cosine."""
WITHOUT_PROBABILITIES = ("features", "scores", "other", SIMILARITY)
"""Kinds whose values are no probabilities."""


def measure_of(kind: str) -> str:
    """What the value of a class is, for an output of `kind`: ``probability``, ``mean`` of a feature
    map, or any other ``score``.
    """
    if kind == "features":
        return "mean"
    return "score" if kind in WITHOUT_PROBABILITIES else "probability"


def kind_of(outputs: Mapping[str, str]) -> tuple[str, str]:
    """(kind, name) of the output to read, from a contract's outputs: name → kind."""
    names = {kind: name for name, kind in reversed(list(outputs.items()))}
    kind = next(kind for kind in KINDS if kind in names)
    return kind, names[kind]


def scores_of(kind: str, values: NDArray[Any], selection: str = "") -> NDArray[Any]:
    """The scores (N, classes) in the values of an output of `kind`, one of `KINDS`.

    `selection` is the part of it that is explained, as in a contract.

    A feature map (N, C, H, W) is explained through its mean over height and width: its channels
    are the classes. Of other outputs with three axes or more every element is one. Of one logit z
    they are -z and z, of one probability p they are 1 - p and p: the classes no and yes.
    """
    part = Selection.read(selection)
    values = values if part is None else part.scores(values)
    if part is None and (kind == "features" or values.ndim == 4) and set(values.shape[2:]) != {1}:
        values = values.astype(np.float64).mean(tuple(range(2, values.ndim)))
    rows = values.reshape(len(values), -1)
    if kind not in SINGLE:
        return rows
    return np.concatenate([-rows if kind == "logit" else 1 - rows, rows], 1)


def probabilities_of(kind: str, scores: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities from the values of an output.

    Args:
        kind: one of `KINDS`; values of `WITHOUT_PROBABILITIES` stay as they are.
        scores: (N, classes). Integers are quantised probabilities, counted from the lowest value of
            their type.

    Returns:
        (N, classes) float64.
    """
    values = scores.astype(np.float64)
    if kind == "logit":
        return np.asarray(1 / (1 + np.exp(-np.clip(values, -700, 700))))
    if kind == "logits":
        with np.errstate(invalid="ignore"):  # infinite logits have no probabilities: NaN
            powers = np.exp(values - values.max(1, keepdims=True))
        return np.asarray(powers / powers.sum(1, keepdims=True))
    if kind == "log-probabilities":
        return np.asarray(np.exp(values))
    if kind == "probabilities" and scores.dtype.kind in "iu":
        counts = values - np.iinfo(scores.dtype).min
        return np.asarray(counts / np.maximum(counts.sum(1, keepdims=True), 1))
    return values


def ranked(scores: NDArray[Any]) -> NDArray[np.intp]:
    """The classes from the best to the worst score, (classes,); of equal ones the first, as in
    compiled files.
    """
    return np.argsort(-scores.astype(np.float64), kind="stable")


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """A picture and the relevance of its pixels for one class."""

    path: Path
    """The picture's file; ``<array>`` or ``<bytes>`` where it is none."""
    photo: Picture
    """(H'', W'', 3) uint8 RGB: the whole picture, at its own resolution; of a signal its plot along
    time, of a volume its slices.
    """
    box: Box
    """The part of it that the model sees; heatmaps and the region of C3 cover this part."""
    heatmap: NDArray[np.float32]
    """(H, W), of a signal (L,), of a volume (D, H, W): the map to show, which is relevance at the
    input, summed over channels, and post-processed as the file says (`Contract.post`).
    """
    heatmap_raw: NDArray[np.float32] | None
    """(h, w), or as many axes as `heatmap`: relevance summed over channels where it stops, which is
    the input or a feature map, in the units of the start; None where the file gives only the
    post-processed map.
    """
    region: NDArray[np.bool_] | None
    """(s, s): the region that C3 keeps, over the whole of what the model sees; None where the file
    does not give it.
    """
    relevance: NDArray[np.float32] | None
    """(C, H, W), or (H, W, C) for an NHWC model; None where the file does not compute it."""
    scores: NDArray[np.float32]
    """(classes,): the explained output as the model gives it, e.g. logits or probabilities; of a
    feature map the mean of every channel; of one number see `scores_of`.
    """
    top5: tuple[tuple[int, str, float], ...]
    """(class index, name or "", probability), best first; in place of a probability the score where
    the model gives neither logits nor probabilities.
    """
    target: int
    target_name: str
    start: str
    """The kind of start: ``logit``, ``probability``, ``one`` or ``contrastive``."""
    start_value: float | None
    """The sum of the start relevance; None where the model's outputs do not tell it."""
    provider: str
    seconds: Mapping[str, float]
    """``decode`` and ``run``: seconds per picture, averaged over its batch."""
    kind: str = "logits"
    """What the explained output holds: one of `KINDS`."""
    probability: float | None = None
    """The target's probability; None where the model does not tell it."""
    composite: str = ""
    """Name of the composite; empty where it is not known."""
    post: str = "none"
    """The post-processing of `heatmap` as text (see `maps.chain`)."""
    marked: tuple[float, float, float, float] | None = None
    """Top, left, bottom and right of the box or the pixels of the output that are explained, as
    shares of what the model sees; None where all of the output is, or its place is not known.
    """
    mask: NDArray[np.bool_] | None = None
    """(h, w): the pixels of the output of which a class is explained, over the whole of what the
    model sees; None where no mask was given.
    """

    layout: str = "NCHW"
    """The order of axes of the model's input, see `Contract.layout`."""

    @property
    def picture(self) -> Picture:
        """(H', W', 3) uint8 RGB: the part that the model sees, at the picture's own resolution."""
        return self.box.cut(self.photo)

    @property
    def sums(self) -> dict[str, float] | None:
        """The sums of ``all``, of the ``positive`` and of the ``negative`` relevance before
        post-processing; None where that is not known.
        """
        if self.heatmap_raw is None:
            return None
        values = self.heatmap_raw.astype(np.float64)
        return {
            "all": float(values.sum()),
            "positive": float(values[values > 0].sum()),
            "negative": float(values[values < 0].sum()),
        }

    @property
    def nothing(self) -> str:
        """Why the map explains nothing, as a clause; empty where it does."""
        shown = self.heatmap if self.heatmap_raw is None else self.heatmap_raw
        size = float(np.abs(shown.astype(np.float64)).sum())
        if not self.heatmap.any():
            return "post-processing keeps nothing of it" if size else "every value of it is zero"
        start = abs(self.start_value or 0.0)
        least = max(ROUNDING * start, float(np.finfo(np.float32).tiny))
        if size > least:
            return ""
        return f"it holds {size:.1g} of relevance, which is what rounding leaves"

    def npz(self) -> bytes:
        """A file of the arrays, under the names of a compiled file's outputs, and ``scores``."""
        arrays = {
            "scores": self.scores,
            HEATMAP: self.heatmap,
            HEATMAP_RAW: self.heatmap_raw,
            C3_REGION: self.region,
            RELEVANCE: self.relevance,
            "mask": self.mask,
        }
        known: dict[str, Any] = {k: values for k, values in arrays.items() if values is not None}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **known)
        return buffer.getvalue()
