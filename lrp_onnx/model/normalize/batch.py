"""A batch of any size, for files with a fixed batch and for shapes computed from the batch."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from lrp_onnx.errors import UnsupportedModelError
from lrp_onnx.model.graph import Graph, inputs_of
from lrp_onnx.model.normalize.settle import forget_shapes, infer_shapes, settle_model
from lrp_onnx.model.shapes import Shape, shape_of

BATCH = "N"
"""Name of the symbolic batch."""
# fmt: off
ROWWISE = frozenset((
    "Abs", "Add", "AveragePool", "BatchNormalization", "Celu", "Clip", "Conv", "ConvTranspose",
    "DepthToSpace", "Div", "Dropout", "Elu", "Erf", "Exp", "Flatten", "Gelu", "Gemm",
    "GlobalAveragePool", "GlobalMaxPool", "GroupNormalization", "HardSigmoid", "HardSwish",
    "Identity", "InstanceNormalization", "LRN", "LayerNormalization", "LeakyRelu", "LogSoftmax",
    "MatMul", "Max", "MaxPool", "Min", "Mish", "Mul", "Neg", "PRelu", "Pad", "Pow", "Reciprocal",
    "ReduceL2", "ReduceMax", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Resize", "Selu",
    "Sigmoid", "Slice", "Softmax", "Softplus", "Softsign", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh",
    "Transpose", "Unsqueeze",
))
# fmt: on
"""Operators that treat every sample alone, if shape inference confirms it."""
FREED = "the file's batch has a fixed size; the compiled file takes any"
"""The note on a batch that was freed."""
TRIALS = (5, 7)
"""Batches to try: a size that is 5 in one trial and 7 in the other is the batch; a size that is the
same in both is constant.
"""
SHAPED = {
    "Reshape": (1,),
    "Expand": (1,),
    "Pad": (1,),
    "Slice": (1, 2, 3, 4),
    "Tile": (1,),
    "ConstantOfShape": (0,),
}
"""Operators that read a shape or indices → their input slots."""


def resolve_shapes(graph: Graph) -> Graph:
    """The graph with constants in place of shapes computed from the batch, found by trying two
    batches.
    """
    model = graph.model
    if not _depends_on_batch(model):
        return graph
    trials = []
    for batch in TRIALS:
        trial = with_batch(model, batch)
        settle_model(trial)
        trials.append(trial)
    if _write_constants(model, *trials) + _write_numbers(model, *trials):
        common.RemoveUnusedNodesPass()(model)
        forget_shapes(model)
        infer_shapes(model)
        settle_model(model)
    _write_shapes(model, *map(_values, trials))
    return graph


def _write_shapes(model: ir.Model, one: dict[str, ir.Value], two: dict[str, ir.Value]) -> None:
    """State the sizes of tensors that cannot be inferred with a symbolic batch, and are known in
    both trials.
    """
    picture = picture_of(model)
    assert picture is not None and picture.shape is not None
    for value in (value for node in model.graph for value in node.outputs):
        known = shape_of(value)
        found = [shape_of(trial[str(value.name)]) for trial in (one, two) if value.name in trial]
        if (known is not None and None not in known[1:]) or len(found) != 2:
            continue
        first, second = found
        if not first or not second or len(first) != len(second) or None in (*first, *second):
            continue
        value.shape = ir.Shape(
            mine if mine == other else picture.shape[0] if (mine, other) == TRIALS else None
            for mine, other in zip(first, second, strict=True)
        )


def _depends_on_batch(model: ir.Model) -> bool:
    """Whether the batch is symbolic and something computes shapes from it."""
    return picture_of(model) is not None and any(
        _computed_slots(node, model) for node in model.graph
    )


def picture_of(model: ir.Model) -> ir.Value | None:
    """The one picture input if its batch is symbolic and its other sizes are known, else None."""
    pictures = inputs_of(model)
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


def with_batch(model: ir.Model, batch: int) -> ir.Model:
    """A copy of the model with a fixed batch and without the shapes of computed tensors."""
    fixed = model.clone()
    picture = picture_of(fixed)
    assert picture is not None and picture.shape is not None
    picture.shape = ir.Shape([batch, *list(picture.shape)[1:]])
    forget_shapes(fixed)
    return fixed


def _write_constants(model: ir.Model, one: ir.Model, two: ir.Model) -> int:
    """Replace computed shapes in `model` by constants, from their values in two trials; return how
    many.
    """
    written = 0
    outputs = [_values(trial) for trial in (one, two)]
    for node in list(model.graph):
        for slot in _computed_slots(node, model):
            name = str(node.inputs[slot].name)  # type: ignore[union-attr]
            values = [_vector(folded(trial, name)) for trial in (one, two)]
            output = str(node.outputs[0].name)
            output_shapes = [shape_of(by_name[output]) for by_name in outputs if output in by_name]
            vector = _any_batch(node, values, output_shapes)
            label = f"{node.name}.{slot}.any_batch"
            if vector is None or name == label:  # a compiled file has it written already
                continue
            if node.op_type == "Reshape" and not _keeps(node, outputs):
                vector = [-1 if size == 0 else size for size in vector]
            if node.op_type == "Expand" and _is_stored(node.inputs[0], model):
                shape = _batch_and(model, vector[1:], label)
            else:
                shape = _stored(model, np.asarray(vector, np.int64), label)
            node.replace_input_with(slot, shape)
            node.attributes.pop("allowzero", None)
            written += 1
    return written


def _values(trial: ir.Model) -> dict[str, ir.Value]:
    """What a trial computes or has folded, by the names that `model` has for it."""
    stored = trial.graph.initializers.items()
    folded = {name.removesuffix(".folded"): value for name, value in stored}
    computed = (value for node in trial.graph for value in node.outputs)
    return folded | {str(v.name): v for v in (*trial.graph.inputs, *computed)}


def _is_stored(value: ir.Value | None, model: ir.Model) -> bool:
    return value is not None and value.name in model.graph.initializers


def _stored(model: ir.Model, array: NDArray[np.generic], name: str) -> ir.Value:
    """A new initializer of the model."""
    stored = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    stored.shape, stored.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
    model.graph.register_initializer(stored)
    return stored


def _batch_and(model: ir.Model, sizes: list[int], name: str) -> ir.Value:
    """The shape (batch, *sizes) as two new nodes at the beginning of the model, in the form whose
    result shape inference knows.
    """
    picture = picture_of(model)
    assert picture is not None
    rest = _stored(model, np.asarray(sizes, np.int64), f"{name}.sizes")
    batch = ir.node("Shape", [picture], attributes={"start": 0, "end": 1}, name=f"{name}.batch")
    shape = ir.node("Concat", [batch.outputs[0], rest], attributes={"axis": 0}, name=name)
    batch.outputs[0].name, shape.outputs[0].name = f"{name}.batch", name
    model.graph.insert_before(model.graph[0], [batch, shape])
    return shape.outputs[0]


def _write_numbers(model: ir.Model, one: ir.Model, two: ir.Model) -> int:
    """Replace numbers that are computed from shapes, and the same for both batches, by constants in
    `model`; return how many. Such is the scale of attention, 1/√d.
    """
    written = 0
    for node in list(model.graph):
        for value in node.outputs:
            found = [trial.graph.initializers.get(f"{value.name}.folded") for trial in (one, two)]
            arrays = [v.const_value.numpy() for v in found if v is not None and v.const_value]
            if len(arrays) == 2 and arrays[0].dtype.kind == "f" and _equal(*arrays):
                value.replace_all_uses_with(_stored(model, arrays[0], f"{value.name}.any_batch"))
                written += 1
    return written


def _equal(one: NDArray[np.generic], two: NDArray[np.generic]) -> bool:
    return one.dtype == two.dtype and np.array_equal(one, two)


def folded(trial: ir.Model, name: str) -> NDArray[np.generic] | None:
    """The integers that the trial computed for the tensor `name`, or None if it computed none."""
    stored = trial.graph.initializers.get(f"{name}.folded")
    if stored is None or stored.const_value is None:
        return None
    values = np.asarray(stored.const_value.numpy())
    return values if values.dtype.kind in "iu" else None


def _vector(values: NDArray[np.generic] | None) -> list[int] | None:
    return None if values is None else [int(n) for n in values.reshape(-1)]


def _any_batch(
    node: ir.Node, values: list[list[int] | None], output_shapes: list[Shape | None]
) -> list[int] | None:
    """A constant that is right for every batch, or None.

    Args:
        node: the node that reads the constant.
        values: the computed values in both trials.
        output_shapes: the shapes of the node's output in both trials.
    """
    if values[0] is not None and values[0] == values[1] and -1 not in values[0]:
        return values[0]
    if node.op_type not in ("Reshape", "Expand") or len(output_shapes) != 2:
        return None
    shape_1, shape_2 = output_shapes
    if not shape_1 or not shape_2 or len(shape_1) != len(shape_2):
        return None
    sizes = [size for size in shape_1 if size is not None]
    differing = [i for i, (one, two) in enumerate(zip(shape_1, shape_2, strict=True)) if one != two]
    if len(differing) != 1 or len(sizes) != len(shape_1) or 0 in sizes:
        return None
    (axis,) = differing
    if axis == 0 and (shape_1[0], shape_2[0]) == TRIALS:
        return [0 if node.op_type == "Reshape" else 1, *sizes[1:]]
    if node.op_type == "Reshape":  # the batch is inside, or merged with another axis
        return [*sizes[:axis], -1, *sizes[axis + 1 :]]
    return None


def _keeps(node: ir.Node, outputs: list[dict[str, ir.Value]]) -> bool:
    """Whether the first axis of a node's input is the batch in both trials."""
    name = str(node.inputs[0].name) if node.inputs[0] is not None else ""
    shapes = [shape_of(by_name[name]) for by_name in outputs if name in by_name]
    return [shape[0] if shape else None for shape in shapes] == list(TRIALS)


