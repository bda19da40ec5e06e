"""Softmaxes that PyTorch's dynamo exporter guards against rows without a key: ``Where(IsNaN(p), 0,
p)``.

A softmax is NaN only in a row whose scores are all −∞. No weight of a file that is compiled is
infinite, so that no mask makes such a row.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from lrp_onnx.model.graph import Graph


def unguarded_softmaxes(graph: Graph) -> Graph:
    """The graph with every guarded softmax as the softmax alone."""
    guards = [node for node in graph.nodes if _guards_softmax(node)]
    for node in guards:
        softmax = node.inputs[2]
        assert softmax is not None
        node.outputs[0].replace_all_uses_with(softmax)
    if guards:
        common.RemoveUnusedNodesPass()(graph.model)
    return graph


def _guards_softmax(node: ir.Node) -> bool:
    """Whether a node is ``Where(IsNaN(p), …, p)`` of a softmax p, and no output of the file."""
    if node.op_type != "Where" or len(node.inputs) != 3 or node.outputs[0].is_graph_output():
        return False
    asks, softmax = (
        value.producer() if value is not None else None
        for value in (node.inputs[0], node.inputs[2])
    )
    return (
        asks is not None
        and softmax is not None
        and (asks.op_type, softmax.op_type) == ("IsNaN", "Softmax")
        and asks.inputs[0] is node.inputs[2]
    )
