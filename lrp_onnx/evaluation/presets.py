"""Which preprocessing a model was made for: presets tried on photos.

With labels the share of right predictions decides. Without, how surely and how variously the model
decides: the mutual information of picture and class, in bits. A wrong preprocessing tends to give
one class for everything, or none for sure; but it may do neither, so this is weak evidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.compiled.unchanged import forward_part
from lrp_onnx.compiler import compile_model
from lrp_onnx.contract import Contract, Preprocessing, is_compiled
from lrp_onnx.errors import RuleError
from lrp_onnx.files.compiled import checked
from lrp_onnx.files.models import load_proto
from lrp_onnx.runtime.classes import Classes
from lrp_onnx.runtime.explanation import (
    WITHOUT_PROBABILITIES,
    kind_of,
    probabilities_of,
    scores_of,
)
from lrp_onnx.runtime.images import Picture, read_image
from lrp_onnx.runtime.preprocess import PRESETS, input_size, of_every_channel, preprocess
from lrp_onnx.runtime.session import Session, element_type, open_session
from lrp_onnx.runtime.stated import check_outputs

CHUNK = 32
"""Photos per run."""
REVERSED = ("imagenet", "zero-one", "raw", "tf")
"""Presets that are tried with the channels in the order BGR too."""
GRAY = {
    "zero-one:channels=GRAY": ((0.0,), (1.0,), 255.0),
    "raw:channels=GRAY": ((0.0,), (1.0,), 1.0),
    "tf:channels=GRAY": ((1.0,), (1.0,), 127.5),
    "zero-one:channels=GRAY,mean=0.449,std=0.226": ((0.449,), (0.226,), 255.0),
    "zero-one:channels=GRAY,mean=0.1307,std=0.3081": ((0.1307,), (0.3081,), 255.0),
}
"""What is tried on models of one channel: text → mean, std, divisor. The last two have the mean of
ImageNet's channels, and that of MNIST.
"""
FEW = 8
"""With fewer photos, and no labels, nothing can be said but how sure the model is."""
MUCH_SURER = 0.3
"""Mean probability by which another preset must be surer to be mentioned."""
CLEARLY = 0.5
"""Bits by which a preset must tell more of the class to be preferred without labels."""
TOLD_APART = 1.96
"""Standard errors by which two presets must differ (McNemar's test, 95 %)."""


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A model's predictions of all photos under one preprocessing."""

    name: str
    """As ``--preprocess`` takes it."""
    preprocessing: Preprocessing
    probabilities: NDArray[np.float64]
    """(N, classes)"""
    right: NDArray[np.bool_]
    """(L,): whether each labelled photo is predicted rightly."""

    @property
    def accuracy(self) -> float | None:
        """The share of right predictions; None without labels."""
        return float(self.right.mean()) if self.right.size else None

    @property
    def confidence(self) -> float:
        """The mean probability of the predicted class."""
        return float(self.probabilities.max(1).mean())

    @property
    def information(self) -> float:
        """Mutual information of photo and class in bits: 0 where every photo gets the same."""
        each = float(np.mean([_entropy(row) for row in self.probabilities]))
        return max(0.0, _entropy(self.probabilities.mean(0)) - each)

    def is_of(self, spec: Preprocessing | None) -> bool:
        """Whether this is the trial of `spec`."""
        return spec is not None and of_every_channel(spec) == self.preprocessing

    def told_apart(self, other: Trial) -> bool:
        """Whether the labelled photos tell the two apart."""
        ours, theirs = (self.right & ~other.right).sum(), (other.right & ~self.right).sum()
        return bool(abs(ours - theirs) > TOLD_APART * np.sqrt(ours + theirs))


def _entropy(probabilities: NDArray[np.float64]) -> float:
    some = probabilities[probabilities > 0]
    return float(-(some * np.log2(some)).sum())


def doubt(trials: Sequence[Trial], assumed: Preprocessing) -> str:
    """Why photos without labels speak against an assumed preprocessing; "" where they do not.

    Weak evidence: see the module.
    """
    best = max(trials, key=lambda trial: (trial.information, trial.confidence))
    ours = next((trial for trial in trials if trial.is_of(assumed)), None)
    count = len(best.probabilities)
    if ours is None:
        return ""
    if count >= FEW:
        if best.information - ours.information <= CLEARLY:
            return ""
        return (
            f"under it {count} photos tell {ours.information:.2f} bits of the class, under "
            f"--preprocess {best.name} {best.information:.2f}"
        )
    best = max(trials, key=lambda trial: trial.confidence)
    if best.confidence - ours.confidence <= MUCH_SURER:
        return ""
    return (
        f"under it the model is {ours.confidence:.0%} sure of its class, under --preprocess "
        f"{best.name} {best.confidence:.0%}"
    )


def forward_of(
    model: Path,
    *,
    provider: str | None = None,
    threads: int | None = None,
    choices: Mapping[str, Any] | None = None,
) -> tuple[Contract, Session]:
    """What a model, compiled or not, states, and a session of its predictions alone.

    `choices` are fields of `Options` about input and output; of a compiled file, class names alone
    can be chosen.

    Raises:
        ModelFileError, UnsupportedModelError: it cannot be read or explained.
    """
    proto = load_proto(model)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    if is_compiled(metadata):
        contract = checked(proto, str(model), folder=model.parent).contract
        if labels := (choices or {}).get("labels"):
            _ = Classes.of(contract.classes, labels)  # raises where their number is another
            sources = {**contract.sources, "labels": "the options"}
            contract = replace(contract, labels=labels, sources=sources)
    else:
        compiled = compile_model(model, composite="gradient", **(choices or {}))
        proto, contract = compiled.model, compiled.contract
    forward = forward_part(proto, contract)
    session = open_session(forward.SerializeToString(), providers=provider, threads=threads)
    return contract, session


def candidates(contract: Contract, session: Session) -> dict[str, Preprocessing]:
    """What to try on a model: as ``--preprocess`` takes it → preprocessing.

    A model whose input is of integers takes stored pixels, and nothing else is tried.
    """
    kind, shape = session.input_of(contract.input)
    stated = contract.preprocessing and of_every_channel(contract.preprocessing)
    if element_type(kind).kind in "iu" and stated is not None:
        return {"as the graph says": stated}
    if shape[contract.layout.index("C")] == 1:
        specs = {
            name: Preprocessing(mean=mean, std=std, divisor=divisor, channels="GRAY")
            for name, (mean, std, divisor) in GRAY.items()
        }
    else:
        specs = {name: spec for name, (spec, _) in PRESETS.items()}
        specs |= {f"{name}:channels=BGR": replace(specs[name], channels="BGR") for name in REVERSED}
    specs = {name: spec.for_layout(contract.layout) for name, spec in specs.items()}
    if stated is not None and stated not in specs.values():
        specs = {"as found": stated} | specs
    return specs


def try_presets(
    contract: Contract,
    session: Session,
    photos: Sequence[Path],
    labels: Mapping[Path, int],
) -> list[Trial]:
    """The predictions of all photos under every candidate, best first.

    Args:
        contract: what the model states.
        session: its predictions.
        photos: at least one.
        labels: photo → class index, of those photos that have one.

    Raises:
        ImageError: a photo cannot be read, or the input's shape fits no preprocessing.
        RuleError: the model's output gives no probabilities.
        ContractError: it is not what the model states.
    """
    kind, output = kind_of(contract.outputs)
    if kind in (*WITHOUT_PROBABILITIES, "sigmoids"):  # no class speaks against another
        raise RuleError("the model gives no probabilities: its preprocessing cannot be tried")
    specs = candidates(contract, session)
    _, shape = session.input_of(contract.input)
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in specs}
    for part in _parts(photos):
        pictures = [read_image(photo) for photo in part]
        for name, spec in specs.items():
            x = _prepared(pictures, spec, session, contract.input, shape)
            scores = np.concatenate(
                [_scores(rows, session, contract, output) for rows in _runs(x, shape)]
            )
            found[name].append(probabilities_of(kind, scores_of(kind, scores, contract.selection)))
    labelled = [index for index, photo in enumerate(photos) if photo in labels]
    classes = np.array([labels[photos[index]] for index in labelled], np.int64)
    trials = []
    for name, parts in found.items():
        probabilities = np.concatenate(parts)
        right = probabilities[labelled].argmax(1) == classes if labelled else np.zeros(0, bool)
        trials.append(Trial(name, specs[name], probabilities, right))
    return sorted(trials, key=_merit, reverse=True)