def free_batch(graph: Graph) -> Graph:
    """The graph with a symbolic batch in place of a fixed one, if it treats every sample alone.

    Constants that reshape to (batch, …) are changed to keep any batch; nothing else changes.
    """
    freed = _freed(graph.model)
    if freed is None:
        return graph
    return replace(graph, model=freed, notes=(*graph.notes, FREED))


def _freed(model: ir.Model) -> ir.Model | None:
    """A copy with a symbolic batch; None if it is symbolic already or must stay fixed."""
    pictures = inputs_of(model)
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
    """Change a Reshape's constant (batch, …) to (0, …), where 0 keeps the input's size.

    Returns False if the constant does not keep the batch.
    """
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
    before = shape_of(node.inputs[0]) if node.inputs[0] is not None else None
    if sizes[0] == -1 and (before is None or prod(sizes[1:]) != prod(n or 0 for n in before[1:])):
        return False
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
    """A copy of the graph with its symbolic batch fixed to 1; one that is 1 stays, and so does a
    graph without one input of one picture, which is refused later.

    Raises:
        UnsupportedModelError: the batch is fixed to more than 1.
    """
    picture = graph.inputs[0] if len(graph.inputs) == 1 else None
    if picture is None or not picture.shape:
        return graph
    batch = picture.shape[0]
    if isinstance(batch, int) and batch != 1:
        fault = (
            f"the input '{picture.name}' has a fixed batch of {batch}: "
            "a static file, or one for many targets, takes one picture; "
            "export the model with a batch of 1"
        )
        raise UnsupportedModelError(f"{source} cannot be compiled for one picture:", [fault])
    model = graph.model.clone()
    computed = (value for node in model.graph for value in node.outputs)
    for value in (*model.graph.inputs, *computed):
        if value.shape is not None:
            value.shape = ir.Shape([1 if dim == batch else dim for dim in value.shape])
    return replace(graph, model=model, notes=tuple(n for n in graph.notes if n != FREED))
