"""A model in the one form that readers know, by onnx-ir's own
passes; then it must be valid ONNX.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes import Sequential, common

from lrp_onnx.model.graph import Graph


def inline_functions(graph: Graph) -> Graph:
    """Calls of the file's own functions, replaced by what these compute."""
    Sequential(common.InlinePass())(graph.model)
    return graph


def tidy(graph: Graph) -> Graph:
    """Nodes sorted and named, constants as initializers, nothing that is not used."""
    passes = Sequential(
        common.TopologicalSortPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.RemoveInitializersFromInputsPass(),
        common.IdentityEliminationPass(),
        common.NameFixPass(),
        common.RemoveUnusedNodesPass(),
    )
    passes(graph.model)
    return graph


def check(graph: Graph) -> Graph:
    """The graph itself; raises onnx.checker.ValidationError where it is no valid ONNX."""
    onnx.checker.check_model(ir.to_proto(graph.model))
    return graph
