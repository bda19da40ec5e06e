"""The readers of products of matrices other than linear layers, as attention has them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lrp_onnx.model.graph import Graph
from lrp_onnx.model.readers.reading import Unreadable, data_inputs, known_sizes, needed_constant
from lrp_onnx.plan import kinds

MOVES = (
    *("Cast", "DequantizeLinear", "Dropout", "Expand", "Identity", "QuantizeLinear", "Reshape"),
    *("Squeeze", "Transpose", "Unsqueeze"),
)
MIXES = ("Add", "BatchNormalization", "Conv", "Mul", "Div", "MatMul")
"""Operators that may lie between a softmax and the product with the values: moves, rounding,
and with constants what mixes the heads ("talking heads").
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


def constant_product(graph: Graph, node: ir.Node, slot: int) -> kinds.Matrices:
    """A MatMul of a tensor and the constant in `slot`, which may be others for every head."""
    data = node.inputs[1 - slot]
    sizes, output = known_sizes(data, "one of its factors"), known_sizes(node.outputs[0], "it")
    constant = np.asarray(needed_constant(graph, node, slot, "constant factor"), np.float64)
    matrices = constant.reshape((1,) * (len(sizes) + 1 - constant.ndim) + constant.shape)
    if len(sizes) < 2 or matrices.ndim != len(sizes) + 1 or len(matrices) != 1:
        raise Unreadable(
            f"it multiplies {sizes} per picture by constants of shape {constant.shape}: matrices "
            "that are the same for every picture can be explained"
        )
    if sizes[:-2] != output[:-2]:
        raise Unreadable(
            f"it multiplies {sizes} per picture by more constants, {constant.shape}: one matrix "
            "for each of its own can be explained"
        )
    return kinds.Matrices(matrices[0], left=slot == 0)


def _is_softmax(graph: Graph, value: ir.Value | None) -> bool:
    """Whether a softmax computes `value`, apart from moves, from what mixes heads, and from a
    division by its own sum.
    """
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in (*MOVES, *MIXES):
        operands = data_inputs(graph, node)
        whole = len(operands) == 1 or _is_share(graph, node, operands)
        node = operands[0].producer() if whole else None
    return node is not None and node.op_type == "Softmax"


def _is_share(graph: Graph, node: ir.Node, operands: list[ir.Value]) -> bool:
    """Whether a node divides a tensor by its own sum."""
    divisor = operands[-1].producer() if node.op_type == "Div" else None
    while divisor is not None and divisor.op_type in MOVES:
        divisor = data_inputs(graph, divisor)[0].producer()
    return (
        divisor is not None and divisor.op_type == "ReduceSum" and divisor.inputs[0] is operands[0]
    )
