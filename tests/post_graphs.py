"""Graphs of post-processing alone: maps in, processed maps and regions out."""

from __future__ import annotations

import onnx
import onnxruntime

from lrp_onnx.maps.chain import Chain
from lrp_onnx.relevance.graph.append import append
from lrp_onnx.relevance.graph.builder import Builder
from lrp_onnx.relevance.graph.emission import Emission
from lrp_onnx.relevance.post.apply import post_processed, region_of


def graph_of(chain: Chain, size: tuple[int, int], emission: Emission) -> onnx.ModelProto:
    """``x`` (N, H, W) → ``heatmap`` (N, H, W) and ``c3`` (N, s, s)."""
    return _graph(chain, size, emission, regions=True)


def post_graph(chain: Chain, size: tuple[int, ...], emission: Emission) -> onnx.ModelProto:
    """``x`` (N, …) with maps of one to three axes → ``heatmap`` (N, …)."""
    return _graph(chain, size, emission, regions=False)


def _graph(
    chain: Chain, size: tuple[int, ...], emission: Emission, *, regions: bool
) -> onnx.ModelProto:
    info = onnx.helper.make_tensor_value_info
    x, y = (info(name, onnx.TensorProto.FLOAT, ["N", *size]) for name in ("x", "y"))
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    forward = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8
    )
    builder = Builder(taken=frozenset(("x", "y")), emission=emission)
    raw = builder.known("x")
    builder.node("Identity", post_processed(raw, size, chain), output="heatmap")
    shapes: dict[str, list[int | str]] = {"heatmap": ["N", *size]}
    if regions:
        region, side = region_of(raw, size, chain)
        builder.node("Identity", region, output="c3")
        shapes["c3"] = ["N", side, side]
    model = append(builder, forward, inputs={}, defaults={}, outputs=shapes)
    onnx.checker.check_model(model, full_check=True)
    return model


def session_of(
    chain: Chain, size: tuple[int, int], emission: Emission
) -> onnxruntime.InferenceSession:
    """The same, loaded."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    data = graph_of(chain, size, emission).SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
