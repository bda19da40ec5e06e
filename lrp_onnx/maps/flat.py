"""Maps of signals and volumes as pictures: a row, and a montage of slices."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

SLICES = 36
"""The most slices of a montage; of more every second, third, … is shown."""
WIDE = 1.6
"""Width over height that a montage comes nearest to."""
GAP = 0.03
"""Space between slices, as a share of the shorter side; at least 1 pixel."""


def flat(relevance: NDArray[np.float32]) -> NDArray[np.float32]:
    """A map as it lies over the picture of its input (see `runtime.arrays`).

    Args:
        relevance: (L,), (H, W) or (D, H, W).

    Returns:
        (1, L), the map itself, or the montage of its slices.
    """
    if relevance.ndim == 1:
        return relevance[None]
    return montage(relevance) if relevance.ndim == 3 else relevance


@dataclass(frozen=True, slots=True)
class Tiles:
    """How the slices of a volume (D, H, W) lie in its montage."""

    step: int
    """Every how manieth slice is shown."""
    rows: int
    columns: int
    gap: int
    """Pixels between slices."""

    @classmethod
    def of(cls, depth: int, height: int, width: int) -> Tiles:
        """Up to `SLICES` slices, evenly spread, row by row from the first."""
        step = ceil(depth / SLICES)
        count = ceil(depth / step)
        columns = min(count, max(1, round(sqrt(count * WIDE * height / width))))
        gap = max(1, round(GAP * min(height, width)))
        return cls(step, ceil(count / columns), columns, gap)


def montage(volume: NDArray[np.float32], *, between: float = 0.0) -> NDArray[np.float32]:
    """The slices of a volume side by side.

    Args:
        volume: (D, H, W) or (D, H, W, C).
        between: the value between slices, and after the last.

    Returns:
        (H', W') or (H', W', C), see `Tiles`.
    """
    depth, height, width = volume.shape[:3]
    tiles = Tiles.of(depth, height, width)
    shown, gap = volume[:: tiles.step], tiles.gap
    shape = (tiles.rows * tiles.columns, height + gap, width + gap, *volume.shape[3:])
    cells = np.full(shape, between, np.float32)
    cells[: len(shown), :height, :width] = shown
    lines = np.swapaxes(cells.reshape(tiles.rows, tiles.columns, *shape[1:]), 1, 2)
    whole = lines.reshape(tiles.rows * shape[1], tiles.columns * shape[2], *shape[3:])
    return whole[:-gap, :-gap]
