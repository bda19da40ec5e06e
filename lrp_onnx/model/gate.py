"""The gate: checks of an untrusted file before anything in it is evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from math import isfinite, prod

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto

from lrp_onnx.errors import few
from lrp_onnx.files.structure import MOST_NODES, behind, expanded, nested, opset_of, where

MOST_RANK = 8
"""Largest number of a weight's axes."""
ITEM_BYTES: dict[int, int] = {
    TensorProto.FLOAT: 4,
    TensorProto.DOUBLE: 8,
    TensorProto.FLOAT16: 2,
    TensorProto.BFLOAT16: 2,
    TensorProto.INT8: 1,
    TensorProto.UINT8: 1,
    TensorProto.INT16: 2,
    TensorProto.UINT16: 2,
    TensorProto.INT32: 4,
    TensorProto.UINT32: 4,
    TensorProto.INT64: 8,
    TensorProto.UINT64: 8,
    TensorProto.BOOL: 1,
}
"""Element types that a weight may have → bytes of an element."""
LARGEST = {
    "group": 2**16,
    "strides": 2**12,
    "kernel_shape": 2**12,
    "dilations": 2**12,
    "pads": 2**16,
}
"""Attributes of windows → largest value. The least is 1, or 0 for pads; the pads of a Pad operator
may be negative and are not checked.
"""
FLAGS = (
    "allowzero",
    "ceil_mode",
    "count_include_pad",
    "keepdims",
    "noop_with_empty_axes",
    "storage_order",
    "transA",
    "transB",
)
"""Attributes that are 0 or 1; runtimes differ in what they make of other numbers."""
LARGEST_MADE = 1 << 28
"""Most elements that stored sizes may ask for."""
SIZES_IN: dict[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1),
    "Resize": (3,),
    "Tile": (1,),
}
"""Operators that make tensors as large as an input says → the places of such inputs."""
LARGEST_OPSET = 10_000
"""No opset has a larger number; what is larger is damage."""
HELD_IN: dict[int, str] = {
    AttributeProto.FLOAT: "f",
    AttributeProto.INT: "i",
    AttributeProto.STRING: "s",
    AttributeProto.TENSOR: "t",
    AttributeProto.GRAPH: "g",
    AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    AttributeProto.TYPE_PROTO: "tp",
    AttributeProto.FLOATS: "floats",
    AttributeProto.INTS: "ints",
    AttributeProto.STRINGS: "strings",
    AttributeProto.TENSORS: "tensors",
    AttributeProto.GRAPHS: "graphs",
    AttributeProto.SPARSE_TENSORS: "sparse_tensors",
    AttributeProto.TYPE_PROTOS: "type_protos",
}
"""Type of an attribute → the field that holds its value."""
RANDOM = ("Random", "Bernoulli", "Multinomial")
"""Prefixes of operators that draw random numbers."""
# fmt: off
SPLIT_OPERATORS = frozenset((
    "Attention", "BiasAdd", "BiasGelu", "BiasSplitGelu", "FastGelu", "FusedConv", "FusedGemm",
    "FusedMatMul", "FusedMatMulActivation", "Gelu", "GemmFastGelu", "GroupQueryAttention",
    "LayerNormalization", "MultiHeadAttention", "NhwcConv", "QGemm", "QLinearAdd",
    "QLinearAveragePool", "QLinearConcat", "QLinearGlobalAveragePool", "QLinearLeakyRelu",
    "QLinearMul", "QLinearSigmoid", "QuickGelu", "RotaryEmbedding",
    "SimplifiedLayerNormalization", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization",
    "TransposeMatMul",
))
# fmt: on
"""Operators of com.microsoft that the compiler splits into standard ones."""
UNLISTED = ("Upsample", "SimplifiedLayerNormalization")
"""Operators that ONNX had, and that ONNX Runtime writes as if ONNX had them."""
SPLIT_QUANTISED = ("QLinearConv", "QLinearMatMul")
"""Standard operators that compute in integers and are split."""
QUANTISED = ("QLinear", "QGemm", "QAttention", "ConvInteger", "MatMulInteger", "DynamicQuantize")
"""Prefixes of operators that compute in integers."""


