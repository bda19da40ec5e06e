"""Shapes inferred, constants evaluated, roundabout writing straightened, until nothing changes."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from lrp_onnx.model.graph import Graph
from lrp_onnx.model.normalize.fold import fold_constants
from lrp_onnx.model.normalize.quantized_moves import move_first


def settle(graph: Graph) -> Graph:
    """The graph with every shape that can be inferred, and nothing computed that is constant."""
    settle_model(graph.model)
    return graph


def settle_model(model: ir.Model) -> None:
    """The same, of a model, in place."""
    infer_shapes(model)
    while fold_constants(model) or move_first(model):
        common.RemoveUnusedNodesPass()(model)
        infer_shapes(model)


def infer_shapes(model: ir.Model) -> None:
    """Infer every tensor's shape and type, in place; where
    they contradict each other nothing changes.
    """
    common.ShapeInferencePass()(model)


def forget_shapes(model: ir.Model) -> None:
    """Forget every computed tensor's shape, in place, so that it is inferred anew."""
    for node in model.graph:
        for value in node.outputs:
            value.shape = None
