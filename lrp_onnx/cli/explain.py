"""The `explain` command's work: find the pictures, explain
them in batches, write the results, report.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lrp_onnx.compiler import Options, compile_model
from lrp_onnx.contract import PREDICTED
from lrp_onnx.errors import RuleError
from lrp_onnx.maps.chain import NONE, Chain, parse_chain
from lrp_onnx.relevance.composites.presets import COMPOSITES
from lrp_onnx.report.gallery import LINES, SHEET, plan_paths, write_all
from lrp_onnx.report.render import RenderStyle
from lrp_onnx.runtime.explainer import Explainer
from lrp_onnx.runtime.explanation import Explanation
from lrp_onnx.runtime.images import find_images, labels_beside, read_labels

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainRequest:
    """What the command line asked for."""

    model: Path
    images: Sequence[str]
    output: Path
    options: Options
    targets: Sequence[str] = ()
    """Classes by index or name; empty for the predicted one."""
    top: int | None = None
    """Explain the classes of the largest logits instead, so many of them."""
    post: str | None = None
    provider: str | None = None
    batch: int | None = 8
    """Pictures a run; None for as many as fit `memory`."""
    memory: float | None = None
    """Bytes that the process may hold; None for half of what is free."""
    threads: int | None = None
    labels: Path | None = None
    force: bool = False
    as_json: bool = False


def explain_files(request: ExplainRequest, *, report: Report) -> Iterator[str]:
    """Explain and write everything; yields the lines for
    standard output, reports progress and findings to `report`.

    Raises every LrpOnnxError that its parts raise, those of
    images and outputs before anything is computed.
    """
    pictures = find_images(request.images)
    asked = None if request.post is None else _chain(request.post)
    table = request.labels or labels_beside(pictures)
    labels = read_labels(table) if table else {}
    targets = _targets(request)
    planned = plan_paths(request.output, pictures, each=max(len(targets), 1), force=request.force)
    options = replace(request.options, many_targets=len(targets) > 1)
    explainer = Explainer(
        request.model,
        providers=request.provider,
        threads=request.threads,
        preprocessing=request.options.preprocessing,
        labels=request.options.labels,
        compile=lambda path: compile_model(path, options).model.SerializeToString(),
    )
    report(f"running on {explainer.provider} with {explainer.contract.composite}")
    composite, start = explainer.contract.composite, explainer.contract.start_value
    chain = parse_chain(default_post(composite)) if asked is None else asked
    if asked is None and chain.steps:
        report(
            f"maps of {composite} are post-processed with "
            f"--post {chain}; raw values are in the .npz"
        )
    if explainer.contract.randomized:
        report(
            f"the weights of {explainer.contract.randomized} "
            "layers are shuffled: predictions and maps mean nothing"
        )
    if explainer.assumed_preprocessing:
        report("the model does not say how pictures are prepared: assuming --preprocess imagenet")
    if len(targets) > 1 and not explainer.contract.many_targets:
        raise RuleError(
            f"{request.model} explains one class a picture: "
            "compile it with --many-targets, or give MODEL"
        )
    batch = request.batch or explainer.batch_within(request.memory)
    if request.batch is None:
        report(f"{batch} pictures a run, {explainer.contract.memory_each / 1e6:.0f} MB each")
    one = targets[0] if len(targets) == 1 else None
    found = explainer.explain_images(
        pictures, batch_size=batch, target=targets if len(targets) > 1 else one
    )
    correct: list[bool] = []
    for line in write_all(
        _with_progress(found, len(planned)),
        planned,
        request.output,
        post=chain if chain.steps else None,
        style=style_for(chain, start, composite),
        force=request.force,
    ):
        _score(line, labels, correct)
        yield json.dumps(line) if request.as_json else _sentence(line)
    report(
        f"{len(pictures)} explained; pictures, values, {LINES} and {SHEET} are in {request.output}"
    )
    if table:
        share = sum(correct) / max(len(correct), 1)
        report(f"accuracy on {len(correct)} labelled pictures: {share:.1%} ({table})")


def _targets(request: ExplainRequest) -> list[int | str]:
    if request.top is not None:
        return [PREDICTED - rank for rank in range(request.top)]
    return [int(text) if text.lstrip("-").isdigit() else text for text in request.targets]


def style_for(chain: Chain, start: str, composite: str) -> RenderStyle:
    """One set of colours a run: those of the chain where it keeps only what
    speaks for the class; two colours where relevance starts from a contrast,
    even where nothing speaks against the class; else those of the composite.
    """
    if chain.colors != "auto":
        return RenderStyle(colors=chain.colors)
    known = COMPOSITES.get(composite)
    own = known.colors if known else "auto"
    return RenderStyle(colors="diverging" if start == "contrastive" else own)


def default_post(composite: str) -> str:
    """The post-processing that belongs to a composite's
    maps; none where the composite is not known.
    """
    return COMPOSITES[composite].post if composite in COMPOSITES else NONE


def _chain(text: str) -> Chain:
    """What --post asks for."""
    try:
        return parse_chain(text)
    except RuleError as error:
        raise RuleError(f"--post {text}: {error}") from error


def _with_progress(found: Iterator[Explanation], total: int) -> Iterator[Explanation]:
    console = Console(stderr=True)
    columns = (TextColumn("explaining"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield from progress.track(found, total=total)


def _score(line: Mapping[str, Any], labels: Mapping[str, int], correct: list[bool]) -> None:
    label = labels.get(Path(line["image"]).name)
    if label is not None:
        correct.append(line["top5"][0]["index"] == label)


def _sentence(line: Mapping[str, Any]) -> str:
    best, target = line["top5"][0], line["target"]
    name = best["name"] or best["index"]
    because = (
        ""
        if target["index"] == best["index"]
        else f", explained as {target['name'] or target['index']}"
    )
    return (
        f"{line['image']}: {name} ({best['probability']:.1%}){because} → {line['files']['overlay']}"
    )
