"""The `explain` command: find pictures, explain them in batches, write and report the results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lrp_onnx.compiler import Options, compile_model
from lrp_onnx.contract import HEATMAP, HEATMAP_RAW, PREDICTED
from lrp_onnx.errors import RuleError
from lrp_onnx.maps.chain import Chain, parse_chain
from lrp_onnx.relevance.composites.presets import COMPOSITES
from lrp_onnx.report.gallery import LINES, SHEET, plan_paths, write_all
from lrp_onnx.report.render import RenderStyle
from lrp_onnx.runtime.classes import class_of
from lrp_onnx.runtime.explainer import Explainer
from lrp_onnx.runtime.explanation import Explanation
from lrp_onnx.runtime.images import find_images, labels_beside, read_labels

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainCommand:
    """The values of the command line."""

    model: Path
    images: Sequence[str]
    output: Path
    options: Options
    targets: Sequence[str] = ()
    """Classes by index or name; empty for the predicted one."""
    top: int | None = None
    """How many classes of the largest logits to explain, instead of `targets`."""
    post: str | None = None
    """Post-processing as text; None for the file's own."""
    provider: str | None = None
    batch: int | None = 8
    """Pictures per run; None for as many as `memory` allows."""
    memory: float | None = None
    """Bytes that the process may use; None adds half of the free memory to what it uses now."""
    threads: int | None = None
    labels: Path | None = None
    force: bool = False
    as_json: bool = False


def explain_files(command: ExplainCommand, *, report: Report) -> Iterator[str]:
    """Explain all pictures and write the results.

    Yields:
        One line of standard output per explanation. Progress and remarks go to `report`.

    Raises:
        LrpOnnxError: a picture, an option, the model or the output is at fault. Pictures and the
            output folder are checked before anything is computed.
    """
    pictures = find_images(command.images)
    if command.post is not None:
        _parse_post(command.post)
    table = command.labels or labels_beside(pictures)
    labels = read_labels(table) if table else {}
    targets = _targets(command)
    results = plan_paths(command.output, pictures, each=max(len(targets), 1), force=command.force)
    options = _compiling(command, many_targets=len(targets) > 1)
    explainer = Explainer(
        command.model,
        providers=command.provider,
        threads=command.threads,
        preprocessing=command.options.preprocessing,
        labels=command.options.labels,
        compile=lambda path: compile_model(path, options).model.SerializeToString(),
    )
    if len(targets) > 1 and not explainer.contract.many_targets:
        raise RuleError(
            f"{command.model} explains one class per picture: compile it with --many-targets, or "
            "give the model that it was compiled from"
        )
    composite = explainer.contract.composite
    chain = _shown(command, explainer)
    batch = command.batch or explainer.batch_within(command.memory)
    for remark in _remarks(command, explainer, chain, batch):
        report(remark)
    single = targets[0] if len(targets) == 1 else None
    explanations = explainer.explain_images(
        pictures, batch_size=batch, target=targets if len(targets) > 1 else single
    )
    correct: list[bool] = []
    for line in write_all(
        _with_progress(explanations, len(results)),
        results,
        command.output,
        post=chain if str(chain) != explainer.contract.post else None,
        style=style_for(chain, explainer.contract.start_value, composite),
        force=command.force,
        outlined=chain.outlined,
    ):
        _score(line, labels, correct)
        yield json.dumps(line) if command.as_json else _sentence(line)
    report(
        f"{len(pictures)} pictures explained; "
        f"heatmaps, values, {LINES} and {SHEET} are in {command.output}"
    )
    if table:
        accuracy = sum(correct) / max(len(correct), 1)
        report(f"accuracy on {len(correct)} labelled pictures: {accuracy:.1%} ({table})")


def _remarks(
    command: ExplainCommand, explainer: Explainer, chain: Chain, batch: int
) -> Iterator[str]:
    """Lines that a user should know before the first picture."""
    contract = explainer.contract
    yield f"running on {explainer.provider} with {contract.composite}"
    if command.post is None and chain.steps:
        where = (
            "the raw relevance is in the .npz"
            if explainer.gives_raw
            else "the file does not give raw relevance (compile it with --outputs "
            "heatmap,heatmap_raw)"
        )
        yield f"heatmaps of {contract.composite} are post-processed with --post {chain}; {where}"
    if contract.randomized:
        yield (
            f"the weights of {contract.randomized} layers are shuffled: "
            "predictions and heatmaps mean nothing"
        )
    if explainer.assumed_preprocessing:
        yield "the model does not say how pictures become input: assuming --preprocess imagenet"
    if command.batch is None:
        yield f"{batch} pictures per run, {contract.memory_each / 1e6:.0f} MB each"


def _targets(command: ExplainCommand) -> list[int | str]:
    if command.top is not None:
        return [PREDICTED - rank for rank in range(command.top)]
    return [class_of(text) for text in command.targets]


def style_for(chain: Chain, start: str, composite: str) -> RenderStyle:
    """The colours of all heatmaps of a run.

    The post-processing decides first: a chain that keeps only relevance for the class needs one
    side of the colours. Then the start: a contrastive one gives relevance for and against a class,
    which needs two sides, even in a map that has only one. Then the composite, if its name is
    known.
    """
    if chain.colors != "auto":
        return RenderStyle(colors=chain.colors)
    if start == "contrastive":
        return RenderStyle(colors="diverging")
    known = COMPOSITES.get(composite)
    return RenderStyle(colors=known.colors) if known else RenderStyle()


def _compiling(command: ExplainCommand, *, many_targets: bool) -> Options:
    """The options of a compilation on the way: its maps are those that are shown, and the raw ones
    come along.
    """
    options = replace(command.options, many_targets=many_targets, post=command.post)
    if HEATMAP in options.given:
        options = replace(options, outputs=tuple(dict.fromkeys((*options.given, HEATMAP_RAW))))
    return options


def _shown(command: ExplainCommand, explainer: Explainer) -> Chain:
    """The post-processing of the maps that are shown.

    Raises:
        RuleError: it is not the file's own, and the file gives no raw maps.
    """
    own = explainer.contract.post
    chain = _parse_post(own if command.post is None else command.post)
    if str(chain) != own and not explainer.gives_raw:
        raise RuleError(
            f"--post {chain}: the heatmaps of {command.model} are post-processed with {own} "
            "already, and it has no raw ones: compile it with --outputs heatmap,heatmap_raw, or "
            f"with --post {chain}"
        )
    return chain


def _parse_post(text: str) -> Chain:
    try:
        return parse_chain(text)
    except RuleError as error:
        raise RuleError(f"--post {text}: {error}") from error


def _with_progress(explanations: Iterator[Explanation], total: int) -> Iterator[Explanation]:
    console = Console(stderr=True)
    columns = (TextColumn("explaining"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield from progress.track(explanations, total=total)


def _score(line: Mapping[str, Any], labels: Mapping[str, int], correct: list[bool]) -> None:
    label = labels.get(Path(line["image"]).name)
    if label is not None:
        correct.append(line["top5"][0]["index"] == label)


def _sentence(line: Mapping[str, Any]) -> str:
    best, target = line["top5"][0], line["target"]
    name = best["name"] or best["index"]
    value = f"mean {best['mean']:.4g}" if "mean" in best else f"{best['probability']:.1%}"
    text = f"{line['image']}: {name} ({value})"
    if target["index"] != best["index"]:
        text += f", explained as {target['name'] or target['index']}"
    return f"{text} → {line['files']['overlay']}"
