"""Removal of unused nodes and of symbolic shapes, and node order for low peak memory.

All change a model in place. None changes its results.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import onnx
from google.protobuf.message import Message

from lrp_onnx.contract import START, TARGET, is_added


def forget_symbolic_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove the stated shapes of inner tensors that have a symbolic size; return `model`.

    Inputs and outputs keep theirs.
    """
    _replace(
        model.graph.value_info,
        [
            value
            for value in model.graph.value_info
            if not any(size.dim_param for size in value.type.tensor_type.shape.dim)
        ],
    )
    return model


def drop_unused(model: onnx.ModelProto, *, keep: frozenset[str] = frozenset()) -> onnx.ModelProto:
    """Remove nodes and constants that the compiler added and nothing reads; return `model`.

    Args:
        model: a compiled model, changed in place.
        keep: names of constants to keep in any case.
    """
    graph = model.graph
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.isdisjoint(node.output) and all(map(is_added, node.output)):
            continue
        needed.update(node.input)
        kept.append(node)
    needed |= keep
    _replace(graph.node, reversed(kept))
    _replace(
        graph.initializer,
        [t for t in graph.initializer if t.name in needed or not is_added(t.name)],
    )
    return model


def relevance_last(model: onnx.ModelProto, start: str) -> onnx.ModelProto:
    """Move nodes that depend on the target behind all others, in place; return `model`.

    `start` is the relevance at the logits, by name: it depends on the target in a file without
    that input, too.

    The order within both groups stays. ONNX Runtime walks back from the outputs and, of a node's
    inputs, computes first the one that comes later in the file. With this order it first computes
    the logits, and a layer's denominator only when relevance reaches that layer. For a ResNet-50
    and `lrp-resnet`, peak memory at batch 8 falls from 1,790 MB to 1,170 MB.
    """
    dependent_tensors = {TARGET, START, start}
    independent, dependent = [], []
    for node in model.graph.node:
        if dependent_tensors.isdisjoint(node.input):
            independent.append(node)
        else:
            dependent_tensors.update(node.output)
            dependent.append(node)
    _replace(model.graph.node, [*independent, *dependent])
    return model


def _replace(repeated: Any, values: Iterable[Message]) -> None:
    """Replace the entries of a repeated protobuf field."""
    new_values = list(values)
    del repeated[:]
    repeated.extend(new_values)
