"""What the modules of heads share: a model's ends, and the operators that may follow logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from lrp_onnx.errors import UnsupportedModelError
from lrp_onnx.model.graph import label, shape_of
from lrp_onnx.selection import Selection

NORMALISERS = ("Softmax", "LogSoftmax", "Sigmoid")
"""Operators that make probabilities of logits; relevance starts before the first of them."""
MOVES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast", "Dropout")
"""Operators that may stand between them and change no value."""
MEANINGS = {
    ("logits", "Softmax"): "probabilities",
    ("logits", "LogSoftmax"): "log-probabilities",
    ("logits", "Sigmoid"): "sigmoids",
    ("probabilities", "Log"): "log-probabilities",
    ("log-probabilities", "Exp"): "probabilities",
    ("logit", "Sigmoid"): "probability",
}
"""What an operator makes of what it is given; anything else is ``other``."""


@dataclass(frozen=True, slots=True)
class Head:
    """The ends of a model, as names of tensors."""

    picture: str
    """The picture input."""
    output: str
    """The graph output that is explained."""
    logits: str
    """The tensor that relevance starts from, (N, classes)."""
    holds: str
    """Meaning of the output: see `contract.Contract.outputs`."""
    sources: tuple[tuple[str, float], ...] = ()
    """The model's own tensors that `logits`, which `append_logits` then adds, is made of, with
    weights: their weighted sum (the members of an ensemble; mostly it is one tensor of weight 1)
    is, of a feature map, taken as its mean over height and width, of other tensors as its elements
    in their order. Of one logit it is that logit's negative and the logit itself, the classes no
    and yes. Empty where the model has such a tensor.
    """
    selection: Selection | None = None
    """The part of the output that is explained; None for all of it."""
    taken: Selection | None = None
    """The same part in the tensor of `sources`."""
    start: tuple[int, ...] = ()
    """The shape of a start without its batch; empty for (classes,)."""
    is_ranked: bool = False
    """Whether the order of the logits may be another than that of the output's values, which then
    decide what class is the predicted one. Behind a softmax or sigmoid it may, as different logits
    can give equal values: two ones, or zeros.
    """


def refused(source: str, fault: str) -> UnsupportedModelError:
    """The error of a model called `source` whose head cannot be explained."""
    return UnsupportedModelError(f"{source} cannot be explained:", [fault])


def check_axes(nodes: Sequence[ir.Node], source: str, axis: int = 1) -> None:
    """Raise UnsupportedModelError where a normaliser does not go over the classes along `axis`."""
    faults = []
    for node in nodes:
        if node.op_type not in ("Softmax", "LogSoftmax"):
            continue
        stated = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
        rank = len(shape_of(node.inputs[0]) or ()) if node.inputs[0] is not None else 0
        if (stated + rank if stated < 0 else stated) != axis:
            faults.append(f"{label(node)} normalises over axis {stated}, not over the classes")
    if faults:
        raise UnsupportedModelError(f"{source} cannot be explained:", faults)


def is_by_a_positive_number(node: ir.Node) -> bool:
    """Whether a node multiplies or divides its first input by one positive number."""
    return (number_of(node) or 0.0) > 0


def number_of(node: ir.Node) -> float | None:
    """The one number that a Mul or Div multiplies its first input by; None for none."""
    number = number_in(node.inputs[1]) if len(node.inputs) > 1 else None
    if number is None or node.op_type == "Mul":
        return number
    return 1 / number if number else None


def number_in(value: ir.Value | None) -> float | None:
    """The number that a constant of one element holds; None of anything else."""
    constant = value.const_value if value is not None else None
    if constant is None or constant.size != 1:
        return None
    return float(constant.numpy().item())
