"""A Gather that takes every element in order, as PyTorch's dynamo exporter writes a tensor with
stated strides, as the Reshape that it is.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from lrp_onnx.model.graph import Graph, shape_of
from lrp_onnx.model.normalize.batch import TRIALS, folded, picture_of, with_batch
from lrp_onnx.model.normalize.settle import settle_model


def ordered_gathers_as_reshapes(graph: Graph) -> Graph:
    """The graph with a Reshape in place of every Gather of all elements of a flattened tensor in
    their order; for a batch of any size, two sizes are tried.
    """
    gathers = [node for node in graph.nodes if _reads_flattened(node)]
    if not gathers:
        return graph
    trials: list[ir.Model] = []
    if picture_of(graph.model) is not None:
        trials = [with_batch(graph.model, batch) for batch in TRIALS]
    for trial in trials:
        settle_model(trial)
    for node in gathers:
        sizes = _in_order(node, trials)
        source = node.inputs[0].producer()  # type: ignore[union-attr]
        if sizes is None or source is None:
            continue
        name = f"{node.name}.shape"
        stored = ir.Value(name=name, const_value=ir.tensor(np.array(sizes, np.int64), name=name))
        stored.shape, stored.dtype = ir.Shape([len(sizes)]), ir.DataType.INT64
        graph.model.graph.register_initializer(stored)
        reshape = ir.node("Reshape", [source.inputs[0], stored], name=node.name)
        made, old = reshape.outputs[0], node.outputs[0]
        made.name, made.type, made.shape = old.name, old.type, old.shape
        ir.convenience.replace_nodes_and_values(
            graph.model.graph, node, [node], [reshape], [old], [made]
        )
    common.RemoveUnusedNodesPass()(graph.model)
    return graph


def _reads_flattened(node: ir.Node) -> bool:
    """Whether it takes elements of a tensor that a Reshape has flattened, batch and all."""
    data = node.inputs[0] if node.op_type == "Gather" else None
    source = data.producer() if data is not None else None
    if data is None or source is None or source.op_type != "Reshape":
        return False
    if source.inputs[0] is None:
        return False
    before, after = shape_of(source.inputs[0]), shape_of(data)
    axis = node.attributes.get_int("axis", default=0)
    return (
        before is not None and len(before) > 1 and after is not None and len(after) == 1 == axis + 1
    )


def _in_order(node: ir.Node, trials: list[ir.Model]) -> list[int] | None:
    """The shape with 0 for the batch, if the node takes every element in order, else None."""
    index = node.inputs[1]
    if index is None:
        return None
    if not trials:
        stored = index.const_value
        taken = [None if stored is None else stored.numpy()]
    else:
        taken = [folded(trial, str(index.name)) for trial in trials]
    shapes = []
    for values in taken:
        if values is None or not np.array_equal(values.reshape(-1), np.arange(values.size)):
            return None
        shapes.append(values.shape)
    batches = TRIALS if trials else shapes[0][:1]
    if any(shape[:1] != (batch,) for shape, batch in zip(shapes, batches, strict=True)):
        return None
    before = shape_of(node.inputs[0].producer().inputs[0])  # type: ignore[union-attr,arg-type]
    whole = [size for size in (before or ())[1:] if size is not None]
    same = {shape[1:] for shape in shapes}
    if len(same) != 1 or np.prod(whole) != np.prod(shapes[0][1:]):
        return None
    return [0, *shapes[0][1:]]
