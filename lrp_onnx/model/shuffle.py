"""Shuffled weights, for the sanity test of Adebayo et al. 2018.

A map that depends on what the model has learnt must change when the weights are shuffled.
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
    """A copy of the graph in which the layers nearest to the logits have shuffled weights.

    Shuffled are the `layers` convolutions and dense layers nearest to the logits, or all if there
    are fewer, and every other learnt layer from the first of these on. A tensor keeps its values in
    another order: mean, variance and signs stay, but what the model learnt is lost.

    Args:
        graph: a normalised model; it is not changed.
        steps: its layers, from `canonicalize`.
        layers: number of layers, at least 1.
        seed: the same seed gives the same order.
    """
    linear = [i for i, step in enumerate(steps) if isinstance(step.kind, kinds.Weighted)]
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
    """Names of the initializers that hold the steps' learnt parameters."""
    covered = {name for step in steps if step.kind.learnt for name in step.nodes}
    todo = [value for node in graph.nodes if node.name in covered for value in node.inputs]
    while todo:
        value = todo.pop()
        if value is None or not graph.is_constant(value):
            continue
        producer = value.producer()
        if producer is not None:
            todo.extend(producer.inputs)
        elif (tensor := value.const_value) is not None and _learnt(tensor):
            yield name_of(value)


def _learnt(tensor: ir.TensorProtocol) -> bool:
    """Whether the values may be weights: several floats, or the integers of a quantised kernel."""
    return tensor.size > 1 and (tensor.dtype.is_floating_point() or len(tensor.shape) > 1)
