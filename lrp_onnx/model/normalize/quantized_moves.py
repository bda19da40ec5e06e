"""Reordering: moves of elements from after a QuantizeLinear or Pad to before it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lrp_onnx.model.shapes import shape_of

MOVES = ("Flatten", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""Operators that may be exchanged with a QuantizeLinear without changing the result."""


def move_first(model: ir.Model) -> int:
    """Exchange moves with the QuantizeLinear or Pad before them, in place; return how many."""
    return sum(_move_first(node, model) for node in list(model.graph) if node.op_type in MOVES)


def _move_first(node: ir.Node, model: ir.Model) -> bool:
    """Exchange one move with the node before it, if that is possible; return whether it was.

    After this, a QuantizeLinear comes directly before its DequantizeLinear. A Pad is exchanged with
    a Transpose, so that it comes directly before its convolution.
    """
    between, final = node.inputs[0], node.outputs[0]
    before = between.producer() if between is not None else None
    if before is None or between is None or final.is_graph_output() or len(node.outputs) != 1:
        return False
    rest: list[ir.Value | None] | None = None
    if before.op_type == "QuantizeLinear":
        rest = _scalar_parameters(before)
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


def _scalar_parameters(quantize: ir.Node) -> list[ir.Value | None] | None:
    """Scale and zero point of a QuantizeLinear if each is one number, else None."""
    parameters = list(quantize.inputs[1:])
    shapes = [shape_of(value) for value in parameters if value is not None]
    return parameters if all(shape is not None and set(shape) <= {1} for shape in shapes) else None


def _turned_pads(pad: ir.Node, node: ir.Node, model: ir.Model) -> list[ir.Value | None] | None:
    """A Pad's inputs without the first, with the pads in the order of axes of the Transpose after
    it; None if they are not known.
    """
    order = node.attributes["perm"].value if "perm" in node.attributes else None
    stated = pad.inputs[1] if len(pad.inputs) > 1 else None
    amounts = None if stated is None else stated.const_value
    has_axes = len(pad.inputs) > 3 and pad.inputs[3] is not None
    if order is None or amounts is None or has_axes:
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
