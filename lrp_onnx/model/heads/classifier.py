"""The ends of a classifier: its picture input, and the logits where relevance starts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from lrp_onnx.contract import INTERNAL
from lrp_onnx.errors import UnsupportedModelError
from lrp_onnx.model.graph import Graph, label, name_of, shape_of

TAILS = ("Softmax", "LogSoftmax", "Sigmoid")
"""Operators that may follow the logits; relevance starts before them."""
ROUNDING = ("QuantizeLinear", "DequantizeLinear", "Cast", "Identity")
"""Operators that may follow the logits or one of `TAILS`."""
PICTURES = (
    ir.DataType.FLOAT,
    ir.DataType.FLOAT16,
    ir.DataType.BFLOAT16,
    ir.DataType.UINT8,
    ir.DataType.INT8,
)
"""Element types of a picture input."""
MEAN = f"{INTERNAL}explained"
"""Name of the mean of a feature map, for a model that is explained through one."""


@dataclass(frozen=True, slots=True)
class Head:
    """The ends of a classifier, as names of tensors."""

    picture: str
    """The picture input."""
    output: str
    """The graph output that is explained."""
    logits: str
    """The tensor that relevance starts from, (N, classes)."""
    holds: str
    """Meaning of the output: ``logits``, ``probabilities``, ``log-probabilities``, ``features`` or
    ``other``.
    """
    averaged: bool = False
    """Whether the output is a feature map; the logits are then its mean, which `append_mean` adds.
    """


def find_head(graph: Graph, *, source: str, output: str | None = None) -> Head:
    """The head of a normalised model.

    Args:
        graph: a normalised model.
        source: name of the model in errors.
        output: name of the graph output to explain; needed only if several have the shape
            (N, classes) or none has. A feature map is explained through its mean over height and
            width: its channels are the classes.

    Raises:
        UnsupportedModelError: there is not exactly one picture input, or not exactly one output
            that can be explained.
    """
    picture = name_of(_find_input(graph, source))
    if output is not None:
        candidates = [v for v in graph.outputs if name_of(v) == output]
        reason = f"none is called {output!r}"
        if candidates:
            reason = f"'{output}' is neither scores nor a feature map"
    else:
        candidates = [v for v in graph.outputs if _is_scores(v)]
        reason = "exactly one of shape (N, classes) is needed"
    if output is not None and len(candidates) == 1 and _is_feature_map(candidates[0]):
        return Head(picture, output, MEAN, "features", averaged=True)
    if len(candidates) != 1 or not _is_scores(candidates[0]):
        listed = ", ".join(f"'{name_of(v)}' {shape_of(v)}" for v in graph.outputs)
        raise UnsupportedModelError(
            f"{source} cannot be explained:",
            [
                f"its outputs are {listed}: {reason}; name the output to explain "
                "with --output-name, or export the classifier with its head"
            ],
        )
    value = candidates[0]
    node = _tail(value)
    if node is None:
        return Head(picture, name_of(value), name_of(value), "logits")
    axis = node.attributes["axis"].value if "axis" in node.attributes else -1
    if node.op_type in ("Softmax", "LogSoftmax") and axis not in (-1, 1):
        raise UnsupportedModelError(
            f"{source} cannot be explained:",
            [f"{label(node)} normalises over axis {axis}, not over the classes"],
        )
    logits = node.inputs[0]
    assert logits is not None
    meanings = {"Softmax": "probabilities", "LogSoftmax": "log-probabilities"}
    return Head(picture, name_of(value), name_of(logits), meanings.get(node.op_type, "other"))


def append_mean(graph: Graph, head: Head) -> Graph:
    """A copy of the graph with the mean, (N, C), of the feature map that `head` names; the graph
    itself if `head` names none.
    """
    if not head.averaged:
        return graph
    model = graph.model.clone()
    features = next(value for value in model.graph.outputs if value.name == head.output)
    name = f"{head.logits}.axes"
    axes = ir.Value(name=name, const_value=ir.tensor([2, 3], name=name, dtype=ir.DataType.INT64))
    axes.shape, axes.dtype = ir.Shape([2]), ir.DataType.INT64
    model.graph.register_initializer(axes)
    node = ir.node("ReduceMean", [features, axes], attributes={"keepdims": 0}, name=head.logits)
    (mean,) = node.outputs
    assert features.shape is not None
    mean.name, mean.type, mean.shape = (
        head.logits,
        features.type,
        ir.Shape(list(features.shape)[:2]),
    )
    model.graph.append(node)
    return replace(graph, model=model)


def _find_input(graph: Graph, source: str) -> ir.Value:
    """The picture input.

    Raises:
        UnsupportedModelError: there is not exactly one input, or it is not a picture.
    """
    inputs = graph.inputs
    if len(inputs) != 1:
        listed = ", ".join(f"'{name_of(v)}' {shape_of(v)}" for v in inputs) or "none"
        raise UnsupportedModelError(
            f"{source} cannot be explained:",
            [
                f"it has {len(inputs)} inputs ({listed}): only models with one picture input can "
                "be explained; replace the others by constants before the export"
            ],
        )
    if inputs[0].dtype not in PICTURES:
        name = inputs[0].dtype.name.lower() if inputs[0].dtype else "unknown"
        raise UnsupportedModelError(
            f"{source} cannot be explained:",
            [
                f"the input '{name_of(inputs[0])}' is of type {name}: float32, float16, bfloat16, "
                "uint8 and int8 can be explained; export it in float32"
            ],
        )
    shape = shape_of(inputs[0])
    where = f"the input '{name_of(inputs[0])}' has shape {shape}"
    if shape is None or len(shape) != 4:
        raise UnsupportedModelError(
            f"{source} cannot be explained:",
            [f"{where}: only pictures (N, C, H, W) can be explained"],
        )
    if None in shape[1:]:
        raise UnsupportedModelError(
            f"{source} cannot be explained:",
            [
                f"{where}: only the batch may be symbolic; "
                "give height and width by --input-size, or export it with a fixed size"
            ],
        )
    return inputs[0]


def _is_feature_map(value: ir.Value) -> bool:
    """Whether the value has the shape (N, C, H, W), with at least two channels."""
    shape = shape_of(value)
    return shape is not None and len(shape) == 4 and None not in shape[1:] and (shape[1] or 0) >= 2


def _tail(value: ir.Value) -> ir.Node | None:
    """The node after the logits: one of `TAILS`, or the QuantizeLinear of an integer output."""
    node = value.producer()
    rounding = node if node is not None and node.op_type == "QuantizeLinear" else None
    while node is not None and node.op_type in ROUNDING and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node if node is not None and node.op_type in TAILS else rounding


def _is_scores(value: ir.Value) -> bool:
    """Whether the value has the shape (N, classes), with at least two classes."""
    shape = shape_of(value)
    node = value.producer()
    if (
        shape is not None
        and len(shape) == 2
        and shape[1] is None
        and node is not None
        and node.op_type in TAILS
        and node.inputs[0] is not None
    ):
        shape = shape_of(node.inputs[0])
    return shape is not None and len(shape) == 2 and shape[1] is not None and shape[1] >= 2
