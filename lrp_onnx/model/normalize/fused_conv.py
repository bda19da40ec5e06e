"""Splitting ONNX Runtime's FusedConv into standard operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from lrp_onnx.model.graph import Graph

PARAMETERS = {"LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta")}
"""Activations with parameters → the names of their attributes."""


def split_fused_convs(graph: Graph) -> Graph:
    """The graph with every FusedConv split into Conv, Add and activation, and a note on it."""
    fused = [node for node in graph.nodes if node.op_type == "FusedConv" and _is_valid(node)]
    for node in fused:
        parts = _parts(node)
        new, old = parts[-1].outputs, node.outputs[:1]
        ir.convenience.replace_nodes_and_values(graph.model.graph, node, [node], parts, old, new)
    if not fused:
        return graph
    note = (
        f"{len(fused)} FusedConv nodes were split into standard operators; "
        "outputs may differ by rounding"
    )
    return replace(graph, notes=(*graph.notes, note))


def _is_valid(node: ir.Node) -> bool:
    """Whether its outputs and attributes are valid; the ONNX checker skips this operator."""
    types = {"activation": ir.AttributeType.STRING, "activation_params": ir.AttributeType.FLOATS}
    stated = node.attributes
    return len(node.outputs) == 1 and all(
        name not in stated or stated[name].type == types[name] for name in types
    )


def _parts(node: ir.Node) -> list[ir.Node]:
    """Nodes that compute what `node` does; the output of the last replaces its output."""
    attributes = dict(sorted(node.attributes.items()))
    activation = attributes.pop("activation", None)
    parameters = attributes.pop("activation_params", None)
    inputs, summand = list(node.inputs[:3]), next(iter(node.inputs[3:4]), None)
    while inputs and inputs[-1] is None:
        inputs.pop()
    name = node.name or str(node.outputs[0].name)
    prefix = f"{node.outputs[0].name}.fused"
    nodes = [_named(ir.Node("", "Conv", inputs, attributes.values(), name=name), f"{prefix}.conv")]
    if summand is not None:
        terms = [nodes[-1].outputs[0], summand]
        nodes.append(_named(ir.node("Add", terms, name=f"{name}.add"), f"{prefix}.sum"))
    if activation is not None and activation.as_string():
        numbers = parameters.as_floats() if parameters is not None else ()
        kind, x = activation.as_string(), nodes[-1].outputs[0]
        nodes += _activation(kind, numbers, x, prefix, name)
    return nodes


def _activation(
    kind: str, parameters: Sequence[float], x: ir.Value, prefix: str, name: str
) -> list[ir.Node]:
    """The nodes of a fused activation.

    An unknown activation becomes an operator of that name, which is then reported as unsupported.
    """
    if kind != "Clip":
        attributes = dict(zip(PARAMETERS.get(kind, ()), parameters, strict=False))
        node = ir.node(kind, [x], attributes=attributes, name=f"{name}.{kind.lower()}")
        return [_named(node, f"{prefix}.out")]
    bounds = [
        _named(ir.node("Constant", [], attributes={"value_float": value}), f"{prefix}.{which}")
        for which, value in zip(("low", "high"), parameters, strict=False)
    ]
    limits = [bound.outputs[0] for bound in bounds]
    return [*bounds, _named(ir.node("Clip", [x, *limits], name=f"{name}.clip"), f"{prefix}.out")]


def _named(node: ir.Node, output: str) -> ir.Node:
    """`node`, after its one output is renamed to `output`."""
    node.outputs[0].name = output
    return node
