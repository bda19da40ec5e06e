"""An estimate of a run's memory: the tensors that are alive at once when nodes run in the order of
the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from math import prod

import onnx

from lrp_onnx.files.shapes import with_shapes


def memory_of(model: onnx.ModelProto) -> tuple[int, int]:
    """Peak bytes of tensors without weights: (bytes at any batch, further bytes per picture).

    A runtime needs more: it may copy weights to another layout, and its allocator leaves gaps.
    """
    inferred = with_shapes(model)
    shapes = {
        v.name: v.type.tensor_type
        for v in (*inferred.input, *inferred.value_info, *inferred.output)
    }
    peak_1, peak_2 = (
        _peak(model, {name: _bytes(tensor, batch) for name, tensor in shapes.items()})
        for batch in (1, 2)
    )
    return max(0, 2 * peak_1 - peak_2), peak_2 - peak_1


def _bytes(tensor: onnx.TypeProto.Tensor, batch: int) -> int:
    """Bytes of a tensor whose symbolic sizes are all `batch`; 0 if its shape is not known."""
    if not tensor.HasField("shape"):
        return 0
    sizes = [dim.dim_value if dim.HasField("dim_value") else batch for dim in tensor.shape.dim]
    return prod(sizes) * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize)


def _peak(model: onnx.ModelProto, sizes: Mapping[str, int]) -> int:
    """The most bytes alive at once when nodes run in the order of the file.

    Constants do not count. Graph inputs belong to the caller and are never freed.
    """
    graph = model.graph
    last_use = {name: index for index, node in enumerate(graph.node) for name in node.input}
    last_use |= {value.name: len(graph.node) for value in graph.output}
    never_freed = _constants(graph) | {value.name for value in graph.input}
    alive = peak = sum(sizes.get(value.name, 0) for value in graph.input)
    for index, node in enumerate(graph.node):
        allocated = [name for name in node.output if name not in never_freed]
        alive += sum(sizes.get(name, 0) for name in allocated)
        peak = max(peak, alive)
        freed = {
            name
            for name in (*node.input, *allocated)
            if name not in never_freed and last_use.get(name, index) == index
        }
        alive -= sum(sizes.get(name, 0) for name in freed)
    return peak


def _constants(graph: onnx.GraphProto) -> Set[str]:
    """Names of stored tensors and of tensors computed from these alone.

    A runtime computes the latter once, when it creates a session.
    """
    optional = {value.name for value in graph.input}
    constant = {tensor.name for tensor in graph.initializer} - optional
    for node in graph.node:
        if all(name in constant or not name for name in node.input):
            constant.update(node.output)
    return constant
