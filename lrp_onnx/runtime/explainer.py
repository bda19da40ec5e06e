"""Explaining pictures with a compiled file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.contract import HEATMAP, PREDICTED, RELEVANCE, START, TARGET, Contract, Preprocessing, is_compiled
from lrp_onnx.errors import ContractError, ImageError
from lrp_onnx.files.modelfile import metadata_of, name_of
from lrp_onnx.runtime.ahead import ahead
from lrp_onnx.runtime.bound import Bound
from lrp_onnx.runtime.classes import Classes, Target
from lrp_onnx.runtime.explanation import Explanation, kind_of, probabilities_of
from lrp_onnx.runtime.images import Picture, read_image
from lrp_onnx.runtime.memory import memory_now
from lrp_onnx.runtime.preprocess import Prepared, checked, input_size, preprocess
from lrp_onnx.runtime.session import DEFAULT_TUNING, Arrays, Tuning, element_type, open_session

SLACK = 2.0
"""Measured peak over what tensors take at once: 0.4 to 1.85 (ResNet-18 and 50, four composites,
batches of 1 to 32).
"""


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Pictures read and prepared for one run."""

    paths: tuple[Path, ...]
    pictures: tuple[Picture, ...]
    prepared: tuple[Prepared, ...]
    tensors: NDArray[Any]
    """The model's input; rows behind the pictures' only fill a batch up."""
    seconds: float
    """To read and prepare one picture."""


