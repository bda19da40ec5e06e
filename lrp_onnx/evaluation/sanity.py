"""Metrics that compute a method's maps again: for another class, picture or shuffled weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.evaluation.methods import Made, find_method
from lrp_onnx.evaluation.metrics.properties import (
    adcc,
    max_sensitivity,
    rank_correlation,
    similarity,
    unit,
)
from lrp_onnx.evaluation.subject import Maps, Pictures, Subject, Targets
from lrp_onnx.maps.resample import Map
from lrp_onnx.plan.kinds import Weighted

T = TypeVar("T")
Metric = Callable[[Made, Subject, Pictures, Targets], list[float]]
"""(method and its maps (N, H, W), model, pictures (N, …), targets (N,)) → one value per picture."""
PERTURBED = 8
"""Number of perturbed pictures for max-sensitivity."""
RADIUS = 0.02
"""Largest perturbation of a value, as a share of the picture's range."""
SURE = 0.6
"""Smallest probability of a picture's class for a mosaic."""
DEPTHS = (0.0, 0.25, 0.5, 1.0)
"""Shares of the layers whose weights are shuffled, from the logits down; 0 is the last layer."""


def class_sensitivity(result: Made, subject: Subject, x: Pictures, t: Targets) -> list[float]:
    """|Cosine| between the maps of the target and of the most probable other class.

    After Sixt et al. 2020. Lower is better: near 1, the map is the same for both classes. The
    absolute value is taken, as a map and its negative differ only in where relevance starts.
    """
    scores = subject.probabilities(x)
    scores[np.arange(len(x)), t] = -1
    return _pairs(similarity, result.maps, result.method.maps(x, scores.argmax(1)))


def random_logit(result: Made, subject: Subject, x: Pictures, t: Targets) -> list[float]:
    """|Rank correlation| between the maps of the target and of a random other class.

    Lower is better. The random-logit test of Sixt et al. 2020, who use structural similarity.
    """
    classes = subject.classes.count
    shifts = np.random.default_rng(subject.seed).integers(1, max(classes, 2), len(x))
    return _pairs(rank_correlation, result.maps, result.method.maps(x, (t + shifts) % classes))


def sensitivity(result: Made, subject: Subject, x: Pictures, t: Targets) -> list[float]:
    """Max-sensitivity over `PERTURBED` pictures with uniform noise (see `max_sensitivity`).

    The noise is within `RADIUS` of the picture's range. Lower is better. A constant that is added
    to a map lowers the value: compare only maps that are near zero outside the object.
    """
    rng = np.random.default_rng(subject.seed)
    reach = RADIUS * np.ptp(x.reshape(len(x), -1), axis=1).reshape(-1, *[1] * (x.ndim - 1))
    noisy = [x + (reach * rng.uniform(-1, 1, x.shape)).astype(np.float32) for _ in range(PERTURBED)]
    perturbed = [result.method.maps(pictures.astype(np.float32), t) for pictures in noisy]
    return [
        max_sensitivity(relevance, [maps[index] for maps in perturbed])
        for index, relevance in enumerate(result.maps)
    ]


def average_drop_coherency_complexity(
    result: Made, subject: Subject, x: Pictures, t: Targets
) -> list[float]:
    """ADCC (see `adcc`). Pictures, in the model's units, are multiplied by their scaled maps."""
    masked = x * np.expand_dims(np.stack(list(map(unit, result.maps))), subject.channels)
    maps_of_masked = result.method.maps(masked, t)
    rows = np.arange(len(x))
    full, remaining = subject.probabilities(x)[rows, t], subject.probabilities(masked)[rows, t]
    drops = np.maximum(0, full - remaining) / np.maximum(full, 1e-12)
    parts = zip(result.maps, maps_of_masked, drops, strict=True)
    return [adcc(one, _constant(other), _constant(float(drop)))[0] for one, other, drop in parts]


def _constant(value: T) -> Callable[[Map], T]:
    """A function of the scaled map that returns a value computed before."""
    return lambda scaled: value


def randomisation(result: Made, subject: Subject, x: Pictures, t: Targets) -> list[float]:
    """|Rank correlation| between a map and the maps of the model with shuffled weights.

    Weights are shuffled from the logits down; the mean over `DEPTHS` is taken (MPRT, Adebayo et al.
    2018). Lower is better: a map that does not depend on the model has 1.
    """
    layers = sum(isinstance(step.kind, Weighted) for step in subject.plan.steps)
    correlations = []
    for share in DEPTHS:
        choices = {
            **subject.choices,
            "randomize": max(1, round(share * layers)),
            "seed": subject.seed,
        }
        shuffled = replace(subject, choices=choices)
        maps: Maps = find_method(result.method.name, shuffled).maps(x, t)
        correlations.append(_pairs(rank_correlation, result.maps, maps))
    return [float(np.mean(values)) for values in zip(*correlations, strict=True)]


def mosaic(result: Made, subject: Subject, x: Pictures, t: Targets) -> list[float]:
    """Share of the positive relevance that lies in the target's half of a mosaic of two pictures,
    0 to 1: the grid pointing game (Böhle et al. 2021) with two cells.

    Every picture that is predicted with at least `SURE` is put beside another of another class, as
    their middle halves; sides and partners are drawn by the subject's seed. 0.5 is a map that does
    not follow the class, or one without positive relevance; NaN for pictures without a partner.
    """
    rng = np.random.default_rng(subject.seed)
    sure = subject.probabilities(x)[np.arange(len(x)), t] >= SURE
    order = rng.permutation(np.flatnonzero(sure))
    on_left = rng.random(len(x)) < 0.5
    shares = np.full(len(x), np.nan)
    axis = 2 if subject.channels == 3 else 3
    width = x.shape[axis]
    middle = np.take(x, range(width // 4, width // 4 + width // 2), axis)
    pairs = [(one, other) for one in order if (other := _partner(one, order, t)) is not None]
    if not pairs:
        return shares.tolist()
    sides = [(a, b) if on_left[a] else (b, a) for a, b in pairs]
    pictures = np.stack([np.concatenate([middle[a], middle[b]], axis - 1) for a, b in sides])
    missing = [(0, 0)] * pictures.ndim
    missing[axis] = (0, width - pictures.shape[axis])
    maps = result.method.maps(np.pad(pictures, missing, "edge"), t[[one for one, _ in pairs]])
    for (one, _), relevance in zip(pairs, maps, strict=True):
        positive = np.maximum(relevance[:, : 2 * (width // 2)].astype(np.float64), 0)
        halves = positive.reshape(len(positive), 2, -1).sum((0, 2))
        total = halves.sum()
        shares[one] = halves[0 if on_left[one] else 1] / total if total > 0 else 0.5
    return shares.tolist()


def _partner(one: int, order: NDArray[np.int64], t: Targets) -> int | None:
    """The next picture of another class in the circle `order`, None where there is none."""
    place = int(np.flatnonzero(order == one)[0])
    circle = np.roll(order, -place)[1:]
    return next((int(other) for other in circle if t[other] != t[one]), None)


def _pairs(measure: Callable[[Map, Map], float], maps: Maps, others: Maps) -> list[float]:
    """The absolute value of a measure of similarity, map by map."""
    return [abs(measure(one, other)) for one, other in zip(maps, others, strict=True)]


REMADE: Mapping[str, Metric] = {
    "class-sensitivity": class_sensitivity,
    "random-logit": random_logit,
    "max-sensitivity": sensitivity,
    "adcc": average_drop_coherency_complexity,
    "randomisation": randomisation,
    "mosaic": mosaic,
}
"""Name of a metric → its function."""
