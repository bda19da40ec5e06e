"""Evaluating what does not depend on the picture: shapes,
pads and indices that exporters compute in the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, prod
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from lrp_onnx.model.gate import ITEM_BYTES
from lrp_onnx.model.shapes import shape_of

MOST_ELEMENTS = 1 << 16
"""Larger results are left in the graph: what exporters
compute of shapes is tiny, and a file could ask for terabytes.
"""
# fmt: off
FOLDABLE = frozenset((
    "Abs", "Add", "Cast", "CastLike", "Ceil", "Clip", "Concat", "ConstantOfShape", "Div",
    "Equal", "Expand", "Flatten", "Floor", "Gather", "Greater", "Identity", "Less", "Max",
    "Min", "Mod", "Mul", "Neg", "Not", "Pow", "Range", "ReduceProd", "Reshape", "Round",
    "Shape", "Size", "Slice", "Sqrt", "Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze",
    "Where",
))
# fmt: on
"""Operators that are evaluated; convolutions and the like of constants are not worth it."""

DERIVED = FOLDABLE | {
    "BatchNormalization",
    "DequantizeLinear",
    "Pow",
    "Reciprocal",
    "ReduceMean",
    "ReduceSum",
    "ReduceSumSquare",
}
"""Operators that exporters make weights with: dequantised, standardised, cast, turned."""

EVALUATED_AS = 20
"""Opset of the evaluation: these operators mean the same in
18 to 20, and the evaluator lacks some older ones.
"""

Array = NDArray[np.generic]


def fold_constants(model: ir.Model) -> int:
    """Replace, in place, small nodes of constants by their values; returns how many."""
    folded = 0
    for node in list(model.graph):
        value = _evaluate(node, model)
        if value is None:
            continue
        output = node.outputs[0]
        stored = ir.Value(
            name=f"{output.name}.folded", const_value=ir.tensor(value, name=f"{output.name}.folded")
        )
        stored.shape, stored.dtype = ir.Shape(value.shape), ir.DataType.from_numpy(value.dtype)
        model.graph.register_initializer(stored)
        output.replace_all_uses_with(stored)
        model.graph.remove(node, safe=True)
        folded += 1
    return folded


def _evaluate(node: ir.Node, model: ir.Model) -> Array | None:
    """What the node computes, or None where it cannot be
    known, is too large, or is an output of the model.
    """
    if (
        node.op_type not in FOLDABLE
        or node.domain
        or len(node.outputs) != 1
        or node.outputs[0].is_graph_output()
    ):
        return None
    if node.op_type in ("Shape", "Size"):
        return _shape(node)
    if node.op_type == "CastLike":
        return _cast_like(node, model)
    inputs = [_constant(value, model) if value is not None else None for value in node.inputs]
    present = [value for value in inputs if value is not None]
    if (
        len(present) != sum(value is not None for value in node.inputs)
        or not present
        or not _is_small(node, present)
    ):
        return None
    return evaluate(node, inputs)


def _constant(value: ir.Value, model: ir.Model) -> Array | None:
    if (
        value.name not in model.graph.initializers
        or value.const_value is None
        or value.const_value.size > MOST_ELEMENTS
    ):
        return None
    return np.asarray(value.const_value.numpy())


def _shape(node: ir.Node) -> Array | None:
    shape = shape_of(node.inputs[0]) if node.inputs[0] is not None else None
    if shape is None:
        return None
    if node.op_type == "Shape":
        start, end = (
            node.attributes[k].value if k in node.attributes else d
            for k, d in (("start", 0), ("end", None))
        )
        shape = shape[start:end]
    if None in shape:
        return None
    known = [size for size in shape if size is not None]
    return np.array(known if node.op_type == "Shape" else prod(known), np.int64)


def _cast_like(node: ir.Node, model: ir.Model) -> Array | None:
    """A constant in the element type of a tensor that need not be constant."""
    source, pattern = node.inputs
    value = _constant(source, model) if source is not None else None
    if value is None or pattern is None or pattern.dtype is None or pattern.dtype not in ITEM_BYTES:
        return None
    return value.astype(pattern.dtype.numpy())


def _is_small(node: ir.Node, inputs: list[Array]) -> bool:
    """Whether the result is; the few operators that can grow say so in their inputs."""
    if node.op_type in ("ConstantOfShape", "Expand", "Tile"):
        wanted = inputs[-1].reshape(-1)
        if wanted.dtype.kind not in "iu":
            return False
        grown = prod(max(int(n), 0) for n in wanted)
        return grown * (inputs[0].size if node.op_type == "Tile" else 1) <= MOST_ELEMENTS
    if node.op_type == "Range":
        if len(inputs) != 3 or any(value.size != 1 for value in inputs):
            return False
        start, end, step = (float(value.reshape(())) for value in inputs)
        return isfinite(start) and abs(end - start) <= MOST_ELEMENTS * abs(step)
    return sum(value.size for value in inputs) <= MOST_ELEMENTS


def evaluate(node: ir.Node, inputs: Sequence[Array | None]) -> Array | None:
    """What the node computes of constants: its first output,
    or None where the reference evaluator cannot tell.
    """
    model, feeds = _alone(node, inputs)
    try:
        results: Any = ReferenceEvaluator(model).run(None, feeds)
    except (
        Exception
    ):  # the evaluator raises whatever NumPy does; the node then stays and is reported as unread
        return None
    result = np.asarray(results[0])
    return result if onnx.helper.np_dtype_to_tensor_dtype(result.dtype) in ITEM_BYTES else None


def _alone(
    node: ir.Node, inputs: Sequence[Array | None]
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A model of the one node, and what to feed it with."""
    proto = ir.to_proto(node)
    feeds = {
        name: value for name, value in zip(proto.input, inputs, strict=True) if value is not None
    }
    types = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in feeds.items()
    ]
    output = onnx.ValueInfoProto(name=proto.output[0])
    graph = onnx.helper.make_graph([proto], "node", types, [output])
    imports = [onnx.helper.make_opsetid("", EVALUATED_AS)]
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=10), feeds
