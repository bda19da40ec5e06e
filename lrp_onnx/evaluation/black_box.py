"""A model that is only run: for methods that need nothing of a model but its predictions.

RISE and occlusion explain models that the compiler refuses. What the model gives is told from its
values: rows that are no probabilities are logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.compiler import NO_YES
from lrp_onnx.contract import SINGLE, Preprocessing
from lrp_onnx.errors import UnsupportedModelError
from lrp_onnx.evaluation.baselines import BASELINES, Baseline
from lrp_onnx.evaluation.methods import read_method
from lrp_onnx.evaluation.subject import CHUNK, Subject
from lrp_onnx.files.budget import Footprint
from lrp_onnx.files.description import Description, describe_model
from lrp_onnx.files.models import read_proto
from lrp_onnx.files.originals import check_original
from lrp_onnx.runtime.classes import Classes
from lrp_onnx.runtime.explanation import scores_of
from lrp_onnx.runtime.preprocess import assumed
from lrp_onnx.runtime.session import Session, element_type, open_session
from lrp_onnx.selection import Selection, selected


class NotRunnableError(UnsupportedModelError):
    """A model that no method explains, for its inputs or outputs."""

    by_running = False


BLACK_BOX_METHODS = tuple(name for name, method in BASELINES.items() if method.black_box)
"""Names of the methods that explain any model."""
SUM_OFF = 1e-3
"""How far a row of probabilities may be from a sum of 1."""


def is_black_box(method: str) -> bool:
    """Whether a method, as text, needs nothing of a model but its predictions.

    Raises:
        RuleError: there is no such method.
    """
    source = read_method(method).source
    return isinstance(source, Baseline) and (source.black_box or source.blind)


def subject_for(path: Path, methods: Sequence[str], **values: Any) -> Subject:
    """The model for these methods: only run where none of them needs more.

    Raises:
        RuleError: there is no such method.
    """
    kind = BlackBox if all(map(is_black_box, methods)) else Subject
    return kind(path, **values)


@dataclass(eq=False)
class BlackBox(Subject):
    """A model with one picture input and an output of scores, whatever is between them.

    Raises, when first used:
        ModelFileError: the runtime cannot load the file, or its runs take too much memory.
        NotRunnableError: its input or its outputs have other shapes.
    """

    @cached_property
    def forward(self) -> Session:
        """The model."""
        _ = self._footprint  # before the runtime sees the file
        return open_session(self.path, providers=self.provider, threads=self.threads)

    @cached_property
    def _footprint(self) -> Footprint:
        """What runs of the model take, which has passed the gate."""
        most = self.choices.get("max_memory")
        proto = read_proto(self.path)
        return check_original(proto, str(self.path), self.path.parent, max_memory=most)

    @cached_property
    def _bounded(self) -> set[tuple[int, ...]]:
        """Shapes of pictures whose runs take no more memory than they may."""
        return set()

    @cached_property
    def _picture(self) -> tuple[str, str, list[int | str | None]]:
        """Name, element type and shape of the input."""
        inputs = self.forward.runtime.get_inputs()
        shapes = {value.name: list(value.shape) for value in inputs}
        names = [n for n, s in shapes.items() if len(s) == 4 and {s[1], s[3]} & {1, 3}]
        if len(inputs) != 1 or not names:
            raise NotRunnableError(
                f"{self.path} cannot be explained, not even by methods that only run it:",
                [f"its inputs are {shapes}; one picture (N, C, H, W) or (N, H, W, C) is needed"],
            )
        kind, shape = self.forward.input_of(names[0])
        return names[0], kind, shape

    @property
    def input(self) -> str:
        return self._picture[0]

    @property
    def channels(self) -> int:
        shape = self._picture[2]
        return 3 if shape[1] not in (1, 3) else 1

    @cached_property
    def scores(self) -> tuple[str, str]:
        """(kind, name) of the output; the kind is told from its values for two pictures."""
        name = self._output
        noise = np.random.default_rng(0).normal(size=(2, *self._tensor))
        values = scores_of("logits", self._run(name, noise), self.selection)
        shares = bool(values.min() >= 0 and values.max() <= 1)
        if values.shape[1] == 1:
            return ("probability" if shares else "logit"), name
        sums_to_one = np.abs(values.sum(1) - 1).max() < SUM_OFF
        return ("probabilities" if sums_to_one and shares else "logits"), name

    @property
    def _output(self) -> str:
        """The output that is named, else the only one of scores."""
        outputs = {value.name: list(value.shape) for value in self.forward.runtime.get_outputs()}
        chosen, _ = selected(self.choices.get("explain") or "")
        names = [name for name, shape in outputs.items() if _is_scores(shape)]
        names = [name for name in outputs if name == chosen] if chosen else names
        if len(names) != 1:
            raise NotRunnableError(
                f"{self.path} cannot be explained, not even by methods that only run it:",
                [
                    f"its outputs are {outputs}; exactly one of shape (N, classes) or (N) is "
                    "needed: name it with --output-name"
                ],
            )
        return str(names[0])

    @property
    def _tensor(self) -> tuple[int, ...]:
        """The shape of one picture."""
        count = int(self._picture[2][self.channels] or 1)
        return (count, *self.size) if self.channels == 1 else (*self.size, count)

    def _run(self, output: str, x: NDArray[Any]) -> NDArray[Any]:
        """An output of pictures (N, …), in runs of a size that the model takes."""
        name, kind, shape = self._picture
        fixed = shape[0] if isinstance(shape[0], int) else None
        size = fixed or CHUNK
        if x.shape[1:] not in self._bounded:
            self._footprint.check(sizes={name: (size, *x.shape[1:])})
            self._bounded.add(x.shape[1:])
        values = []
        for first in range(0, len(x), size):
            part = x[first : first + size].astype(element_type(kind))
            missing = (fixed or len(part)) - len(part)
            filled = np.concatenate([part, np.repeat(part[-1:], missing, 0)])
            values.append(self.forward.run([output], {name: filled})[output][: len(part)])
        return np.concatenate(values)

    def run(self, pictures: NDArray[Any]) -> NDArray[Any]:
        return self._run(self.scores[1], pictures)

    @property
    def sources(self) -> Mapping[str, str]:
        given = {
            "preprocessing": self.choices.get("preprocessing"),
            "labels": self.choices.get("labels"),
        }
        asked = {name: "the options" for name, value in given.items() if value}
        return {**self.description.sources, **asked}

    @cached_property
    def selection(self) -> str:
        _, indices = selected(self.choices.get("explain") or "")
        if not indices:
            return ""
        shape = self._run(self._output, np.zeros((1, *self._tensor))).shape
        try:
            return str(Selection.of(indices, shape))
        except ValueError as error:
            raise UnsupportedModelError(
                f"{self.path} cannot be explained:", [f"the output '{self._output}': {error}"]
            ) from None

    @cached_property
    def _count(self) -> int:
        """How many classes there are."""
        kind, name = self.scores
        values = self._run(name, np.zeros((1, *self._tensor)))
        return int(scores_of(kind, values, self.selection).shape[1])

    @cached_property
    def description(self) -> Description:
        """What the model's metadata and the files beside it say."""
        return describe_model(
            self.forward.metadata,
            self.path,
            classes=self._count,
            channels=int(self._picture[2][self.channels] or 3),
        )

    @cached_property
    def classes(self) -> Classes:
        labels = tuple(self.choices.get("labels") or self.description.labels)
        if not labels and self.scores[0] in SINGLE:
            labels = NO_YES
        return Classes.of(self._count, labels)

    @property
    def preprocessing(self) -> Preprocessing:
        given = self.choices.get("preprocessing") or self.description.preprocessing
        spec = given or assumed(int(self._picture[2][self.channels] or 3))
        return spec.for_layout("NHWC" if self.channels == 3 else "NCHW")

    @property
    def assumed_preprocessing(self) -> bool:
        return not (self.choices.get("preprocessing") or self.description.preprocessing)

    @cached_property
    def size(self) -> tuple[int, int]:
        shape = self._picture[2]
        first = 1 if self.channels == 3 else 2
        sides = [side for side in shape[first : first + 2] if isinstance(side, int)]
        if len(sides) == 2:
            return sides[0], sides[1]
        stated = describe_model(self.forward.metadata, self.path).input_size
        size: tuple[int, int] | None = self.choices.get("input_size") or stated
        if size is None:
            raise NotRunnableError(
                f"{self.path} cannot be explained:",
                [f"its input has shape {shape}: give height and width by --input-size"],
            )
        return size


def _is_scores(shape: Sequence[int | str | None]) -> bool:
    """Whether a shape is (N, classes), (N, classes, 1, 1) or (N)."""
    return len(shape) in (1, 2, 4) and list(shape[2:]) in ([], [1, 1])
