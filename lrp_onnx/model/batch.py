"""A batch of any size, for files that were exported with one of a fixed size."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from lrp_onnx.model.shapes import shape_of

BATCH = "N"
ROWWISE = frozenset(
    {
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Clip",
        "Conv",
        "Div",
        "Dropout",
        "Flatten",
        "Gemm",
        "GlobalAveragePool",
    }
    | {
        "HardSigmoid",
        "Identity",
        "LeakyRelu",
        "LogSoftmax",
        "MatMul",
        "MaxPool",
        "Mul",
        "Pad",
        "ReduceMean",
        "Relu",
        "Reshape",
    }
    | {"Sigmoid", "Slice", "Softmax", "Squeeze", "Sub", "Sum", "Transpose", "Unsqueeze"}
)
"""Operators that treat every sample alone, as far as shape inference confirms it."""


def free_batch(model: ir.Model) -> ir.Model:
    """`model` with a symbolic batch, or `model` itself where its batch is symbolic already or cannot be freed.

    Constants that reshape to (batch, …) are changed to keep whatever batch there is; nothing else is touched.
    """
    pictures = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    shape = shape_of(pictures[0]) if len(pictures) == 1 else None
    if not shape or shape[0] is None or any(node.op_type not in ROWWISE for node in model.graph):
        return model
    freed = model.clone()
    picture = next(value for value in freed.graph.inputs if value.name == pictures[0].name)
    if not all(_keep_batch(node, shape[0], freed) for node in freed.graph if node.op_type == "Reshape"):
        return model
    _forget_shapes(freed)
    picture.shape = ir.Shape([BATCH, *shape[1:]])
    try:
        common.ShapeInferencePass()(freed)
    except Exception:  # shapes no longer fit: the batch is mixed with the rest somewhere
        return model
    return freed if all(_is_free(value) for node in freed.graph for value in node.outputs) else model


def _keep_batch(node: ir.Node, batch: int, model: ir.Model) -> bool:
    """Make a constant (batch, …) of a Reshape (0, …): 0 keeps the size that is there."""
    target = node.inputs[1]
    if target is None or target.name not in model.graph.initializers or target.const_value is None:
        return True
    sizes = np.asarray(target.const_value.numpy())
    if sizes.size == 0 or sizes[0] not in (batch, -1, 0):
        return False
    if node.attributes.get_int("allowzero", default=0):
        if (sizes == 0).any():
            return False
        node.attributes["allowzero"] = ir.AttrInt64("allowzero", 0)
    if sizes[0] == 0 or (sizes[0] == -1 and (sizes[1:] <= 0).any()):
        return True
    name = f"{target.name}.any_batch"
    kept = ir.Value(name=name, const_value=ir.tensor(np.array([0, *sizes[1:]], np.int64), name=name))
    if name not in model.graph.initializers:
        model.graph.register_initializer(kept)
    node.replace_input_with(1, model.graph.initializers[name])
    return True


def _forget_shapes(model: ir.Model) -> None:
    for node in model.graph:
        for value in node.outputs:
            value.shape = None


def _is_free(value: ir.Value) -> bool:
    """Whether a computed tensor begins with the symbolic batch."""
    return value.shape is not None and len(value.shape) > 0 and str(value.shape[0]) == BATCH
