"""The `explain` command: find pictures, explain them in batches, write and report the results."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from lrp_onnx.cli.about import in_words, remarks_of, run_of, warnings_of, without_relevance
from lrp_onnx.cli.given import refuse_settled, run_settings
from lrp_onnx.cli.progress import WARNING, Progress
from lrp_onnx.compiler import Options, compile_model
from lrp_onnx.contract import HEATMAP, HEATMAP_RAW, PREDICTED, is_compiled
from lrp_onnx.errors import ImageError, RuleError, going_on, shown
from lrp_onnx.evaluation.explaining import MethodExplainer
from lrp_onnx.explanation import style_of
from lrp_onnx.files.models import metadata_of
from lrp_onnx.files.writing import check_folder, held_folder
from lrp_onnx.maps.chain import Chain, parse_chain
from lrp_onnx.report.entry import SCORES
from lrp_onnx.report.gallery import Drawing, Report, finish, finish_key, write_picture
from lrp_onnx.report.page import Page
from lrp_onnx.report.results import ENDS, REPORT, Line, Results, without_results
from lrp_onnx.report.words import value_text
from lrp_onnx.runtime.classes import class_of
from lrp_onnx.runtime.explainer import Explainer
from lrp_onnx.runtime.explanation import Explanation
from lrp_onnx.runtime.images import find_images, labels_beside, read_labels

Say = Callable[[str], None]


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
    mask: Path | None = None
    """A mask for all pictures, or a folder with one for each."""
    similar_to: Path | None = None
    """A picture or vector to which similarity is explained."""
    method: str | None = None
    """Method instead of a composite, as text."""
    post: str | None = None
    """Post-processing as text; None for the file's own."""
    provider: str | None = None
    batch: int | None = 8
    """Pictures per run; None for as many as `memory` allows."""
    memory: float | None = None
    """Bytes that the process may use; None adds half of the free memory to what it uses now."""
    max_memory: float | None = None
    """Bytes that the graph may take for one picture; None for half of the machine's."""
    threads: int | None = None
    labels: Path | None = None
    recursive: bool = False
    """Whether the subfolders of folders are searched too."""
    strict: bool = False
    """Whether the first picture that cannot be read ends the run."""
    without_effect: Sequence[str] = ()
    """Options that were given and that a compiled file cannot follow, as ``--composite``."""
    report: str = "small"
    """The HTML page: one of `REPORTS`."""
    force: bool = False
    as_json: bool = False

    @property
    def ends(self) -> tuple[str, ...]:
        """The files at the end of the run."""
        return tuple(name for name in ENDS if name != REPORT or self.report != "none")


REPORTS = ("small", "full", "none")
"""The HTML page with photos of up to 480 pixels a side, of up to 1600, or no page."""


def explain_files(command: ExplainCommand, *, report: Say) -> Generator[str]:
    """Explain all pictures and write the results, those alone that the folder does not have yet.

    Yields:
        The lines of standard output, for stored results too. Progress, remarks and pictures that
        cannot be read go to `report`.

    Raises:
        LrpOnnxError: an option, the model or the output is at fault, which is known before anything
            is computed; or pictures cannot be read: at the end, with `strict` at the first of them.
    """
    check_folder(command.output)
    with held_folder(command.output):
        yield from _explain_files(command, report)


def _explain_files(command: ExplainCommand, report: Say) -> Iterator[str]:
    """As `explain_files`, in a folder that this run alone writes into."""
    _check_choices(command)
    pictures = _pictures(command)
    if command.post is not None:
        _parse_post(command.post)
    table = command.labels or labels_beside(pictures)
    labels = read_labels(table) if table else {}
    targets = _targets(command)
    results = Results(
        command.output,
        pictures,
        settings=_settings(command),
        each=max(len(targets), 1),
        force=command.force,
    )
    tally = _Tally(labels)
    with closing(_lines(command, results, targets, labels, report)) as lines:
        for line in lines:
            tally.add(line)
            yield from _said(line, command, report)
    if tally.explained:
        report(
            f"{_counted(tally.explained)} explained; figures, heatmaps, values, "
            f"{', '.join(command.ends)} are in {command.output}"
        )
    if table:
        report(f"{tally.accuracy} ({table})")
    if tally.failed:
        raise ImageError(shown(tally.summary))


def _check_choices(command: ExplainCommand) -> None:
    """Raise RuleError where options of a compilation are given with a file that is compiled."""
    if command.without_effect and is_compiled(metadata_of(command.model)):
        anew = f"lrp-onnx compile {command.model} -o other.lrp.onnx {command.without_effect[0]} …"
        refuse_settled(
            command.model, command.without_effect, otherwise=f", or compile it anew: {anew}"
        )


def _pictures(command: ExplainCommand) -> list[Path]:
    """The pictures to explain: not results that lie in the same folders, unless they are named.

    Raises:
        ImageError: there are none.
    """
    found = find_images(command.images, recursive=command.recursive)
    named = {Path(image) for image in command.images}
    photos = {*without_results(found), *named}
    pictures = [picture for picture in found if picture in photos]
    if not pictures:
        raise ImageError(f"{', '.join(command.images)}: there are results of explain alone")
    return pictures


