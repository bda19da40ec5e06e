"""Changes of what stands around the nodes: inputs, outputs, shapes, versions, metadata."""

from __future__ import annotations

import json

import numpy as np
import onnx
from onnx import helper, numpy_helper

from changes.drawing import HOSTILE, WHOLE, Change, Random, pick, value_info

KEYS = (
    "lrp_onnx.preprocessing", "lrp_onnx.labels", "lrp_onnx.format", "lrp_onnx.ledger",
    "lrp_onnx.composite", "lrp_onnx.selection", "names", "imgsz", "stride", "task", "channels",
    "Image.BitmapPixelFormat", "Image.NominalPixelRange", "Image.ColorSpaceGamma", "", HOSTILE,
)  # fmt: skip
TEXTS = (
    "", "{", "null", "[]", "{}", "0", "-1", "1e999", "NaN", "Rgb8", "Gray8", "Normalized_0_1",
    "NominalRange_0_255", "[224, 224]", "[0, -1]", "[1e400]", "{0: 'a', 1: 'b'}", "{'a': 1}",
    "{0: {}}", "['a', None]", "[" * 5000, "(" * 500, "{0:" * 200, "1" * 5000, "9" * 400, HOSTILE,
    '{"mean": [0, 0, 0], "std": [0, 0, 0]}', '{"mean": null}', '{"divisor": 0}', '["a", "b"]',
    '{"layout": "NCHW", "channels": "XYZ"}', "__import__('os')", "1**9**9", "-" * 3000 + "1",
)  # fmt: skip


def metadata(model: onnx.ModelProto, rng: Random) -> None:
    for _ in range(int(rng.integers(1, 4))):
        value = pick(rng, TEXTS) if rng.random() < 0.8 else json.dumps(list(range(10)))
        model.metadata_props.add(key=pick(rng, KEYS), value=value)


def opsets(model: onnx.ModelProto, rng: Random) -> None:
    """Opset imports: twice, none, of another version or domain."""
    action = int(rng.integers(6))
    if action == 0:
        del model.opset_import[:]
    elif action == 1:
        model.opset_import.add(domain="", version=int(rng.choice([7, 13, 18, 21])))
    elif action == 2:
        model.opset_import.add(domain=str(rng.choice(["ai.onnx", HOSTILE, "x"])), version=1)
    elif len(model.opset_import):
        one = pick(rng, model.opset_import)
        near = one.version + int(rng.integers(-6, 7))
        one.version = (
            int(rng.choice([0, -1, 1, 6, 7, 26, 99, 2**31, 2**62])) if action == 3 else near
        )


def versions(model: onnx.ModelProto, rng: Random) -> None:
    """IR version, and what the producer says of itself."""
    model.ir_version = int(rng.choice([0, -1, 1, 2, 3, 4, 9, 13, 99, 2**62]))
    model.producer_name = str(rng.choice(["", "lrp-onnx", HOSTILE]))
    model.model_version = int(rng.choice([0, -1, 2**62]))


def shape_of_input(model: onnx.ModelProto, rng: Random) -> None:
    """The shape of an input or output: an axis more or less, sizes, symbols that clash."""
    value = pick(rng, [*model.graph.input, *model.graph.output] or [onnx.ValueInfoProto()])
    tensor = value.type.tensor_type
    dims, action = tensor.shape.dim, int(rng.integers(7))
    if action == 0:
        tensor.ClearField("shape")
    elif action == 1 and dims:
        del dims[int(rng.integers(len(dims)))]
    elif action == 2:
        dims.add().dim_value = int(pick(rng, WHOLE))
    elif action == 3:
        for dim in dims:
            dim.dim_param = str(rng.choice(["N", "N", "same", "", HOSTILE]))
    elif action == 4 and dims:
        pick(rng, dims).Clear()
    elif dims:
        pick(rng, dims).dim_value = int(pick(rng, WHOLE))


def type_of_input(model: onnx.ModelProto, rng: Random) -> None:
    """The type of an input or output: another element, or no tensor."""
    value = pick(rng, [*model.graph.input, *model.graph.output] or [onnx.ValueInfoProto()])
    action = int(rng.integers(5))
    if action == 0:
        value.ClearField("type")
    elif action == 1:
        inner = onnx.TypeProto.FromString(value.type.SerializeToString())
        value.type.sequence_type.elem_type.CopyFrom(inner)
    elif action == 2:
        value.type.map_type.key_type = int(rng.integers(12))
    else:
        value.type.tensor_type.elem_type = int(rng.integers(24))


