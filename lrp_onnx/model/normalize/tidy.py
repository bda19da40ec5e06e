"""Passes of onnx-ir that bring a model to the form that readers expect, and a validity check."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from google.protobuf.message import EncodeError
from onnx_ir.passes import Sequential, common

from lrp_onnx.files.models import SIZE_LIMIT
from lrp_onnx.model.graph import Graph


def inline_functions(graph: Graph) -> Graph:
    """The graph with calls of the file's own functions replaced by the functions' nodes."""
    Sequential(common.InlinePass())(graph.model)
    return graph


def tidy(graph: Graph) -> Graph:
    """The graph with nodes sorted and named, constants as initializers, and no unused parts."""
    # Elimination takes an Identity out of a branch of If, too, whose output it is, and an output
    # away that is an Identity of another.
    kept = any(
        a.type == ir.AttributeType.GRAPH for n in graph.nodes for a in n.attributes.values()
    ) or any(_copies_an_output(node) for node in graph.nodes)
    passes = Sequential(
        common.TopologicalSortPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.RemoveInitializersFromInputsPass(),
        *([] if kept else [common.IdentityEliminationPass()]),
        common.NameFixPass(),
        common.RemoveUnusedNodesPass(),
    )
    passes(graph.model)
    return graph


def _copies_an_output(node: ir.Node) -> bool:
    """Whether a node is the Identity of one of the graph's outputs."""
    (source, *_) = node.inputs or (None,)
    return node.op_type == "Identity" and source is not None and source.is_graph_output()


def check(graph: Graph) -> Graph:
    """The unchanged graph.

    Raises:
        onnx.checker.ValidationError: the graph is not valid ONNX.
        MemoryError: there is too little memory for its bytes, which protobuf does not tell.
    """
    try:
        onnx.checker.check_model(ir.to_proto(graph.model))
    except EncodeError:
        weights = [value.const_value for value in graph.model.graph.initializers.values()]
        if sum(tensor.nbytes for tensor in weights if tensor is not None) > SIZE_LIMIT:
            raise
        raise MemoryError("the model cannot be serialized") from None
    return graph