def faults_of(proto: onnx.ModelProto, explained: str | None = None) -> list[str]:
    """One message for everything in the model that is unsafe or cannot be compiled.

    Args:
        proto: a model that nobody vouches for.
        explained: name of the output that is explained, None where that is not known: control flow
            and lists of tensors may stand where it does not depend on them, as a detector's
            post-processing.
    """
    opset = opset_of(proto)
    faults = [*_structure(proto)]
    functions = {(f.domain, f.name) for f in proto.functions}
    known = explained in {value.name for value in proto.graph.output}
    aside = behind(proto.graph, [str(explained)]) if known else frozenset()
    for node in _nodes(proto):
        apart = not aside.isdisjoint(node.output)
        for inner in nested(node) if apart else [node]:
            if (inner.domain, inner.op_type) not in functions:
                faults += _operator(inner, apart=apart)
            faults += _attributes(inner)
            faults += _outputs(inner)
            faults += _types(inner, opset)
    for node in proto.graph.node:
        if any(attribute.ref_attr_name for attribute in node.attribute):
            faults.append(f"{where(node)} takes an attribute of a function and is in none")
    faults += _sizes_asked(proto)
    masks = {name for node in _nodes(proto) if node.op_type == "Add" for name in node.input}
    for tensor in _tensors(proto):
        faults += _tensor(tensor, mask=tensor.name in masks)
    return list(dict.fromkeys(faults))


def _nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from proto.graph.node
    for function in proto.functions:
        yield from function.node


def _tensors(proto: onnx.ModelProto) -> Iterator[TensorProto]:
    yield from proto.graph.initializer
    for node in _nodes(proto):
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t


def _structure(proto: onnx.ModelProto) -> Iterator[str]:
    if proto.graph.sparse_initializer:
        yield (
            f"{len(proto.graph.sparse_initializer)} weights are stored sparsely: export them dense"
        )
    for value in (*proto.graph.input, *proto.graph.output):
        if value.type.WhichOneof("value") != "tensor_type":
            yield (
                f"'{value.name}' is {value.type.WhichOneof('value') or 'of no type'}: "
                "only tensors can be read"
            )
    for function in proto.functions:
        if function.domain in ("", "ai.onnx") and function.name in _known():
            yield (
                f"it has a function with the name of the operator {function.name}, and runtimes "
                "differ in which of the two they run: give the function a domain of its own"
            )
    count = expanded(proto)
    if count is None:
        yield "its functions call each other in a circle: the file is damaged"
    elif count > MOST_NODES:
        yield f"it has {count:,} nodes, functions included; up to {MOST_NODES:,} are read"


@cache
def _standard() -> frozenset[str]:
    """Standard operators from tensors to tensors: no control flow, sequences, text, or random
    numbers.
    """
    allowed: set[str] = set()
    for schema in onnx.defs.get_all_schemas():
        if schema.domain:
            continue
        nested = any(
            attribute.type == onnx.defs.OpSchema.AttrType.GRAPH
            for attribute in schema.attributes.values()
        )
        kinds = [v.types for v in (*schema.inputs, *schema.outputs)]
        only_tensors = all(
            any(t.startswith("tensor(") and "string" not in t for t in types) for types in kinds
        )
        if not nested and only_tensors and not schema.name.startswith(RANDOM):
            allowed.add(schema.name)
    return frozenset(allowed)


@cache
def _known() -> frozenset[str]:
    """All standard operators."""
    return frozenset(s.name for s in onnx.defs.get_all_schemas() if not s.domain)


