"""What the outputs of a run say: scores, the place of what is explained, starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.contract import PREDICTED, Contract
from lrp_onnx.errors import ContractError, ImageError
from lrp_onnx.runtime.batches import Batch
from lrp_onnx.runtime.boxes import Boxes, Shares
from lrp_onnx.runtime.explanation import (
    SIMILARITY,
    WITHOUT_PROBABILITIES,
    kind_of,
    probabilities_of,
    ranked,
    scores_of,
)
from lrp_onnx.runtime.session import Arrays
from lrp_onnx.runtime.starts import Focus, Focused, Mask, Reference
from lrp_onnx.selection import Selection


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """Reads the outputs of a model as its contract has them."""

    contract: Contract

    @property
    def kind(self) -> str:
        """What the explained output holds, one of `explanation.KINDS`."""
        return kind_of(self.contract.outputs)[0]

    @property
    def name(self) -> str:
        """Name of the explained output."""
        return kind_of(self.contract.outputs)[1]

    def scores(
        self, outputs: Arrays, index: int, focused: Focused | None = None
    ) -> tuple[str, NDArray[np.float32], NDArray[np.float64]]:
        """(kind of the scores, the scores, probabilities) of a picture; the arrays are (classes,).

        Of a reference there is one score, the similarity to it.
        """
        values = outputs[self.name][index : index + 1]
        if isinstance(focused, Reference):
            cosine = np.array([focused.cosine(self.explained(outputs)[index])])
            return SIMILARITY, cosine.astype(np.float32), cosine
        if isinstance(focused, Mask):
            values = focused.scores(values[0])[None]
        scores = self._scores(values)
        chances = probabilities_of(self.kind, scores)
        part = Selection.read(self.contract.selection)
        mean = part is None or (part.several and not part.largest)
        kind = self.kind if mean or self.kind != "features" else "scores"
        return kind, scores[0].astype(np.float32), chances[0]

    def _scores(self, values: NDArray[Any]) -> NDArray[Any]:
        """The scores (N, classes) in the values of the explained output.

        Raises:
            ContractError: they are of another number of classes than the file states.
        """
        classes = self.contract.classes
        try:
            scores = scores_of(self.kind, values, self.contract.selection)
        except (ValueError, IndexError) as error:
            raise ContractError(
                f"the output '{self.name}' of shape {values.shape} does not hold "
                f"'{self.contract.selection}' ({error}): compile the file again"
            ) from error
        if scores.shape[1] != classes:
            raise ContractError(
                f"the output '{self.name}' of shape {values.shape} has {scores.shape[1]} classes, "
                f"and the file states {classes}: compile it again"
            )
        return scores

    def explained(self, outputs: Arrays) -> NDArray[np.float64]:
        """What is explained, in the shape of a start, (N, …)."""
        values = outputs[self.name].astype(np.float64)
        selection = Selection.read(self.contract.selection)
        values = values if selection is None else selection.scores(values)
        return values.reshape(len(values), *self.contract.start_shape)

    def place(
        self, outputs: Arrays, index: int, target: int, size: tuple[int, int]
    ) -> Shares | None:
        """Where what is explained of a picture is: some pixels of the output, or a box; None where
        that is not known. `size` is (height, width) of the model's input.
        """
        selection = Selection.read(self.contract.selection)
        if selection is None:
            return None
        values = outputs[self.name][index]
        if not self.contract.boxes:
            return selection.place(values, target)
        box = selection.box(values, target)
        boxes = Boxes.of(self.contract.boxes, self.contract.outputs)
        if box is None or boxes.output not in outputs:
            return None
        rows = outputs[boxes.output]  # of anchors that are the same for all pictures there is one
        return boxes.place(rows[min(index, len(rows) - 1)], box, size)

    def check(self, focus: Focus) -> None:
        """Raise ContractError where the output cannot have masks."""
        shape = self.contract.start_shape
        if focus.masks and (len(shape) != 3 or shape[1:] == (1, 1)):
            raise ContractError(
                "a mask is for all of an output (N, C, H, W), which --output-name names; explained "
                f"is '{self.name}{self.contract.selection}', which holds {self.kind} and takes a "
                f"start of shape {('N', *shape)}"
            )

    def focused(
        self,
        batch: Batch,
        outputs: Arrays,
        focus: Focus,
        on_fault: Callable[[Path, ImageError], None] | None,
    ) -> list[Focused | None]:
        """What of every picture's output is explained; None where that cannot be told.

        Raises:
            ImageError: a mask cannot be used, and `on_fault` is None.
        """
        found: list[Focused | None] = []
        for index, path in enumerate(batch.paths):
            photo, box, values = batch.pictures[index], batch.boxes[index], outputs[self.name]
            try:
                found.append(focus.at(index, photo, box, values[index]))
            except ImageError as fault:
                if on_fault is None:
                    raise
                on_fault(path, fault)
                found.append(None)
        return found

    def starts(
        self, outputs: Arrays, targets: NDArray[np.int64], found: Sequence[Focused | None]
    ) -> NDArray[np.float32]:
        """Relevance to start from, one row for every target; zeros for what is not known."""
        start = self.contract.start_value
        starts = np.zeros((len(targets), *self.contract.start_shape), np.float32)
        for row, target in enumerate(targets):
            index = 0 if self.contract.many_targets else row
            focused = found[index] if index < len(found) else None
            if isinstance(focused, Reference):
                starts[row] = focused.start(self.explained(outputs)[index], start)
            elif focused is not None:
                _, scores, _ = self.scores(outputs, index, focused)
                chosen = int(target)
                if chosen < 0:
                    chosen = int(ranked(scores)[PREDICTED - chosen])
                starts[row] = focused.start(outputs[self.name][index], self.kind, start, chosen)
        return starts

    def start_value(
        self,
        kind: str,
        scores: NDArray[np.float64],
        probabilities: NDArray[np.float64],
        target: int,
    ) -> float | None:
        """The sum of the start relevance; None where the model's outputs do not tell it."""
        value = self.contract.start_value
        if value == "one":
            return 1.0
        if value == "probability":
            return float(probabilities[target]) if kind not in WITHOUT_PROBABILITIES else None
        if kind not in ("logits", "logit", "features", "scores"):
            return None
        if value == "contrastive" and len(scores) > 1 and kind != "logit":
            rest = np.delete(scores, target)
            with np.errstate(invalid="ignore"):  # of infinite logits it is NaN
                weights = np.exp(rest - rest.max())
                return float(scores[target] - (rest * weights).sum() / weights.sum())
        return float(scores[target])
