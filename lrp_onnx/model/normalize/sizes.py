"""The size of the picture, and limits on it; `files.budget` bounds what is computed from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import onnx_ir as ir

from lrp_onnx.errors import ChoiceError
from lrp_onnx.model.graph import Graph
from lrp_onnx.model.shapes import shape_of
from lrp_onnx.notation import for_axes
from lrp_onnx.plan.kinds import MOST_AXES

MOST_STATED = 1 << 40
"""Largest batch that a file may state; products of larger ones overflow in ONNX."""
LARGEST_PICTURE = 1 << 25
"""Most elements of one picture: three channels of about 3,300 × 3,300 pixels."""
LONGEST_SIDE = 1 << 15
"""Largest size of the picture along any axis."""


def fix_size(graph: Graph, input_size: Sequence[int], *, source: str) -> Graph:
    """The graph with its input's symbolic height and width, or the sizes of another input, fixed to
    `input_size`, in place; one number is for all of them.

    Raises:
        ChoiceError: the input has another fixed size.
    """
    model = graph.model
    for value in graph.inputs:
        shape = shape_of(value)
        if shape is None or not 3 <= len(shape) <= 2 + MOST_AXES:
            continue
        size = for_axes(input_size, len(shape) - 2)
        channels_last = shape[1] is None and shape[-1] in (1, 3)
        channels = shape[1] or _channels_of(value)
        sizes = (*size, shape[-1]) if channels_last else (channels, *size)
        if len(sizes) != len(shape) - 1 or any(
            old not in (None, new) for old, new in zip(shape[1:], sizes, strict=True)
        ):
            raise ChoiceError(
                f"{source} cannot be compiled:",
                [
                    f"its input '{value.name}' has the fixed shape {shape}, "
                    f"which is not {'×'.join(map(str, size))}: leave --input-size out"
                ],
            )
        assert value.shape is not None
        value.shape = ir.Shape([value.shape[0], *sizes])
    for node in model.graph:
        for output in node.outputs:
            if not output.is_graph_output():
                output.shape = None
    return graph


def _channels_of(picture: ir.Value) -> int | None:
    """The channels that the convolutions take which read a picture (N, C, H, W); None where none
    does.
    """
    for node, place in picture.uses():
        if node.op_type != "Conv" or place != 0 or len(node.inputs) < 2:
            continue
        weight, stated = node.inputs[1], node.attributes.get("group")
        groups = 1 if stated is None else stated.value
        sizes = shape_of(weight) if weight is not None else None
        if sizes is not None and len(sizes) > 2 and sizes[1] and isinstance(groups, int):
            return sizes[1] * groups
    return None


def oversized(graph: Graph) -> Iterator[str]:
    """One message for an input that is larger than the limits, and for every node whose output has
    a size below 0.
    """
    model = graph.model
    for value in model.graph.inputs:
        sizes = [size for size in shape_of(value) or () if size is not None]
        if prod(sizes) > LARGEST_PICTURE or max(sizes, default=0) > LONGEST_SIDE:
            yield (
                f"the input '{value.name}' has the shape {shape_of(value)}: "
                f"up to {LARGEST_PICTURE:,} elements, and {LONGEST_SIDE:,} a side, can be explained"
            )
    for node in model.graph:
        for value in node.outputs:
            shape = shape_of(value) or ()
            sizes = [size for size in shape[1:] if size is not None]
            if any(size < 0 for size in sizes):
                yield (
                    f"{node.op_type} '{node.name}' makes a tensor of shape {sizes} per picture: "
                    "the input is too small for it, or the file is damaged"
                )
            elif shape and (shape[0] or 0) > MOST_STATED:
                yield f"{node.op_type} '{node.name}' makes a batch of {shape[0]:,}: it is damaged"
