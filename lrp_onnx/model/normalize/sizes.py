"""The size of the picture, and of what is computed from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import onnx_ir as ir

from lrp_onnx.errors import UnsupportedModelError
from lrp_onnx.model.graph import Graph
from lrp_onnx.model.shapes import shape_of

LARGEST_PICTURE = 1 << 25
"""Numbers in one picture; three channels of 3,300 × 3,300 pixels."""
LONGEST_SIDE = 1 << 15
LARGEST_TENSOR = 1 << 28
"""Elements of one picture's largest activation; 64 channels at 2,048 × 2,048 pixels."""


def fix_size(graph: Graph, input_size: Sequence[int], *, source: str) -> Graph:
    """The graph for pictures of the height and width `input_size`, which its input leaves open.

    Raises:
        UnsupportedModelError: the input has another size already.
    """
    model = graph.model
    height, width = input_size
    pictures = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    for value in pictures:
        shape = shape_of(value)
        if shape is None or len(shape) != 4:
            continue
        last = shape[1] is None and shape[3] in (1, 3)
        wanted = (
            (shape[0], height, width, shape[3]) if last else (shape[0], shape[1], height, width)
        )
        if any(have not in (None, want) for have, want in zip(shape[1:], wanted[1:], strict=True)):
            raise UnsupportedModelError(
                f"{source} cannot be compiled:",
                [
                    f"its input '{value.name}' has the fixed shape {shape}, "
                    f"which is not {height}×{width}"
                ],
            )
        assert value.shape is not None
        value.shape = ir.Shape([value.shape[0], *wanted[1:]])
    for node in model.graph:
        for output in node.outputs:
            if not output.is_graph_output():
                output.shape = None
    return graph


def oversized(graph: Graph) -> Iterator[str]:
    """One line for the input and for every node whose
    output has more numbers than can be explained.
    """
    model = graph.model
    for value in model.graph.inputs:
        sizes = [size for size in shape_of(value) or () if size is not None]
        if prod(sizes) > LARGEST_PICTURE or max(sizes, default=0) > LONGEST_SIDE:
            yield (
                f"the input '{value.name}' has the shape {shape_of(value)}: "
                f"up to {LARGEST_PICTURE:,} numbers, and {LONGEST_SIDE:,} a side, can be explained"
            )
    for node in model.graph:
        for value in node.outputs:
            sizes = [size for size in (shape_of(value) or ())[1:] if size is not None]
            if prod(sizes) > LARGEST_TENSOR or any(size < 0 for size in sizes):
                yield (
                    f"{node.op_type} '{node.name}' makes {sizes} numbers of every picture: "
                    f"up to {LARGEST_TENSOR:,} can be explained"
                )
