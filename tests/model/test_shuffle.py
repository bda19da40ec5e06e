"""Shuffled weights: a new graph, and the one that was given stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from networks import Network, resnet

from lrp_onnx.model.canonicalize import canonicalize
from lrp_onnx.model.graph import Graph
from lrp_onnx.model.heads.classifier import find_head
from lrp_onnx.model.load import load_model
from lrp_onnx.model.shuffle import shuffle_weights

Save = Callable[[onnx.ModelProto], Path]


def stored(graph: Graph) -> dict[str, bytes]:
    found = {}
    for name, value in graph.model.graph.initializers.items():
        assert value.const_value is not None
        found[name] = value.const_value.tobytes()
    return found


def test_the_graph_that_is_given_stays_as_it_is(saved: Save) -> None:
    graph = load_model(saved(resnet()))
    steps = canonicalize(graph, find_head(graph, source="it").logits)
    before = stored(graph)
    shuffled = shuffle_weights(graph, steps, layers=2, seed=0)
    assert stored(graph) == before != stored(shuffled)
    assert stored(shuffled).keys() == before.keys()


def test_constants_are_read_anew(saved: Save) -> None:
    """What one graph has computed of its weights is not taken for the other's."""
    graph = load_model(saved(resnet()))
    head = find_head(graph, source="it")
    steps = canonicalize(graph, head.logits)
    weight = next(node for node in reversed(list(graph.nodes)) if node.op_type == "Gemm").inputs[1]
    before = graph.constant(weight)
    after = shuffle_weights(graph, steps, layers=1, seed=0).constant(weight)
    assert before is not None and after is not None and not np.array_equal(before, after)


def test_a_model_without_layers_has_nothing_to_shuffle(saved: Save) -> None:
    net = Network(0)
    model = net.model(net.node("Flatten", net.node("GlobalAveragePool", "x")), ["N", 3, 8, 8])
    graph = load_model(saved(model))
    steps = canonicalize(graph, find_head(graph, source="it").logits)
    assert stored(shuffle_weights(graph, steps, layers=1, seed=0)) == stored(graph)
