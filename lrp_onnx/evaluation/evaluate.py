"""Judging: methods × photos × metrics, in batches, resumable."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.errors import RuleError
from lrp_onnx.evaluation.methods import check_method, make_maps
from lrp_onnx.evaluation.metrics.curves import PROTOCOLS, Curves, Protocol, masks, read
from lrp_onnx.evaluation.metrics.localisation import (
    ATTENTION,
    attended,
    attention_error,
    mass_accuracy,
    pointing_game,
    rank_accuracy,
)
from lrp_onnx.evaluation.metrics.properties import sparseness
from lrp_onnx.evaluation.photos import Photo, load_photo
from lrp_onnx.evaluation.request import NEEDING_MASKS, Request, Result, append, check_labels, mask_text, resumed
from lrp_onnx.evaluation.sanity import REMADE
from lrp_onnx.evaluation.scoring import Scorer, fill
from lrp_onnx.evaluation.subject import Subject

LOCAL: Mapping[str, Callable[..., float]] = {
    "pointing": pointing_game,
    "mass": mass_accuracy,
    "rank": rank_accuracy,
}
"""Metrics that need the object's mask."""
METRICS = (*PROTOCOLS, *NEEDING_MASKS, "sparseness", *REMADE)
HELD = 1e9
"""Bytes of maps that are held at once. The maps of so many photos are made, a method after the
other, before any of them is judged.
"""


def evaluate(
    request: Request,
    *,
    report: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Result]:
    """One result for every photo and method: what was explained, and every metric's value.

    Args:
        request: what is evaluated, and how.
        report: is called with the number of results so far and in all.
        say: is called with remarks, among them whose maps are made, which may take long too.

    Raises:
        RuleError: a method or metric is unknown or does not fit the model, two photos have one
            name, labels do not fit the model's classes, or the results file cannot be gone on with.
        OutputError: the results file cannot be written.
        ImageError, and what compiling raises.
    """
    for name in request.metrics:
        if name not in METRICS:
            raise RuleError(f"there is no metric {name!r}; there are {', '.join(METRICS)}")
    subject = Subject(
        request.model, provider=request.provider, threads=request.threads, seed=request.seed, choices=request.choices
    )
    names = list(dict.fromkeys(request.methods))
    for name in names:
        check_method(name, subject)
    if subject.explainer.assumed_preprocessing:
        say("the model does not say how pictures are prepared: assuming --preprocess imagenet")
    check_labels(request, subject.explainer.contract.classes)
    rows = resumed(request)
    done = {(row["image"], row["method"]) for row in rows}
    total, judged = len(request.photos) * len(names), 0
    height, width = subject.size
    bundle_size = max(1, int(HELD / (4 * height * width * max(len(names), 1))))
    for first in range(0, len(request.photos), bundle_size):
        bundle = request.photos[first : first + bundle_size]
        missing = {path: [name for name in names if (path.name, name) not in done] for path in bundle}
        judged += len(bundle) * len(names) - sum(map(len, missing.values()))
        unfinished = {path: methods for path, methods in missing.items() if methods}
        for row in _group(unfinished, subject, request, say):
            rows.append(row)
            append(request.results, row)
            judged += 1
            report(judged, total)
    return rows


def _group(
    missing: Mapping[Path, Sequence[str]], subject: Subject, request: Request, say: Callable[[str], None]
) -> Iterator[Result]:
    """The results of photos under the methods that each of them lacks.

    One method's model is loaded at a time.
    """
    if not missing:
        return
    photos = [
        load_photo(path, subject, request.labels.get(path.name), request.masks.get(path.name)) for path in missing
    ]
    pictures = np.concatenate([photo.tensor for photo in photos])
    whole = subject.probabilities(pictures)
    targets = whole.argmax(1)
    maps: dict[Path, dict[str, NDArray[np.float32]]] = {path: {} for path in missing}
    remaking = [metric for metric in request.metrics if metric in REMADE]
    remade: dict[tuple[int, str], dict[str, float | None]] = defaultdict(dict)
    groups: dict[tuple[str, ...], list[int]] = {}  # photos that lack the same methods
    for index, names in enumerate(missing.values()):
        groups.setdefault(tuple(names), []).append(index)
    for names, which in groups.items():
        for made in make_maps(names, subject, pictures[which], targets[which]):
            say(f"{made.method.name}: {len(which)} maps made")
            for metric in remaking:
                values = REMADE[metric](made, subject, pictures[which], targets[which])
                for index, value in zip(which, values, strict=True):
                    remade[index, made.method.name][metric] = value if np.isfinite(value) else None
            for index, relevance in zip(which, made.maps, strict=True):
                maps[photos[index].path][made.method.name] = relevance
    for index, photo in enumerate(photos):
        target = int(targets[index])
        label = target if photo.label is None else photo.label
        maps_of_photo = maps.pop(photo.path)
        curves = _curves(photo, maps_of_photo, subject, request, {"label": label, "target": target})
        for name, relevance in maps_of_photo.items():
            head: dict[str, Any] = {"image": photo.path.name, "method": name, "target": target, "label": label}
            head |= {"mask": mask_text(request, photo.path.name), "seen": photo.mask is not None}
            probability = {"probability": float(whole[index, target])}
            yield head | probability | curves[name] | _local(photo, relevance, request) | remade[index, name]


def _local(photo: Photo, relevance: NDArray[np.float32], request: Request) -> dict[str, Any]:
    """Metric → value, of the metrics that need no run of the model."""
    values: dict[str, Any] = {}
    for metric in request.metrics:
        if metric in LOCAL and photo.mask is not None:
            values[metric] = LOCAL[metric](relevance, photo.mask)
        elif metric == "attention" and photo.mask is not None:
            kept = attended(relevance)
            values |= {name: float(name == attention_error(kept, photo.mask)) for name in ATTENTION}
        elif metric == "sparseness":
            values[metric] = sparseness(relevance)
    return values


def _curves(
    photo: Photo, maps: Mapping[str, NDArray[np.float32]], subject: Subject, request: Request, follow: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """Method → protocol → insertion, deletion and their curves.

    A picture that several of them need is scored once. `follow` is the class index of ``label`` and
    of ``target``.
    """
    protocols = [PROTOCOLS[name] for name in request.metrics if name in PROTOCOLS]
    fills = {name: fill(name, photo.tensor, subject) for p in protocols for name in (p.hidden, p.deleted)}
    scorer = Scorer(subject, photo.tensor, fills)
    pictures: list[tuple[str, Protocol, list[int], list[int]]] = []
    for name, relevance in maps.items():
        for protocol in protocols:
            shown, left = masks(relevance, protocol, steps=request.steps, seed=request.seed, patch=request.patch)
            pictures.append((name, protocol, scorer.ask(protocol.hidden, shown), scorer.ask(protocol.deleted, left)))
    scores = scorer.scores()
    values: dict[str, dict[str, Any]] = {name: {} for name in maps}
    for name, protocol, inserted, deleted in pictures:
        column = follow[protocol.follows]
        curves = read(
            maps[name],
            protocol,
            scores[inserted, column],
            scores[deleted, column],
            steps=request.steps,
            patch=request.patch,
        )
        values[name][protocol.name] = _values(curves)
    return values


def _values(curves: Curves) -> dict[str, Any]:
    return {
        "insertion": curves.insertion_area,
        "deletion": curves.deletion_area,
        "id": curves.difference,
        "curves": [[round(float(v), 4) for v in values] for values in (curves.insertion, curves.deletion)],
    }
