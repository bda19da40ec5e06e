"""Files that tools make of other ONNX files: optimised,
quantised, halved, or written in the habits of older exporters.

MXNet and Caffe2 cannot be installed any more. What stands for them here is the shared network in
their style, as the files of the ONNX model zoo have it; the names say "style".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxconverter_common import float16
from onnxruntime import quantization

from tools.zoo.recipe import SIZE, Recipe

FOLDED, NORMALISED, OLD = (
    "core.torchscript-op20",
    "core.torchscript-op13-bn",
    "core.torchscript-op7",
)
LEVELS = ort.GraphOptimizationLevel


def optimised(source: Path, path: Path, level: str) -> None:
    """What ONNX Runtime writes when it is asked for its optimised model."""
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(LEVELS, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def fused(source: Path, path: Path) -> None:
    """What ONNX Runtime's optimiser for transformers makes of a file."""
    from onnxruntime.transformers.optimizer import optimize_model

    made = optimize_model(
        str(source), model_type="vit", num_heads=2, hidden_size=16, opt_level=0, use_gpu=False
    )
    made.save_model_to_file(str(path))


def slimmed(source: Path, path: Path) -> None:
    import onnxslim

    onnx.save(onnxslim.slim(str(source)), path)


def halved(source: Path, path: Path) -> None:
    onnx.save(float16.convert_float_to_float16(onnx.load(source), keep_io_types=True), path)


class _Pictures(quantization.CalibrationDataReader):
    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.left = [rng.normal(size=(4, 3, SIZE, SIZE)).astype(np.float32) for _ in range(4)]

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return {"input": self.left.pop()} if self.left else None


def quantised(source: Path, path: Path, form: str, *, per_channel: bool) -> None:
    quantization.quantize_static(
        str(source),
        str(path),
        _Pictures(),
        quant_format=getattr(quantization.QuantFormat, form),
        per_channel=per_channel,
    )


def constant_nodes(source: Path, path: Path) -> None:
    """Every weight a Constant node, as TensorFlow's and some torch exporters had them."""
    model = onnx.load(source)
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
    del model.graph.initializer[:]
    every = [*nodes, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(every)
    onnx.save(model, path)


def caffe2_style(source: Path, path: Path) -> None:
    """IR 3, weights as inputs, residual sums as `Sum`, a fixed batch of one, Softmax at the end."""
    model = onnx.load(source)
    graph = model.graph
    for node in graph.node:
        if node.op_type == "Add":
            node.op_type = "Sum"
    model.ir_version = 3
    stored = {t.name for t in graph.initializer} - {value.name for value in graph.input}
    graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims)
        for t in graph.initializer
        if t.name in stored
    )
    graph.node.append(helper.make_node("Softmax", [graph.output[0].name], ["prob_1"], name="prob"))
    for value in (graph.input[0], graph.output[0]):
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_value = 1
    graph.output[0].name = "prob_1"
    del graph.value_info[:]
    onnx.save(model, path)


def mxnet_style(source: Path, path: Path) -> None:
    """IR 3, weights as inputs, a batch normalisation of the
    data, names of Gluon, Flatten and a Gemm with alpha.
    """
    model = onnx.load(source)
    graph = model.graph
    old = graph.input[0].name
    renamed = {
        old: "data",
        **{t.name: f"resnetv10_{i}_weight" for i, t in enumerate(graph.initializer)},
    }
    for tensor in graph.initializer:
        tensor.name = renamed[tensor.name]
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = "resnetv10_data0_fwd" if name == old else renamed.get(name, name)
        node.name = f"resnetv10_{node.op_type.lower()}{len(node.output[0])}_{node.output[0]}"
        if node.op_type == "Gemm":
            node.attribute.extend(
                [helper.make_attribute("alpha", 1.0)] if not _has(node, "alpha") else []
            )
    for value in graph.input:
        value.name = renamed.get(value.name, value.name)
    ones, zeros = np.ones(3, np.float32), np.zeros(3, np.float32)
    normal = {"gamma": ones, "beta": zeros, "mean": zeros, "var": np.full(3, 1 - 1e-5, np.float32)}
    names = [f"resnetv10_batchnorm0_{key}" for key in normal]
    tensors = [numpy_helper.from_array(v, n) for n, v in zip(names, normal.values(), strict=True)]
    graph.initializer.extend(tensors)
    first = helper.make_node(
        "BatchNormalization",
        ["data", *names],
        ["resnetv10_data0_fwd"],
        name="resnetv10_batchnorm0_fwd",
        epsilon=1e-5,
    )
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([first, *rest])
    known = {value.name for value in graph.input}
    graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims)
        for t in graph.initializer
        if t.name not in known
    )
    model.ir_version = 3
    onnx.save(model, path)


