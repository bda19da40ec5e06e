"""Insertion and deletion: what happens to a class's probability as pixels come and go in the order
of a map.

Everything is a *keep mask*: pixels that stay the picture's, the others become a fill. Inserting
shows the most relevant pixels in a fill, deleting shows the least relevant ones. `masks` says which
pictures a protocol needs and `read` what their scores mean, so that one batch can serve many maps
and protocols.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.maps.resample import Map, Mask

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How insertion and deletion are done."""

    name: str
    ties: str
    """``together``: whatever is at least as relevant as the n-th pixel enters with it; ``random``:
    exactly n pixels.
    """
    from_zero: bool
    """Whether the curve starts before the first step."""
    deleted: str
    """What deleted pixels become: ``black``, ``mean`` or ``blur``."""
    hidden: str
    """What pixels that are not inserted yet are: one of the same."""
    follows: str
    """Whose probability is followed: the ``label``'s or the ``target``'s, the class that the map
    explains.
    """


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        # The released code of Otsuki et al. 2024: its curve starts after a step.
        Protocol(
            name="keio",
            ties="together",
            from_zero=False,
            deleted="black",
            hidden="black",
            follows="label",
        ),
        # Ours: exactly n pixels a step, and the class that the map explains.
        Protocol(
            name="exact",
            ties="random",
            from_zero=True,
            deleted="black",
            hidden="black",
            follows="target",
        ),
        # Petsiuk et al. 2018.
        Protocol(
            name="rise",
            ties="random",
            from_zero=True,
            deleted="mean",
            hidden="blur",
            follows="target",
        ),
        # Symmetric gain, least relevant first minus most relevant first (Blücher et al. 2024).
        Protocol(
            name="srg",
            ties="random",
            from_zero=True,
            deleted="mean",
            hidden="mean",
            follows="target",
        ),
    )
}
"""Protocols by name."""


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """One map's curves under one protocol."""

    fractions: NDArray[np.float64]
    """(K,) share of the pixels inserted or deleted, increasing."""
    insertion: Scores
    """(K,) probability with that share inserted."""
    deletion: Scores
    """(K,) probability with that share deleted."""

    @property
    def insertion_area(self) -> float:
        """Mean height of the insertion curve (trapezoids over the share of pixels): higher is
        better.
        """
        return area(self.fractions, self.insertion)

    @property
    def deletion_area(self) -> float:
        """Mean height of the deletion curve: lower is better."""
        return area(self.fractions, self.deletion)

    @property
    def difference(self) -> float:
        """ID, insertion minus deletion: higher is better.

        Deleting all but the k most relevant pixels is inserting those k: where both use one fill
        and all points of the curve, ID is the symmetric relevance gain, least relevant first minus
        most relevant first.
        """
        return self.insertion_area - self.deletion_area


def area(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """``∫ y dx / (x₁ − x₀)`` by trapezoids; x increasing, at least two points."""
    return float(np.sum((y[1:] + y[:-1]) * np.diff(x)) / 2 / (x[-1] - x[0]))


def counts(pixels: int, steps: int, protocol: Protocol) -> NDArray[np.int64]:
    """How many of `pixels` are in at every point of the curve, increasing; the last point has all
    of them.
    """
    points = np.arange(0 if protocol.from_zero else 1, steps + 1)
    return np.unique(np.round(points * pixels / steps).astype(np.int64))


def ranked(values: Map, seed: int) -> NDArray[np.int64]:
    """(H·W,) pixel indices, most relevant first; equal ones in random order."""
    flat = values.ravel()
    shuffled = np.random.default_rng(seed).permutation(flat.size)
    return shuffled[np.argsort(-flat[shuffled], kind="stable")]


def masks(
    relevance: Map, protocol: Protocol, *, steps: int, seed: int = 0, patch: int = 1
) -> tuple[Mask, Mask]:
    """The pixels that are kept at every point of the curve.

    Args:
        relevance: (H, W).
        protocol: how.
        steps: into how many parts the pixels are divided.
        seed: of the order of equal pixels, where ties are broken at random.
        patch: side of the squares that come and go together, ranked by their mean relevance.

    Returns:
        (K, H, W) for insertion and for deletion.
    """
    values = patched(relevance, patch)
    many = counts(values.size, steps, protocol)
    if protocol.ties == "together":
        falling = -np.sort(-values.ravel())
        thresholds = falling[np.maximum(many - 1, 0)]
        top = values[None] >= thresholds[:, None, None]
        top &= (many > 0)[:, None, None]
    else:
        place = np.empty(values.size, np.int64)
        place[ranked(values, seed)] = np.arange(values.size)
        top = place.reshape(values.shape)[None] < many[:, None, None]
    whole = spread(top, patch, relevance.shape)
    return whole, ~whole


def patched(values: Map, patch: int) -> Map:
    """(H, W) → the mean over every square of `patch` × `patch` pixels, those at the end cut off by
    the border.
    """
    if patch == 1:
        return values
    rows, columns = (np.arange(0, size, patch) for size in values.shape)
    total = np.add.reduceat(np.add.reduceat(values.astype(np.float64), rows, 0), columns, 1)
    heights = np.diff(np.append(rows, values.shape[0]))
    widths = np.diff(np.append(columns, values.shape[1]))
    return np.asarray(total / np.outer(heights, widths), np.float32)


def spread(top: Mask, patch: int, shape: tuple[int, ...]) -> Mask:
    """(K, h, w) of squares → (K, H, W) of pixels."""
    if patch == 1:
        return top
    return np.repeat(np.repeat(top, patch, 1), patch, 2)[:, : shape[0], : shape[1]]


def read(
    relevance: Map,
    protocol: Protocol,
    insertion: Scores,
    deletion: Scores,
    *,
    steps: int,
    patch: int = 1,
) -> Curves:
    """The curves, from the probabilities (K,) of the pictures that `masks` asked for."""
    values = patched(relevance, patch)
    return Curves(counts(values.size, steps, protocol) / values.size, insertion, deletion)
