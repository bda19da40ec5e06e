"""DepthToSpace and SpaceToDepth as moves of elements, by their definitions in ONNX: Reshape,
Transpose, Reshape.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lrp_onnx.model.graph import Graph, name_of, shape_of

ORDERS = {"DCR": (0, 3, 4, 1, 5, 2), "CRD": (0, 1, 4, 2, 5, 3)}
"""Mode → order of the axes of the six-dimensional tensor between."""
TO_DEPTH = (0, 3, 5, 1, 2, 4)
"""The same order of SpaceToDepth."""


def depth_to_space_as_moves(graph: Graph) -> Graph:
    """The graph with every DepthToSpace and SpaceToDepth of a known size, as pixel shuffles are
    exported, as moves of elements.
    """
    for node in [node for node in graph.nodes if node.op_type in ("DepthToSpace", "SpaceToDepth")]:
        parts = _parts(graph, node)
        if parts:
            ir.convenience.replace_nodes_and_values(
                graph.model.graph, node, [node], parts, node.outputs, parts[-1].outputs
            )
    return graph


def _parts(graph: Graph, node: ir.Node) -> list[ir.Node]:
    """Nodes that compute what `node` does; none where that is not known."""
    value, block = node.inputs[0], node.attributes.get_int("blocksize", default=0)
    shape = shape_of(value) if value is not None else None
    if value is None or shape is None or len(shape) != 4 or block < 1:
        return []
    _, channels, rows, columns = shape
    if channels is None or rows is None or columns is None:
        return []
    if node.op_type == "SpaceToDepth":
        if rows % block or columns % block:
            return []
        order, rows, columns = TO_DEPTH, rows // block, columns // block
        split, whole = [channels, rows, block, columns, block], [channels * block**2, rows, columns]
    else:
        mode = node.attributes.get_string("mode", default="DCR")
        if mode not in ORDERS or channels % block**2:
            return []
        order = ORDERS[mode]
        out = channels // block**2
        blocks = [block, block, out] if order == ORDERS["DCR"] else [out, block, block]
        split, whole = [*blocks, rows, columns], [out, rows * block, columns * block]
    turned = [split[axis - 1] for axis in order[1:]]
    first = ir.node("Reshape", [value, _stored(graph, node, "split", split)])
    second = ir.node("Transpose", first.outputs, {"perm": order})
    last = ir.node("Reshape", [second.outputs[0], _stored(graph, node, "whole", whole)])
    parts = [first, second, last]
    for index, (part, sizes) in enumerate(zip(parts, (split, turned, whole), strict=True)):
        part.name = f"{node.name}.{index}"
        made = part.outputs[0]
        made.name, made.type = f"{name_of(node.outputs[0])}.{index}", value.type
        made.shape = ir.Shape([shape[0], *sizes])
    return parts


def _stored(graph: Graph, node: ir.Node, name: str, sizes: list[int]) -> ir.Value:
    """The shape (batch, *sizes) as a constant of the graph."""
    label = f"{node.name}.{name}"
    values = np.array([0, *sizes], np.int64)
    stored = ir.Value(name=label, const_value=ir.tensor(values, name=label))
    stored.shape, stored.dtype = ir.Shape(values.shape), ir.DataType.INT64
    graph.model.graph.register_initializer(stored)
    return stored
