"""Localisation: whether relevance lies on the object, given its mask."""

from __future__ import annotations

import cv2
import numpy as np

from lrp_onnx.maps.resample import Map, Mask


def pointing_game(relevance: Map, mask: Mask, *, tolerance: float = 15 / 224) -> float:
    """1 if the most relevant pixel lies on the object or close to it, else 0 (Zhang et al. 2016).

    Where several pixels have the maximum, the share of them that lies there.

    Args:
        relevance: (H, W).
        mask: (H, W) bool, the object.
        tolerance: largest distance from the object, as a share of the map's shorter side. The
            paper has 15 pixels, for pictures of about 224.
    """
    reach = tolerance * min(relevance.shape)
    if not mask.any():
        return 0.0
    distances = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float((distances[relevance == relevance.max()] <= reach).mean())


def mass_accuracy(relevance: Map, mask: Mask) -> float:
    """Share of the positive relevance that lies on the object (Arras et al. 2022).

    0 to 1; 0 where no relevance is positive.
    """
    positive = np.maximum(relevance.astype(np.float64), 0)
    total = positive.sum()
    return float(positive[mask].sum() / total) if total > 0 else 0.0


def rank_accuracy(relevance: Map, mask: Mask, *, seed: int = 0) -> float:
    """Share of the K most relevant pixels that lie on the object of K pixels (Arras et al. 2022).

    0 to 1. Pixels that tie with the K-th count as in the mean over random choices among them: a
    constant map scores the object's share of the picture.
    """
    size = int(mask.sum())
    if size == 0:
        return 0.0
    flat, inside = relevance.ravel(), mask.ravel()
    threshold = np.partition(flat, flat.size - size)[flat.size - size]
    above, equal = flat > threshold, flat == threshold
    places = size - int(above.sum())
    return float((inside[above].sum() + places * inside[equal].mean()) / size)


ATTENTION_CLASSES = ("good", "insufficient", "over", "wrong")
"""Results of `attention_error`."""


def attended(relevance: Map, *, share: float = 0.5) -> Mask:
    """(H, W) bool: pixels with at least `share` of the highest relevance; none if that is not > 0.

    Our reading: the lab assigned its classes by eye.
    """
    highest = float(relevance.max())
    if highest <= 0:
        return np.zeros(relevance.shape, np.bool_)
    return np.asarray(relevance >= share * highest)


def attention_error(kept: Mask, mask: Mask, *, enough: float = 0.5, most: float = 0.5) -> str:
    """The class of attention: ``good``, ``insufficient``, ``over`` or ``wrong``.

    Our reading of the lab's error classes, with numbers: ``insufficient`` where less than half of
    the object is kept; ``over`` where less than half of the kept pixels lie on the object;
    ``wrong`` where both hold.

    Args:
        kept: (H, W) bool, the pixels that a map points at, see `attended`.
        mask: (H, W) bool, the object.
        enough: smallest share of the object that must be kept.
        most: smallest share of the kept pixels that must lie on the object.
    """
    recall = float((kept & mask).sum() / max(int(mask.sum()), 1))
    precision = float((kept & mask).sum() / max(int(kept.sum()), 1))
    if recall >= enough and precision >= most:
        return "good"
    if recall >= enough:
        return "over"
    return "insufficient" if precision >= most else "wrong"
