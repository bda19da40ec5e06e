"""A guard for MaxPools after an explicit Pad, which ONNX Runtime's optimiser computes wrongly.

The optimiser ("Pad_Fusion", seen in 1.31) merges a zero Pad into the MaxPool after it. The border
of a MaxPool is −∞, not zero, so that the result is wrong in windows at the border that hold only
negative numbers. The optimiser skips two equivalent forms of the MaxPool. One has a second output,
the indices, which TensorRT and WebGPU do not support. The other states ``auto_pad="VALID"``, which
every runtime supports; it is equivalent only if the pool has no border of its own, no ceil_mode and
no dilation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import onnx
import onnx_ir as ir

from lrp_onnx.model.graph import Graph, name_of
from lrp_onnx.model.normalize.stated_shapes import without_stated_shapes

BETWEEN = ("Transpose", "Identity", "Cast")
"""Operators that may lie between the Pad and the MaxPool."""


def padded_pools(graph: Graph) -> list[ir.Node]:
    """Every MaxPool after a Pad."""
    pools = _pools_after_pad((n.op_type, _first(n.inputs), _first(n.outputs)) for n in graph.nodes)
    return [node for node in graph.nodes if _first(node.outputs) in pools]


def needs_indices(pool: ir.Node) -> bool:
    """Whether `pool` can be guarded by the second output only."""
    if _has_auto_pad(pool):
        return False
    attributes = pool.attributes
    return (
        any(size != 1 for size in attributes.get_ints("dilations", default=()))
        or any(attributes.get_ints("pads", default=()))
        or bool(attributes.get_int("ceil_mode", default=0))
    )


def _has_auto_pad(pool: ir.Node) -> bool:
    """Whether `pool` states ``auto_pad`` already, so that ONNX Runtime's optimiser skips it."""
    return pool.attributes.get_string("auto_pad", default="NOTSET") != "NOTSET"


def guard_pools(graph: Graph, *, indices: bool) -> Graph:
    """A copy of the graph with every MaxPool after a Pad guarded.

    Args:
        graph: a normalised model.
        indices: whether the file's runtime supports MaxPool's second output. If it does not, a pool
            that needs this output stays unguarded.
    """
    if not padded_pools(graph):
        return graph
    guarded = replace(graph, model=graph.model.clone())
    for node in padded_pools(guarded):
        if indices and len(node.outputs) == 1:
            node.resize_outputs(2)
            node.outputs[1].name = f"{node.outputs[0].name}.indices"
        elif not indices and not needs_indices(node) and not _has_auto_pad(node):
            node.attributes.pop("pads", None)
            node.attributes["auto_pad"] = ir.AttrString("auto_pad", "VALID")
    return guarded


def runnable(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of an original model that ONNX Runtime computes correctly, for comparisons.

    Its pools are guarded by indices, and it states no shapes of inner tensors.
    """
    guarded = without_stated_shapes(proto)
    nodes = [node for node in guarded.graph.node if node.input and node.output]
    pools = _pools_after_pad((node.op_type, node.input[0], node.output[0]) for node in nodes)
    for node in nodes:
        if node.output[0] in pools and len(node.output) == 1:
            node.output.append(f"{node.output[0]}.indices")
    return guarded


def _pools_after_pad(nodes: Iterable[tuple[str, str, str]]) -> set[str]:
    """Outputs of the MaxPools after a Pad; `nodes` are (operator, first input, first output)."""
    nodes = list(nodes)
    producers = {output: (operator, source) for operator, source, output in nodes}
    pools = set()
    for operator, source, output in nodes:
        producer = producers.get(source)
        for _ in range(8):  # not endless: an unloaded file may contain a cycle
            if producer is None or producer[0] not in BETWEEN:
                break
            producer = producers.get(producer[1])
        if operator == "MaxPool" and producer is not None and producer[0] == "Pad":
            pools.add(output)
    return pools


def _first(values: Iterable[ir.Value | None]) -> str:
    """The name of the first value; empty if there is none."""
    value = next(iter(values), None)
    return "" if value is None else name_of(value)