def _lines(
    command: ExplainCommand,
    results: Results,
    targets: Sequence[int | str],
    labels: Mapping[str, int],
    report: Say,
) -> Generator[Line]:
    """The lines of all pictures in their order; what is missing is computed."""
    if results.is_finished(finish_key(labels, command.report), command.ends):
        report(f"all {len(results.pictures)} pictures are done already")
        for picture in results.pictures:
            yield from results.stored(picture)
    else:
        yield from _explained(command, results, targets, labels, report)


def _said(line: Line, command: ExplainCommand, report: Say) -> Iterator[str]:
    """What is printed of a line."""
    if "error" in line:
        if command.strict:
            raise ImageError(line["error"])
        report(shown(f"not explained: {line['error']}"))
    if command.as_json:
        yield json.dumps(line)
    elif "error" not in line:
        yield shown(_sentence(line))


def _counted(count: int) -> str:
    """So many pictures, in words."""
    return f"{count} picture" if count == 1 else f"{count} pictures"


@dataclass(slots=True)
class _Tally:
    """What a run has done."""

    labels: Mapping[str, int]
    """File name → true class."""
    explained: int = 0
    failed: list[str] = field(default_factory=list)
    """The pictures that cannot be read."""
    labelled: int = 0
    right: int = 0
    _last: str = ""

    def add(self, line: Line) -> None:
        """Count a line; a picture with several explanations counts once."""
        image = line["image"]
        if "error" in line:
            self.failed.append(image)
        elif image != self._last:
            self.explained += 1
            label = self.labels.get(Path(image).name)
            self.labelled += label is not None
            self.right += label == line["top5"][0]["index"]
        self._last = image

    @property
    def accuracy(self) -> str:
        """The share of labelled pictures that are recognised."""
        share = self.right / max(self.labelled, 1)
        return f"accuracy on {self.labelled} labelled pictures: {share:.1%}"

    @property
    def summary(self) -> str:
        """How many pictures are explained, and which cannot be read."""
        names = ", ".join(Path(image).name for image in self.failed[:5])
        more = f" and {len(self.failed) - 5} others" if len(self.failed) > 5 else ""
        return f"{self.explained} explained, {len(self.failed)} could not be read: {names}{more}"


def _explained(
    command: ExplainCommand,
    results: Results,
    targets: Sequence[int | str],
    labels: Mapping[str, int],
    report: Say,
) -> Iterator[Line]:
    """The lines of all pictures: stored ones, and new ones after they are written."""
    explainer = _explainer(command, targets)
    chain = _shown(command, explainer)
    contract = explainer.contract
    drawing = Drawing(
        style=style_of(chain, contract.start_value, contract.composite),
        post=chain if str(chain) != contract.post else None,
        outlined=chain.outlined,
        method=in_words(contract.composite, chain),
    )
    batch = command.batch or explainer.batch_within(command.memory)
    warnings = _beginning(command, results, explainer, chain, batch, labels, report)
    page = Report(labels, explainer.classes, chain, Page(full_size=command.report == "full"))
    done = len(results.pictures) - len(results.missing)
    again = _batches_with(results.missing, results.pictures, explainer.rows(batch))
    faults: dict[Path, ImageError] = {}
    fresh = _by_picture(
        explainer.explain_images(
            again,
            batch_size=batch,
            target=targets if len(targets) > 1 else targets[0] if targets else None,
            mask=_masks(command, again),
            similar_to=command.similar_to,
            on_fault=None if command.strict else faults.__setitem__,
        ),
        again,
        each=max(len(targets), 1),
    )
    waiting = frozenset(again)
    total = len(results.pictures)
    kept = going_on(lambda: results.done, total, "pictures are done", report, force=command.force)
    with kept, Progress(total, done=done, report=report) as progress:
        for picture in results.pictures:
            explanations = next(fresh) if picture in waiting else []
            if picture not in results.missing:
                page.add_stored(results, picture)
                yield from results.stored(picture)
                continue
            if explanations:
                shown = [drawing.of(explanation) for explanation in explanations]
                lines = write_picture(results, shown, drawing)
                page.add(shown)
            else:
                lines = results.add_fault(picture, faults.pop(picture))
                page.add_fault(lines[0])
            progress.step()
            yield from lines
        if results.is_begun:
            for other in results.others:
                page.add_stored(results, other)
            warnings += without_relevance(page.empty)
            if command.report != "none":
                run = run_of(explainer, command.model, chain, warnings)
                page.page.write(command.output / REPORT, run, force=True)
            finish(results, labels, drawing, key=finish_key(labels, command.report))
    _warn(warnings, report)


