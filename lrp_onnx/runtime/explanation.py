"""One picture's explanation, and how an output's scores become probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.runtime.images import Picture

KINDS = ("logits", "probabilities", "log-probabilities", "other")
"""What an output may hold; of several outputs the first of these is read."""


def kind_of(outputs: Mapping[str, str]) -> tuple[str, str]:
    """(what is read, the output that holds it) of a contract's outputs, name → kind."""
    names = {kind: name for name, kind in reversed(list(outputs.items()))}
    kind = next(kind for kind in KINDS if kind in names)
    return kind, names[kind]


def probabilities_of(kind: str, scores: NDArray[Any]) -> NDArray[np.float64]:
    """(N, classes) of what an output holds → probabilities; what holds none (``other``) stays as it
    is.

    Integers are quantised probabilities: counted from the lowest that their type has, in
    proportion.
    """
    values = scores.astype(np.float64)
    if kind == "logits":
        powers = np.exp(values - values.max(1, keepdims=True))
        return np.asarray(powers / powers.sum(1, keepdims=True))
    if kind == "log-probabilities":
        return np.asarray(np.exp(values))
    if kind == "probabilities" and scores.dtype.kind in "iu":
        counts = values - np.iinfo(scores.dtype).min
        return np.asarray(counts / np.maximum(counts.sum(1, keepdims=True), 1))
    return values


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """One picture, explained."""

    path: Path
    picture: Picture
    """(H', W', 3) uint8 RGB: the part that the model saw, at the picture's own resolution."""
    heatmap: NDArray[np.float32]
    """(H, W): relevance at the input, summed over channels, in the units of the start."""
    relevance: NDArray[np.float32] | None
    """(C, H, W), or (H, W, C) for a model of that layout, where the file computes it."""
    scores: NDArray[np.float32]
    """(classes,): the explained output, logits or probabilities as the model gives them."""
    top5: tuple[tuple[int, str, float], ...]
    """(class index, name or "", probability), best first."""
    target: int
    target_name: str
    start: str
    """What relevance started from: ``logit``, ``probability`` or ``one``, at the target."""
    start_value: float | None
    """How much that was; None where the model gives no output to read it from."""
    provider: str
    seconds: Mapping[str, float]
    """``decode`` and ``run``, each picture's share of its batch."""
