"""MaxPools behind an explicit Pad, which ONNX Runtime's
optimiser computes wrongly, and the guard against that.

ONNX Runtime merges a zero Pad into the MaxPool behind it, whose own border is −∞: where a window at
the border holds negative numbers only, the result is wrong (seen with 1.31; "Pad_Fusion"). Two
forms of the same MaxPool it leaves alone: one with a second output, the indices, which TensorRT and
WebGPU do not have; and one that states its missing border as ``auto_pad="VALID"``, which every
runtime reads, and which says the same only where the pool has no border of its own, no ceil_mode
and no dilation.
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


def needs_indices(pool: ir.Node) -> bool:
    """Whether only the second output guards `pool`."""
    stated = pool.attributes
    if _pads_itself(pool):
        return False
    dilated = any(size != 1 for size in stated.get_ints("dilations", default=()))
    return (
        dilated
        or any(stated.get_ints("pads", default=()))
        or bool(stated.get_int("ceil_mode", default=0))
    )


def _pads_itself(pool: ir.Node) -> bool:
    """Whether `pool` states its border by a word already, for
    which ONNX Runtime leaves it alone.
    """
    return pool.attributes.get_string("auto_pad", default="NOTSET") != "NOTSET"


def guard_pools(graph: Graph, *, indices: bool) -> Graph:
    """The graph with every MaxPool behind a Pad guarded; `graph` is not changed.

    Args:
        graph: a normalised model.
        indices: whether the file's runtime has MaxPool's second
            output. Without it a pool that needs it stays as it is.
    """
    if not padded_pools(graph):
        return graph
    guarded = replace(graph, model=graph.model.clone())
    for node in padded_pools(guarded):
        if indices and len(node.outputs) == 1:
            node.resize_outputs(2)
            node.outputs[1].name = f"{node.outputs[0].name}.indices"
        elif not indices and not needs_indices(node) and not _pads_itself(node):
            node.attributes.pop("pads", None)
            node.attributes["auto_pad"] = ir.AttrString("auto_pad", "VALID")
    return guarded


def runnable(proto: onnx.ModelProto) -> onnx.ModelProto:
    """An original as it must be run to be compared with:
    its pools guarded by indices, and no shapes stated.
    """
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
    behind = set()
    for operator, source, output in listed:
        before = made_by.get(source)
        for _ in range(8):  # a file may hold a circle, which only loading refuses
            if before is None or before[0] not in BETWEEN:
                break
            before = made_by.get(before[1])
        if operator == "MaxPool" and before is not None and before[0] == "Pad":
            behind.add(output)
    return behind


def _first(values: Iterable[ir.Value | None]) -> str:
    """The name of the first value; empty where it is left out."""
    value = next(iter(values), None)
    return "" if value is None else name_of(value)
