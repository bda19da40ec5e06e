"""How much memory a run needs: the tensors that are alive at once, in the order of the file."""

from __future__ import annotations

from collections.abc import Mapping, Set
from math import prod

import onnx


def memory_of(model: onnx.ModelProto) -> tuple[int, int]:
    """(bytes in any case, bytes for every picture of a
    batch) that tensors take at most at once, weights apart.

    A runtime needs more: it keeps weights in layouts of its own, and pieces that fit no tensor.
    """
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        v.name: v.type.tensor_type
        for v in (*inferred.input, *inferred.value_info, *inferred.output)
    }
    one, two = (_peak(model, {n: _bytes(t, batch) for n, t in shapes.items()}) for batch in (1, 2))
    return max(0, 2 * one - two), two - one


def _bytes(tensor: onnx.TypeProto.Tensor, batch: int) -> int:
    """Of a tensor whose open sizes are the batch; 0 where nothing is known of it."""
    if not tensor.HasField("shape"):
        return 0
    sizes = [dim.dim_value if dim.HasField("dim_value") else batch for dim in tensor.shape.dim]
    return prod(sizes) * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize)


def _peak(model: onnx.ModelProto, sizes: Mapping[str, int]) -> int:
    """The most bytes alive at once when nodes run in the order of the file."""
    graph = model.graph
    constant = _constants(graph)
    last = {name: index for index, node in enumerate(graph.node) for name in node.input}
    last |= {value.name: len(graph.node) for value in graph.output}
    held = {
        value.name for value in graph.input
    } | constant  # weights apart; inputs are the caller's to the end
    alive = most = sum(sizes.get(value.name, 0) for value in graph.input)
    for index, node in enumerate(graph.node):
        made = [name for name in node.output if name not in held]
        alive += sum(sizes.get(name, 0) for name in made)
        most = max(most, alive)
        done = {
            name
            for name in (*node.input, *made)
            if name not in held and last.get(name, index) == index
        }
        alive -= sum(sizes.get(name, 0) for name in done)
    return most


def _constants(graph: onnx.GraphProto) -> Set[str]:
    """Names of stored tensors and of what is computed from
    them alone, once, when a session is made.
    """
    optional = {value.name for value in graph.input}
    constant = {tensor.name for tensor in graph.initializer} - optional
    for node in graph.node:
        if all(name in constant or not name for name in node.input):
            constant.update(node.output)
    return constant
