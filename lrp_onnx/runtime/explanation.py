"""One picture's explanation, and how an output's scores become probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.runtime.images import Picture


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())


def unchanged(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """What holds probabilities already, or something that has none."""
    return scores


PROBABILITIES: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "logits": _softmax,
    "probabilities": unchanged,
    "log-probabilities": np.exp,
}
"""What an output may hold → its probabilities; the first that a model has is read."""


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
