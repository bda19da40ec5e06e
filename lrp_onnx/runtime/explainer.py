"""Explaining pictures with a compiled file."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.contract import HEATMAP, PREDICTED, RELEVANCE, START, TARGET, Contract, Preprocessing, is_compiled
from lrp_onnx.errors import ContractError, ImageError
from lrp_onnx.runtime.images import Picture, read_image
from lrp_onnx.runtime.modelfile import metadata_of, name_of
from lrp_onnx.runtime.preprocess import Prepared, checked, input_size, preprocess
from lrp_onnx.runtime.session import Arrays, element_type, open_session


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())


def _unchanged(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return scores


PROBABILITIES: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "logits": _softmax,
    "probabilities": _unchanged,
    "log-probabilities": np.exp,
}
"""What an output may hold → its probabilities; the first that a model has is read."""

Target = int | str | Sequence[int] | NDArray[np.int64] | None


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """One picture, explained."""

    path: Path
    picture: Picture
    """(H', W', 3) uint8 RGB: the part that the model saw, at the picture's own resolution."""
    heatmap: NDArray[np.float32]
    """(H, W): relevance at the input, summed over channels, in the units of the start."""
    relevance: NDArray[np.float32] | None
    """(C, H, W), or (H, W, C) for a model of that layout, where the file computes it."""
    scores: NDArray[np.float32]
    """(classes,): the explained output, logits or probabilities as the model gives them."""
    top5: tuple[tuple[int, str, float], ...]
    """(class index, name or "", probability), best first."""
    target: int
    target_name: str
    start: str
    """What relevance started from: ``logit``, ``probability`` or ``one``, at the target."""
    start_value: float | None
    """How much that was; None where the model gives no output to read it from."""
    provider: str
    seconds: Mapping[str, float]
    """``decode`` and ``run``, each picture's share of its batch."""


