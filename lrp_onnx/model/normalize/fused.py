"""Splitting fused operators, and those that opsets above 20 have, into standard ones of opset 18.

Such are what ONNX Runtime's optimisers write (``com.microsoft``) and attention as PyTorch exports
it at opset 23.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir
from onnx_ir.passes import common

from lrp_onnx.model.graph import Graph, label
from lrp_onnx.model.normalize import (  # noqa: F401 (they register their operators)
    fused_activations,
    fused_attention,
    fused_integers,
    fused_norms,
    fused_products,
    fused_rotary,
)
from lrp_onnx.model.normalize.parts import SPLITS, Parts, Unknown, Unsplittable, called
from lrp_onnx.model.normalize.settle import settle_model


class FusedError(Exception):
    """Fused operators cannot be split; one message for each."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


def split_fused(graph: Graph) -> Graph:
    """The graph with every fused operator split, and a note on them.

    Raises:
        FusedError: operators of a form that cannot be split; all are listed.
    """
    found = _fused(graph)
    count = Counter(node.op_type for node in found)
    while found:
        settle_model(graph.model)  # shapes behind what was split become known
        faults, unknown = [], []
        for node in found:
            try:
                _split(graph, node)
            except Unsplittable as error:
                faults.append(f"{label(node)}: {error}")
            except Unknown:
                unknown.append(node)
        if faults:
            raise FusedError(faults)
        if len(unknown) == len(found):
            shapeless = "the shape or type of its input is not known: export it with fixed sizes"
            raise FusedError([f"{label(node)}: {shapeless}" for node in unknown])
        found = _fused(graph)
    if not count:
        return graph
    common.RemoveUnusedOpsetsPass()(graph.model)
    names = ", ".join(f"{number} {operator}" for operator, number in sorted(count.items()))
    note = (
        f"fused operators were split into standard ones ({names}); outputs may differ by rounding"
    )
    return replace(graph, notes=(*graph.notes, note))


def _fused(graph: Graph) -> list[ir.Node]:
    """The nodes that are to be split, in the order of the computation."""
    return [node for node in graph.nodes if graph.opset >= SPLITS.get(called(node), (0, 999))[1]]


def _split(graph: Graph, node: ir.Node) -> None:
    """Replace a node by its parts."""
    parts = Parts(graph, node)
    outputs = SPLITS[called(node)][0](parts)
    pairs = [(old, new) for old, new in zip(node.outputs, outputs, strict=False) if new is not None]
    ir.convenience.replace_nodes_and_values(
        graph.model.graph,
        node,
        [node],
        parts.nodes,
        [old for old, _ in pairs],
        [new for _, new in pairs],
    )