def _scores(
    rows: NDArray[np.generic], session: Session, contract: Contract, output: str
) -> NDArray[np.generic]:
    """The values of an output, checked."""
    outputs = session.run([output], {contract.input: rows})
    check_outputs(outputs, contract, pictures=len(rows), targets=len(rows))
    return outputs[output]


def _merit(trial: Trial) -> tuple[float, float]:
    """What decides: accuracy, else information, and for single photos confidence."""
    first = trial.information if trial.accuracy is None else trial.accuracy
    return round(first, 6), trial.confidence


def _prepared(
    pictures: Sequence[Picture],
    spec: Preprocessing,
    session: Session,
    name: str,
    shape: list[int | str | None],
) -> NDArray[np.generic]:
    kind, _ = session.input_of(name)
    height, width = input_size(shape, spec)
    tensors = [preprocess(picture, spec, height, width).tensor for picture in pictures]
    return np.stack(tensors).astype(element_type(kind))


def _runs(
    x: NDArray[np.generic], shape: Sequence[int | str | None]
) -> Iterator[NDArray[np.generic]]:
    """Parts of the batch size that a model fixes; else all at once."""
    size = shape[0] if isinstance(shape[0], int) else len(x)
    for first in range(0, len(x), size):
        yield x[first : first + size]


def _parts(photos: Sequence[Path]) -> Iterator[Sequence[Path]]:
    for first in range(0, len(photos), CHUNK):
        yield photos[first : first + CHUNK]