def _operator(node: onnx.NodeProto, *, apart: bool = False) -> Iterator[str]:
    """Faults of an operator; `apart` if what is explained does not depend on it."""
    place = where(node)
    holding = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
    if node.op_type == "EPContext":
        yield (
            f"{place} holds a program for one processor, which is never run: "
            "compile the file that it was made from"
        )
    elif node.domain == "com.microsoft.nchwc":
        yield (
            f"{place} is of the domain {node.domain!r}: the file was optimised for one processor; "
            "compile the file from before that"
        )
    elif node.domain == "com.microsoft" and node.op_type in SPLIT_OPERATORS:
        return
    elif node.op_type.startswith(QUANTISED) and node.op_type not in SPLIT_QUANTISED:
        yield (
            f"{place} computes in integers: quantise in the QDQ format instead (QuantFormat.QDQ "
            "in ONNX Runtime), or compile the model from before quantisation"
        )
    elif node.domain not in ("", "ai.onnx"):
        yield (
            f"{place} is of the domain {node.domain!r}: only standard operators can be explained; "
            "export without it"
        )
    elif node.op_type.startswith(RANDOM):
        yield f"{place} draws random numbers: export the model in evaluation mode"
    elif apart and node.op_type in _known():
        return
    elif any(a.type in holding for a in node.attribute):
        yield (
            f"{place} is control flow: export the model with it resolved, or name an output that "
            "comes before it with --output-name"
        )
    elif node.op_type not in _standard() and node.op_type not in UNLISTED:
        yield (
            f"{place} does not compute tensors from tensors, or is not in ONNX: "
            "export the model without it"
        )


def _attributes(node: onnx.NodeProto) -> Iterator[str]:
    for attribute in node.attribute:
        name = attribute.name
        if not attribute.ref_attr_name and not _holds_its_type(attribute):
            yield f"{where(node)} has {name} of another type than it states: it is damaged"
        numbers = [attribute.i] if attribute.type == AttributeProto.INT else list(attribute.ints)
        floats = [attribute.f] if attribute.type == AttributeProto.FLOAT else list(attribute.floats)
        if not all(map(isfinite, floats)):
            yield f"{where(node)} has {name}={few(floats)}: finite numbers are needed"
        if name in FLAGS and not set(numbers) <= {0, 1}:
            yield f"{where(node)} has {name}={few(numbers)}: 0 or 1 can be read"
        if name not in LARGEST or node.op_type == "Pad":
            continue
        least = 0 if name == "pads" else 1
        if any(not least <= number <= LARGEST[name] for number in numbers):
            yield (
                f"{where(node)} has {name}={few(numbers)}: {least} to {LARGEST[name]:,} can be read"
            )


def _sizes_asked(proto: onnx.ModelProto) -> Iterator[str]:
    """Faults of stored sizes that ask for huge tensors: shape inference itself runs over them."""
    stored = {tensor.name: tensor for tensor in proto.graph.initializer} | {
        node.output[0]: attribute.t
        for node in proto.graph.node
        if node.op_type == "Constant" and node.output
        for attribute in node.attribute
        if attribute.name == "value"
    }
    for node in proto.graph.node:
        for place in SIZES_IN.get(node.op_type, ()):
            name = node.input[place] if place < len(node.input) else ""
            sizes = _whole_numbers(stored[name]) if name in stored else []
            if prod(max(1, abs(size)) for size in sizes) > LARGEST_MADE:
                yield f"{where(node)} makes a tensor of sizes {few(sizes)}: the file is damaged"


def _whole_numbers(tensor: TensorProto) -> list[int]:
    """The values of a short list of int64; none of other tensors."""
    short = prod(tensor.dims) <= 2 * MOST_RANK and len(tensor.dims) <= 1
    if tensor.data_type != TensorProto.INT64 or not short or tensor.HasField("segment"):
        return []
    if tensor.data_location == TensorProto.EXTERNAL:
        return []
    try:
        return [int(one) for one in onnx.numpy_helper.to_array(tensor).reshape(-1)]
    except (TypeError, ValueError):
        return []


