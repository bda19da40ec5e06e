"""Finding the head is a search: it changes nothing; the mean
of a feature map is a pass of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import onnx_ir as ir
from networks import Network, resnet

from lrp_onnx.model.heads.classifier import find_head
from lrp_onnx.model.heads.logits import append_logits
from lrp_onnx.model.load import load_model

Save = Callable[[onnx.ModelProto], Path]


def with_features() -> tuple[onnx.ModelProto, str]:
    net = Network(0)
    features = net.node("Relu", net.conv("x", (3, 4)))
    pooled = net.node("Flatten", net.node("GlobalAveragePool", features))
    model = net.model(net.dense(pooled, (4, 5)), ["N", 3, 8, 8], classes=5)
    value = onnx.helper.make_tensor_value_info(features, onnx.TensorProto.FLOAT, ["N", 4, 6, 6])
    model.graph.output.append(value)
    return model, features


def test_the_search_changes_nothing(saved: Save) -> None:
    model, features = with_features()
    graph = load_model(saved(model))
    before = ir.to_proto(graph.model).SerializeToString(deterministic=True)
    assert find_head(graph, source="it") == find_head(graph, source="it")
    head = find_head(graph, source="it", output=features)
    assert (head.picture, head.output, head.holds) == ("x", features, "features")
    assert head.sources == ((features, 1.0),) and head.start == (4, 6, 6)
    longer = append_logits(graph, head)
    assert ir.to_proto(graph.model).SerializeToString(deterministic=True) == before
    (mean,) = [
        node for node in longer.nodes if head.logits in {value.name for value in node.outputs}
    ]
    assert mean.op_type == "ReduceMean" and mean.outputs[0].shape == ir.Shape(["N", 4])


def test_where_no_feature_map_is_explained_nothing_is_appended(saved: Save) -> None:
    graph = load_model(saved(resnet()))
    assert append_logits(graph, find_head(graph, source="it")) is graph