def _has(node: onnx.NodeProto, name: str) -> bool:
    return any(a.name == name for a in node.attribute)


def shuffled(source: Path, path: Path) -> None:
    """Names that say nothing, operands of sums the other way
    round, initializers in another order.
    """
    model = onnx.load(source)
    rng = np.random.default_rng(1)
    tensors = list(model.graph.initializer)
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors[i] for i in rng.permutation(len(tensors)))
    for node in model.graph.node:
        node.name = ""
        if node.op_type == "Add":
            node.input[0], node.input[1] = node.input[1], node.input[0]
    onnx.save(model, path)


def _recipe(
    family: str,
    exporter: str,
    source: str,
    write: Callable[[Path, Path], None],
    words: str = "",
    *,
    architecture: str = "ResNet v1.5: bottleneck blocks",
) -> Recipe:
    architecture += words
    tools = ("onnxruntime", "onnxslim", "onnxconverter_common", "onnx", "torch")

    def make(path: Path) -> None:
        write(path.parent / f"{source}.onnx", path)

    return Recipe(family, exporter, architecture, tools, make, needs=source)


RECIPES = [
    _recipe("core", "onnxruntime-basic", NORMALISED, partial(optimised, level="BASIC")),
    _recipe("core", "onnxruntime-extended", FOLDED, partial(optimised, level="EXTENDED")),
    _recipe(
        "core-nchwc",
        "onnxruntime-all",
        FOLDED,
        partial(optimised, level="ALL"),
        ", blocked for one processor",
    ),
    _recipe("core", "onnxslim", NORMALISED, slimmed),
    _recipe("core", "constant-nodes", NORMALISED, constant_nodes),
    _recipe("core", "shuffled", FOLDED, shuffled),
    _recipe("core", "caffe2-style", OLD, caffe2_style),
    _recipe("core", "mxnet-style", OLD, mxnet_style),
    _recipe("core-fp16-io32", "onnxconverter-common", FOLDED, halved, ", float16 inside"),
    _recipe(
        "core-qdq",
        "onnxruntime",
        FOLDED,
        partial(quantised, form="QDQ", per_channel=False),
        ", int8",
    ),
    _recipe(
        "core-qdq-channels",
        "onnxruntime",
        FOLDED,
        partial(quantised, form="QDQ", per_channel=True),
        ", int8",
    ),
    _recipe(
        "core-qoperator",
        "onnxruntime",
        FOLDED,
        partial(quantised, form="QOperator", per_channel=False),
        ", int8",
    ),
    *(
        _recipe(
            source.partition(".")[0],
            "onnxruntime-extended",
            source,
            partial(optimised, level="EXTENDED"),
            architecture=architecture,
        )
        for source, architecture in (
            ("vit.dynamo", "vision transformer"),
            ("gelu.torchscript", "ResNet with GELU"),
            ("silu.torchscript", "ResNet with SiLU"),
        )
    ),
    _recipe(
        "vit-separate",
        "onnxruntime-transformers",
        "vit-separate.torchscript",
        fused,
        architecture="vision transformer with separate queries, keys and values",
    ),
]
