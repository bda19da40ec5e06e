"""Scoring of methods on photos by metrics. It works in batches and can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.errors import RuleError, going_on
from lrp_onnx.evaluation.black_box import subject_for
from lrp_onnx.evaluation.kept import Kept, Values, forget
from lrp_onnx.evaluation.methods import Made, check_method, make_maps
from lrp_onnx.evaluation.metrics.curves import PROTOCOLS, Curves, Protocol, masks, read
from lrp_onnx.evaluation.metrics.lattice import profile
from lrp_onnx.evaluation.metrics.localisation import (
    ATTENTION_CLASSES,
    attended,
    attention_error,
    mass_accuracy,
    pointing_game,
    rank_accuracy,
)
from lrp_onnx.evaluation.metrics.properties import sparseness
from lrp_onnx.evaluation.photos import Photo, load_photo
from lrp_onnx.evaluation.request import (
    NEEDING_MASKS,
    Request,
    Result,
    append,
    check_labels,
    mask_text,
    put_in_order,
    resumed,
)
from lrp_onnx.evaluation.sanity import REMADE
from lrp_onnx.evaluation.scoring import Scorer, fill
from lrp_onnx.evaluation.subject import Pictures, Subject, Targets
from lrp_onnx.evaluation.summary import LATTICE
from lrp_onnx.notation import suggestion

LOCAL: Mapping[str, Callable[..., float]] = {
    "pointing": pointing_game,
    "mass": mass_accuracy,
    "rank": rank_accuracy,
}
"""Metrics that need the object's mask."""
METRICS = (*PROTOCOLS, *NEEDING_MASKS, "sparseness", LATTICE, *REMADE)
WITH_MAPS = (LATTICE, *REMADE)
"""Metrics that are computed with a method's maps, for all photos at once."""
MAP_BYTES = 1e9
"""Memory for maps. The photos are scored in bundles whose maps, under all methods, fit into it."""


def evaluate(
    request: Request,
    *,
    report: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Result]:
    """Score methods on photos.

    Args:
        request: what is evaluated, and how.
        report: called after every result with (results so far, results in total).
        say: called with remarks, e.g. when the maps of a method are computed.

    Returns:
        One result per photo and method: what was explained, and the value of every metric.

    Raises:
        RuleError: a method or metric is unknown or does not fit the model, two photos have the same
            name, labels do not fit the model's classes, or the results file is of another request.
        OutputError: the results file cannot be written.
        ImageError, and what `compile_model` raises.
    """
    for name in request.metrics:
        if name not in METRICS:
            raise RuleError(f"there is no metric {name!r}: {suggestion(name, METRICS)}")
    names = list(dict.fromkeys(request.methods))
    subject = subject_for(
        request.model,
        names,
        provider=request.provider,
        threads=request.threads,
        seed=request.seed,
        choices=request.choices,
        others=request.photos,
    )
    for name in names:
        check_method(name, subject)
    if subject.assumed_preprocessing:
        say("the model does not say how pictures become input: assuming --preprocess imagenet")
    check_labels(request, subject.classes.count)
    rows = resumed(request, say)
    total = len(request.photos) * len(names)
    path = request.results
    if path is None:
        return _scored(request, subject, names, rows, report, say)
    with going_on(lambda: len(rows) if path.exists() else 0, total, "maps are scored"):
        return _scored(request, subject, names, rows, report, say)


def _scored(
    request: Request,
    subject: Subject,
    names: Sequence[str],
    rows: list[Result],
    report: Callable[[int, int], None],
    say: Callable[[str], None],
) -> list[Result]:
    """The results of all photos under all methods, of which `rows`, which grows, are there."""
    kept = request.kept
    done = {(row["image"], row["method"]) for row in rows}
    total = len(request.photos) * len(names)
    height, width = subject.size
    bundle_size = max(1, int(MAP_BYTES / (4 * height * width * max(len(names), 1))))
    for first in range(0, len(request.photos), bundle_size):
        bundle = request.photos[first : first + bundle_size]
        missing = {
            path: [name for name in names if (path.name, name) not in done] for path in bundle
        }
        unfinished = {path: methods for path, methods in missing.items() if methods}
        for row in _group(unfinished, subject, request, kept, say):
            append(request.results, row)
            rows.append(row)
            report(len(rows), total)
    photos = {photo.name: place for place, photo in enumerate(request.photos)}
    places = {name: place for place, name in enumerate(names)}
    ordered = sorted(rows, key=lambda row: (photos[row["image"]], places[row["method"]]))
    put_in_order(request, ordered)
    forget(request.results)
    return ordered


