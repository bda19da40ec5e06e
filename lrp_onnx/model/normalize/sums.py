"""Differences and broadcast sums of tensors as what rules know: sums of tensors of one shape.

Both computations stay the same to the last bit: a − b is a + (−b), and a sum repeats the smaller
tensor itself.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lrp_onnx.model.graph import Graph, name_of, shape_of


def differences_as_sums(graph: Graph) -> Graph:
    """The graph with every Sub of two tensors that depend on the picture as Neg and Add."""
    for node in list(graph.nodes):
        if node.op_type != "Sub" or any(map(graph.is_constant, node.inputs)):
            continue
        if all(value is not None and value.shape is not None for value in node.inputs):
            _insert(graph, node, 1, ir.node("Neg", [node.inputs[1]]))
            node.op_type = "Add"
    return graph


def sums_of_one_shape(graph: Graph) -> Graph:
    """The graph with every operand of a sum in the sum's shape, repeated by an Expand."""
    for node in list(graph.nodes):
        if node.op_type not in ("Add", "Sum") or any(map(graph.is_constant, node.inputs)):
            continue
        whole = shape_of(node.outputs[0])
        for slot, value in enumerate(node.inputs):
            own = shape_of(value) if value is not None else None
            if whole is None or own is None or len(own) != len(whole) or own[1:] == whole[1:]:
                continue
            pairs = zip(own[1:], whole[1:], strict=True)
            if None in whole[1:] or any(mine not in (1, size) for mine, size in pairs):
                continue
            name = f"{node.name}.{slot}.shape"
            sizes = np.array([1, *whole[1:]], np.int64)
            stored = ir.Value(name=name, const_value=ir.tensor(sizes, name=name))
            stored.shape, stored.dtype = ir.Shape(sizes.shape), ir.DataType.INT64
            graph.model.graph.register_initializer(stored)
            _insert(graph, node, slot, ir.node("Expand", [value, stored]), whole)
    return graph


def _insert(
    graph: Graph, node: ir.Node, slot: int, new: ir.Node, whole: tuple[int | None, ...] = ()
) -> None:
    """Put `new` between `node` and its input in `slot`; `whole` is the new tensor's shape, where it
    is not the input's.
    """
    value, output = node.inputs[slot], new.outputs[0]
    assert value is not None and value.shape is not None
    new.name = f"{node.name}.{slot}.{new.op_type}"
    output.name = f"{name_of(node.outputs[0])}.{slot}.{new.op_type}"
    output.type = value.type
    output.shape = ir.Shape([value.shape[0], *whole[1:]]) if whole else value.shape
    graph.model.graph.insert_before(node, [new])
    node.replace_input_with(slot, output)
