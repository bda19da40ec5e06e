"""Readers of operators that only move elements: reshapes, slices, zero padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from lrp_onnx import kinds
from lrp_onnx.model.graph import Graph, shape_of
from lrp_onnx.model.reading import Unreadable, attribute, need_spatial, needed_constant, reads


@reads("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout")
def _reshape(graph: Graph, node: ir.Node) -> kinds.Reshape:
    assert node.inputs[0] is not None
    before, after = shape_of(node.inputs[0]), shape_of(node.outputs[0])
    if before is None or any(size is None for size in before[1:]):
        raise Unreadable(f"it reshapes a tensor of shape {before}: all sizes but the batch must be known")
    if node.op_type == "Flatten" and attribute(node, "axis", 1) not in (1, 1 - len(before)):
        raise Unreadable("it flattens the batch with the rest: only axis=1 can be explained")
    if after is not None and after and before[0] is not None and after[0] not in (None, before[0]):
        raise Unreadable(f"it reshapes {before} to {after}, which mixes the batch with the rest")
    return kinds.Reshape()


@reads("Slice")
def _slice(graph: Graph, node: ir.Node) -> kinds.Subsample:
    sizes = need_spatial(node)
    starts = [int(v) for v in np.asarray(needed_constant(graph, node, 1, "list of starts"))]
    ends = [int(v) for v in np.asarray(needed_constant(graph, node, 2, "list of ends"))]
    axes = _optional_integers(graph, node, 3, "list of axes", range(len(starts)))
    steps = _optional_integers(graph, node, 4, "list of steps", (1,) * len(starts))
    first, stride, last = [0, 0, 0], [1, 1, 1], list(sizes)
    for start, end, axis, step in zip(starts, ends, (axis % 4 for axis in axes), steps, strict=True):
        if axis == 0 or step < 1:
            raise Unreadable("it cuts the batch or runs backwards: only forward slices of channels, rows, columns")
        taken = range(sizes[axis - 1])[start:end:step]
        first[axis - 1], stride[axis - 1], last[axis - 1] = taken.start, step, taken.stop
    return kinds.Subsample(_three(first), _three(stride), _three(last))


@reads("Pad")
def _pad(graph: Graph, node: ir.Node) -> kinds.ZeroPad:
    need_spatial(node)
    if attribute(node, "mode", "constant") != "constant":
        raise Unreadable(f"its mode is {attribute(node, 'mode', '')}: only padding with zeros can be explained yet")
    value = np.asarray(needed_constant(graph, node, 2, "value")) if _present(node, 2) else np.zeros(1)
    pads = [int(v) for v in np.asarray(needed_constant(graph, node, 1, "list of pads"))]
    axes = [axis % 4 for axis in _optional_integers(graph, node, 3, "list of axes", range(len(pads) // 2))]
    if value.any() or min(pads) < 0 or any(pads[i] + pads[i + len(axes)] for i, axis in enumerate(axes) if axis == 0):
        raise Unreadable(
            "it pads with something other than zeros, cuts, or pads the batch: this cannot be explained yet"
        )
    before, after = [0, 0, 0, 0], [0, 0, 0, 0]
    for i, axis in enumerate(axes):
        before[axis], after[axis] = pads[i], pads[i + len(axes)]
    return kinds.ZeroPad(_three(before[1:]), _three(after[1:]))


@reads("Transpose")
def _transpose(graph: Graph, node: ir.Node) -> kinds.Transpose:
    assert node.inputs[0] is not None
    shape = shape_of(node.inputs[0])
    if shape is None or any(size is None for size in shape[1:]):
        raise Unreadable(f"it turns a tensor of shape {shape}: all sizes but the batch must be known")
    order = tuple(attribute(node, "perm", range(len(shape) - 1, -1, -1)))
    if order[0] != 0:
        raise Unreadable(f"its order {order} moves the batch: this cannot be explained")
    return kinds.Transpose(order)


def _present(node: ir.Node, slot: int) -> bool:
    return slot < len(node.inputs) and node.inputs[slot] is not None


def _optional_integers(graph: Graph, node: ir.Node, slot: int, what: str, default: Sequence[int]) -> list[int]:
    if not _present(node, slot):
        return list(default)
    return [int(v) for v in np.asarray(needed_constant(graph, node, slot, what))]


def _three(values: Sequence[int]) -> tuple[int, int, int]:
    channels, rows, columns = values
    return channels, rows, columns
