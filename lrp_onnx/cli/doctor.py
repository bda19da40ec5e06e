"""The `doctor` command: the installation, what is known of a model, which preprocessing fits."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lrp_onnx import __version__
from lrp_onnx.compiler import Options
from lrp_onnx.contract import Contract
from lrp_onnx.errors import LrpOnnxError, ProviderError, RuleError
from lrp_onnx.evaluation.presets import CLEARLY, FEW, Trial, forward_of, try_presets
from lrp_onnx.files.description import describe_model
from lrp_onnx.files.models import metadata_of
from lrp_onnx.runtime.images import find_images, labels_beside, read_labels, thinned
from lrp_onnx.runtime.installation import REPAIR, installed, onnx_runtime
from lrp_onnx.runtime.preprocess import written
from lrp_onnx.runtime.session import cuda_fault

LIBRARIES = ("onnx", "onnx-ir", "onnx-graphsurgeon", "numpy", "opencv-python", "click", "rich")
OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python")
"""Packages with one import name: of several, the last one installed wins."""
MOST_PHOTOS = 200
AS_STORED = "none: signals and volumes are arrays (.npy) that are the model's input"
ASSUMED = "nothing says it: imagenet is assumed"


@dataclass(slots=True)
class Findings:
    """What the command found, ready for the terminal and for JSON."""

    installation: dict[str, str] = field(default_factory=dict)
    model: dict[str, str] = field(default_factory=dict)
    trials: list[dict[str, Any]] = field(default_factory=list)
    verdict: str = ""
    command: str = ""
    faults: list[str] = field(default_factory=list)
    """What must be mended first."""
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def examine(
    model: Path | None,
    images: Sequence[str],
    *,
    labels: Path | None = None,
    provider: str | None = None,
    threads: int | None = None,
    options: Options | None = None,
    written_options: Sequence[str] = (),
) -> Findings:
    """Examine the installation; a model, if one is given; and presets on photos, if there are any.

    Subfolders are searched too: their names may be the classes. Of `options` those about the
    model's input, output and class names count; `written_options` is how they are written, for
    the command to use.

    A model that cannot be read or explained is a fault among the findings, not an exception.

    Raises:
        ImageError: photos or labels cannot be read.
    """
    findings = Findings()
    _installation(findings)
    if model is None:
        return findings
    photos = find_images(images, recursive=True) if images else []
    classes = _labels_of(photos, labels)
    try:
        choices = {} if options is None else options.about_model
        contract, session = forward_of(model, provider=provider, threads=threads, choices=choices)
    except LrpOnnxError as error:
        findings.faults.append(str(error))
        return findings
    _model(findings, model, contract, session.input_of(contract.input))
    best = None
    if photos and not contract.takes_pictures:
        findings.warnings.append(
            f"the model takes {contract.layout}, no pictures: there is no preprocessing to try"
        )
    elif photos:
        some = thinned(photos, MOST_PHOTOS)
        known = _indices(classes, contract, some)
        try:
            trials = try_presets(contract, session, some, known)
            best = _judge(findings, trials, contract, len(known))
        except RuleError as error:
            findings.warnings.append(str(error))
    deep = any(Path(image).is_dir() and _is_below(photos, Path(image)) for image in images)
    more = [*written_options, *(["--recursive"] if deep else [])]
    inputs = images or ["PHOTOS" if contract.takes_pictures else "ARRAYS"]
    _command(findings, model, [*inputs, *more], contract, best)
    return findings


def _installation(findings: Findings) -> None:
    found = findings.installation
    found["lrp-onnx"] = f"{__version__}, Python {sys.version.split()[0]}"
    found["libraries"] = ", ".join(f"{name} {_version(name)}" for name in LIBRARIES)
    runtimes = installed()
    found["runtime"] = ", ".join(f"{name} {_version(name)}" for name in runtimes) or "none"
    if len(runtimes) > 1:
        findings.faults.append(
            f"{' and '.join(runtimes)} are both installed and overwrite each other: run `{REPAIR}`"
        )
    try:
        onnx_runtime()
        fault = cuda_fault()
        found["processors"] = "cpu, cuda" if fault is None else f"cpu (no cuda: {fault})"
    except ProviderError as error:
        findings.faults.append(str(error))
    several = [name for name in OPENCV if _version(name) != "missing"]
    if len(several) > 1:
        findings.warnings.append(f"{' and '.join(several)} share one import name: keep one of them")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _model(
    findings: Findings,
    path: Path,
    contract: Contract,
    taken: tuple[str, list[int | str | None]],
) -> None:
    """What the model says of itself, and what files beside it say."""
    kind, shape = taken
    channels = shape[contract.layout.index("C")]
    said = describe_model(
        metadata_of(path),
        path,
        classes=contract.classes,
        channels=channels if isinstance(channels, int) else None,
    )
    sources = dict(contract.sources)
    findings.warnings += said.remarks
    preprocessing = contract.preprocessing
    spec = ASSUMED if contract.takes_pictures else AS_STORED
    if preprocessing is not None:
        spec = written(preprocessing)
    names = ", ".join(contract.labels[:5]) + (" …" if len(contract.labels) > 5 else "")
    findings.model |= {
        "file": f"{path}, {path.stat().st_size / 1e6:.1f} MB",
        "input": f"{contract.input} {kind} {shape} ({contract.layout})",
        "classes": f"{contract.classes}" + (f": {names}" if names else ", without names"),
        "names from": sources.get("labels", "the file" if names else "nothing: --classes FILE"),
        "preprocessing": spec,
        "preprocessing from": sources.get("preprocessing", "the file" if preprocessing else "—"),
    }


def _labels_of(photos: Sequence[Path], table: Path | None) -> dict[Path, int | str]:
    """Photo → its class: an index of a CSV file, or else the name of its folder."""
    table = table or labels_beside(photos)
    if table is not None:
        by_name = read_labels(table)
        return {photo: by_name[photo.name] for photo in photos if photo.name in by_name}
    return {photo: photo.parent.name for photo in photos}


def _indices(
    classes: Mapping[Path, int | str], contract: Contract, photos: Sequence[Path]
) -> dict[Path, int]:
    """Photo → class index, where its class is one of the model's."""
    index_of: dict[int | str, int] = {name: i for i, name in enumerate(contract.labels)}
    index_of |= {i: i for i in range(contract.classes)}
    found = ((photo, classes.get(photo)) for photo in photos)
    return {photo: index_of[name] for photo, name in found if name is not None and name in index_of}


