"""Moves of elements that stand behind a rounding or a border: before it, where they belong."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lrp_onnx.model.shapes import shape_of

MOVES = ("Flatten", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""Operators that give the same whether they come before or behind a QuantizeLinear."""


def move_first(model: ir.Model) -> int:
    """Put moves before the QuantizeLinear or Pad that they follow,
    in place; returns how many were.
    """
    return sum(_move_first(node, model) for node in list(model.graph) if node.op_type in MOVES)


def _move_first(node: ir.Node, model: ir.Model) -> bool:
    """QuantizeLinear, then a move → the move, then
    QuantizeLinear: it then stands before the node that undoes it.

    Likewise Pad, then Transpose: the pad then stands before the convolution that it belongs to.
    """
    between, final = node.inputs[0], node.outputs[0]
    before = between.producer() if between is not None else None
    if before is None or between is None or final.is_graph_output() or len(node.outputs) != 1:
        return False
    rest: list[ir.Value | None] | None = None
    if before.op_type == "QuantizeLinear":
        rest = _by_tensor(before)
    elif before.op_type == "Pad" and node.op_type == "Transpose" and len(between.uses()) == 1:
        rest = _turned_pads(before, node, model)
    if rest is None:
        return False
    moved = ir.node(
        node.op_type,
        [before.inputs[0], *node.inputs[1:]],
        attributes=node.attributes,
        name=f"{node.name}.first",
    )
    moved.outputs[0].name = f"{final.name}.first"
    again = ir.node(
        before.op_type,
        [moved.outputs[0], *rest],
        attributes=before.attributes,
        name=f"{node.name}.{before.name}",
    )
    again.outputs[0].name = f"{final.name}.second"
    model.graph.insert_before(node, [moved, again])
    final.replace_all_uses_with(again.outputs[0])
    model.graph.remove(node, safe=True)
    return True


def _by_tensor(quantize: ir.Node) -> list[ir.Value | None] | None:
    """Scale and zero point of a QuantizeLinear, if they are one number each."""
    parameters = list(quantize.inputs[1:])
    shapes = [shape_of(value) for value in parameters if value is not None]
    return parameters if all(shape is not None and set(shape) <= {1} for shape in shapes) else None


def _turned_pads(pad: ir.Node, node: ir.Node, model: ir.Model) -> list[ir.Value | None] | None:
    """A Pad's inputs but the first, its amounts in the
    order of axes that the Transpose behind it makes.
    """
    order = node.attributes["perm"].value if "perm" in node.attributes else None
    amounts = (
        pad.inputs[1].const_value if len(pad.inputs) > 1 and pad.inputs[1] is not None else None
    )
    if order is None or amounts is None or (len(pad.inputs) > 3 and pad.inputs[3] is not None):
        return None
    pads = np.asarray(amounts.numpy())
    if pads.size != 2 * len(order) or sorted(order) != list(range(len(order))):
        return None
    pads = pads.reshape(2, -1)
    name = f"{node.name}.pads"
    turned = ir.Value(
        name=name,
        const_value=ir.tensor(pads[:, list(order)].reshape(-1).astype(np.int64), name=name),
    )
    turned.shape, turned.dtype = ir.Shape([pads.size]), ir.DataType.INT64
    model.graph.register_initializer(turned)
    return [turned, *pad.inputs[2:3]]
