"""Reshape, Gemm, Reshape: a dense layer along the last axis, as optimisers write it."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from lrp_onnx.model.graph import Graph, shape_of
from lrp_onnx.model.readers.linear import read_gemm
from lrp_onnx.model.readers.reading import Unreadable
from lrp_onnx.plan import kinds


def dense_over_rows(
    graph: Graph, nodes: Iterable[ir.Node]
) -> dict[ir.Node, tuple[kinds.Linear, list[ir.Node]]]:
    """The last Reshape of every such triple → its layer and the three nodes."""
    found = {}
    for node in nodes:
        triple = _triple(node) if node.op_type == "Gemm" else None
        if triple is None:
            continue
        try:
            dense = read_gemm(graph, node)
        except Unreadable:  # it is reported where the node is read alone
            continue
        assert isinstance(dense, kinds.Dense)
        found[triple[2]] = kinds.Linear(dense.weight, dense.transposed), triple
    return found


def _triple(gemm: ir.Node) -> list[ir.Node] | None:
    """The Reshape before, the Gemm and the Reshape behind it, where only the last axis of the
    tensor around them changes.
    """
    before = gemm.inputs[0].producer() if gemm.inputs[0] is not None else None
    behind = [use for use, _ in gemm.outputs[0].uses()]
    if before is None or before.op_type != "Reshape" or before.inputs[0] is None:
        return None
    if len(behind) != 1 or behind[0].op_type != "Reshape" or gemm.outputs[0].is_graph_output():
        return None
    x, y = shape_of(before.inputs[0]), shape_of(behind[0].outputs[0])
    rows = shape_of(before.outputs[0])
    if x is None or y is None or rows is None or len(x) < 3 or len(rows) != 2:
        return None
    fits = x[:-1] == y[:-1] and x[-1] == rows[-1] and None not in x[1:] and None not in y[1:]
    return [before, gemm, behind[0]] if fits else None
