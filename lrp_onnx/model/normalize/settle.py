"""Shape inference, constant folding and reordering of moves, repeated until nothing changes."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from lrp_onnx.model.graph import Graph
from lrp_onnx.model.normalize.fold import fold_constants
from lrp_onnx.model.normalize.quantized_moves import move_first


def settle(graph: Graph) -> Graph:
    """The graph with inferred shapes, folded constants and reordered moves, changed in place."""
    settle_model(graph.model)
    return graph


def settle_model(model: ir.Model) -> None:
    """The same for a model."""
    infer_shapes(model)
    while fold_constants(model) or move_first(model):
        common.RemoveUnusedNodesPass()(model)
        infer_shapes(model)


def infer_shapes(model: ir.Model) -> None:
    """Infer every tensor's shape and type, in place; nothing changes if they are contradictory."""
    common.ShapeInferencePass()(model)


def forget_shapes(model: ir.Model) -> None:
    """Remove the shapes of all computed tensors, in place, so that they are inferred again."""
    for node in model.graph:
        for value in node.outputs:
            value.shape = None
