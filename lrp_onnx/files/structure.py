"""Nodes of a graph that nobody vouches for, those in inner graphs included, and what needs what."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from math import prod

import onnx
from onnx import AttributeProto

STANDARD = ("", "ai.onnx")
"""Names of the domain of the standard operators."""
MOST_NODES = 50_000
"""Largest number of nodes after functions are inlined; ResNet-152 has about 500."""


def standard(node: onnx.NodeProto) -> str:
    """The standard operator that a node is; empty where it is one of another domain."""
    return node.op_type if node.domain in STANDARD else ""


def opset_of(proto: onnx.ModelProto) -> int:
    """The opset of the standard operators; 0 where none is stated."""
    return max((o.version for o in proto.opset_import if o.domain in STANDARD), default=0)


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


def read_by(node: onnx.NodeProto) -> Iterator[str]:
    """The tensors that a node reads, and all nodes in the graphs that it holds."""
    for inner in nested(node):
        yield from inner.input


def expanded(proto: onnx.ModelProto) -> int | None:
    """The number of nodes after functions are inlined; None if functions call each other in a
    circle, or more than 100 deep.
    """
    bodies = {(f.domain, f.name, f.overload): f.node for f in proto.functions}
    sizes: dict[tuple[str, str, str], int] = {}
    active: set[tuple[str, str, str]] = set()

    def size(nodes: Iterable[onnx.NodeProto]) -> int | None:
        total = 0
        for node in (inner for one in nodes for inner in nested(one)):
            key = (node.domain, node.op_type, node.overload)
            if key not in bodies:
                total += 1
                continue
            if key in active or len(active) > 100:
                return None
            if key not in sizes:
                active.add(key)
                inner = size(bodies[key])
                active.discard(key)
                if inner is None:
                    return None
                sizes[key] = inner
            total += sizes[key]
        return total

    return size(proto.graph.node)


def behind(graph: onnx.GraphProto, names: Collection[str]) -> frozenset[str]:
    """Outputs of the nodes that none of the tensors `names` depends on."""
    producers = {name: index for index, n in enumerate(graph.node) for name in n.output}
    needed, todo = set[int](), [*names]
    while todo:
        index = producers.get(todo.pop())
        if index is not None and index not in needed:
            needed.add(index)
            todo += read_by(graph.node[index])
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