def _masks(command: ExplainCommand, pictures: Sequence[Path]) -> list[Path] | Path | None:
    """The mask of every picture, or one for all.

    Raises:
        ImageError: a picture has none in the folder.
    """
    if command.mask is None or not command.mask.is_dir():
        return command.mask
    found = {path.stem: path for path in sorted(command.mask.iterdir()) if path.is_file()}
    missing = [picture.name for picture in pictures if picture.stem not in found]
    if missing:
        raise ImageError(
            f"{command.mask} has no mask for {shown(', '.join(missing[:5]))}: a mask has its "
            "picture's name, ending in .png or .npy"
        )
    return [found[picture.stem] for picture in pictures]


def _digests(path: Path | None) -> dict[str, str] | None:
    """Name → SHA-256 of a file, or of those in a folder, for the settings.

    Raises:
        ImageError: a file cannot be read.
    """
    if path is None:
        return None
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    try:
        return {one.name: sha256(one.read_bytes()).hexdigest() for one in files if not one.is_dir()}
    except OSError as error:
        raise ImageError(f"{shown(str(path))} cannot be read: {error.strerror}") from error


def _beginning(
    command: ExplainCommand,
    results: Results,
    explainer: Explainer,
    chain: Chain,
    batch: int,
    labels: Mapping[str, int],
    report: Say,
) -> list[str]:
    """Say what a user should know before the first picture; returns the warnings."""
    chosen = batch if command.batch is None else None
    own_post = command.post is None
    for remark in remarks_of(explainer, command.model, chain, own_post=own_post, batch=chosen):
        report(shown(remark))
    warnings = list(
        warnings_of(
            explainer,
            command.model,
            results.pictures,
            labels=labels,
            threads=command.threads,
        )
    )
    _warn(warnings, report)
    done = len(results.pictures) - len(results.missing)
    if done:
        report(f"{done} of {len(results.pictures)} pictures are done already: going on")
    return warnings


def _warn(warnings: Sequence[str], report: Say) -> None:
    for text in warnings:
        report(f"{WARNING}{shown(text)}")


def _explainer(command: ExplainCommand, targets: Sequence[int | str]) -> Explainer:
    """The model, ready to explain `targets`."""
    if command.method is not None:
        return MethodExplainer(
            command.model,
            command.method,
            many_targets=len(targets) > 1,
            provider=command.provider,
            threads=command.threads,
            choices={**command.options.about_model, "max_memory": command.max_memory},
        )
    options = _compiling(command, many_targets=len(targets) > 1)
    explainer = Explainer(
        command.model,
        providers=command.provider,
        threads=command.threads,
        preprocessing=command.options.preprocessing,
        labels=command.options.labels,
        compile=lambda path: compile_model(path, options).model.SerializeToString(),
        max_memory=command.max_memory,
    )
    if command.top is not None and command.top > explainer.classes.count:
        raise RuleError(
            f"--top {command.top}: {command.model} has {explainer.classes.count} classes: "
            "give no more than these"
        )
    if len(targets) > 1 and not explainer.contract.many_targets:
        raise RuleError(
            f"{command.model} explains one class per picture: compile it with --many-targets, or "
            "give the model that it was compiled from"
        )
    return explainer


def _batches_with(missing: frozenset[Path], pictures: Sequence[Path], size: int) -> list[Path]:
    """The pictures of all batches with a missing one.

    The batches are those of an undisturbed run: a runtime may round otherwise in one of another
    size.
    """
    batches = [pictures[first : first + size] for first in range(0, len(pictures), size)]
    return [picture for batch in batches if not missing.isdisjoint(batch) for picture in batch]


def _by_picture(
    explanations: Iterator[Explanation], pictures: Sequence[Path], *, each: int
) -> Iterator[list[Explanation]]:
    """The explanations of every picture, `each` or, where it cannot be read, none."""
    following = next(explanations, None)
    for picture in pictures:
        if following is None or following.path != picture:
            yield []
        else:
            yield [following, *islice(explanations, each - 1)]
            following = next(explanations, None)


def _settings(command: ExplainCommand) -> dict[str, Any]:
    own = {
        "target": list(command.targets) or None,
        "top": command.top,
        "mask": _digests(command.mask),
        "similar-to": _digests(command.similar_to),
        "method": command.method,
        "post": None if command.post is None else str(_parse_post(command.post)),
    }
    return run_settings(
        command.model,
        command.options,
        own,
        without=("many_targets", "post", "randomize", "seed"),
    )


def _targets(command: ExplainCommand) -> list[int | str]:
    if command.top is not None:
        return [PREDICTED - rank for rank in range(command.top)]
    return [class_of(text) for text in command.targets]


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


def _sentence(line: Mapping[str, Any]) -> str:
    best, target = line["top5"][0], line["target"]
    name = best["name"] or best["index"]
    measure = next(name for name in SCORES if name in best)
    value = value_text(best[measure], measure)
    text = f"{line['image']}: {name} ({value})"
    if target["index"] != best["index"]:
        text += f", explained as {target['name'] or target['index']}"
    return f"{text} → {line['files']['figure']}"
