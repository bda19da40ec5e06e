"""Photos, maps and runs for the tests of the HTML report."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.report.entry import Entry, Map, Run
from lrp_onnx.runtime.preprocess import Box

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&amp;\n\x1b[31m\u202egnp.exe\udcff"
"""A name with tags, quotes, an entity, a line break, a terminal's code, a change of direction, and
a byte that is no text.
"""


def bump(row: float, column: float, *, side: int = 56, width: float = 6.0) -> NDArray[np.float32]:
    """(side, side): a hill of height 1 at a place in 0 to 1."""
    places = (np.arange(side) + 0.5) / side
    squares = (places[:, None] - row) ** 2 + (places[None, :] - column) ** 2
    return np.exp(-squares * side * side / (2 * width**2)).astype(np.float32)


def signed(row: float = 0.2, column: float = 0.2) -> NDArray[np.float32]:
    """A hill for the class, and half a hill against it at the opposite place."""
    return np.asarray(bump(row, column) - 0.5 * bump(1 - row, 1 - column), np.float32)


def disc(side: int = 14) -> NDArray[np.bool_]:
    """(side, side) bool: a region in the upper left."""
    return bump(0.3, 0.3, side=side, width=side / 6) > 0.4


def photo(height: int = 90, width: int = 120, *, seed: int = 0) -> NDArray[np.uint8]:
    """(height, width, 3) uint8: smooth colours."""
    generator = np.random.default_rng(seed)
    waves = generator.uniform(0.02, 0.1, (3, 2))
    rows, columns = np.mgrid[:height, :width]
    channels = [128 + 100 * np.sin(a * rows + b * columns) for a, b in waves]
    return np.stack(channels, axis=-1).astype(np.uint8)


def one_map(heatmap: NDArray[np.float32] | None = None, **changes: Any) -> Map:
    """A map for class 0 "heart", with a region."""
    values = signed() if heatmap is None else heatmap
    given: dict[str, Any] = {
        "target": 0,
        "name": "heart",
        "score": 0.8,
        "heatmap": values,
        "region": disc(),
        "sums": {"all": 1.5, "positive": 2.0, "negative": -0.5},
        "start_value": 2.0,
    }
    return Map(**given | changes)


def entry(name: str = "photos/heart.png", **changes: Any) -> Entry:
    """A photo of 120 × 90 pixels whose middle the model saw, as "heart"."""
    given: dict[str, Any] = {
        "name": name,
        "photo": photo(),
        "box": Box(15, 0, 90, 90),
        "top5": [(0, "heart", 0.8), (1, "star", 0.15), (2, "", 0.05)],
        "maps": [one_map()],
    }
    return Entry(**given | changes)


RUN = Run(model="model.onnx", composite="residual-c3", start="logit", post="c3")