def _types(node: onnx.NodeProto, opset: int) -> Iterator[str]:
    """Faults of the types of a standard operator's attributes at an opset: see `_outputs`."""
    if node.domain not in ("", "ai.onnx") or not 0 < opset < LARGEST_OPSET:
        return
    try:
        known = onnx.defs.get_schema(node.op_type, opset, "").attributes
    except onnx.defs.SchemaError:
        return
    for attribute in node.attribute:
        if attribute.name not in known:
            continue
        needed = str(known[attribute.name].type).rpartition(".")[2]
        if AttributeProto.AttributeType.Value(needed) != attribute.type:
            yield (
                f"{where(node)} has {attribute.name} of a type that is not {needed}: it is damaged"
            )


def _holds_its_type(attribute: AttributeProto) -> bool:
    """Whether an attribute has a value of its type and no other: ONNX's converter crashes else. A
    number or text may be left out where it is zero or empty, as a list may.
    """
    field = HELD_IN.get(attribute.type, "")
    filled = {one.name for one, _ in attribute.ListFields()} & set(HELD_IN.values())
    return filled == {field} or (not filled and field not in ("", "t", "g", "sparse_tensor", "tp"))


def _outputs(node: onnx.NodeProto) -> Iterator[str]:
    """Faults of a node's outputs: ONNX's converter crashes on needed ones without a name."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in _known():
        return
    formal = onnx.defs.get_schema(node.op_type).outputs
    needed = onnx.defs.OpSchema.FormalParameterOption.Single
    for parameter, name in zip(formal, node.output, strict=False):
        if not name and parameter.option == needed:
            yield f"{where(node)} has an output without a name: the file is damaged"


def _tensor(tensor: TensorProto, *, mask: bool) -> Iterator[str]:
    """Faults of a weight; minus infinity is none where it is added, as a `mask` is."""
    where = f"the weight '{tensor.name}'"
    if tensor.data_location == TensorProto.EXTERNAL:
        yield f"{where} inside a node lies in another file: keep it in the model"
        return
    if tensor.data_type not in ITEM_BYTES:
        name = f"number {tensor.data_type}"
        if tensor.data_type in TensorProto.DataType.values():
            name = TensorProto.DataType.Name(tensor.data_type)
        yield (
            f"{where} is of type {name}: "
            "weights of float32, float16, bfloat16 and integers can be read"
        )
        return
    if tensor.HasField("segment"):
        yield f"{where} is stored in parts: keep it in one"
        return
    if len(tensor.dims) > MOST_RANK or any(size < 0 for size in tensor.dims):
        yield f"{where} has the shape {few(tensor.dims)}: the file is damaged"
        return
    expected = prod(tensor.dims) * ITEM_BYTES[tensor.data_type]
    if tensor.HasField("raw_data") and len(tensor.raw_data) != expected:
        yield (
            f"{where} of shape {list(tensor.dims)} should take {expected:,} bytes "
            f"and has {len(tensor.raw_data):,}: the file is damaged"
        )
        return
    yield from _values(tensor, where, mask=mask)


def _values(tensor: TensorProto, where: str, *, mask: bool) -> Iterator[str]:
    floating = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
    if not tensor.HasField("raw_data") and _typed_length(tensor) != prod(tensor.dims):
        yield (
            f"{where} of shape {list(tensor.dims)} holds {_typed_length(tensor)} numbers: "
            "the file is damaged"
        )
    elif tensor.data_type in floating:
        try:
            values = onnx.numpy_helper.to_array(tensor)
        except (TypeError, ValueError):
            yield f"{where} does not hold what its type and shape say: the file is damaged"
            return
        if values.dtype.kind == "V":  # bfloat16
            values = values.astype(np.float32)
        known = np.isfinite(values) | np.isneginf(values) if mask else np.isfinite(values)
        if not known.all():
            yield f"{where} holds NaN or infinity: no relevance can be computed through it"


def _typed_length(tensor: TensorProto) -> int:
    """The number of entries in a weight's typed fields."""
    fields = (
        tensor.float_data,
        tensor.int32_data,
        tensor.int64_data,
        tensor.double_data,
        tensor.uint64_data,
    )
    return sum(map(len, fields))
