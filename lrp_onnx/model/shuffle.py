"""Weights in disorder: what a map must not survive if it
depends on what the model has learnt (Adebayo et al. 2018).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from lrp_onnx.model.graph import Graph, name_of
from lrp_onnx.plan import kinds
from lrp_onnx.plan.kinds import Step


def shuffle_weights(graph: Graph, steps: Sequence[Step], *, layers: int, seed: int) -> Graph:
    """A copy of the graph with every weight tensor of the `layers`
    convolutions and dense layers nearest to the logits shuffled, and of what
    normalises behind the first of them; of all layers where there are fewer.

    A tensor keeps its values, in another order: means,
    spreads and signs stay, what was learnt goes.

    Args:
        graph: a normalised model; it is not changed.
        steps: its layers, as `canonicalize` reads them.
        layers: how many layers, at least 1.
        seed: the same seed gives the same order.
    """
    linear = [at for at, step in enumerate(steps) if isinstance(step.kind, kinds.Weighted)]
    first = linear[max(0, len(linear) - layers)] if linear else len(steps)
    model = graph.model.clone()
    stored = model.graph.initializers
    for name in sorted(set(_weights(graph, steps[first:]))):
        tensor = stored[name].const_value
        assert tensor is not None
        values = tensor.numpy()
        order = np.random.default_rng([seed, *name.encode()]).permutation(values.size)
        shuffled = values.ravel()[order].reshape(values.shape)
        stored[name].const_value = ir.tensor(shuffled, tensor.dtype, name=name)
    return replace(graph, model=model)


def _weights(graph: Graph, steps: Sequence[Step]) -> Iterator[str]:
    """Names of the initializers that the steps' parameters are stored in."""
    covered = {name for step in steps if step.kind.learnt for name in step.nodes}
    waiting = [value for node in graph.nodes if node.name in covered for value in node.inputs]
    while waiting:
        value = waiting.pop()
        if value is None or not graph.is_constant(value):
            continue
        producer = value.producer()
        if producer is not None:
            waiting.extend(producer.inputs)
        elif (tensor := value.const_value) is not None and _learnt(tensor):
            yield name_of(value)


def _learnt(tensor: ir.TensorProtocol) -> bool:
    """Whether the values may be weights: floats, or whole
    numbers of a quantised kernel; scales are single numbers.
    """
    return tensor.size > 1 and (tensor.dtype.is_floating_point() or len(tensor.shape) > 1)
