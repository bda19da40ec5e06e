"""Explaining pictures with a compiled file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.contract import (
    C3_REGION,
    HEATMAP,
    HEATMAP_RAW,
    PREDICTED,
    RELEVANCE,
    START,
    TARGET,
    Preprocessing,
    is_compiled,
)
from lrp_onnx.errors import ContractError, ImageError, shown
from lrp_onnx.files.compiled import read_compiled
from lrp_onnx.files.description import describe_model
from lrp_onnx.files.models import metadata_of, source_name
from lrp_onnx.maps.chain import NONE, parse_chain
from lrp_onnx.maps.resample import resample
from lrp_onnx.runtime.ahead import ahead
from lrp_onnx.runtime.batches import (
    Batch,
    Prepare,
    as_input,
    from_array,
    from_picture,
    prepared_batch,
    read_batch,
)
from lrp_onnx.runtime.boxes import Shares
from lrp_onnx.runtime.classes import Classes, Target
from lrp_onnx.runtime.explanation import (
    SIMILARITY,
    WITHOUT_PROBABILITIES,
    Explanation,
    ranked,
)
from lrp_onnx.runtime.memory import memory_now
from lrp_onnx.runtime.preprocess import assumed, checked, input_size
from lrp_onnx.runtime.reading import Reading
from lrp_onnx.runtime.session import (
    DEFAULT_TUNING,
    Arrays,
    Session,
    Tuning,
    element_type,
    open_session,
)
from lrp_onnx.runtime.shared import Shared
from lrp_onnx.runtime.sources import Source, path_of
from lrp_onnx.runtime.starts import (
    VECTORS,
    Focus,
    Focused,
    Mask,
    MaskSource,
    Reference,
    reference_vector,
)
from lrp_onnx.runtime.stated import check_outputs, check_texts

SLACK = 2.0
"""Allowance for a runtime's memory, as a factor of what its tensors need at once.

