"""The reader of a product of two activations, as attention has them."""

from __future__ import annotations

import onnx_ir as ir

from lrp_onnx.model.graph import Graph
from lrp_onnx.model.readers.reading import Unreadable, data_inputs, known_sizes
from lrp_onnx.plan import kinds

MOVES = ("Cast", "Dropout", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
MIXES = ("Add", "Mul", "Div", "MatMul")
"""Operators that may lie between a softmax and the product with the values: moves, and with
constants what mixes the heads ("talking heads").
"""


def matrix_product(graph: Graph, node: ir.Node) -> kinds.MatrixProduct:
    """A MatMul of two tensors that depend on the picture."""
    first, second = (known_sizes(value, "one of its factors") for value in node.inputs)
    if len(first) != len(second) or len(first) < 2:
        raise Unreadable(
            f"it multiplies tensors of shapes {first} and {second} per picture: their ranks must "
            "be equal, and at least 2"
        )
    pairs = list(zip(first[:-2], second[:-2], strict=True))
    repeated = tuple(
        tuple(axis + 1 for axis, pair in enumerate(pairs) if pair[own] == 1 != pair[1 - own])
        for own in (0, 1)
    )
    weights = [index for index, value in enumerate(node.inputs) if _is_softmax(graph, value)]
    attention = weights[0] if len(weights) == 1 else None
    return kinds.MatrixProduct(attention, (repeated[0], repeated[1]))


def _is_softmax(graph: Graph, value: ir.Value | None) -> bool:
    """Whether a softmax computes `value`, apart from moves and from what mixes heads."""
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in (*MOVES, *MIXES):
        operands = data_inputs(graph, node)
        node = operands[0].producer() if len(operands) == 1 else None
    return node is not None and node.op_type == "Softmax"
