"""Constant folding: shapes, pads and indices that exporters compute in the graph."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from lrp_onnx.files.budget import bytes_made
from lrp_onnx.model.gate import ITEM_BYTES
from lrp_onnx.model.shapes import shape_of

MOST_ELEMENTS = 1 << 16
"""Largest tensor that is folded, in elements. Shapes are tiny."""
MOST_BYTES = 8 * MOST_ELEMENTS
"""Largest result of folding, in bytes: an untrusted file could demand terabytes."""
MOST_DERIVED = 1 << 29
"""Largest weight that is computed from others, in bytes; the largest layer of ResNet-152 has ten
million.
"""
MOST_RESIZED = 1 << 22
"""Largest result of a Resize, in bytes: ONNX's evaluator computes element by element."""
# fmt: off
FOLDABLE = frozenset((
    "Abs", "Add", "Cast", "CastLike", "Ceil", "Clip", "Concat", "ConstantOfShape", "Div",
    "Equal", "Expand", "Flatten", "Floor", "Gather", "Greater", "Identity", "Less", "Max",
    "Min", "Mod", "Mul", "Neg", "Not", "Pow", "Range", "ReduceProd", "Reshape", "Round",
    "Shape", "Size", "Slice", "Sqrt", "Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze",
    "Where",
))
# fmt: on
"""Operators that are folded; constant convolutions and the like are too rare."""

PRODUCTS = ("Conv", "Gemm", "MatMul")
"""Operators that NumPy computes on several threads."""
DERIVED = FOLDABLE | {
    "BatchNormalization",
    "Conv",
    "Cos",
    "CumSum",
    "DequantizeLinear",
    "Exp",
    "GatherND",
    "Gemm",
    "MatMul",
    "Pow",
    "QuantizeLinear",
    "Reciprocal",
    "ReduceL2",
    "ReduceMean",
    "ReduceSum",
    "ReduceSumSquare",
    "Relu",
    "Resize",
    "ScatterND",
    "Sigmoid",
    "Sin",
    "Softmax",
    "Split",
}
"""Operators from which exporters compute weights: dequantise, standardise, cast, transpose."""

EVALUATED_AS = 20
"""Opset of the evaluation. These operators mean the same in opsets 18 to 20, and ONNX's evaluator
lacks some older versions.
"""

Array = NDArray[np.generic]


def fold_constants(model: ir.Model) -> int:
    """Replace nodes with constant inputs and small results by their values, in place; return how
    many.
    """
    folded = 0
    for node in list(model.graph):
        value = _evaluate(node, model)
        if value is None:
            continue
        output = node.outputs[0]
        name = f"{output.name}.folded"
        stored = ir.Value(name=name, const_value=ir.tensor(value, name=name))
        stored.shape, stored.dtype = ir.Shape(value.shape), ir.DataType.from_numpy(value.dtype)
        model.graph.register_initializer(stored)
        output.replace_all_uses_with(stored)
        model.graph.remove(node, safe=True)
        folded += 1
    return folded


def _evaluate(node: ir.Node, model: ir.Model) -> Array | None:
    """The value of a node's output; None if it is not constant, too large, or a graph output."""
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
    if len(present) != sum(value is not None for value in node.inputs) or not present:
        return None
    found = evaluate_all(node, inputs, MOST_BYTES)
    return found[0] if found else None


def _constant(value: ir.Value, model: ir.Model) -> Array | None:
    """The values of an initializer; None if `value` is not one, or is too large."""
    if (
        value.name not in model.graph.initializers
        or value.const_value is None
        or value.const_value.size > MOST_ELEMENTS
    ):
        return None
    return np.asarray(value.const_value.numpy())


def _shape(node: ir.Node) -> Array | None:
    """The value of a Shape or Size; None if a size is symbolic."""
    shape = shape_of(node.inputs[0]) if node.inputs[0] is not None else None
    if shape is None:
        return None
    if node.op_type == "Shape":
        start = node.attributes["start"].value if "start" in node.attributes else 0
        end = node.attributes["end"].value if "end" in node.attributes else None
        shape = shape[start:end]
    if None in shape:
        return None
    known = [size for size in shape if size is not None]
    return np.array(known if node.op_type == "Shape" else prod(known), np.int64)


def _cast_like(node: ir.Node, model: ir.Model) -> Array | None:
    """The value of a CastLike, whose second input need not be constant."""
    source, pattern = node.inputs
    value = _constant(source, model) if source is not None else None
    if value is None or pattern is None or pattern.dtype is None or pattern.dtype not in ITEM_BYTES:
        return None
    return value.astype(pattern.dtype.numpy())


def evaluate_all(node: ir.Node, inputs: Sequence[Array | None], most: int) -> list[Array] | None:
    """Every output of a node with constant inputs; None if they take more than `most` bytes, how
    many cannot be told before, or ONNX's evaluator fails.
    """
    try:
        model, feeds = _single_node_model(node, inputs)
    except ValueError:  # text
        return None
    made = bytes_made(model, feeds)
    if made is None or made * _repeated(node, inputs) > most:
        return None
    if node.op_type == "Pow" and all(x is not None and x.dtype == np.float32 for x in inputs):
        base, exponent = (np.asarray(x, np.float64) for x in inputs)
        with np.errstate(all="ignore"):
            # NumPy's power of float32 is not rounded as runtimes round it.
            return [np.asarray(np.power(base, exponent), np.float32)]
    # In float64 a sum of products does not depend on how many threads share it.
    exact = node.op_type in PRODUCTS and all(x is None or x.dtype == np.float32 for x in inputs)
    try:
        if exact:
            doubled = [None if x is None else x.astype(np.float64) for x in inputs]
            model, feeds = _single_node_model(node, doubled)
        with np.errstate(all="ignore"):
            results: Any = ReferenceEvaluator(model).run(None, feeds)
    # The evaluator is Python code without checks: a damaged node can raise any built-in or NumPy
    # exception. The node then stays in the graph, and its reader reports it.
    except Exception:
        return None
    arrays = [np.asarray(result, np.float32 if exact else None) for result in results]
    types = {onnx.helper.np_dtype_to_tensor_dtype(array.dtype) for array in arrays}
    return arrays if types.issubset(ITEM_BYTES) else None


def _repeated(node: ir.Node, inputs: Sequence[Array | None]) -> int:
    """How many times the size of its result the evaluation of a node may take."""
    if node.op_type == "Conv" and len(inputs) > 1 and inputs[1] is not None:
        return max(1, prod(inputs[1].shape[1:]))
    return MOST_DERIVED // MOST_RESIZED if node.op_type == "Resize" else 1


def _single_node_model(
    node: ir.Node, inputs: Sequence[Array | None]
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A model of one node, and its inputs by name."""
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
    outputs = [onnx.ValueInfoProto(name=name) for name in proto.output]
    graph = onnx.helper.make_graph([proto], "node", types, outputs)
    imports = [onnx.helper.make_opsetid("", EVALUATED_AS)]
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=10), feeds
