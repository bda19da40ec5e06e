"""The two ends of a classifier: the picture that goes in, and the logits where relevance starts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from lrp_onnx.contract import INTERNAL
from lrp_onnx.errors import UnsupportedModelError
from lrp_onnx.model.graph import Graph, label, name_of, shape_of

TAILS = ("Softmax", "LogSoftmax", "Sigmoid")
"""What may follow the logits; relevance starts before it."""
ROUNDING = ("QuantizeLinear", "DequantizeLinear", "Cast", "Identity")
"""What may follow those in turn."""
PICTURES = (
    ir.DataType.FLOAT,
    ir.DataType.FLOAT16,
    ir.DataType.BFLOAT16,
    ir.DataType.UINT8,
    ir.DataType.INT8,
)
"""Element types of a picture input."""
MEAN = f"{INTERNAL}explained"
"""The mean of a feature map, where that is explained."""


@dataclass(frozen=True, slots=True)
class Head:
    """The two ends of a classifier, by the names of their tensors."""

    picture: str
    output: str
    """The graph output that is explained."""
    logits: str
    """Where relevance starts, (N, classes)."""
    holds: str
    """What the output holds: ``logits``, ``probabilities``, ``log-probabilities`` or ``other``."""
    averaged: bool = False
    """Whether the output is a feature map: the logits are its mean, which `append_mean` makes."""


def find_head(graph: Graph, *, source: str, output: str | None = None) -> Head:
    """The head of a normalised model.

    Args:
        graph: a normalised model.
        source: how errors name the model.
        output: name of the graph output to explain; needed only where
            several could be meant. A feature map is explained through
            its mean over height and width: its channels are the classes.

    Raises:
        UnsupportedModelError: there is not exactly one picture
            input, or not exactly one output that could be meant.
    """
    picture = name_of(_find_input(graph, source))
    if output is not None:
        candidates = [v for v in graph.outputs if name_of(v) == output]
        wanted = (
            f"none is called {output!r}"
            if not candidates
            else f"'{output}' is neither scores nor a feature map"
        )
    else:
        candidates = [v for v in graph.outputs if _is_scores(v)]
        wanted = "exactly one of shape (N, classes) is needed"
    if output is not None and len(candidates) == 1 and _is_feature_map(candidates[0]):
        return Head(picture, output, MEAN, "other", averaged=True)
    if len(candidates) != 1 or not _is_scores(candidates[0]):
        listed = ", ".join(f"'{name_of(v)}' {shape_of(v)}" for v in graph.outputs)
        raise UnsupportedModelError(
            f"{source} cannot be explained:",
            [
                f"its outputs are {listed}: {wanted}; name the output to explain "
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
    held = {"Softmax": "probabilities", "LogSoftmax": "log-probabilities"}
    return Head(picture, name_of(value), name_of(logits), held.get(node.op_type, "other"))


def append_mean(graph: Graph, head: Head) -> Graph:
    """The graph with the mean of the feature map that
    `head` explains, (N, C); itself where it explains none.
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
    """The picture input; UnsupportedModelError where there is not exactly one."""
    inputs = graph.inputs
    if len(inputs) != 1:
        listed = ", ".join(f"'{name_of(v)}' {shape_of(v)}" for v in inputs) or "none"
        raise UnsupportedModelError(
            f"{source} cannot be explained:",
            [
                f"it has {len(inputs)} inputs ({listed}): only models of one picture input can; "
                "fix the others to constants before the export"
            ],
        )
    if inputs[0].dtype not in PICTURES:
        name = inputs[0].dtype.name.lower() if inputs[0].dtype else "unknown"
        fault = (
            f"the input '{name_of(inputs[0])}' is of type {name}: "
            "float32, float16, bfloat16, uint8 and int8 can be"
        )
        raise UnsupportedModelError(
            f"{source} cannot be explained:", [f"{fault} explained; export it in float32"]
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
                "give height and width by --input-size, or export it anew"
            ],
        )
    return inputs[0]


def _is_feature_map(value: ir.Value) -> bool:
    shape = shape_of(value)
    return shape is not None and len(shape) == 4 and None not in shape[1:] and (shape[1] or 0) >= 2


def _tail(value: ir.Value) -> ir.Node | None:
    """The node behind the logits: a normalisation, or the rounding of an output of integers."""
    node = value.producer()
    rounding = node if node is not None and node.op_type == "QuantizeLinear" else None
    while node is not None and node.op_type in ROUNDING and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node if node is not None and node.op_type in TAILS else rounding


def _is_scores(value: ir.Value) -> bool:
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