class Explainer:
    """A compiled file, ready to explain.

    Args:
        model: a file or a serialized model, compiled or not.
        providers: ``cpu``, ``cuda``, or several in the order of preference; None for CUDA where it
            really is there and the CPU otherwise.
        threads: CPU threads; None for all cores.
        tuning: how the session uses its machine.
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
        tuning: Tuning = DEFAULT_TUNING,
        preprocessing: Preprocessing | None = None,
        labels: Sequence[str] = (),
        compile: Callable[[Path], bytes] | None = None,
    ) -> None:
        source = model if isinstance(model, bytes) else Path(model)
        if not is_compiled(metadata_of(source)):
            if compile is None or isinstance(source, bytes):
                raise ContractError(f"{name_of(source)} is not a compiled file: run `lrp-onnx compile` on it first")
            source = compile(source)
        self.session = open_session(source, providers=providers, threads=threads, tuning=tuning)
        self._bound: Bound | None = None
        self.contract = Contract.from_metadata(self.session.metadata)
        self.assumed_preprocessing = preprocessing is None and self.contract.preprocessing is None
        self.preprocessing = checked(
            preprocessing or self.contract.preprocessing or Preprocessing(layout=self.contract.layout)
        )
        self.labels = tuple(labels) or self.contract.labels
        lowest = -self.contract.classes if self.contract.many_targets else PREDICTED
        self.classes = Classes(self.contract.classes, self.labels, lowest)
        if self.labels and len(self.labels) != self.contract.classes:
            raise ContractError(
                f"there are {len(self.labels)} class names and the model has {self.contract.classes} classes: "
                "give as many names as the model has logits"
            )

    @property
    def provider(self) -> str:
        """``cpu`` or ``cuda``: where it really runs."""
        return self.session.provider

    def batch_within(self, memory: float | None = None) -> int:
        """How many pictures a run may take, at least 1, for the process to hold at most `memory`
        bytes.

        `memory` is by default what the process holds now and half of what is free. What tensors
        take at once stands in the file; `SLACK` is allowed for what a runtime cannot use of its
        memory.
        """
        if self.contract.many_targets:
            return 1
        held, free = memory_now()
        room = free / 2 if memory is None else memory - held
        return max(1, int((room / SLACK - self.contract.memory_fixed) / max(self.contract.memory_each, 1)))

    def explain(
        self, batch: NDArray[Any], *, target: Target = None, start: NDArray[np.float32] | None = None
    ) -> Arrays:
        """Every output for a prepared batch.

        Args:
            batch: the model's input, with its batch axis; one picture for a file of many targets.
            target: a class index or name for all, one per sample, or None for the predicted class.
                For a file of many targets any number of them, -k being the class of the k-th
                largest logit.
            start: relevance to start from, (N, classes) or (1, classes), N samples or targets; rows
                of zeros fall back to `target`.

        Raises:
            ImageError: the batch has not the model's shape, or the target is no class of it.
        """
        kind, shape = self.session.input_of(self.contract.input)
        fits = batch.ndim == len(shape) and all(
            not isinstance(size, int) or size == own for size, own in zip(shape, batch.shape, strict=True)
        )
        if not fits:
            raise ImageError(f"the batch has shape {batch.shape}, the model's input '{self.contract.input}' {shape}")
        targets = self.classes.indices(target, None if self.contract.many_targets else len(batch))
        if start is not None and self.contract.many_targets and len(targets) == 1:
            targets = np.repeat(targets, len(start))
        feeds = {self.contract.input: batch.astype(element_type(kind), copy=False), TARGET: targets}
        if start is not None:
            feeds[START] = self._checked_start(start, len(targets))
        if self._bound is None or not self._bound.fits(feeds):
            self._bound = Bound(self.session, feeds)
        return self._bound.run(feeds)

    def explain_images(
        self, paths: Sequence[str | Path], *, batch_size: int = 8, target: Target = None
    ) -> Iterator[Explanation]:
        """Every picture's explanation, in order, `batch_size` at a time; the next pictures are read
        meanwhile.

        Args:
            paths: the pictures' files.
            batch_size: pictures a run; a file of a fixed batch keeps its own, one of many targets
                takes one.
            target: a class index or name for all, one per picture, or None for the predicted class.
                A file of many targets explains every one of them for every picture: there are as
                many explanations of each.

        Raises:
            ImageError: a picture cannot be read, the target is no class, or the model's input does
                not fit the preprocessing.
            ValueError: `batch_size` is below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it is at least 1")
        _, shape = self.session.input_of(self.contract.input)
        height, width = input_size(shape, self.preprocessing)
        fixed = shape[0] if isinstance(shape[0], int) else None
        size = fixed or batch_size
        files = [Path(path) for path in paths]
        many = self.contract.many_targets
        targets = self.classes.indices(target, None if many else len(files))
        # CUDA plans its convolutions anew for every shape: there a last, shorter batch is filled up as well.
        pad_to = size if fixed or (self.provider == "cuda" and len(files) > size) else 0
        parts = [slice(first, first + size) for first in range(0, len(files), size)]
        read = [partial(self._read, files[part], height, width, pad_to=pad_to) for part in parts]
        for part, batch in zip(parts, ahead(read), strict=True):
            yield from self._explain_batch(batch, targets if many else targets[part])

    def _read(self, paths: Sequence[Path], height: int, width: int, *, pad_to: int) -> _Batch:
        begun = time.perf_counter()
        pictures = tuple(read_image(path) for path in paths)
        prepared = tuple(preprocess(picture, self.preprocessing, height, width) for picture in pictures)
        tensors = np.stack([p.tensor for p in prepared])
        missing = max(0, pad_to - len(tensors))
        tensors = np.concatenate([tensors, np.zeros((missing, *tensors.shape[1:]), tensors.dtype)])
        return _Batch(tuple(paths), pictures, prepared, tensors, (time.perf_counter() - begun) / len(paths))

    def _explain_batch(self, batch: _Batch, targets: NDArray[np.int64]) -> Iterator[Explanation]:
        """An explanation for every row of the maps; in a file of many targets all rows are of the
        one picture.
        """
        begun = time.perf_counter()
        missing = 0 if self.contract.many_targets else len(batch.tensors) - len(targets)
        outputs = self.explain(batch.tensors, target=np.append(targets, np.full(missing, PREDICTED, np.int64)))
        seconds = {"decode": batch.seconds, "run": (time.perf_counter() - begun) / len(batch.paths)}
        for row, target in enumerate(targets):
            index = 0 if self.contract.many_targets else row
            yield self._one(batch, outputs, index, row, int(target), seconds)

    def _one(
        self, batch: _Batch, outputs: Arrays, index: int, row: int, target: int, seconds: dict[str, float]
    ) -> Explanation:
        """The explanation of picture `index` of the batch, its map in row `row`."""
        kind, scores, probabilities = self._scores(outputs, index)
        order = np.argsort(-probabilities, kind="stable")
        target = int(order[PREDICTED - target]) if target < 0 else target
        relevance = outputs[RELEVANCE][row].astype(np.float32, copy=False) if RELEVANCE in outputs else None
        if HEATMAP in outputs:
            heatmap = outputs[HEATMAP][row]
        elif relevance is not None:
            heatmap = relevance.sum(0 if self.preprocessing.layout == "NCHW" else 2)
        else:
            raise ContractError(
                "the compiled file has neither heatmap nor relevance among its outputs: compile it with one"
            )
        name = self.classes.name
        return Explanation(
            path=batch.paths[index],
            picture=batch.prepared[index].box.cut(batch.pictures[index]),
            heatmap=heatmap.astype(np.float32, copy=False),
            relevance=relevance,
            scores=scores,
            top5=tuple((int(i), name(int(i)), float(probabilities[i])) for i in order[:5]),
            target=target,
            target_name=name(target),
            start=self.contract.start_value,
            start_value=self._start_value(kind, scores.astype(np.float64), probabilities, target),
            provider=self.provider,
            seconds=seconds,
        )

    def _start_value(
        self, kind: str, scores: NDArray[np.float64], probabilities: NDArray[np.float64], target: int
    ) -> float | None:
        """What relevance started from in all, where the outputs tell."""
        value = self.contract.start_value
        if value == "one":
            return 1.0
        if value == "probability":
            return float(probabilities[target]) if kind != "other" else None
        if kind != "logits":
            return None
        if value == "contrastive" and len(scores) > 1:
            rest = np.delete(scores, target)
            weights = np.exp(rest - rest.max())
            return float(scores[target] - (rest * weights).sum() / weights.sum())
        return float(scores[target])

    def _scores(self, outputs: Arrays, index: int) -> tuple[str, NDArray[np.float32], NDArray[np.float64]]:
        """(kind of the explained output, the output, probabilities); the arrays are (classes,)."""
        kind, name = kind_of(self.contract.outputs)
        scores = outputs[name][index]
        return kind, scores.astype(np.float32), probabilities_of(kind, scores[None])[0]

    def _checked_start(self, start: NDArray[np.float32], batch: int) -> NDArray[np.float32]:
        if start.ndim != 2 or start.shape[0] not in (1, batch) or start.shape[1] != self.contract.classes:
            raise ImageError(f"the start has shape {start.shape}: ({batch} or 1, {self.contract.classes}) is expected")
        return start.astype(np.float32, copy=False)
