"""Metrics that make a method's maps anew: of another class, of a changed picture, of a model with
shuffled weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np

from lrp_onnx.evaluation.methods import Made, find_method
from lrp_onnx.evaluation.metrics.properties import adcc, max_sensitivity, rank_correlation, similarity, unit
from lrp_onnx.evaluation.subject import Maps, Pictures, Subject, Targets
from lrp_onnx.maps.resample import Map
from lrp_onnx.plan.kinds import Convolution, Dense

T = TypeVar("T")
Metric = Callable[[Made, Subject, Pictures, Targets], list[float]]
"""A method with its maps (N, H, W) of pictures (N, …) and targets (N,), the model → one value a
picture.
"""
PERTURBED = 8
RADIUS = 0.02
"""How many perturbed pictures, and by how much at most, as a share of the picture's range."""
DEPTHS = (0.0, 0.25, 0.5, 1.0)
"""Shares of the layers, from the logits on, whose weights are shuffled; the first is the last layer
alone.
"""


def class_sensitivity(made: Made, subject: Subject, x: Pictures, t: Targets) -> list[float]:
    """|Cosine| between the maps of the target and of the most probable other class; near 1, a map
    does not tell classes apart (after Sixt et al. 2020). A map and its negative are the same but
    for what it started from, so signs do not count.
    """
    scores = subject.probabilities(x)
    scores[np.arange(len(x)), t] = -1
    return _pairs(similarity, made.maps, made.method.maps(x, scores.argmax(1)))


def random_logit(made: Made, subject: Subject, x: Pictures, t: Targets) -> list[float]:
    """|Rank correlation| between the maps of the target and of a random other class; lower is
    better (the random-logit test of Sixt et al. 2020, who measure structural similarity).
    """
    classes = subject.explainer.contract.classes
    shifts = np.random.default_rng(subject.seed).integers(1, max(classes, 2), len(x))
    return _pairs(rank_correlation, made.maps, made.method.maps(x, (t + shifts) % classes))


def sensitivity(made: Made, subject: Subject, x: Pictures, t: Targets) -> list[float]:
    """Max-sensitivity over `PERTURBED` pictures, uniform noise within `RADIUS` of the picture's
    range. What is added to a whole map lowers it: compare it among maps that are near zero where
    nothing is.
    """
    rng = np.random.default_rng(subject.seed)
    reach = RADIUS * np.ptp(x.reshape(len(x), -1), axis=1).reshape(-1, *[1] * (x.ndim - 1))
    noisy = [x + (reach * rng.uniform(-1, 1, x.shape)).astype(np.float32) for _ in range(PERTURBED)]
    changed = [made.method.maps(pictures.astype(np.float32), t) for pictures in noisy]
    return [max_sensitivity(one, [maps[i] for maps in changed]) for i, one in enumerate(made.maps)]


def average_drop_coherency_complexity(made: Made, subject: Subject, x: Pictures, t: Targets) -> list[float]:
    """ADCC: pictures are multiplied by their maps, scaled to 0..1, in the model's units."""
    shown = x * np.expand_dims(np.stack(list(map(unit, made.maps))), subject.channels)
    again = made.method.maps(shown, t)
    rows = np.arange(len(x))
    whole, left = subject.probabilities(x)[rows, t], subject.probabilities(shown)[rows, t]
    drops = np.maximum(0, whole - left) / np.maximum(whole, 1e-12)
    parts = zip(made.maps, again, drops, strict=True)
    return [adcc(one, _always(after), _always(float(drop)))[0] for one, after, drop in parts]


def _always(value: T) -> Callable[[Map], T]:
    """What is known already, as a function of the scaled map."""
    return lambda scaled: value


def randomisation(made: Made, subject: Subject, x: Pictures, t: Targets) -> list[float]:
    """|Rank correlation| between a map and the maps of the model with shuffled weights, from the
    logits on, averaged over `DEPTHS` (MPRT, Adebayo et al. 2018); lower is better, and a map that
    knows nothing of the model has 1.
    """
    layers = sum(isinstance(step.kind, Convolution | Dense) for step in subject.plan.steps)
    correlations = []
    for share in DEPTHS:
        choices = {**subject.choices, "randomize": max(1, round(share * layers)), "seed": subject.seed}
        maps: Maps = find_method(made.method.name, replace(subject, choices=choices)).maps(x, t)
        correlations.append(_pairs(rank_correlation, made.maps, maps))
    return [float(np.mean(values)) for values in zip(*correlations, strict=True)]


def _pairs(measure: Callable[[Map, Map], float], ours: Maps, others: Maps) -> list[float]:
    """The absolute value of a measure of alikeness, map by map."""
    return [abs(measure(one, other)) for one, other in zip(ours, others, strict=True)]


REMADE: Mapping[str, Metric] = {
    "class-sensitivity": class_sensitivity,
    "random-logit": random_logit,
    "max-sensitivity": sensitivity,
    "adcc": average_drop_coherency_complexity,
    "randomisation": randomisation,
}
"""Metrics by name."""
