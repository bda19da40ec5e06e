"""Tensors that are stored instead of computed.

A runtime that wants a convolution's weights as stored tensors (TensorRT, OpenCV 4, MNN), or a
quantiser that looks for them, cannot read a file in which rectified or squared weights are
computed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from lrp_onnx.contract import is_added
from lrp_onnx.files.shapes import with_shapes

EVALUATED_AS = 20
"""Lowest opset of the evaluation."""
PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum")
Arrays = dict[str, NDArray[np.generic]]


def store_constants(
    model: onnx.ModelProto, *, keep: frozenset[str] = frozenset()
) -> onnx.ModelProto:
    """Replace what the compiler's nodes compute from stored tensors alone by its values, in place;
    return `model`.

    The original's own nodes stay as they are. The shape of a tensor is a constant where all its
    sizes are known. The tensors of `keep` are stored, too, where they are constant.
    """
    graph = model.graph
    inputs = {value.name for value in graph.input}
    stored = {t.name: t for t in graph.initializer if t.name not in inputs}
    shapes = _known_shapes(model)
    constant: dict[str, onnx.NodeProto] = {}
    for node in graph.node:
        of_shape = node.op_type == "Shape" and node.input[0] in shapes
        if of_shape or all(name in stored or name in constant or not name for name in node.input):
            constant |= dict.fromkeys(node.output, node)
    kept = [node for node in graph.node if node.output[0] not in constant or not _ours(node)]
    read = {name for node in kept for name in node.input}
    wanted = [name for name, node in constant.items() if _ours(node) and name in read | keep]
    values = _evaluated(model, wanted, constant, stored, shapes)
    del graph.node[:]
    graph.node.extend(kept)
    graph.initializer.extend(onnx.numpy_helper.from_array(v, n) for n, v in values.items())
    return model


def _ours(node: onnx.NodeProto) -> bool:
    """Whether the compiler added the node."""
    return all(map(is_added, node.output))


def _known_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes without a symbolic size, by name."""
    graph = with_shapes(model, data_prop=True)
    shapes = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            shapes[value.name] = tuple(d.dim_value for d in tensor.shape.dim)
    return shapes


def _evaluated(
    model: onnx.ModelProto,
    wanted: list[str],
    constant: Mapping[str, onnx.NodeProto],
    stored: Mapping[str, onnx.TensorProto],
    shapes: Mapping[str, tuple[int, ...]],
) -> Arrays:
    """The values of the tensors `wanted`, computed by ONNX's own evaluator."""
    needed, nodes = set(wanted), list[onnx.NodeProto]()
    for node in reversed(model.graph.node):
        if node.output[0] in constant and not needed.isdisjoint(node.output):
            stated = _stated(node, shapes)
            nodes += _exact(stated)[::-1]
            needed.update(stated.input)
    part = onnx.helper.make_graph(
        nodes[::-1],
        "constants",
        [],
        [onnx.ValueInfoProto(name=name) for name in wanted],
        [tensor for name, tensor in stored.items() if name in needed],
    )
    if not wanted:
        return {}
    # The evaluator lacks older versions; until opset 20 the operators mean the same.
    opset = max(EVALUATED_AS, *(entry.version for entry in model.opset_import))
    program = onnx.helper.make_model(part, opset_imports=[onnx.helper.make_opsetid("", opset)])
    results = ReferenceEvaluator(program).run(None, {})
    return {name: np.asarray(v) for name, v in zip(wanted, results, strict=True)}


def _exact(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The node; sums of products in float64, whose rounding to float32 does not depend on how many
    threads share a sum.
    """
    if node.op_type not in PRODUCTS:
        return [node]
    make, name = onnx.helper.make_node, node.output[0]
    inputs = {given: f"{name}:{index}" for index, given in enumerate(node.input) if given}
    exact = onnx.NodeProto()
    exact.CopyFrom(node)
    del exact.input[:], exact.output[:]
    exact.input.extend(inputs.get(given, "") for given in node.input)
    exact.output.append(f"{name}:exact")
    return [
        *(
            make("Cast", [given], [other], to=onnx.TensorProto.DOUBLE)
            for given, other in inputs.items()
        ),
        exact,
        make("CastLike", [f"{name}:exact", node.input[0]], [name]),
    ]


def _stated(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> onnx.NodeProto:
    """The node; a Shape as a constant."""
    if node.op_type != "Shape" or node.input[0] not in shapes:
        return node
    ends = {a.name: a.i for a in node.attribute}
    sizes = shapes[node.input[0]][ends.get("start", 0) : ends.get("end")]
    value = onnx.numpy_helper.from_array(np.array(sizes, np.int64))
    return onnx.helper.make_node("Constant", [], list(node.output), value=value)
