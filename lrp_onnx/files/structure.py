"""Nodes of a graph that nobody vouches for, those in inner graphs included, and what needs what."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from math import prod

import onnx
from onnx import AttributeProto

MOST_NODES = 50_000
"""Largest number of nodes after functions are inlined; ResNet-152 has about 500."""


def standard(node: onnx.NodeProto) -> str:
    """The standard operator that a node is; empty where it is one of another domain."""
    return node.op_type if node.domain in ("", "ai.onnx") else ""


def graphs_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a node holds itself: those of control flow."""
    for attribute in node.attribute:
        yield from [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs


def nested(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """A node, and all nodes in the graphs that it holds."""
    yield node
    for graph in graphs_of(node):
        for inner in graph.node:
            yield from nested(inner)


def behind(graph: onnx.GraphProto, names: Collection[str]) -> frozenset[str]:
    """Outputs of the nodes that none of the tensors `names` depends on."""
    producers = {name: index for index, n in enumerate(graph.node) for name in n.output}
    needed, todo = set[int](), [*names]
    while todo:
        index = producers.get(todo.pop())
        if index is not None and index not in needed:
            needed.add(index)
            todo += [name for n in nested(graph.node[index]) for name in n.input]
    return frozenset(name for name, index in producers.items() if index not in needed)


def where(node: onnx.NodeProto) -> str:
    """The name of a node in errors: its operator, and its name or that of its output."""
    name = node.name or next(iter(node.output), "")
    return f"{node.op_type} '{name}'"


def bytes_of(tensor: onnx.TypeProto.Tensor) -> int | None:
    """Bytes of a tensor of a stated type; None where not every size is stated."""
    if not tensor.HasField("shape") or any(
        not dim.HasField("dim_value") for dim in tensor.shape.dim
    ):
        return None
    try:
        item = int(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize)
    except KeyError:
        item = 8
    return item * prod(max(int(dim.dim_value), 0) for dim in tensor.shape.dim)
