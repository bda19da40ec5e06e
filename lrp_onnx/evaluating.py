"""The `evaluate` command's work: methods × photos × metrics, in batches, resumable."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from lrp_onnx.baselines import SANITY
from lrp_onnx.compiler import Options
from lrp_onnx.errors import RuleError
from lrp_onnx.evaluation.curves import PROTOCOLS, Curves, Protocol, masks, read
from lrp_onnx.evaluation.localisation import (
    ATTENTION,
    attended,
    attention_error,
    mass_accuracy,
    pointing_game,
    rank_accuracy,
)
from lrp_onnx.evaluation.properties import sparseness
from lrp_onnx.evaluation_report import as_csv, as_json, draw_curves, evaluation_table, markdown, mean_curves
from lrp_onnx.explaining import labels_beside
from lrp_onnx.files import write_bytes
from lrp_onnx.maps.render import write_png
from lrp_onnx.methods import check_method, make_maps
from lrp_onnx.photos import Photo, find_masks, load_photo, read_boxes
from lrp_onnx.runtime.images import find_images, read_labels
from lrp_onnx.sanity import REMADE
from lrp_onnx.scoring import Scorer, fill
from lrp_onnx.subject import Subject

LOCAL: Mapping[str, Callable[..., float]] = {
    "pointing": pointing_game,
    "mass": mass_accuracy,
    "rank": rank_accuracy,
}
"""Metrics that need the object's mask."""
METRICS = (*PROTOCOLS, *LOCAL, "attention", "sparseness", *REMADE)
HELD = 1e9
"""Bytes of maps that are held at once: so many photos' are made, a method after the other, before any is judged."""
STEPS = 50
DEFAULT_METHODS = ("epsilon-gamma-plus+smooth", "c3-lrp", "c3-lrp+c3", "lrp-resnet", "epsilon-plus-flat", "grad-cam")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is evaluated, and how."""

    model: Path
    photos: Sequence[Path]
    methods: Sequence[str]
    metrics: Sequence[str] = ("exact", "keio")
    labels: Mapping[str, int] = field(default_factory=dict)
    """File name → class index; without one the predicted class is taken for the label."""
    masks: Mapping[str, Any] = field(default_factory=dict)
    """File name → the object's mask as a picture's path, or as a box (x0, y0, x1, y1) in the photo's pixels."""
    steps: int = STEPS
    patch: int = 1
    seed: int = 0
    results: Path | None = None
    """JSON lines, one a photo and method, that a later run goes on from."""
    provider: str | None = None
    threads: int | None = None
    choices: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """What must be the same for results to be gone on with."""
        return {"model": self.model.name, "steps": self.steps, "patch": self.patch, "seed": self.seed}


