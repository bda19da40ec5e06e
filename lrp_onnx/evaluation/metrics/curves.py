"""Insertion and deletion: a class's probability as pixels are inserted or deleted by relevance.

Both use *keep masks*: pixels in the mask keep the picture's values, and all others take those of a
fill. Insertion keeps the most relevant pixels, deletion the least relevant ones. `masks` gives the
masks that a protocol needs, and `read` turns the scores of the masked pictures into curves, so that
one batch can hold the pictures of many maps and protocols.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.maps.resample import Map, Mask

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """A definition of insertion and deletion."""

    name: str
    ties: str
    """``together``: all pixels at least as relevant as the n-th enter with it; ``random``: exactly
    n pixels, with ties in random order.
    """
    from_zero: bool
    """Whether the curve starts with 0 pixels; if not, it starts after the first step."""
    deleted: str
    """The fill of deleted pixels: ``black``, ``mean``, ``blur`` or ``noise``."""
    hidden: str
    """The fill of pixels that are not yet inserted, one of the same."""
    follows: str
    """The class whose probability is measured: the ``label``, or the ``target`` that the map
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
        # The same with other fills: which method is best must not depend on the fill. With black
        # pixels it is `exact`.
        *(
            Protocol(
                name=f"srg-{fill}",
                ties="random",
                from_zero=True,
                deleted=fill,
                hidden=fill,
                follows="target",
            )
            for fill in ("blur", "noise")
        ),
    )
}
"""Name of a protocol → the protocol."""


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """The curves of one map under one protocol."""

    fractions: NDArray[np.float64]
    """(K,) share of the pixels that are inserted or deleted, increasing to 1."""
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

        Where both use the same fill and all points of the curve, ID is the symmetric relevance gain
        (deletion of the least relevant pixels first minus of the most relevant ones first), since
        deleting all but k pixels is inserting these k.
        """
        return self.insertion_area - self.deletion_area


def area(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """``∫ y dx / (x₁ − x₀)`` by trapezoids, from the first to the last x.

    Args:
        x: (K,) increasing, at least two points.
        y: (K,).
    """
    return float(np.sum((y[1:] + y[:-1]) * np.diff(x)) / 2 / (x[-1] - x[0]))


def counts(pixels: int, steps: int, protocol: Protocol) -> NDArray[np.int64]:
    """(K,) number of inserted pixels at every point of the curve, increasing to `pixels`."""
    points = np.arange(0 if protocol.from_zero else 1, steps + 1)
    return np.unique(np.round(points * pixels / steps).astype(np.int64))


def ranked(values: Map, seed: int) -> NDArray[np.int64]:
    """(H·W,) pixel indices, the most relevant first; equal values are in random order."""
    flat = values.ravel()
    shuffled = np.random.default_rng(seed).permutation(flat.size)
    return shuffled[np.argsort(-flat[shuffled], kind="stable")]


def masks(
    relevance: Map, protocol: Protocol, *, steps: int, seed: int = 0, patch: int = 1
) -> tuple[Mask, Mask]:
    """The pixels that are kept at every point of the curve.

    Args:
        relevance: (H, W).
        protocol: the definition of insertion and deletion.
        steps: number of equal steps from no pixels to all.
        seed: seed of the order of equal values, where the protocol's ties are random.
        patch: side in pixels of squares that are inserted or deleted as a whole, ranked by their
            mean relevance.

    Returns:
        Two masks (K, H, W) bool: for insertion and for deletion.
    """
    values = patched(relevance, patch)
    inserted = counts(values.size, steps, protocol)
    if protocol.ties == "together":
        falling = -np.sort(-values.ravel())
        thresholds = falling[np.maximum(inserted - 1, 0)]
        top = values[None] >= thresholds[:, None, None]
        top &= (inserted > 0)[:, None, None]
    else:
        rank = np.empty(values.size, np.int64)
        rank[ranked(values, seed)] = np.arange(values.size)
        top = rank.reshape(values.shape)[None] < inserted[:, None, None]
    keep = spread(top, patch, relevance.shape)
    return keep, ~keep


def patched(values: Map, patch: int) -> Map:
    """(H, W) → the mean over every square of `patch` × `patch` pixels.

    Squares at the right and lower border may be smaller.
    """
    if patch == 1:
        return values
    rows, columns = (np.arange(0, size, patch) for size in values.shape)
    total = np.add.reduceat(np.add.reduceat(values.astype(np.float64), rows, 0), columns, 1)
    heights = np.diff(np.append(rows, values.shape[0]))
    widths = np.diff(np.append(columns, values.shape[1]))
    return np.asarray(total / np.outer(heights, widths), np.float32)


def spread(top: Mask, patch: int, shape: tuple[int, ...]) -> Mask:
    """Masks of squares (K, h, w) → masks of pixels (K, H, W), `shape` being (H, W)."""
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
    """The curves of a map.

    Args:
        relevance: (H, W), as for `masks`.
        protocol: as for `masks`.
        insertion: (K,) probabilities of the pictures under the first masks of `masks`.
        deletion: (K,) probabilities of the pictures under its second masks.
        steps: as for `masks`.
        patch: as for `masks`.
    """
    values = patched(relevance, patch)
    return Curves(counts(values.size, steps, protocol) / values.size, insertion, deletion)