Measured: 0.4 to 1.85 (ResNet-18 and 50, four composites, batches of 1 to 32).
"""
MOST_CHECKED = 64
"""Shapes of runs that are remembered: they take no more memory than they may."""


class Explainer:
    """A compiled file, ready to explain pictures.

    Args:
        model: a file or a serialized model, compiled or not.
        providers: ``cpu``, ``cuda``, or several in the order of preference; None for CUDA if it is
            available, else the CPU.
        threads: CPU threads; None for all cores.
        tuning: how the session uses its machine.
        preprocessing: how pictures become input; None for what the file says, else ImageNet's.
        labels: class names; empty for those in the file.
        compile: compiles a file that is not compiled, and returns the serialized model.
        max_memory: bytes that a run may take (see `files.budget`); None for half of the machine's
            memory.

    Raises:
        ModelFileError: the file cannot be read or loaded, or takes more memory.
        ContractError: it is not compiled and `compile` is None, its metadata is damaged or does not
            fit its graph, or the class names do not fit.
        ProviderError: no provider is available.
        ImageError: the preprocessing is not valid.
        What `compile` raises.
    """

    explanation: ClassVar[type[Explanation]] = Explanation
    """What an explainer yields."""
    changed: str = ""
    """What to say where the part that predicts is not the one that was compiled, or empty."""

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
        max_memory: float | None = None,
    ) -> None:
        source = model if isinstance(model, bytes) else Path(model)
        if not is_compiled(metadata_of(source)):
            if compile is None or isinstance(source, bytes):
                raise ContractError(
                    f"{source_name(source)} is not a compiled file: "
                    "run `lrp-onnx compile` on it first"
                )
            source = compile(source)
        file = read_compiled(source, max_memory=max_memory)
        self.contract, self.changed = file.contract, file.changed
        self._footprint = file.footprint
        self._checked: list[dict[str, tuple[int, ...]]] = []
        opened = partial(open_session, providers=providers, threads=threads, tuning=tuning)
        anywhere = source if isinstance(source, bytes) else source.absolute()
        self._shared = Shared(
            opened(source), again=partial(opened, anywhere), one_by_one=tuning.cuda_graph
        )
        check_texts(self.contract)
        _, shape = self.session.input_of(self.contract.input)
        self.channels = 1 if shape[self.contract.layout.index("C")] == 1 else 3
        """Channels of a picture, 1 or 3."""
        said = describe_model(
            self.session.metadata,
            source if isinstance(source, Path) else None,
            classes=self.contract.classes,
            channels=self.channels,
        )
        self.sources = {**said.sources, **self.contract.sources}
        stated = preprocessing or said.preprocessing
        self.assumed_preprocessing = stated is None and self.takes_pictures
        if stated is None:
            stated = assumed(self.channels)
        if self.takes_pictures:
            stated = stated.for_layout(self.contract.layout)
        elif preprocessing is not None:
            raise ImageError(
                f"a preprocessing is for pictures, and the model takes {self.contract.layout}: "
                "leave it out"
            )
        self.preprocessing = checked(stated)
        self.labels = tuple(labels) or said.labels
        for what, given in (("preprocessing", preprocessing), ("labels", labels)):
            if given:
                self.sources[what] = "the options"
        lowest = -self.contract.classes if self.contract.many_targets else PREDICTED
        self.classes = Classes(self.contract.classes, self.labels, lowest)
        if self.labels and len(self.labels) != self.contract.classes:
            raise ContractError(
                f"there are {len(self.labels)} class names and the model has "
                f"{self.contract.classes} classes: give one name per class"
            )

    @property
    def session(self) -> Session:
        """The session of this process (see `Shared`)."""
        return self._shared.session

    @property
    def provider(self) -> str:
        """``cpu`` or ``cuda``: where the model runs."""
        return self.session.provider

    @property
    def takes_pictures(self) -> bool:
        """Whether the model's input is a picture, not a signal or a volume."""
        return self.contract.takes_pictures

    @property
    def input_size(self) -> tuple[int, ...]:
        """The sizes of the model's input behind the channels: (height, width) of a picture."""
        _, shape = self.session.input_of(self.contract.input)
        if self.takes_pictures:
            return input_size(shape, self.preprocessing)
        return self._sizes

    @property
    def _sizes(self) -> tuple[int, ...]:
        """The same, whatever the number of channels."""
        _, shape = self.session.input_of(self.contract.input)
        outside = (0, self._layout.index("C"))
        return tuple(int(n or 0) for axis, n in enumerate(shape) if axis not in outside)

    @property
    def reading(self) -> Reading:
        """What the outputs of a run say."""
        return Reading(self.contract)

    @property
    def gives_raw(self) -> bool:
        """Whether the file's outputs tell the map before post-processing."""
        names = set(self.session.outputs)
        return bool(names & {HEATMAP_RAW, RELEVANCE}) or self.contract.post == NONE

    def batch_within(self, memory: float | None = None) -> int:
        """The largest batch, at least 1, with which the process stays within `memory` bytes.

        None allows what the process uses now plus half of the free memory. The compiled file says
        how much memory its tensors need at once; a runtime may take `SLACK` times that.
        """
        if self.contract.many_targets:
            return 1
        in_use, free = memory_now()
        room = free / 2 if memory is None else memory - in_use
        for_pictures = room / SLACK - self.contract.memory_fixed
        return max(1, int(for_pictures / max(self.contract.memory_each, 1)))

    def fits(self, batch: NDArray[Any], *, any_number: bool = False) -> bool:
        """Whether an array has the shape of the model's input, with its batch axis; with
        `any_number` also where the model has another fixed batch size.
        """
        _, shape = self.session.input_of(self.contract.input)
        shape = [None, *shape[1:]] if any_number else shape
        return batch.ndim == len(shape) and all(
            not isinstance(expected, int) or expected == size
            for expected, size in zip(shape, batch.shape, strict=True)
        )

    def rows(self, batch_size: int) -> int:
        """Pictures of a run: `batch_size`, unless the model has a fixed batch."""
        _, shape = self.session.input_of(self.contract.input)
        return shape[0] if isinstance(shape[0], int) else batch_size

    def explain(
        self,
        batch: NDArray[Any],
        *,
        target: Target = None,
        start: NDArray[np.float32] | None = None,
    ) -> Arrays:
        """Run the model on a prepared batch.

        Args:
            batch: the model's input, with its batch axis; one picture for a file compiled with
                many targets.
            target: a class index or name for all, one per sample, or None for the predicted class.
                A file compiled with many targets takes any number of them; there -k is the class
                of the k-th largest logit.
            start: relevance to start from, in the shape of what is explained, for N samples or
                targets, or for all: (N, classes) or (1, classes), or (N, C, H, W) for all of an
                output with these axes (`Contract.start_shape`). A row of zeros stands for the
                start at `target`.

        Returns:
            Every output of the model, by name.

        Raises:
            ImageError: `batch` or `start` does not fit the model, or is not finite, or a target is
                not a class of it.
        """
        kind, shape = self.session.input_of(self.contract.input)
        if not self.fits(batch):
            raise ImageError(
                f"the batch has shape {batch.shape}; "
                f"the model's input '{self.contract.input}' has shape {shape}"
            )
        targets = self.classes.indices(target, None if self.contract.many_targets else len(batch))
        self._check_inputs(targets, start)
        if start is not None and self.contract.many_targets and len(targets) == 1:
            targets = np.repeat(targets, len(start))
        feeds = {self.contract.input: as_input(batch, element_type(kind))}
        if self.contract.inputs != "none":
            feeds[TARGET] = targets
        if start is not None:
            given = self._checked_start(start, len(targets))
            required = self.contract.inputs == "target,start"
            rows = (len(targets), *self.contract.start_shape)
            feeds[START] = np.broadcast_to(given, rows) if required else given
        self._check_memory({name: array.shape for name, array in feeds.items()})
        outputs = self._shared.run(feeds)
        check_outputs(outputs, self.contract, pictures=len(batch), targets=len(targets))
        return outputs

    def _check_memory(self, sizes: dict[str, tuple[int, ...]]) -> None:
        """Raise ModelFileError where a run with inputs of these shapes takes too much memory."""
        if sizes not in self._checked:
            self._footprint.check(sizes=sizes)
            self._checked = [*self._checked[1 - MOST_CHECKED :], sizes]

    def _check_inputs(self, targets: NDArray[np.int64], start: NDArray[np.float32] | None) -> None:
        """Raise ContractError where the file has no input for what is asked."""
        inputs = self.contract.inputs
        if inputs == "none" and np.any(targets != PREDICTED):
            raise ContractError(
                "this compiled file explains the predicted class only (--inputs none): "
                "compile it with --inputs target to ask for a class"
            )
        if start is not None and inputs in ("target", "none"):
            raise ContractError(
                "this compiled file has no input for the relevance to start from "
                f"(--inputs {inputs}): compile it with --inputs target,start"
            )

    def explain_images(
        self,
        images: Sequence[Source],
        *,
        batch_size: int = 8,
        target: Target = None,
        mask: MaskSource | Sequence[MaskSource] | None = None,
        similar_to: Source | None = None,
        on_fault: Callable[[Path, ImageError], None] | None = None,
    ) -> Iterator[Explanation]:
        """Explain pictures, `batch_size` at a time, while the next pictures are read.

        Args:
            images: the pictures: files, bytes, PIL images or arrays (see `sources.Source`).
            batch_size: pictures per run. A model with a fixed batch size keeps that size; a file
                compiled with many targets takes one picture.
            target: a class index or name for all, one per picture, or None for the predicted class.
                A file compiled with many targets explains all of them for every picture.
            mask: the pixels of an output (N, C, H, W) whose class is explained, over the whole
                photo (see `starts.MaskSource`); one for all, or one per picture.
            similar_to: a picture, or an array in a ``.npy`` file or of floats: explained is what
                makes the output, an embedding, similar to that of this picture, or to that vector.
            on_fault: is called with a picture that cannot be read and the reason, and the picture
                is left out; None raises the reason.

        Yields:
            The explanations in the order of `images`: one per picture, or one per target of each
            picture.

        Raises:
            ImageError: a picture cannot be read, or its map is not finite, and `on_fault` is None;
                a target is not a class, the model's input does not fit the preprocessing, or a mask
                or reference does not fit the output.
            ContractError: the file has no input `start`, which a mask or a reference needs, or
                another kind of output.
            TypeError: `images` is one picture, not several.
            ValueError: `batch_size` is below 1.
        """
        if isinstance(images, str | bytes | PathLike):
            raise TypeError("explain_images takes a list of pictures: write [image] for one")
        prepare = self._prepare()
        targets = self._targets(target, len(images))
        reference = None if similar_to is None else self.reference(similar_to)
        focus = Focus.of(mask, reference, len(images))
        if focus is not None:
            self.reading.check(focus)
        parts, pad_to = self._parts(len(images), batch_size)
        # A batch with faults keeps its size: runtimes may round otherwise in another one.
        tasks = [
            partial(
                read_batch,
                images[part],
                prepare,
                pad_to=pad_to or len(images[part]),
                strict=on_fault is None,
            )
            for part in parts
        ]
        for part, batch in zip(parts, ahead(tasks), strict=True):
            for path, fault in batch.faults:
                if on_fault is not None:
                    on_fault(path, fault)
            if batch.paths:
                own = self._of_part(targets, part, batch)
                where = focus and focus.part(part, batch.rows)
                yield from self._explain_batch(batch, own, on_fault, where)

    def _prepare(self) -> Prepare:
        """How one picture, or another input, becomes the model's input."""
        _, shape = self.session.input_of(self.contract.input)
        if not self.takes_pictures:
            return partial(from_array, shape=tuple(shape[1:]), layout=self.contract.layout)
        size = input_size(shape, self.preprocessing)
        return partial(from_picture, how=self.preprocessing, size=size)

    def explain_prepared(
        self, tensors: NDArray[Any], *, batch_size: int = 8, target: Target = None
    ) -> Iterator[Explanation]:
        """Explain tensors that are the model's input already, as `explain_images` does pictures.

        Args:
            tensors: (N, …) in the shape of the model's input; N may be any number.
            batch_size: tensors per run.
            target: as for `explain_images`.

        Yields:
            The explanations. Their pictures are those that the preprocessing would have made the
            tensors of.

        Raises:
            ImageError: the shape does not fit the model, or a target is not a class.
            ValueError: `batch_size` is below 1.
        """
        targets = self._targets(target, len(tensors))
        if len(tensors):
            kind, _ = self.session.input_of(self.contract.input)
            tensors = as_input(tensors, element_type(kind))
        parts, pad_to = self._parts(len(tensors), batch_size)
        for part in parts:
            batch = prepared_batch(
                tensors[part], self.preprocessing, self.contract.layout, pad_to=pad_to
            )
            yield from self._explain_batch(batch, self._of_part(targets, part, batch))

    def _targets(self, target: Target, pictures: int) -> NDArray[np.int64]:
        """The target of every picture, or all targets of a file for many."""
        return self.classes.indices(target, None if self.contract.many_targets else pictures)

    def _of_part(self, targets: NDArray[np.int64], part: slice, batch: Batch) -> NDArray[np.int64]:
        """The targets of the pictures of a batch."""
        return targets if self.contract.many_targets else targets[part][list(batch.rows)]

    def _parts(self, pictures: int, batch_size: int) -> tuple[list[slice], int]:
        """The pictures of every run, and the number of rows to which shorter batches are filled."""
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it is at least 1")
        _, shape = self.session.input_of(self.contract.input)
        fixed, size = isinstance(shape[0], int), self.rows(batch_size)
        # CUDA plans its convolutions again for every shape: a shorter last batch is filled up.
        filled = fixed or (self.provider == "cuda" and pictures > size)
        return [slice(at, at + size) for at in range(0, pictures, size)], size if filled else 0

    def _explain_batch(
        self,
        batch: Batch,
        targets: NDArray[np.int64],
        on_fault: Callable[[Path, ImageError], None] | None = None,
        focus: Focus | None = None,
    ) -> Iterator[Explanation]:
        """One explanation per target; with many targets the batch has one picture. Pictures whose
        maps are not finite, or whose masks do not fit, are faults.
        """
        started = time.perf_counter()
        missing = 0 if self.contract.many_targets else len(batch.tensors) - len(targets)
        targets = np.append(targets, np.full(missing, PREDICTED, np.int64))
        outputs = self.explain(batch.tensors, target=targets)
        found: list[Focused | None] = [None] * len(batch.paths)
        if focus is not None:
            found = self.reading.focused(batch, outputs, focus, on_fault)
            start = self.reading.starts(outputs, targets, found)
            outputs = self.explain(batch.tensors, target=targets, start=start)
        run = (time.perf_counter() - started) / len(batch.paths)
        seconds = {"decode": batch.seconds, "run": run}
        every = range(len(targets))
        for index in range(len(batch.paths)):
            if focus is not None and found[index] is None:
                continue
            own = every if self.contract.many_targets else [index]
            explained = [
                self._one(batch, outputs, index, row, int(targets[row]), seconds, found[index])
                for row in own
            ]
            if all(map(_is_finite, explained)):
                yield from explained
                continue
            fault = ImageError(
                f"{shown(batch.paths[index])} cannot be explained: the model's values are not "
                "finite; check --preprocess, and whether its weights overflow in their type"
            )
            if on_fault is None:
                raise fault
            on_fault(batch.paths[index], fault)

    def _one(
        self,
        batch: Batch,
        outputs: Arrays,
        index: int,
        row: int,
        target: int,
        seconds: dict[str, float],
        focused: Focused | None,
    ) -> Explanation:
        """The explanation of picture `index` of the batch, whose heatmap is in row `row`."""
        kind, scores, probabilities = self.reading.scores(outputs, index, focused)
        order = ranked(scores)
        target = int(order[PREDICTED - target]) if target < 0 else target
        classes = self.classes
        if isinstance(focused, Reference):
            target, classes = 0, Classes(1, (f"similarity to {focused.name}",))
        relevance = (
            outputs[RELEVANCE][row].astype(np.float32, copy=False) if RELEVANCE in outputs else None
        )
        heatmap, raw = self._heatmaps(outputs, row)
        return self.explanation(
            path=batch.paths[index],
            photo=batch.pictures[index],
            box=batch.boxes[index],
            heatmap=heatmap,
            heatmap_raw=raw,
            region=outputs[C3_REGION][row] > 0 if C3_REGION in outputs else None,
            relevance=relevance,
            scores=scores,
            top5=tuple((int(i), classes.name(int(i)), float(probabilities[i])) for i in order[:5]),
            target=target,
            target_name=classes.name(target),
            start=SIMILARITY if isinstance(focused, Reference) else self.contract.start_value,
            start_value=None
            if focused
            else self._start_value(kind, scores.astype(np.float64), probabilities, target),
            provider=self.provider,
            seconds=seconds,
            kind=kind,
            probability=None if kind in WITHOUT_PROBABILITIES else float(probabilities[target]),
            composite=self.contract.composite,
            post=self.contract.post,
            marked=None if focused else self._marked(outputs, index, target),
            mask=focused.inside if isinstance(focused, Mask) else None,
            layout=self._layout,
        )

    def reference(self, source: Source) -> Reference:
        """What `similar_to` names, for outputs that are embeddings.

        Raises:
            ContractError: the output is no embedding.
            ImageError: it cannot be read, or does not fit what is explained.
        """
        reading = self.reading
        if reading.kind not in VECTORS:
            raise ContractError(
                f"the output '{reading.name}' holds {reading.kind}, not an embedding to be "
                "compared with another: name the embedding with --output-name"
            )
        _, shape = self.session.input_of(self.contract.input)
        sample = () if self.takes_pictures else tuple(shape[1:])
        vector = reference_vector(source, self.contract.start_shape, sample)
        if vector is None:
            rows = self.rows(1)
            batch = read_batch([source], self._prepare(), pad_to=rows, strict=True)
            vector = reading.explained(self.explain(batch.tensors))[0].astype(np.float32)
        return Reference(path_of(source).name, vector)

    def _heatmaps(
        self, outputs: Arrays, row: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """The maps of one row, post-processed and not; the latter None where it cannot be told."""
        coarse = self.contract.resolution is not None
        same = self.contract.post == NONE and not coarse

        def read(name: str) -> NDArray[np.float32]:
            return np.asarray(outputs[name][row], np.float32)

        raw = None
        if HEATMAP_RAW in outputs or (same and HEATMAP in outputs):
            raw = read(HEATMAP_RAW if HEATMAP_RAW in outputs else HEATMAP)
        elif RELEVANCE in outputs:
            channels = self._layout.index("C") - 1
            raw = np.asarray(read(RELEVANCE).sum(channels), np.float32)
        if same and raw is not None:
            return raw, raw
        if HEATMAP in outputs:
            return read(HEATMAP), raw
        if raw is None:
            raise ContractError(
                "the compiled file has none of heatmap, heatmap_raw and relevance among its "
                "outputs: compile it with one of them"
            )
        if not np.isfinite(raw).all():
            return raw, raw
        before = raw
        if coarse:
            before = resample(raw, self._sizes, method="bilinear")
        return parse_chain(self.contract.post)(before), raw

    @property
    def _layout(self) -> str:
        """The order of the input's axes."""
        return self.preprocessing.layout if self.takes_pictures else self.contract.layout

    def _marked(self, outputs: Arrays, index: int, target: int) -> Shares | None:
        """The place of what is explained in a picture, where that is some of the output."""
        if not self.takes_pictures:
            return None
        height, width = self._sizes
        return self.reading.place(outputs, index, target, (height, width))

    def _start_value(
        self,
        kind: str,
        scores: NDArray[np.float64],
        probabilities: NDArray[np.float64],
        target: int,
    ) -> float | None:
        """The sum of the start relevance; None where the model's outputs do not tell it."""
        return self.reading.start_value(kind, scores, probabilities, target)

    def _checked_start(self, start: NDArray[np.float32], batch: int) -> NDArray[np.float32]:
        wanted = self.contract.start_shape
        if start.ndim == 0 or len(start) not in (1, batch) or start.shape[1:] != wanted:
            sizes = ", ".join(map(str, wanted))
            raise ImageError(
                f"the start has shape {start.shape}; it must be ({batch} or 1, {sizes})"
            )
        if not np.isfinite(start).all():
            raise ImageError("the start holds NaN or infinity: give finite numbers")
        return start.astype(np.float32, copy=False)


def _is_finite(one: Explanation) -> bool:
    """Whether the maps of an explanation are finite and its scores are numbers."""
    maps = [values for values in (one.heatmap, one.heatmap_raw) if values is not None]
    best = [value for _, _, value in one.top5]
    unknown = np.isnan(one.scores).any() or np.isnan(best).any()
    return all(np.isfinite(values).all() for values in maps) and not unknown