def evaluate(
    request: Request,
    *,
    report: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """One row for every photo and method: what was explained, and every metric's value.

    `report` is told how many rows of how many there are, `say` whose maps were made, which may take long too.

    Raises:
        RuleError: a method or metric is unknown, or results in the file are of other settings.
        ImageError and what compiling raises.
    """
    for name in request.metrics:
        if name not in METRICS:
            raise RuleError(f"there is no metric {name!r}; there are {', '.join(METRICS)}")
    subject = Subject(
        request.model, provider=request.provider, threads=request.threads, seed=request.seed, choices=request.choices
    )
    rows = _resumed(request)
    done = {(row["image"], row["method"]) for row in rows}
    names = list(dict.fromkeys(request.methods))
    for name in names:
        check_method(name)
    total, judged = len(request.photos) * len(names), 0
    height, width = subject.size
    bundle_size = max(1, int(HELD / (4 * height * width * max(len(names), 1))))
    for first in range(0, len(request.photos), bundle_size):
        bundle = request.photos[first : first + bundle_size]
        missing = {path: [name for name in names if (path.name, name) not in done] for path in bundle}
        judged += len(bundle) * len(names) - sum(map(len, missing.values()))
        for row in _group({path: some for path, some in missing.items() if some}, subject, request, say):
            rows.append(row)
            _append(request.results, row)
            judged += 1
            report(judged, total)
    return rows


def _group(
    missing: Mapping[Path, Sequence[str]], subject: Subject, request: Request, say: Callable[[str], None]
) -> Iterator[Row]:
    """The rows of some photos, each with the methods that it misses. One method's model is loaded at a time."""
    if not missing:
        return
    photos = [
        load_photo(path, subject, request.labels.get(path.name), request.masks.get(path.name)) for path in missing
    ]
    pictures = np.concatenate([photo.tensor for photo in photos])
    whole = subject.probabilities(pictures)
    targets = whole.argmax(1)
    maps: dict[Path, dict[str, NDArray[np.float32]]] = {path: {} for path in missing}
    again = [metric for metric in request.metrics if metric in REMADE]
    remade: dict[tuple[int, str], dict[str, float]] = defaultdict(dict)
    alike: dict[tuple[str, ...], list[int]] = {}
    for index, names in enumerate(missing.values()):
        alike.setdefault(tuple(names), []).append(index)
    for names, which in alike.items():
        for made in make_maps(names, subject, pictures[which], targets[which]):
            say(f"{made.method.name}: {len(which)} maps made")
            for metric in again:
                values = REMADE[metric](made, subject, pictures[which], targets[which])
                for index, value in zip(which, values, strict=True):
                    remade[index, made.method.name][metric] = value
            for index, relevance in zip(which, made.maps, strict=True):
                maps[photos[index].path][made.method.name] = relevance
    for index, photo in enumerate(photos):
        target = int(targets[index])
        label = target if photo.label is None else photo.label
        found = maps.pop(photo.path)
        curves = _curves(photo, found, subject, request, {"label": label, "target": target})
        for name, relevance in found.items():
            head = {"image": photo.path.name, "method": name, "target": target, "label": label}
            probability = {"probability": float(whole[index, target])}
            yield head | probability | curves[name] | _local(photo, relevance, request) | remade[index, name]


def _local(photo: Photo, relevance: NDArray[np.float32], request: Request) -> dict[str, Any]:
    """What is said of a map without running the model."""
    found: dict[str, Any] = {}
    for metric in request.metrics:
        if metric in LOCAL and photo.mask is not None:
            found[metric] = LOCAL[metric](relevance, photo.mask)
        elif metric == "attention" and photo.mask is not None:
            kept = attended(relevance)
            found |= {name: float(name == attention_error(kept, photo.mask)) for name in ATTENTION}
        elif metric == "sparseness":
            found[metric] = sparseness(relevance)
    return found


def _curves(
    photo: Photo, maps: Mapping[str, NDArray[np.float32]], subject: Subject, request: Request, follow: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """Method → protocol → insertion, deletion and their curves. Pictures that several need are scored once."""
    protocols = [PROTOCOLS[name] for name in request.metrics if name in PROTOCOLS]
    fills = {name: fill(name, photo.tensor, subject) for p in protocols for name in (p.hidden, p.deleted)}
    wanted = Scorer(subject, photo.tensor, fills)
    asked: list[tuple[str, Protocol, list[int], list[int]]] = []
    for name, relevance in maps.items():
        for protocol in protocols:
            shown, left = masks(relevance, protocol, steps=request.steps, seed=request.seed, patch=request.patch)
            asked.append((name, protocol, wanted.ask(protocol.hidden, shown), wanted.ask(protocol.deleted, left)))
    scores = wanted.scores()
    found: dict[str, dict[str, Any]] = {name: {} for name in maps}
    for name, protocol, inserted, deleted in asked:
        column = follow[protocol.follows]
        made = read(
            maps[name],
            protocol,
            scores[inserted, column],
            scores[deleted, column],
            steps=request.steps,
            patch=request.patch,
        )
        found[name][protocol.name] = _values(made)
    return found


def _values(curves: Curves) -> dict[str, Any]:
    return {
        "insertion": curves.insertion_area,
        "deletion": curves.deletion_area,
        "id": curves.difference,
        "curves": [[round(float(v), 4) for v in values] for values in (curves.insertion, curves.deletion)],
    }


def evaluate_files(
    model: Path,
    images: Sequence[str],
    *,
    options: Options,
    report: Callable[[str], None],
    methods: Sequence[str],
    metrics: str,
    labels: Path | None,
    masks: Path | None,
    output: Path | None,
    **given: Any,
) -> tuple[Table, dict[str, Any]]:
    """(a table for the terminal, means with intervals), and in `output` results.jsonl, tables and curves."""
    photos = find_images(images)
    table = labels or labels_beside(photos)
    boxes = read_boxes(table) if table else {}
    request = Request(
        model=model,
        photos=photos,
        methods=(*(methods or DEFAULT_METHODS), *SANITY),
        metrics=[name.strip() for name in metrics.split(",") if name.strip()],
        labels=read_labels(table) if table else {},
        masks=find_masks(masks, photos) if masks else boxes,
        results=output / "results.jsonl" if output else None,
        choices={"explain": options.explain, "input_size": options.input_size, "preprocessing": options.preprocessing},
        **given,
    )
    if not table:
        report("no labels: where a metric follows the label, the predicted class is followed")
    rows = evaluate(request, report=_progress(report), say=report)
    if output:
        for metric in (name for name in request.metrics if name in PROTOCOLS):
            write_png(output / f"{metric}.png", draw_curves(mean_curves(rows, metric), metric), force=True)
        write_bytes(output / "table.md", (markdown(rows, every=True, seed=request.seed) + "\n").encode(), force=True)
        write_bytes(output / "table.csv", as_csv(rows).encode(), force=True)
        report(f"results.jsonl, table.md, table.csv and curves are in {output}")
    return evaluation_table(rows, seed=request.seed), as_json(rows, seed=request.seed)


def _progress(report: Callable[[str], None]) -> Callable[[int, int], None]:
    """A line a tenth of the way."""
    said = [0]

    def at(done: int, total: int) -> None:
        if total and 10 * done // total > said[0]:
            said[0] = 10 * done // total
            report(f"{done} of {total} maps judged")

    return at


def _resumed(request: Request) -> list[Row]:
    """What the results file already holds; an incomplete last line is left out."""
    if request.results is None or not request.results.exists():
        if request.results is not None:
            request.results.parent.mkdir(parents=True, exist_ok=True)
            request.results.write_text(json.dumps({"settings": request.settings}) + "\n", encoding="utf-8")
        return []
    text = request.results.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    rows = [json.loads(line) for line in whole.splitlines()]
    if not rows or rows[0].get("settings") != request.settings:
        raise RuleError(f"{request.results} holds results of other settings: name another file, or remove it")
    if whole != text:
        write_bytes(request.results, whole.encode(), force=True)
    wanted = {ATTENTION[0] if name == "attention" else name for name in request.metrics}
    unmasked = {*LOCAL, ATTENTION[0]}  # a photo without a mask has none of these
    return [row for row in rows[1:] if wanted - set(row) <= (unmasked if row["image"] not in request.masks else set())]


def _append(path: Path | None, row: Row) -> None:
    if path is not None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
