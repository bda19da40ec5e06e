"""MaxPools behind an explicit Pad, which ONNX Runtime's optimiser computes wrongly, and the guard against that.

ONNX Runtime merges a zero Pad into the MaxPool behind it, whose own border is −∞: where a window at the border holds
negative numbers only, the result is wrong (seen with 1.31; "Pad_Fusion"). It leaves pools with two outputs alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import onnx
import onnx_ir as ir

from lrp_onnx.model.graph import Graph, name_of
from lrp_onnx.model.normalize.stated_shapes import without_stated_shapes

BETWEEN = ("Transpose", "Identity", "Cast")
"""What may lie between the two."""


def padded_pools(graph: Graph) -> list[ir.Node]:
    """Every MaxPool behind a Pad."""
    behind = _behind_pad((n.op_type, _first(n.inputs), _first(n.outputs)) for n in graph.nodes)
    return [node for node in graph.nodes if _first(node.outputs) in behind]


def guard_pools(graph: Graph) -> Graph:
    """The graph with a second output, the indices, on every MaxPool behind a Pad; `graph` is not changed."""
    if not padded_pools(graph):
        return graph
    guarded = replace(graph, model=graph.model.clone())
    for node in padded_pools(guarded):
        if len(node.outputs) == 1:
            node.resize_outputs(2)
            node.outputs[1].name = f"{node.outputs[0].name}.indices"
    return guarded


def runnable(proto: onnx.ModelProto) -> onnx.ModelProto:
    """An original as it must be run to be compared with: its pools guarded, and no shapes stated."""
    guarded = without_stated_shapes(proto)
    nodes = [node for node in guarded.graph.node if node.input and node.output]
    behind = _behind_pad((node.op_type, node.input[0], node.output[0]) for node in nodes)
    for node in nodes:
        if node.output[0] in behind and len(node.output) == 1:
            node.output.append(f"{node.output[0]}.indices")
    return guarded


def _behind_pad(nodes: Iterable[tuple[str, str, str]]) -> set[str]:
    """Outputs of the MaxPools behind a Pad, of nodes as (operator, first input, first output)."""
    listed = list(nodes)
    made_by = {output: (operator, source) for operator, source, output in listed}
    found = set()
    for operator, source, output in listed:
        before = made_by.get(source)
        for _ in range(8):  # a file may hold a circle, which only loading refuses
            if before is None or before[0] not in BETWEEN:
                break
            before = made_by.get(before[1])
        if operator == "MaxPool" and before is not None and before[0] == "Pad":
            found.add(output)
    return found


def _first(values: Iterable[ir.Value | None]) -> str:
    """The name of the first value; empty where it is left out."""
    value = next(iter(values), None)
    return "" if value is None else name_of(value)
