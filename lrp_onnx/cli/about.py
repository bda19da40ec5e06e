"""What a run of `explain` says about itself: remarks, warnings, and the account on the page."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from lrp_onnx.errors import LrpOnnxError
from lrp_onnx.evaluation.presets import FEW, doubt, forward_of, try_presets
from lrp_onnx.files.description import describe_model
from lrp_onnx.files.models import metadata_of
from lrp_onnx.maps.chain import Chain
from lrp_onnx.relevance.composites.presets import COMPOSITES
from lrp_onnx.report.entry import Run
from lrp_onnx.runtime.explainer import Explainer
from lrp_onnx.runtime.images import read_image, thinned
from lrp_onnx.runtime.preprocess import written


def in_words(composite: str, chain: Chain) -> str:
    """How relevance was computed and shown, in a few words."""
    return f"{composite}, then {chain}" if chain.steps else composite


def warnings_of(
    explainer: Explainer,
    model: Path,
    pictures: Sequence[Path],
    *,
    labels: Mapping[str, int],
    threads: int | None,
) -> Iterator[str]:
    """What can make every class and map of a run wrong; for its start, its end and its page.

    Args:
        explainer: the model.
        model: its file, or the one that it was compiled from.
        pictures: what is explained.
        labels: file name → true class.
        threads: CPU threads for trials of preprocessing.
    """
    if explainer.contract.randomized:
        yield (
            f"the weights of {explainer.contract.randomized} layers are shuffled: predictions and "
            "heatmaps mean nothing"
        )
    if explainer.changed:
        check = shlex.join(["lrp-onnx", "verify", str(model)])
        yield f"{explainer.changed}: {check} --original MODEL compares them"
    most = explainer.classes.count - 1
    outside = {name: label for name, label in labels.items() if not 0 <= label <= most}
    if outside:
        name, label = next(iter(outside.items()))
        yield (
            f"{len(outside)} of {len(labels)} labels are none of the model's classes 0 to {most}, "
            f"as {label} of {name}: whether these photos are right is not known, and labels may "
            "count from 1"
        )
    if not explainer.assumed_preprocessing:
        return
    assumed = written(explainer.preprocessing)
    text = (
        f"nothing says how pictures become this model's input: --preprocess {assumed} is assumed. "
        "If that is wrong, every class and every map is wrong."
    )
    reason = _doubt(explainer, model, pictures, threads)
    if reason:
        text += f" The photos speak against it: {reason}."
    command = shlex.join(["lrp-onnx", "doctor", str(model)])
    yield f"{text} To settle it: {command} PHOTOS --labels FILE"


def without_relevance(empty: Mapping[str, str]) -> list[str]:
    """What to say of pictures whose maps explain nothing: name → why, as a clause."""
    if not empty:
        return []
    name, why = next(iter(empty.items()))
    others = len(empty) - 1
    more = ""
    if others:
        more = ", nor does that of 1 other" if others == 1 else f", nor do those of {others} others"
    return [
        f"the map of {name} explains nothing{more}: {why}. Either the class's score does not "
        "depend on the picture (weights or features that are zero), or all relevance is lost on "
        "the way, which lrp-onnx verify shows"
    ]


def _doubt(explainer: Explainer, model: Path, pictures: Sequence[Path], threads: int | None) -> str:
    """Why a few of the pictures speak against the assumed preprocessing; "" where they do not."""
    readable = list(islice(filter(_is_readable, thinned(pictures, 2 * FEW)), FEW))
    if not readable:
        return ""
    try:
        contract, session = forward_of(model, provider=explainer.provider, threads=threads)
        trials = try_presets(contract, session, readable, {})
    except LrpOnnxError:
        return ""
    return doubt(trials, explainer.preprocessing)


def _is_readable(picture: Path) -> bool:
    try:
        read_image(picture)
    except LrpOnnxError:
        return False
    return True


def remarks_of(
    explainer: Explainer, model: Path, chain: Chain, *, own_post: bool, batch: int | None
) -> Iterator[str]:
    """Lines that a user should know before the first picture.

    Args:
        explainer: the model.
        model: its file, or the one that it was compiled from.
        chain: the post-processing that is shown.
        own_post: whether it is the file's own.
        batch: pictures per run, where they were chosen for the memory.
    """
    contract = explainer.contract
    yield f"running on {explainer.provider} with {contract.composite}"
    if own_post and chain.steps:
        where = (
            "the raw relevance is in the .npz"
            if explainer.gives_raw
            else "the file does not give raw relevance (compile it with --outputs "
            "heatmap,heatmap_raw)"
        )
        yield f"heatmaps of {contract.composite} are post-processed with --post {chain}; {where}"
    classes, channels = contract.classes, explainer.channels
    said = describe_model(metadata_of(model), model, classes=classes, channels=channels)
    yield from said.remarks
    for what, unknown in (
        ("preprocessing", explainer.assumed_preprocessing),
        ("labels", not explainer.labels),
    ):
        name = {"preprocessing": "preparation", "labels": "class names"}[what]
        if not unknown and what in explainer.sources:
            yield f"{name}: from {explainer.sources[what]}"
    if batch is not None:
        yield f"{batch} pictures per run, {contract.memory_each / 1e6:.0f} MB each"


def run_of(explainer: Explainer, model: Path, chain: Chain, warnings: Sequence[str]) -> Run:
    """What was done, for the page."""
    contract = explainer.contract
    known = COMPOSITES.get(contract.composite)
    return Run.of(
        explainer,
        model,
        chain=chain,
        composite_in_words=f"{known.title} ({known.source})" if known else "",
        preprocessing_from=explainer.sources.get("preprocessing", "nothing says it"),
        classes_from=explainer.sources.get("labels", "nothing says them"),
        when=datetime.now(tz=UTC).strftime("%Y-%m-%d %H:%M UTC"),
        notes=warnings,
    )
