"""The `evaluate` command: read photos, labels and masks, score, write results and tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from lrp_onnx.cli.options import names_in
from lrp_onnx.cli.tables import evaluation_table
from lrp_onnx.compiler import Options, plan_model
from lrp_onnx.errors import OutputError, RuleError, going_on
from lrp_onnx.evaluation.baselines import SANITY
from lrp_onnx.evaluation.evaluate import evaluate
from lrp_onnx.evaluation.methods import with_own_post
from lrp_onnx.evaluation.metrics.curves import PROTOCOLS
from lrp_onnx.evaluation.photos import find_masks, read_boxes
from lrp_onnx.evaluation.request import NEEDING_MASKS, Request, Result
from lrp_onnx.evaluation.summary import as_csv, as_json, markdown, mean_curves
from lrp_onnx.files.writing import check_folder, held_folder, leftovers, write_bytes
from lrp_onnx.relevance.composites.presets import DEFAULT, default_for
from lrp_onnx.report.curves import draw_curves
from lrp_onnx.report.render import write_png
from lrp_onnx.runtime.images import find_images, labels_beside, read_labels

ENDS = RESULTS, TABLE, CSV = "results.jsonl", "table.md", "table.csv"

DEFAULT_METHODS = (
    with_own_post(DEFAULT),
    "c3-lrp",
    with_own_post("c3-lrp"),
    "lrp-resnet",
    "epsilon-plus-flat",
    "grad-cam",
)


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
    every: bool = False,
    **settings: Any,
) -> tuple[RenderableType, dict[str, Any]]:
    """Score methods on photos and write results.jsonl, tables and curves into `output`, if any.

    Args:
        model: an ONNX file, not compiled.
        images: files, folders or globs.
        options: how the model is read.
        report: is called with every line about progress.
        methods: composites or baselines; empty for `DEFAULT_METHODS`, the first of them the
            default of the model's family.
        metrics: names, comma-separated.
        labels: a CSV file; None for ``labels.csv`` beside the photos.
        masks: a folder of masks; None for the boxes in `labels`.
        output: a folder; None to write nothing.
        every: whether the table has every metric side by side, with whole intervals.
        settings: further fields of `evaluation.request.Request`.

    Returns:
        (a table for the terminal, means with confidence intervals as `as_json` has them).

    Raises:
        RuleError: a metric needs masks or boxes, and no photo has any.
        What `evaluate` raises; OutputError where tables or curves cannot be written.
    """
    photos = find_images(images)
    table = labels or labels_beside(photos)
    classes = read_labels(table) if table else {}
    boxes = read_boxes(table) if table else {}
    if output is not None:
        check_folder(output)
    choices: dict[str, Any] = {
        "explain": options.explain,
        "input_size": options.input_size,
        "preprocessing": options.preprocessing,
    }
    if not methods:
        plan = plan_model(model, Options(**choices))[1]
        methods = (with_own_post(default_for(plan)), *DEFAULT_METHODS[1:])
    request = Request(
        model=model,
        photos=photos,
        methods=(*methods, *SANITY),
        metrics=names_in(metrics),
        labels=classes,
        masks=find_masks(masks, photos) if masks else boxes,
        results=output / RESULTS if output else None,
        choices=choices,
        **settings,
    )
    lacking = [name for name in request.metrics if name in NEEDING_MASKS]
    if lacking and not request.masks:
        raise RuleError(
            f"--metrics {','.join(lacking)}: no photo has a mask or a box, so there would be no "
            "value: give --masks DIR, or --labels FILE with the columns x0,y0,x1,y1"
        )
    if not table:
        report("there are no labels: metrics that follow the label follow the predicted class")
    with held_folder(output) if output else nullcontext():
        rows = evaluate(request, report=_progress(report), say=report)
        if output:
            total = len(rows)
            kept = output / RESULTS
            with going_on(lambda: total if kept.exists() else 0, total, "maps are scored"):
                _write(output, rows, request, report)
    return evaluation_table(rows, every=every, seed=request.seed), as_json(rows, seed=request.seed)


def _write(
    output: Path, rows: Sequence[Result], request: Request, report: Callable[[str], None]
) -> None:
    """The tables and the curves of an evaluation."""
    for metric in (name for name in request.metrics if name in PROTOCOLS):
        curves = mean_curves(rows, metric)
        picture = draw_curves(curves, metric, from_zero=PROTOCOLS[metric].from_zero)
        write_png(output / f"{metric}.png", picture, force=True)
    text = markdown(rows, every=True, seed=request.seed) + "\n"
    write_bytes(output / TABLE, text.encode(), force=True)
    write_bytes(output / CSV, as_csv(rows).encode(), force=True)
    for path in leftovers(output, (*ENDS, *(f"{name}.png" for name in PROTOCOLS))):
        path.unlink(missing_ok=True)
    if gone := [name for name in ENDS if not (output / name).exists()]:
        raise OutputError(f"{gone[0]} was removed from {output} during the run")
    report(f"{', '.join(ENDS)} and curves are in {output}")


def _progress(report: Callable[[str], None]) -> Callable[[int, int], None]:
    """A function (done, total) that reports a line at every tenth of the total."""
    last = 0

    def progress(done: int, total: int) -> None:
        nonlocal last
        tenths = 10 * done // total if total else 0
        if tenths > last:
            last = tenths
            report(f"{done} of {total} maps scored")

    return progress
