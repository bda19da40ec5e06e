"""What is drawn at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

Random = np.random.Generator
Change = Callable[[onnx.ModelProto, Random], None]

HOSTILE = "\x1b]8;;http://example.org\x07[red]../../x[/nobold]\u202e<script>\n"
"""A name with a hyperlink for terminals, markup, a path, a turn of direction, HTML."""
WHOLE = (-1, -2, 0, 1, 2, 3, 5, 7, 9, 127, 255, 10**6, 2**31 - 1, 2**31, 2**40, 2**62, -(2**63))
REAL = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e-30, 1e30, 3.4e38, np.inf, -np.inf, np.nan)
TEXTS = (
    "", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", "linear", "nearest", "cubic", "constant",
    "reflect", "edge", "wrap", "half_pixel", "asymmetric", "align_corners", "floor", "DCR", "CRD",
    "tanh", "none", "sum", "mean", "bij,bjk->bik", "x" * 5000, HOSTILE,
)  # fmt: skip


def pick(rng: Random, items: Any) -> Any:
    return items[int(rng.integers(len(items)))]


def some_tensor(model: onnx.ModelProto, rng: Random) -> TensorProto | None:
    """A stored tensor: an initializer, or what a Constant holds."""
    held = [a.t for n in model.graph.node for a in n.attribute if a.HasField("t")]
    tensors = [*model.graph.initializer, *held]
    return pick(rng, tensors) if tensors else None


def some_edge(model: onnx.ModelProto, rng: Random) -> tuple[onnx.NodeProto, int] | None:
    """A node and the index of one of its inputs that another node computes or the graph takes."""
    stored = {tensor.name for tensor in model.graph.initializer}
    edges = [
        (node, index)
        for node in model.graph.node
        for index, name in enumerate(node.input)
        if name and name not in stored
    ]
    return pick(rng, edges) if edges else None


def inserted(
    model: onnx.ModelProto, rng: Random, make: Callable[[str, str], list[onnx.NodeProto]]
) -> None:
    """Nodes on an edge: `make` gives them for the names of what they read and what they make."""
    edge = some_edge(model, rng)
    if edge is None:
        return
    node, index = edge
    source, fresh = node.input[index], f"inserted_{int(rng.integers(10**9))}"
    place = next((i for i, one in enumerate(model.graph.node) if one is node), 0)
    nodes = make(source, fresh)
    node.input[index] = fresh
    for one in reversed(nodes):
        model.graph.node.insert(place, one)


def stored(model: onnx.ModelProto, values: Any, rng: Random) -> str:
    """The name of a new initializer with these values."""
    name = f"stored_{int(rng.integers(10**9))}"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values), name))
    return name


def value_info(name: str, element: int = 1, shape: Any = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element, shape)
