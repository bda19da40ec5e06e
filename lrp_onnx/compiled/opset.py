"""The lowest opset and IR version that a compiled file can have, so that older runtimes load it.

Compilation works at opset 18 to 20. Most operators mean the same at opset 13; a node is rewritten
where only its form differs (axes as an attribute, attributes that have their default values).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from lrp_onnx.errors import RuleError

OLDEST = 13
"""Lowest opset of a compiled file: the first whose Squeeze and ReduceSum read axes from an input.
"""
# fmt: off
REDUCTIONS = frozenset((
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSumSquare",
))
"""Operators whose axes are an attribute before opset 18."""
SAME = REDUCTIONS | frozenset((
    "Add", "AveragePool", "BatchNormalization", "Cast", "Constant", "ConstantOfShape", "CumSum",
    "DequantizeLinear", "Div", "Equal", "Flatten", "GreaterOrEqual", "Identity", "If", "LeakyRelu",
    "LessOrEqual", "Loop", "Mul", "PRelu", "Pad", "Pow", "QuantizeLinear", "Relu", "Reshape",
    "ScatterElements", "ScatterND", "Shape", "Size", "Split", "Squeeze", "Sub", "Transpose",
    "Unsqueeze", "Where",
))
"""Operators whose versions since 13 differ in types, in optional inputs and in attributes only."""
# fmt: on

Constants = Mapping[str, NDArray[np.generic]]


def lower(model: onnx.ModelProto, opset: int | None, *, original: int) -> onnx.ModelProto:
    """Rewrite `model` for an older opset and the lowest IR version that goes with it, in place;
    return it.

    Args:
        model: a compiled model of opset 18 or above, of standard operators alone.
        opset: the opset to have; None for the lowest that the original's opset and the operators
            allow.
        original: opset of the file that was compiled.

    Raises:
        RuleError: an operator does not exist at `opset`; every such operator is named.
    """
    current = next(e.version for e in model.opset_import if e.domain in ("", "ai.onnx"))
    constants = _integers(model)
    needs = {
        node.name or node.op_type: (node.op_type, _lowest(node, current, constants))
        for node in _nodes(model.graph)
    }
    half = any(t.data_type == onnx.TensorProto.BFLOAT16 for t in model.graph.initializer)
    lowest = current if half else max(OLDEST, *(version for _, version in needs.values()))
    wanted = opset if opset is not None else max(lowest, min(original, current))
    if not lowest <= wanted <= current:
        raise RuleError(_fault(wanted, lowest, current, needs, half=half))
    if wanted < current:
        for node in _nodes(model.graph):
            _rewrite(node, current, wanted, constants)
        _drop_unread(model, constants)
    # Imports that no node uses are left from the original; some runtimes do not know them.
    standard = onnx.helper.make_opsetid("", wanted)
    del model.opset_import[:]
    model.opset_import.append(standard)
    model.ir_version = onnx.helper.find_min_ir_version_for([standard])
    return model


def _fault(
    wanted: int,
    lowest: int,
    current: int,
    needs: Mapping[str, tuple[str, int]],
    *,
    half: bool,
) -> str:
    """Why `wanted` cannot be had, and what can."""
    if wanted > current:
        return f"the compiled file has opset {current} at most: --opset {wanted} cannot be had"
    if half:
        return f"bfloat16 needs opset {current}: --opset {wanted} cannot be had"
    if wanted < OLDEST:
        return f"compiled files have opset {OLDEST} at least: --opset {wanted} cannot be had"
    operators: dict[str, int] = {}
    for operator, version in needs.values():
        if version > wanted:
            operators[operator] = max(version, operators.get(operator, 0))
    named = ", ".join(f"{name} (opset {version})" for name, version in sorted(operators.items()))
    return f"--opset {wanted} lacks {named} as the file needs it: the lowest is {lowest}"


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Nodes of the graph and of the graphs inside them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(attribute.g)


def _integers(model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    """The stored int64 vectors that are no inputs, by name."""
    inputs = {value.name for value in model.graph.input}
    return {
        t.name: onnx.numpy_helper.to_array(t)
        for t in model.graph.initializer
        if t.data_type == onnx.TensorProto.INT64 and t.name not in inputs
    }


def _lowest(node: onnx.NodeProto, current: int, constants: Constants) -> int:
    """The lowest opset from `OLDEST` to `current` at which the node can be written."""
    versions = range(OLDEST, current)
    return next((v for v in versions if _can_be(node, current, v, constants)), current)


def _can_be(node: onnx.NodeProto, current: int, opset: int, constants: Constants) -> bool:
    """Whether the node can be written at `opset` and means the same."""
    now = onnx.defs.get_schema(node.op_type, current, "")
    if now.since_version <= opset:
        return True
    if node.op_type not in SAME:
        return False
    try:
        then = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return False
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "AveragePool" and (values.get("ceil_mode") or values.get("dilations")):
        return False  # opset 19 settled how a cut-off window is counted
    if node.op_type == "Split" and len(node.input) < 2:
        return False  # equal parts are said in another way; files for older opsets state the sizes
    inputs = len(node.input)
    if node.op_type in REDUCTIONS and inputs > then.max_input:
        if node.input[1] and node.input[1] not in constants:
            return False
        inputs = then.max_input
    return inputs <= then.max_input and all(
        name in then.attributes or _is_default(now, name, value) for name, value in values.items()
    )


def _is_default(schema: onnx.defs.OpSchema, name: str, value: object) -> bool:
    """Whether an attribute has the value that it has where it is left out."""
    default = schema.attributes[name].default_value
    return bool(default.name) and onnx.helper.get_attribute_value(default) == value


def _rewrite(node: onnx.NodeProto, current: int, opset: int, constants: Constants) -> None:
    """Write the node for `opset`, in place."""
    if onnx.defs.get_schema(node.op_type, current, "").since_version <= opset:
        return
    then = onnx.defs.get_schema(node.op_type, opset, "")
    if node.op_type in REDUCTIONS and len(node.input) > then.max_input:
        axes = node.input.pop()
        if axes:
            stated = [int(axis) for axis in constants[axes].reshape(-1)]
            node.attribute.append(onnx.helper.make_attribute("axes", stated))
    kept = [a for a in node.attribute if a.name in then.attributes]
    del node.attribute[:]
    node.attribute.extend(kept)


def _drop_unread(model: onnx.ModelProto, constants: Constants) -> None:
    """Remove those of `constants` that nothing reads any more, in place."""
    read = {name for node in _nodes(model.graph) for name in node.input}
    read |= {value.name for value in model.graph.output}
    kept = [t for t in model.graph.initializer if t.name in read or t.name not in constants]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
