"""Rewrites of the forward graph that keep every number: fused operators apart, transposes to the front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

from lrp_onnx.errors import UnsupportedModelError
from lrp_onnx.model.shapes import shape_of

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


def guard_pools(proto: onnx.ModelProto) -> onnx.ModelProto:
    """`proto` with a second output on every MaxPool behind a Pad.

    ONNX Runtime merges a zero Pad into the MaxPool behind it, whose own border is −∞: where a window at the border
    holds negative numbers only, the result is wrong (seen with 1.31; "Pad_Fusion"). It leaves pools with indices alone.
    """
    if not padded_pools(proto):
        return proto
    guarded = onnx.ModelProto()
    guarded.CopyFrom(proto)
    for node in padded_pools(guarded):
        if len(node.output) == 1:
            node.output.append(f"{node.output[0]}.indices")
    return guarded


def runnable(proto: onnx.ModelProto) -> onnx.ModelProto:
    """An original as it must be run to be compared with: its pools guarded, without the shapes that it states."""
    return without_stated_shapes(guard_pools(proto))


def without_stated_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """`proto` without the shapes that it states of inner tensors: all are inferred anew.

    Some exporters state wrong ones (jax2onnx 0.17 does), for which ONNX Runtime refuses the file. Sizes of 0 or −1 of
    inputs and outputs mean any size to those who write them, and crash libraries that take them at their word.
    """
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    del bare.graph.value_info[:]
    for value in (*bare.graph.input, *bare.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value <= 0:
                dim.Clear()
    return bare


def padded_pools(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Every MaxPool whose input comes from a Pad."""
    producer = {name: node for node in proto.graph.node for name in node.output}
    return [node for node in proto.graph.node if node.op_type == "MaxPool" and _behind_pad(node, producer)]


def _behind_pad(node: onnx.NodeProto, producer: Mapping[str, onnx.NodeProto]) -> bool:
    before = producer.get(node.input[0])
    for _ in range(8):  # nothing but a change of layout lies between
        if before is None or before.op_type not in ("Transpose", "Identity", "Cast"):
            break
        before = producer.get(before.input[0])
    return before is not None and before.op_type == "Pad"


def rewrite_nodes(model: ir.Model) -> int:
    """Apply the rewrites in place; returns how many nodes changed."""
    return sum(_move_first(node, model) for node in list(model.graph) if node.op_type in MOVES)


MOVES = ("Flatten", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""Operators that give the same whether they come before or behind a QuantizeLinear."""


def _move_first(node: ir.Node, model: ir.Model) -> bool:
    """QuantizeLinear, then a move → the move, then QuantizeLinear: it then stands before the node that undoes it.

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
        node.op_type, [before.inputs[0], *node.inputs[1:]], attributes=node.attributes, name=f"{node.name}.first"
    )
    moved.outputs[0].name = f"{final.name}.first"
    again = ir.node(
        before.op_type, [moved.outputs[0], *rest], attributes=before.attributes, name=f"{node.name}.{before.name}"
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
    """A Pad's inputs but the first, its amounts in the order of axes that the Transpose behind it makes."""
    order = node.attributes["perm"].value if "perm" in node.attributes else None
    amounts = pad.inputs[1].const_value if len(pad.inputs) > 1 and pad.inputs[1] is not None else None
    if order is None or amounts is None or (len(pad.inputs) > 3 and pad.inputs[3] is not None):
        return None
    pads = np.asarray(amounts.numpy()).reshape(2, -1)
    if pads.shape[1] != len(order):
        return None
    name = f"{node.name}.pads"
    turned = ir.Value(name=name, const_value=ir.tensor(pads[:, list(order)].reshape(-1).astype(np.int64), name=name))
    turned.shape, turned.dtype = ir.Shape([pads.size]), ir.DataType.INT64
    model.graph.register_initializer(turned)
    return [turned, *pad.inputs[2:3]]


def one_picture(model: onnx.ModelProto, *, source: str) -> onnx.ModelProto:
    """The model with its open batch fixed to one; raises UnsupportedModelError where it is fixed to more."""
    weights = {tensor.name for tensor in model.graph.initializer}
    picture = next(value for value in model.graph.input if value.name not in weights)
    batch = picture.type.tensor_type.shape.dim[0]
    if not batch.dim_param and batch.dim_value != 1:
        fault = f"the input '{picture.name}' takes {batch.dim_value} pictures at once: many targets are for one picture"
        raise UnsupportedModelError(f"{source} cannot be compiled for many targets:", [fault])
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in (*fixed.graph.input, *fixed.graph.output, *fixed.graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param and size.dim_param == batch.dim_param:
                size.dim_value = 1
    return fixed
