"""Multiply-adds of an ONNX file, by operator: the least that any explanation can cost."""

from __future__ import annotations

from collections import Counter
from math import prod

import onnx


def multiply_adds(model: onnx.ModelProto) -> Counter[str]:
    """Operator → multiply-adds for one picture, what is
    computed once from weights apart. All sizes but those of batches are known.
    """
    one = onnx.ModelProto()
    one.CopyFrom(model)
    for dim in (d for v in one.graph.input for d in v.type.tensor_type.shape.dim if d.dim_param):
        dim.dim_value = 1
    # Transformers compute the shapes that they reshape to: `data_prop` follows the numbers.
    graph = onnx.shape_inference.infer_shapes(one, data_prop=True).graph
    shapes = {v.name: _sizes(v) for v in (*graph.input, *graph.value_info, *graph.output)}
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    optional = {value.name for value in graph.input}
    constant = {tensor.name for tensor in graph.initializer} - optional
    found: Counter[str] = Counter()
    for node in graph.node:
        if all(name in constant for name in node.input if name):
            constant.update(node.output)
            continue
        if node.op_type == "Conv":  # every output element sums over C/group × k × k
            found["Conv"] += prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])
        elif node.op_type == "ConvTranspose":  # every input element goes to O/group × k × k
            found["ConvTranspose"] += prod(shapes[node.input[0]]) * prod(shapes[node.input[1]][1:])
        elif node.op_type in ("Gemm", "MatMul"):
            found["Gemm"] += prod(shapes[node.output[0]]) * _inner(node, shapes)
    return found


def _sizes(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]


def _inner(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> int:
    turned = any(a.name == "transA" and a.i for a in node.attribute)
    return shapes[node.input[0]][0 if turned else -1]
