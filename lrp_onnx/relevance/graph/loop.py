"""A Loop: nodes that are repeated until nothing changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from lrp_onnx.relevance.graph.builder import Builder, Value


def repeat_until_still(
    start: Value,
    fixed: Value,
    step: Callable[[Value, Value], Value],
    *,
    shape: Sequence[int],
    most: int,
    name: str,
) -> Value:
    """Apply `step` until it changes nothing any more, in any map of the batch.

    The body reads nothing but its own inputs: runtimes and tools that forget what an inner graph
    reads of the outer one do no harm.

    Args:
        start: (N, …) float32: what the first step is applied to.
        fixed: float32: what every step reads too.
        step: from a value and the fixed one to the next value, which is nowhere smaller.
        shape: the values' shape behind the batch.
        most: how often `step` is applied at most.
        name: what tells this step from others that are applied to the same values.

    Returns:
        The last value, of the shape of `start`.
    """
    outer = start.builder
    # Named after what it is applied to: the same Loop is then built once.
    prefix = f"{start.name}/{fixed.name}/{name}/"
    inner = Builder(taken=outer.taken, emission=outer.emission, prefix=prefix)
    inputs = [inner.fresh() for _ in range(4)]
    before, constant = Value(inner, inputs[2], start.sign), Value(inner, inputs[3], fixed.sign)
    after = step(before, constant)
    growth = inner.node("ReduceMax", inner.node("Sub", after, before), attributes={"keepdims": 0})
    goes_on = inner.node("Cast", growth, attributes={"to": int(onnx.TensorProto.BOOL)})
    results = [goes_on, after, inner.node("Identity", constant)]
    body = _graph(inner, inputs, [value.name for value in results], shape)
    last, _ = outer.nodes_of(
        "Loop",
        outer.integer(most),
        outer.stored(np.asarray(True)),
        start,
        fixed,
        outputs=2,
        attributes={"body": body},
    )
    return last.reshape(-1, *shape)


def _graph(
    inner: Builder, inputs: Sequence[str], outputs: Sequence[str], shape: Sequence[int]
) -> onnx.GraphProto:
    """The nodes of `inner` as the body of a Loop: (iteration, condition, value, fixed) →
    (condition, value, fixed).
    """
    nodes = gs.export_onnx(gs.Graph(nodes=inner.nodes), do_type_check=False).graph.node
    kinds = onnx.TensorProto
    sizes = [None, *shape]

    def stated(name: str, kind: int, dims: Sequence[int | None]) -> onnx.ValueInfoProto:
        return onnx.helper.make_tensor_value_info(name, kind, dims)

    of_inputs = [(kinds.INT64, []), (kinds.BOOL, []), (kinds.FLOAT, sizes), (kinds.FLOAT, sizes)]
    of_outputs = [(kinds.BOOL, []), (kinds.FLOAT, sizes), (kinds.FLOAT, sizes)]
    return onnx.helper.make_graph(
        list(nodes),
        "until still",
        [stated(name, *kind) for name, kind in zip(inputs, of_inputs, strict=True)],
        [stated(name, *kind) for name, kind in zip(outputs, of_outputs, strict=True)],
        [
            onnx.numpy_helper.from_array(tensor.values, tensor.name)
            for tensor in inner.tensors.values()
            if isinstance(tensor, gs.Constant)
        ],
    )
