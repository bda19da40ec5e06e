"""Rewrites of the forward graph that keep every number: fused operators apart, transposes to the front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

FUSED_ACTIVATIONS = ("Relu", "Sigmoid", "Tanh", "LeakyRelu", "Clip", "HardSigmoid")


def unfuse(proto: onnx.ModelProto, notes: list[str]) -> onnx.ModelProto:
    """`proto` with ONNX Runtime's FusedConv written as Conv, Add and its activation; a note is added where it was."""
    if not any(node.op_type == "FusedConv" for node in proto.graph.node):
        return proto
    apart = onnx.ModelProto()
    apart.CopyFrom(proto)
    del apart.graph.node[:]
    for node in proto.graph.node:
        apart.graph.node.extend(_unfused(node) if node.op_type == "FusedConv" else [node])
    count = sum(node.op_type == "FusedConv" for node in proto.graph.node)
    notes.append(f"{count} FusedConv nodes were taken apart; outputs may differ by rounding")
    return apart


def _unfused(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    kept = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    activation = kept.pop("activation", b"").decode()
    parameters = list(kept.pop("activation_params", []))
    output = node.output[0]
    inputs, added = list(node.input[:3]), list(node.input[3:4])
    while inputs and not inputs[-1]:
        inputs.pop()
    name = node.name or output
    at = f"{output}.fused"
    nodes = [helper.make_node("Conv", inputs, [f"{at}.conv"], name=name, **kept)]
    if added and added[0]:
        nodes.append(helper.make_node("Add", [f"{at}.conv", added[0]], [f"{at}.sum"], name=f"{name}.add"))
    if activation:
        nodes += _activation(activation, parameters, nodes[-1].output[0], at, name)
    nodes[-1].output[0] = output
    return nodes


def _activation(kind: str, parameters: Sequence[float], x: str, at: str, name: str) -> list[onnx.NodeProto]:
    """The nodes of a fused activation; an unknown one becomes an operator that is reported as unread."""
    keys = {"LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta")}.get(kind, ())
    if kind != "Clip":
        attributes: dict[str, Any] = dict(zip(keys, parameters, strict=False))
        return [helper.make_node(kind, [x], [f"{at}.out"], name=f"{name}.{kind.lower()}", **attributes)]
    bounds = [
        helper.make_node("Constant", [], [f"{at}.{which}"], value_float=value)
        for which, value in zip(("low", "high"), parameters, strict=False)
    ]
    inputs = [x, *(bound.output[0] for bound in bounds)]
    return [*bounds, helper.make_node("Clip", inputs, [f"{at}.out"], name=f"{name}.clip")]


def rewrite_nodes(model: ir.Model) -> int:
    """Apply the rewrites in place; returns how many nodes changed."""
    return sum(_turn_before_padding(node, model) for node in list(model.graph) if node.op_type == "Transpose")


def _turn_before_padding(node: ir.Node, model: ir.Model) -> bool:
    """Pad then Transpose → Transpose then Pad: the pad then stands before the convolution that it belongs to."""
    padded = node.inputs[0]
    pad = padded.producer() if padded is not None else None
    if pad is None or pad.op_type != "Pad" or padded is None or len(padded.uses()) != 1 or padded.is_graph_output():
        return False
    final = node.outputs[0]
    if final.is_graph_output():
        return False
    amounts = pad.inputs[1].const_value if len(pad.inputs) > 1 and pad.inputs[1] is not None else None
    order = node.attributes["perm"].value if "perm" in node.attributes else None
    if amounts is None or order is None or (len(pad.inputs) > 3 and pad.inputs[3] is not None):
        return False
    pads = np.asarray(amounts.numpy()).reshape(2, -1)
    if pads.shape[1] != len(order):
        return False
    name = f"{node.name}.pads"
    turned = ir.Value(name=name, const_value=ir.tensor(pads[:, list(order)].reshape(-1).astype(np.int64), name=name))
    turned.shape, turned.dtype = ir.Shape([pads.size]), ir.DataType.INT64
    model.graph.register_initializer(turned)
    moved = ir.node("Transpose", [pad.inputs[0]], attributes={"perm": list(order)}, name=f"{node.name}.first")
    moved.outputs[0].name = f"{node.outputs[0].name}.unpadded"
    again = ir.node("Pad", [moved.outputs[0], turned, *pad.inputs[2:3]], attributes=pad.attributes, name=pad.name)
    again.outputs[0].name = f"{node.outputs[0].name}.padded"
    model.graph.insert_before(node, [moved, again])
    final.replace_all_uses_with(again.outputs[0])
    model.graph.remove([node, pad], safe=True)
    return True