def _judge(
    findings: Findings, trials: Sequence[Trial], contract: Contract, labelled: int
) -> Trial | None:
    """The trial to go by, and the verdict in words."""
    best = trials[0]
    count = len(best.probabilities)
    findings.trials = [
        {
            "preprocess": trial.name,
            "accuracy": trial.accuracy,
            "confidence": trial.confidence,
            "information": trial.information,
        }
        for trial in trials
    ]
    stated = next((t for t in trials if t.is_of(contract.preprocessing)), None)
    if labelled >= FEW:
        return _by_accuracy(findings, trials, stated, 1 / contract.classes)
    if stated and count >= FEW and best.information - stated.information > CLEARLY:
        findings.warnings.append(
            f"what is said of the model ({stated.name}) tells {stated.information:.2f} bits of "
            f"the class, {best.name} {best.information:.2f}: it may be wrong"
        )
    used = stated or best
    which = f"the stated preprocessing ({used.name})" if stated else f"--preprocess {used.name}"
    measure = (
        f"{used.information:.2f} bits of information about the class"
        if count >= FEW
        else f"a mean confidence of {used.confidence:.0%}"
    )
    known = f"{labelled} of them labelled" if labelled else "without labels"
    findings.verdict = (
        f"{which} gives {measure} on {count} photos, {known}: "
        f"weak evidence. {FEW} photos or more with known classes would settle it: --labels FILE "
        "(CSV with the columns file,label), or folders named as the classes"
    )
    return used


def _by_accuracy(
    findings: Findings, trials: Sequence[Trial], stated: Trial | None, chance: float
) -> Trial:
    """The trial to go by where there are labels: what is stated, unless photos contradict it."""
    best = trials[0]
    equal = [trial for trial in trials[1:] if not best.told_apart(trial)]
    also = f"; not told apart from it: {_some([t.name for t in equal])}" if equal else ""
    findings.verdict = (
        f"--preprocess {best.name} is right on {best.accuracy:.1%} of {best.right.size} labelled "
        f"photos{also}"
    )
    if (best.accuracy or 0) < min(1.0, 2 * chance):
        findings.warnings.append(
            "no preset does better than guessing: the labels may be in another order than the "
            "model's classes, or the preprocessing is none of the presets"
        )
    if stated is None or stated is best or stated in equal:
        return stated or best
    findings.warnings.append(
        f"the photos contradict what is said of the model: {stated.name} is right on "
        f"{stated.accuracy:.1%} of them"
    )
    return best


def _is_below(photos: Sequence[Path], folder: Path) -> bool:
    """Whether photos lie in a folder's subfolders."""
    return any(folder in photo.parents and photo.parent != folder for photo in photos)


def _some(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _command(
    findings: Findings,
    model: Path,
    images: Sequence[str],
    contract: Contract,
    best: Trial | None,
) -> None:
    """The command to use next."""
    words = ["lrp-onnx", "explain", str(model), *images, "-o", "explained"]
    if best is not None and not best.is_of(contract.preprocessing):
        words += ["--preprocess", best.name]
    if not contract.labels:
        findings.warnings.append(
            "the classes have no names: put them into labels.txt beside the model, one a line, or "
            "give --classes FILE"
        )
    if best is None and contract.preprocessing is None and contract.takes_pictures:
        findings.warnings.append(
            "nothing says how pictures become input, and imagenet would be assumed: if that is "
            "wrong, every class and map is wrong. Try the presets on photos whose classes you "
            f"know: lrp-onnx doctor {shlex.quote(str(model))} PHOTOS --labels FILE"
        )
    findings.command = shlex.join(words)