def inputs(model: onnx.ModelProto, rng: Random) -> None:
    """An input more, less, twice, or one that stores its default."""
    graph, action = model.graph, int(rng.integers(5))
    if action == 0 and graph.input:
        del graph.input[int(rng.integers(len(graph.input)))]
    elif action == 1 and graph.input:
        graph.input.append(pick(rng, graph.input))
    elif action == 2:
        graph.input.append(value_info("another", int(rng.integers(1, 12)), [1, 3, None, 4]))
    elif action == 3 and graph.initializer:
        tensor = pick(rng, graph.initializer)
        shape = tensor.dims if rng.random() < 0.6 else [7]
        graph.input.append(value_info(tensor.name, tensor.data_type, list(shape)))
    elif graph.input:
        default = numpy_helper.from_array(np.zeros((1, 3, 4, 4), "f"), graph.input[0].name)
        graph.initializer.append(default)


def outputs(model: onnx.ModelProto, rng: Random) -> None:
    """Outputs: twice, inputs, weights, inner tensors, of names that nobody makes."""
    graph, action = model.graph, int(rng.integers(6))
    if action == 0 and graph.output:
        graph.output.append(pick(rng, graph.output))
    elif action == 1 and graph.input:
        graph.output.append(pick(rng, graph.input))
    elif action == 2 and graph.initializer:
        graph.output.append(value_info(pick(rng, graph.initializer).name))
    elif action == 3:
        graph.output.append(value_info(str(rng.choice(["nobody", "", HOSTILE, "heatmap"]))))
    elif action == 4:
        made = [name for node in graph.node for name in node.output if name]
        graph.output.append(value_info(pick(rng, made or [""])))
    elif graph.output and graph.input:
        graph.output[0].name = pick(rng, graph.input).name


def value_info_lies(model: onnx.ModelProto, rng: Random) -> None:
    """Stated shapes and types of inner tensors that are not theirs."""
    made = [name for node in model.graph.node for name in (*node.input, *node.output) if name]
    for _ in range(int(rng.integers(1, 5))):
        shape = [int(pick(rng, WHOLE)) for _ in range(int(rng.integers(6)))]
        kind = int(rng.integers(0, 24))
        model.graph.value_info.append(value_info(pick(rng, made or [""]), kind, shape))


def training(model: onnx.ModelProto, rng: Random) -> None:
    """What a file for training holds beside the graph."""
    one = model.training_info.add()
    if rng.random() < 0.5:
        one.algorithm.CopyFrom(model.graph)
    one.initialization.node.append(helper.make_node("RandomNormal", [], ["w"], shape=[2**40]))
    if model.graph.initializer:
        one.update_binding.add(key=model.graph.initializer[0].name, value="w")


def annotations(model: onnx.ModelProto, rng: Random) -> None:
    """Quantisation annotations, texts, devices and metadata of parts."""
    made = [name for node in model.graph.node for name in node.output] or [""]
    one = model.graph.quantization_annotation.add(tensor_name=pick(rng, made))
    one.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="nobody")
    model.graph.name = str(rng.choice(["", HOSTILE, "g" * 100_000]))
    model.graph.doc_string = HOSTILE * int(rng.choice([1, 1000]))
    node = pick(rng, model.graph.node)
    node.overload = str(rng.choice(["", "other"]))
    node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=HOSTILE)


def emptied(model: onnx.ModelProto, rng: Random) -> None:
    """A whole list of the graph, gone."""
    graph = model.graph
    del pick(rng, [graph.initializer, graph.input, graph.output, graph.value_info, graph.node])[:]


def fixed_batch(model: onnx.ModelProto, rng: Random) -> None:
    """A batch of another size, or height and width left open."""
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if len(dims) < 3:
            continue
        if rng.random() < 0.6:
            dims[0].dim_value = int(rng.choice([1, 2, 3, 64]))
        else:
            for dim in dims[2:]:
                dim.dim_param = str(rng.choice(["h", "N"]))


FILE: tuple[Change, ...] = (
    metadata,
    opsets,
    versions,
    shape_of_input,
    type_of_input,
    inputs,
    outputs,
    value_info_lies,
    training,
    annotations,
    emptied,
    fixed_batch,
)