class Explainer:
    """A compiled file, ready to explain.

    Args:
        model: a file or a serialized model, compiled or not.
        providers: ``cpu``, ``cuda``, or several in the order of preference; None for CUDA where it really is there and
            the CPU otherwise.
        threads: CPU threads; None for all cores.
        preprocessing: how pictures become input; None takes what the file says, or ImageNet's.
        labels: class names; empty takes what the file says.
        compile: makes a serialized compiled model of an uncompiled file.

    Raises:
        ModelFileError, ContractError, ProviderError, and what `compile` raises.
    """

    def __init__(
        self,
        model: str | Path | bytes,
        *,
        providers: str | Sequence[str] | None = None,
        threads: int | None = None,
        preprocessing: Preprocessing | None = None,
        labels: Sequence[str] = (),
        compile: Callable[[Path], bytes] | None = None,
    ) -> None:
        source = model if isinstance(model, bytes) else Path(model)
        if not is_compiled(metadata_of(source)):
            if compile is None or isinstance(source, bytes):
                raise ContractError(f"{name_of(source)} is not a compiled file: run `lrp-onnx compile` on it first")
            source = compile(source)
        self.session = open_session(source, providers=providers, threads=threads)
        self.contract = Contract.from_metadata(self.session.metadata)
        self.assumed_preprocessing = preprocessing is None and self.contract.preprocessing is None
        self.preprocessing = checked(
            preprocessing or self.contract.preprocessing or Preprocessing(layout=self.contract.layout)
        )
        self.labels = tuple(labels) or self.contract.labels
        if self.labels and len(self.labels) != self.contract.classes:
            raise ContractError(
                f"there are {len(self.labels)} class names and the model has {self.contract.classes} classes: "
                "give as many names as the model has logits"
            )

    @property
    def provider(self) -> str:
        """``cpu`` or ``cuda``: where it really runs."""
        return self.session.provider

    def explain(
        self, batch: NDArray[Any], *, target: Target = None, start: NDArray[np.float32] | None = None
    ) -> Arrays:
        """Every output for a prepared batch.

        Args:
            batch: the model's input, with its batch axis.
            target: a class index or name for all, an index per sample, or None for the predicted class.
            start: relevance to start from, (N, classes) or (1, classes); rows of zeros fall back to `target`.

        Raises:
            ImageError: the batch has not the model's shape, or the target is no class of it.
        """
        kind, shape = self.session.input_of(self.contract.input)
        fits = batch.ndim == len(shape) and all(
            not isinstance(size, int) or size == found for size, found in zip(shape, batch.shape, strict=True)
        )
        if not fits:
            raise ImageError(f"the batch has shape {batch.shape}, the model's input '{self.contract.input}' {shape}")
        feeds = {
            self.contract.input: batch.astype(element_type(kind), copy=False),
            TARGET: self._targets(target, len(batch)),
        }
        if start is not None:
            feeds[START] = self._checked_start(start, len(batch))
        return self.session.run(None, feeds)

    def explain_images(
        self, paths: Sequence[str | Path], *, batch_size: int = 8, target: Target = None
    ) -> Iterator[Explanation]:
        """Every picture's explanation, in order, `batch_size` at a time.

        Args:
            paths: the pictures' files.
            batch_size: pictures a run; a file of a fixed batch keeps its own.
            target: a class index or name for all, an index per picture, or None for the predicted class.

        Raises:
            ImageError: a picture cannot be read, the target is no class, or the model's input does not fit the
                preprocessing.
            ValueError: `batch_size` is below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it is at least 1")
        _, shape = self.session.input_of(self.contract.input)
        height, width = input_size(shape, self.preprocessing)
        fixed = shape[0] if isinstance(shape[0], int) else None
        size = fixed or batch_size
        files = [Path(path) for path in paths]
        targets = self._targets(target, len(files))
        # CUDA plans its convolutions anew for every shape: there a last, shorter batch is filled up as well.
        pad_to = size if fixed or (self.provider == "cuda" and len(files) > size) else 0
        for first in range(0, len(files), size):
            part = slice(first, first + size)
            yield from self._explain_batch(files[part], targets[part], height, width, pad_to=pad_to)

    def _explain_batch(
        self, paths: Sequence[Path], targets: NDArray[np.int64], height: int, width: int, *, pad_to: int
    ) -> Iterator[Explanation]:
        begun = time.perf_counter()
        pictures = [read_image(path) for path in paths]
        prepared = [preprocess(picture, self.preprocessing, height, width) for picture in pictures]
        batch = np.stack([p.tensor for p in prepared])
        missing = max(0, pad_to - len(batch))
        batch = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), batch.dtype)])
        decoded = time.perf_counter()
        found = self.explain(batch, target=np.append(targets, np.full(missing, PREDICTED, np.int64)))
        ran = time.perf_counter()
        seconds = {"decode": (decoded - begun) / len(paths), "run": (ran - decoded) / len(paths)}
        for index, path in enumerate(paths):
            yield self._one(path, pictures[index], prepared[index], found, index, int(targets[index]), seconds)

    def _one(
        self,
        path: Path,
        picture: Picture,
        prepared: Prepared,
        found: Arrays,
        index: int,
        target: int,
        seconds: Mapping[str, float],
    ) -> Explanation:
        kind, scores, probabilities = self._scores(found, index)
        order = np.argsort(-probabilities, kind="stable")[:5]
        target = int(order[0]) if target == PREDICTED else target
        relevance = found[RELEVANCE][index].astype(np.float32, copy=False) if RELEVANCE in found else None
        if HEATMAP in found:
            heatmap = found[HEATMAP][index]
        elif relevance is not None:
            heatmap = relevance.sum(0 if self.preprocessing.layout == "NCHW" else 2)
        else:
            raise ContractError(
                "the compiled file has neither heatmap nor relevance among its outputs: compile it with one"
            )
        return Explanation(
            path=path,
            picture=prepared.box.cut(picture),
            heatmap=heatmap.astype(np.float32, copy=False),
            relevance=relevance,
            scores=scores,
            top5=tuple((int(i), self._class_name(int(i)), float(probabilities[i])) for i in order),
            target=target,
            target_name=self._class_name(target),
            start=self.contract.start_value,
            start_value=self._start_value(kind, float(scores[target]), float(probabilities[target])),
            provider=self.provider,
            seconds=seconds,
        )

    def _class_name(self, index: int) -> str:
        return self.labels[index] if self.labels else ""

    def _start_value(self, kind: str, score: float, probability: float) -> float | None:
        known = {"one": 1.0, "logit": score if kind == "logits" else None}
        known["probability"] = probability if kind != "other" else None
        return known[self.contract.start_value]

    def _scores(self, found: Arrays, index: int) -> tuple[str, NDArray[np.float32], NDArray[np.float64]]:
        """(what the explained output holds, the output, probabilities); the arrays are (classes,)."""
        names = {kind: name for name, kind in reversed(list(self.contract.outputs.items()))}
        kind = next(kind for kind in (*PROBABILITIES, "other") if kind in names)
        scores = found[names[kind]][index].astype(np.float32)
        return kind, scores, PROBABILITIES.get(kind, _unchanged)(scores.astype(np.float64))

    def _targets(self, target: Target, batch: int) -> NDArray[np.int64]:
        if target is None:
            return np.full(batch, PREDICTED, np.int64)
        if isinstance(target, str):
            target = self._index_of(target)
        given = np.asarray(target)
        if given.dtype.kind not in "iu" or given.shape not in ((), (1,), (batch,)):
            raise ImageError(
                f"the target is {target!r}: a class index, a class name, or {batch} indices, one a sample, are expected"
            )
        targets = np.broadcast_to(given.astype(np.int64), (batch,))
        wrong = targets[(targets < PREDICTED) | (targets >= self.contract.classes)]
        if wrong.size:
            last = self.contract.classes - 1
            raise ImageError(f"there is no class {int(wrong[0])}: classes are 0 to {last}, or -1 for the predicted one")
        return np.ascontiguousarray(targets)

    def _index_of(self, name: str) -> int:
        if name in self.labels:
            return self.labels.index(name)
        if not self.labels:
            raise ImageError(
                f"the class {name!r} is not known: the file has no class names; give an index, or --classes FILE"
            )
        close = difflib.get_close_matches(name, self.labels, 3, 0.4)
        hint = f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(self.labels[:10])} …"
        raise ImageError(f"there is no class {name!r}: {hint}")

    def _checked_start(self, start: NDArray[np.float32], batch: int) -> NDArray[np.float32]:
        if start.ndim != 2 or start.shape[0] not in (1, batch) or start.shape[1] != self.contract.classes:
            raise ImageError(f"the start has shape {start.shape}: ({batch} or 1, {self.contract.classes}) is expected")
        return start.astype(np.float32, copy=False)
