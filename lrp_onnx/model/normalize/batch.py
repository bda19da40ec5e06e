"""A batch of any size: for files that were exported with
one, and for shapes that are computed from the batch.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from lrp_onnx.errors import UnsupportedModelError
from lrp_onnx.model.graph import Graph
from lrp_onnx.model.normalize.settle import forget_shapes, infer_shapes, settle_model
from lrp_onnx.model.shapes import Shape, shape_of

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


TRIALS = (5, 7)
"""Batches that are tried: what is 5 in one and 7 in the
other is the batch, what is equal in both is constant.
"""
SHAPED = {
    "Reshape": (1,),
    "Expand": (1,),
    "Pad": (1,),
    "Slice": (1, 2, 3, 4),
    "Tile": (1,),
    "ConstantOfShape": (0,),
}
"""Operators that read a shape, and in which inputs."""


def resolve_shapes(graph: Graph) -> Graph:
    """Shapes that are computed from the batch: what they come to is found by trying two batches."""
    model = graph.model
    if not _depends_on_batch(model):
        return graph
    trials = []
    for batch in TRIALS:
        trial = _with_batch(model, batch)
        settle_model(trial)
        trials.append(trial)
    if _write_constants(model, *trials):
        common.RemoveUnusedNodesPass()(model)
        forget_shapes(model)
        infer_shapes(model)
        settle_model(model)
    return graph


def _depends_on_batch(model: ir.Model) -> bool:
    """Whether the batch is symbolic and something computes shapes from it."""
    return _picture_of(model) is not None and any(
        _computed_slots(node, model) for node in model.graph
    )


def _picture_of(model: ir.Model) -> ir.Value | None:
    """The one picture input, if its batch is symbolic and its other sizes are known."""
    pictures = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    shape = shape_of(pictures[0]) if len(pictures) == 1 else None
    return pictures[0] if shape and shape[0] is None and None not in shape[1:] else None


def _computed_slots(node: ir.Node, model: ir.Model) -> list[int]:
    """Input slots of shapes that are computed, not stored."""
    return [
        slot
        for slot in SHAPED.get(node.op_type, ())
        if slot < len(node.inputs) and _is_computed(node.inputs[slot], model)
    ]


def _is_computed(value: ir.Value | None, model: ir.Model) -> bool:
    return (
        value is not None
        and value.producer() is not None
        and value.name not in model.graph.initializers
    )


def _with_batch(model: ir.Model, batch: int) -> ir.Model:
    """A copy with the batch fixed."""
    fixed = model.clone()
    picture = _picture_of(fixed)
    assert picture is not None and picture.shape is not None
    picture.shape = ir.Shape([batch, *list(picture.shape)[1:]])
    forget_shapes(fixed)
    return fixed


def _write_constants(model: ir.Model, one: ir.Model, two: ir.Model) -> int:
    """Replace computed shapes in `model` by what they came to in
    the two trials; returns how many.
    """
    written = 0
    outputs = [{v.name: v for node in trial.graph for v in node.outputs} for trial in (one, two)]
    for node in list(model.graph):
        for slot in _computed_slots(node, model):
            name = str(node.inputs[slot].name)  # type: ignore[union-attr]
            values = [_folded(trial, name) for trial in (one, two)]
            made = [
                shape_of(made[str(node.outputs[0].name)])
                for made in outputs
                if node.outputs[0].name in made
            ]
            vector = _any_batch(node, slot, values, made)
            if vector is None:
                continue
            label = f"{node.name}.{slot}.any_batch"
            stored = ir.Value(
                name=label, const_value=ir.tensor(np.asarray(vector, np.int64), name=label)
            )
            stored.shape, stored.dtype = ir.Shape([len(vector)]), ir.DataType.INT64
            model.graph.register_initializer(stored)
            node.replace_input_with(slot, stored)
            node.attributes.pop("allowzero", None)
            written += 1
    return written


def _folded(trial: ir.Model, name: str) -> list[int] | None:
    """The whole numbers that the tensor `name` came to in
    the trial, or None where it was not evaluated.
    """
    stored = trial.graph.initializers.get(f"{name}.folded")
    if stored is None or stored.const_value is None:
        return None
    values = np.asarray(stored.const_value.numpy())
    return [int(n) for n in values.reshape(-1)] if values.dtype.kind in "iu" else None


def _any_batch(
    node: ir.Node, slot: int, values: list[list[int] | None], made: list[Shape | None]
) -> list[int] | None:
    """A constant for the slot that serves every batch, or None."""
    if values[0] is not None and values[0] == values[1] and -1 not in values[0]:
        return values[0]
    if node.op_type not in ("Reshape", "Expand") or len(made) != 2 or not made[0] or not made[1]:
        return None
    (first, *rest), (second, *again) = made[0], made[1]
    sizes = [size for size in rest if size is not None]
    if (first, second) != TRIALS or rest != again or len(sizes) != len(rest) or 0 in sizes:
        return None
    return [0 if node.op_type == "Reshape" else 1, *sizes]


def free_batch(graph: Graph) -> Graph:
    """The graph for a batch of any size, where its batch is
    fixed and every sample is treated alone.

    Constants that reshape to (batch, …) are changed to keep
    whatever batch there is; nothing else is touched.
    """
    freed = _freed(graph.model)
    if freed is None:
        return graph
    note = "the file's batch has a fixed size; the compiled file takes any"
    return Graph(freed, notes=(*graph.notes, note))


def _freed(model: ir.Model) -> ir.Model | None:
    """A copy with a symbolic batch; None where it is symbolic already or cannot be freed."""
    pictures = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    shape = shape_of(pictures[0]) if len(pictures) == 1 else None
    if not shape or shape[0] is None or any(node.op_type not in ROWWISE for node in model.graph):
        return None
    freed = model.clone()
    picture = next(value for value in freed.graph.inputs if value.name == pictures[0].name)
    if not all(
        _keep_batch(node, shape[0], freed) for node in freed.graph if node.op_type == "Reshape"
    ):
        return None
    forget_shapes(freed)
    picture.shape = ir.Shape([BATCH, *shape[1:]])
    infer_shapes(freed)
    return freed if all(_is_free(value) for node in freed.graph for value in node.outputs) else None


def _keep_batch(node: ir.Node, batch: int, model: ir.Model) -> bool:
    """Make a constant (batch, …) of a Reshape (0, …): 0 keeps the size that is there."""
    target = node.inputs[1]
    if target is None or target.name not in model.graph.initializers or target.const_value is None:
        return True
    sizes = np.asarray(target.const_value.numpy())
    if sizes.ndim != 1 or sizes.size == 0 or sizes[0] not in (batch, -1, 0):
        return False
    if node.attributes.get_int("allowzero", default=0):
        if (sizes == 0).any():
            return False
        node.attributes["allowzero"] = ir.AttrInt64("allowzero", 0)
    if sizes[0] == 0 or (sizes[0] == -1 and (sizes[1:] <= 0).any()):
        return True
    name = f"{target.name}.any_batch"
    kept = ir.Value(
        name=name, const_value=ir.tensor(np.array([0, *sizes[1:]], np.int64), name=name)
    )
    if name not in model.graph.initializers:
        model.graph.register_initializer(kept)
    node.replace_input_with(1, model.graph.initializers[name])
    return True


def _is_free(value: ir.Value) -> bool:
    """Whether a computed tensor begins with the symbolic batch."""
    return value.shape is not None and len(value.shape) > 0 and str(value.shape[0]) == BATCH


def one_picture(graph: Graph, *, source: str) -> Graph:
    """The graph with its open batch fixed to one; `graph` is not changed.

    Raises:
        UnsupportedModelError: the batch is fixed to more.
    """
    (picture,) = graph.inputs
    assert picture.shape is not None
    batch = picture.shape[0]
    if isinstance(batch, int) and batch != 1:
        fault = (
            f"the input '{picture.name}' takes {batch} pictures at once: "
            "many targets are for one picture"
        )
        raise UnsupportedModelError(f"{source} cannot be compiled for many targets:", [fault])
    model = graph.model.clone()
    made = (value for node in model.graph for value in node.outputs)
    for value in (*model.graph.inputs, *made):
        if value.shape is not None:
            value.shape = ir.Shape([1 if dim == batch else dim for dim in value.shape])
    return replace(graph, model=model)
