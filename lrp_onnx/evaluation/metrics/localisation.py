"""Whether relevance lies on the object: against a mask of its pixels, or a box as one."""

from __future__ import annotations

import cv2
import numpy as np

from lrp_onnx.maps.resample import Map, Mask


def pointing_game(relevance: Map, mask: Mask, *, tolerance: float = 15 / 224) -> float:
    """1 where the most relevant pixel lies on the object or within `tolerance` of it, else 0 (Zhang
    et al. 2016).

    Of several highest pixels the share that does counts. `tolerance` is a share of the map's
    shorter side; the source's is 15 pixels, of pictures of about 224.
    """
    reach = tolerance * min(relevance.shape)
    if not mask.any():
        return 0.0
    distances = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float((distances[relevance == relevance.max()] <= reach).mean())


def mass_accuracy(relevance: Map, mask: Mask) -> float:
    """Share of the positive relevance that lies on the object (Arras et al. 2022); 0 where there is
    none.
    """
    positive = np.maximum(relevance.astype(np.float64), 0)
    total = positive.sum()
    return float(positive[mask].sum() / total) if total > 0 else 0.0


def rank_accuracy(relevance: Map, mask: Mask, *, seed: int = 0) -> float:
    """Share of the K most relevant pixels that lie on the object of K pixels (Arras et al. 2022).

    Pixels that tie with the K-th count as often as a random choice among them would: a constant map
    scores the object's share of the picture.
    """
    size = int(mask.sum())
    if size == 0:
        return 0.0
    flat, inside = relevance.ravel(), mask.ravel()
    threshold = np.partition(flat, flat.size - size)[flat.size - size]
    above, equal = flat > threshold, flat == threshold
    places = size - int(above.sum())
    return float((inside[above].sum() + places * inside[equal].mean()) / size)


ATTENTION = ("good", "insufficient", "over", "wrong")
"""What `attention_error` says."""


def attended(relevance: Map, *, share: float = 0.5) -> Mask:
    """(H, W): pixels of at least `share` of the highest relevance; nothing where none is positive.

    Our reading: the lab's classes were given by eye.
    """
    highest = float(relevance.max())
    return np.asarray(relevance >= share * highest) if highest > 0 else np.zeros(relevance.shape, np.bool_)


def attention_error(kept: Mask, mask: Mask, *, enough: float = 0.5, most: float = 0.5) -> str:
    """``good``, ``insufficient``, ``over`` or ``wrong``: what is the matter with what a map keeps.

    Our reading of the lab's error classes, with numbers: ``wrong`` where less than half of what is
    kept lies on the object and less than half of the object is kept; ``insufficient`` where only
    the latter holds, ``over`` where only the former does.
    """
    covered = float((kept & mask).sum() / max(int(mask.sum()), 1))
    on_it = float((kept & mask).sum() / max(int(kept.sum()), 1))
    if covered >= enough and on_it >= most:
        return "good"
    if covered >= enough:
        return "over"
    return "insufficient" if on_it >= most else "wrong"