def _group(
    missing: Mapping[Path, Sequence[str]],
    subject: Subject,
    request: Request,
    kept: Kept,
    say: Callable[[str], None],
) -> Iterator[Result]:
    """Results of photos under the methods that are missing for each of them.

    Only one method's model is loaded at a time.
    """
    if not missing:
        return
    photos = [
        load_photo(path, subject, request.labels.get(path.name), request.masks.get(path.name))
        for path in missing
    ]
    pictures = np.concatenate([photo.tensor for photo in photos])
    probabilities = subject.probabilities(pictures)
    targets = probabilities.argmax(1)
    maps: dict[Path, dict[str, NDArray[np.float32]]] = {path: {} for path in missing}
    recomputed: dict[tuple[int, str], dict[str, Any]] = {}
    groups: dict[tuple[str, ...], list[int]] = {}  # missing methods → the photos that miss them
    for index, names in enumerate(missing.values()):
        groups.setdefault(tuple(names), []).append(index)
    for names, indices in groups.items():
        images = [photos[index].path.name for index in indices]
        some = pictures[indices], targets[indices]
        for method, found, values in _made(names, images, subject, *some, request, kept, say):
            for index, relevance, row in zip(indices, found, values, strict=True):
                maps[photos[index].path][method] = relevance
                recomputed[index, method] = row
    for index, photo in enumerate(photos):
        target = int(targets[index])
        label = target if photo.label is None else photo.label
        made = maps.pop(photo.path)
        maps_of_photo = {name: made[name] for name in missing[photo.path]}  # as they were asked for
        curves = _curves(photo, maps_of_photo, subject, request, {"label": label, "target": target})
        for name, relevance in maps_of_photo.items():
            head: dict[str, Any] = {
                "image": photo.path.name,
                "method": name,
                "target": target,
                "label": label,
            }
            head |= {"mask": mask_text(request, photo.path.name), "seen": photo.mask is not None}
            head |= {"probability": float(probabilities[index, target])}
            local = _local(photo, relevance, request)
            yield head | curves[name] | local | recomputed[index, name]


def _made(
    names: Sequence[str],
    images: Sequence[str],
    subject: Subject,
    x: Pictures,
    t: Targets,
    request: Request,
    kept: Kept,
    say: Callable[[str], None],
) -> Iterator[tuple[str, NDArray[np.float32], Values]]:
    """(method, its maps, its values of `WITH_MAPS`): those that are kept, then the others."""
    wanted = [metric for metric in request.metrics if metric in WITH_MAPS]
    left = []
    for name in names:
        if found := kept.load(name, images, wanted):
            yield name, *found
        else:
            left.append(name)
    for result in make_maps(left, subject, x, t, keep=kept.in_parts):
        name = result.method.name
        values = _remade(result, subject, x, t, request)
        kept.save(name, images, result.maps, values)
        say(f"{name}: {len(images)} maps computed")
        yield name, result.maps, values


def _remade(
    result: Made, subject: Subject, x: Pictures, t: Targets, request: Request
) -> list[dict[str, Any]]:
    """Metric → value of every picture, for the metrics of a method as a whole."""
    found: list[dict[str, Any]] = [{} for _ in result.maps]
    for metric in (metric for metric in request.metrics if metric in REMADE):
        for values, value in zip(found, REMADE[metric](result, subject, x, t), strict=True):
            values[metric] = value if np.isfinite(value) else None
    if LATTICE in request.metrics:
        for values, raw in zip(found, result.raw, strict=True):
            values[LATTICE] = profile(raw, subject.deepest_stride)
    return found


def _local(photo: Photo, relevance: NDArray[np.float32], request: Request) -> dict[str, Any]:
    """Metric → value, for the metrics that do not run the model."""
    values: dict[str, Any] = {}
    for metric in request.metrics:
        if metric in LOCAL and photo.mask is not None:
            values[metric] = LOCAL[metric](relevance, photo.mask)
        elif metric == "attention" and photo.mask is not None:
            error = attention_error(attended(relevance), photo.mask)
            values |= {name: float(name == error) for name in ATTENTION_CLASSES}
        elif metric == "sparseness":
            values[metric] = sparseness(relevance)
    return values


def _curves(
    photo: Photo,
    maps: Mapping[str, NDArray[np.float32]],
    subject: Subject,
    request: Request,
    follow: Mapping[str, int],
) -> dict[str, dict[str, Any]]:
    """Method → protocol → insertion, deletion and their curves.

    A masked picture that several of them need is scored once. `follow` holds the class indices of
    ``label`` and ``target``.
    """
    protocols = [PROTOCOLS[name] for name in request.metrics if name in PROTOCOLS]
    fills = {
        name: fill(name, photo.tensor, subject) for p in protocols for name in (p.hidden, p.deleted)
    }
    scorer = Scorer(subject, photo.tensor, fills)
    pictures: list[tuple[str, Protocol, list[int], list[int]]] = []
    for name, relevance in maps.items():
        for protocol in protocols:
            insertion, deletion = masks(
                relevance, protocol, steps=request.steps, seed=request.seed, patch=request.patch
            )
            inserted = scorer.ask(protocol.hidden, insertion)
            deleted = scorer.ask(protocol.deleted, deletion)
            pictures.append((name, protocol, inserted, deleted))
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
    both = (curves.insertion, curves.deletion)
    return {
        "insertion": curves.insertion_area,
        "deletion": curves.deletion_area,
        "id": curves.difference,
        "curves": [[round(float(value), 4) for value in curve] for curve in both],
    }
