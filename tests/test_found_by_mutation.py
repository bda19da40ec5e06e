"""What mutants and fuzzing found, each as a small file made here: what is wrong is refused in
words, and what is merely odd compiles and predicts what it did.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import Network
from onnx import TensorProto, helper, numpy_helper

from lrp_onnx.cli.verify import run_once
from lrp_onnx.compiled.unchanged import compare
from lrp_onnx.compiler import compile_model
from lrp_onnx.contract import PREFIX
from lrp_onnx.errors import ContractError, LrpOnnxError, ModelFileError, UnsupportedModelError
from lrp_onnx.files.compiled import read_compiled

Save = Callable[[onnx.ModelProto], Path]
Change = Callable[[onnx.ModelProto], None]


def small() -> onnx.ModelProto:
    """Conv, BatchNormalization, Relu, mean, Gemm: under 2 KB."""
    n = Network()
    y = n.conv("x", (3, 4), name="conv", pads=[1, 1, 1, 1])
    four = [n.constant(f"four{i}", np.full(4, i + 1, np.float32)) for i in range(4)]
    y = n.node("BatchNormalization", y, *four, name="norm")
    y = n.node("GlobalAveragePool", n.node("Relu", y, name="relu"), name="mean")
    y = n.node("Flatten", y, name="flat")
    weight = n.constant("dense.weight", n.rng.normal(size=(3, 4)).astype(np.float32))
    n.nodes.append(helper.make_node("Gemm", [y, weight], ["logits"], name="dense", transB=1))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        n.nodes,
        "small",
        [value("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [value("logits", TensorProto.FLOAT, ["N", 3])],
        n.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    assert model.ByteSize() < 2048
    return model


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(one for one in model.graph.node if one.name == name)


def text_for(model: onnx.ModelProto, name: str, attribute: str, value: Any) -> None:
    """A Constant in the place of a weight."""
    kept = [tensor for tensor in model.graph.initializer if tensor.name != name]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    made = helper.make_node("Constant", [], [name], name="text", **{attribute: value})
    model.graph.node.insert(0, made)


def text_as_scale(model: onnx.ModelProto) -> None:
    text_for(model, "four0", "value_string", "text")


def texts_as_bias(model: onnx.ModelProto) -> None:
    text_for(model, "conv.bias", "value_strings", ["a", "b", "c", "d"])


def constant_elsewhere(model: onnx.ModelProto) -> None:
    """A Constant whose values lie in another file: one in the current folder would be read."""
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret")
    text_for(model, "conv.bias", "value", tensor)


def huge_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 2**40


def two_inputs(model: onnx.ModelProto) -> None:
    model.graph.input.add().CopyFrom(model.graph.input[0])
    model.graph.input[1].name = "another"


def no_input(model: onnx.ModelProto) -> None:
    """What was the picture is stored."""
    del model.graph.input[:]
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 3, 8, 8), "f"), "x"))


def other_windows(model: onnx.ModelProto) -> None:
    """Windows that are not as large as the weight: the runtime refuses them when they run."""
    stated = next(one for one in node(model, "conv").attribute if one.name == "kernel_shape")
    stated.ints[:] = [1, 3]


def many_windows(model: onnx.ModelProto) -> None:
    stated = next(one for one in node(model, "conv").attribute if one.name == "kernel_shape")
    stated.ints[:] = [1] * 50_000


def many_strides(model: onnx.ModelProto) -> None:
    node(model, "conv").attribute.append(helper.make_attribute("strides", [0] * 50_000))


def many_pads(model: onnx.ModelProto) -> None:
    stated = next(one for one in node(model, "conv").attribute if one.name == "pads")
    stated.ints[:] = [1] * 50_000


def many_axes(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [1] * 50_000


def function_called_relu(model: onnx.ModelProto) -> None:
    """A function with an operator's name: ONNX leaves open which of the two is run."""
    opsets = [helper.make_opsetid("", 18)]
    body = [helper.make_node("Neg", ["a"], ["b"])]
    model.functions.append(helper.make_function("", "Relu", ["a"], ["b"], body, opsets))


def no_weight(model: onnx.ModelProto) -> None:
    """A convolution with one input, of a picture whose size is open."""
    del node(model, "conv").input[1:]
    for dim in model.graph.input[0].type.tensor_type.shape.dim[1:]:
        dim.dim_param = "side"


def text_as_groups(model: onnx.ModelProto) -> None:
    no_weight(model)
    node(model, "conv").input.append("conv.weight")
    groups = next(one for one in node(model, "conv").attribute if one.name == "group")
    groups.CopyFrom(helper.make_attribute("group", "two"))


def deviation_of_zero(model: onnx.ModelProto) -> None:
    """A preparation of pictures that divides by zero."""
    stated = '{"mean": [0, 0, 0], "std": [0, 0, 0]}'
    model.metadata_props.add(key=PREFIX + "preprocessing", value=stated)


def attribute_of_no_function(model: onnx.ModelProto) -> None:
    group = next(one for one in node(model, "conv").attribute if one.name == "group")
    group.ref_attr_name = "group"


def output_without_a_name(model: onnx.ModelProto) -> None:
    """The converter of opsets crashes on it."""
    model.opset_import[0].version = 17
    shape = numpy_helper.from_array(np.array([-1, 4, 1, 1]), "shape")
    model.graph.initializer.append(shape)
    made = helper.make_node("Reshape", [node(model, "mean").output[0], "shape"], [""], name="view")
    model.graph.node.insert(5, made)


def huge_batch_stated(model: onnx.ModelProto) -> None:
    """Of the output alone; the bytes that it would take are no number that JSON's readers take."""
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2**62


def value_of_another_type(model: onnx.ModelProto) -> None:
    """An attribute whose type is not its value's: the converter of opsets crashes on it."""
    model.opset_import[0].version = 17
    text_for(model, "conv.bias", "value", numpy_helper.from_array(np.zeros(4, "f"), "t"))
    node(model, "text").attribute[0].type = onnx.AttributeProto.GRAPH


def value_missing(model: onnx.ModelProto) -> None:
    value_of_another_type(model)
    node(model, "text").attribute[0].ClearField("t")


def number_as_list(model: onnx.ModelProto) -> None:
    """An attribute of another type than the operator's: the converter of opsets crashes on it."""
    model.opset_import[0].version = 17
    mean = node(model, "mean")
    mean.op_type = "ReduceMean"
    mean.attribute.append(helper.make_attribute("axes", 2))


def part_of_a_tensor(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].segment.end = 3


def huge_tile(model: onnx.ModelProto) -> None:
    """What is made of it is multiplied: ONNX's inference of shapes goes over every element."""
    for name, values in (("ones", np.ones(4, np.float32)), ("times", np.array([2**33]))):
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    node(model, "dense").input[0] = "product"
    flat = node(model, "flat").output[0]
    model.graph.node.append(helper.make_node("Mul", [flat, "tiled"], ["product"], name="multiply"))
    model.graph.node.append(helper.make_node("Tile", ["ones", "times"], ["tiled"], name="tile"))


def flag_of_two(model: onnx.ModelProto) -> None:
    """Neither yes nor no: runtimes take it for no, others for yes."""
    mean = node(model, "mean")
    mean.op_type = "ReduceMean"
    mean.input.append("axes")
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 3]), "axes"))
    mean.attribute.append(helper.make_attribute("keepdims", 2))


def shape_of_text(model: onnx.ModelProto) -> None:
    """Text that constants are computed from."""
    model.graph.node.insert(0, helper.make_node("Cast", ["long"], ["bias"], name="cast", to=1))
    model.graph.node.insert(0, helper.make_node("Reshape", ["text", "four"], ["long"], name="view"))
    text_for(model, "text", "value_strings", ["1", "2", "3", "4"])
    model.graph.initializer.append(numpy_helper.from_array(np.array([4]), "four"))
    node(model, "conv").input[2] = "bias"


def pixels_into_floats(model: onnx.ModelProto) -> None:
    """A picture of integers that a convolution reads; the converter of opsets does not mind."""
    model.opset_import[0].version = 13
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8


REFUSED: dict[Change, tuple[type[LrpOnnxError], str]] = {
    text_as_scale: (UnsupportedModelError, "its scale is computed in a way that cannot be read"),
    texts_as_bias: (UnsupportedModelError, "cannot be read"),
    constant_elsewhere: (UnsupportedModelError, "inside a node lies in another file"),
    huge_opset: (ModelFileError, "opset 1099511627776, which ONNX does not have"),
    two_inputs: (UnsupportedModelError, "it has 2 inputs"),
    no_input: (UnsupportedModelError, "it has 0 inputs"),
    other_windows: (UnsupportedModelError, r"does not fit kernel_shape=\[1, 3\]"),
    many_windows: (UnsupportedModelError, "kernel_shape=.* and 49,984 more"),
    many_strides: (UnsupportedModelError, "strides=.* and 49,984 more"),
    many_pads: (UnsupportedModelError, "its pads are .* and 49,984 more"),
    many_axes: (UnsupportedModelError, "the shape .* and 49,984 more"),
    function_called_relu: (UnsupportedModelError, "a function with the name of the operator Relu"),
    no_weight: (ModelFileError, "has input size 1"),
    text_as_groups: (UnsupportedModelError, "has group of a type that is not INT"),
    deviation_of_zero: (ContractError, r"std\[0\] is 0, not from 1e-06"),
    attribute_of_no_function: (UnsupportedModelError, "attribute of a function and is in none"),
    output_without_a_name: (UnsupportedModelError, "Reshape 'view' has an output without a name"),
    huge_batch_stated: (UnsupportedModelError, "makes a batch of 4,611,686,018,427,387,904"),
    value_of_another_type: (UnsupportedModelError, "has value of another type than it states"),
    value_missing: (UnsupportedModelError, "has value of another type than it states"),
    number_as_list: (
        UnsupportedModelError,
        "ReduceMean 'mean' has axes of a type that is not INTS",
    ),
    part_of_a_tensor: (UnsupportedModelError, "is stored in parts"),
    huge_tile: (UnsupportedModelError, r"Tile 'tile' makes a tensor of sizes \[8589934592\]"),
    flag_of_two: (UnsupportedModelError, r"ReduceMean 'mean' has keepdims=\[2\]: 0 or 1"),
    shape_of_text: (UnsupportedModelError, "its bias is computed in a way that cannot be read"),
    pixels_into_floats: (ModelFileError, "the model is not valid ONNX"),
}


def size(model: onnx.ModelProto) -> dict[str, Any]:
    """The size of the picture, where the model leaves it open."""
    dims = model.graph.input[0].type.tensor_type.shape.dim if model.graph.input else []
    return {"input_size": (8, 8)} if any(dim.dim_param == "side" for dim in dims) else {}


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("change", REFUSED)
def test_what_is_wrong_is_refused_in_words(
    change: Change, static: bool, saved: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small()
    change(model)
    path = saved(model)
    (path.parent / "secret").write_bytes(np.ones(4, np.float32).tobytes())
    monkeypatch.chdir(path.parent)  # where native code would look for it
    kind, message = REFUSED[change]
    with pytest.raises(kind, match=message) as caught:
        compile_model(path, composite="epsilon-plus", static=static, runner=run_once, **size(model))
    assert len(str(caught.value)) < 1000


def named_as_ours(model: onnx.ModelProto) -> None:
    """Nodes with the names that the compiler gives to its own."""
    for index, one in enumerate(model.graph.node):
        one.name = "heatmap" if index == 2 else f"lrp/{index}"


def own_metadata(model: onnx.ModelProto) -> None:
    """Keys of a compiled file in one that is none."""
    for key in ("selection", "boxes", "sources", "start_shape", "new_key"):
        model.metadata_props.add(key=PREFIX + key, value="[no")


def quantised_by_next_to_nothing(model: onnx.ModelProto) -> None:
    """A weight's quantiser whose quotients overflow: they are computed while the file is read."""
    for name, values in (("scale", np.float32(1e-45)), ("zero", np.int8(0))):
        model.graph.initializer.append(numpy_helper.from_array(np.array(values), name))
    rest = ["scale", "zero"]
    back = helper.make_node("DequantizeLinear", ["q", *rest], ["d"], name="back")
    made = helper.make_node("QuantizeLinear", ["dense.weight", *rest], ["q"], name="quantise")
    node(model, "dense").input[1] = "d"
    model.graph.node.insert(0, back)
    model.graph.node.insert(0, made)


def negative_batch(model: onnx.ModelProto) -> None:
    """A symbolic batch as some write it."""
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1


ODD: tuple[Change, ...] = (
    named_as_ours,
    own_metadata,
    negative_batch,
    quantised_by_next_to_nothing,
)


def test_unknown_keys_of_external_data_are_not_read(saved: Save) -> None:
    model = small()
    tensor = next(one for one in model.graph.initializer if one.name == "dense.weight")
    values, tensor.data_location = tensor.raw_data, TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    for key, value in (
        ("location", "weights"),
        ("\x1b[31m", "x"),
        ("basepath", "/"),
        ("length", "48"),
    ):
        tensor.external_data.add(key=key, value=value)
    path = saved(model)
    (path.parent / "weights").write_bytes(values)
    compiled = compile_model(path, composite="epsilon-plus", runner=run_once)  # warnings are errors
    x = np.zeros((1, 3, 8, 8), np.float32)
    before = run_once(small().SerializeToString(), {"x": x})["logits"]
    assert np.array_equal(run_once(compiled.model.SerializeToString(), {"x": x})["logits"], before)


def test_a_long_name_that_is_no_text_is_shown_in_part(tmp_path: Path) -> None:
    model = small()
    model.graph.doc_string = "é" + "x" * 50_000
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString().replace("é".encode(), b"\xff\xff"))
    with pytest.raises(ModelFileError, match="is not UTF-8 text") as caught:
        compile_model(path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("change", ODD)
def test_what_is_odd_compiles_and_predicts_the_same(change: Change, saved: Save) -> None:
    model = small()
    change(model)
    compiled = compile_model(saved(model), composite="epsilon-plus", runner=run_once)
    data = compiled.model.SerializeToString()
    read_compiled(data)
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    before = run_once(model.SerializeToString(), {"x": x}, optimize=False)["logits"]
    assert np.array_equal(run_once(data, {"x": x}, optimize=False)["logits"], before)
    optimised = run_once(data, {"x": x})
    original = {"original": model, "contract": compiled.contract, "runner": run_once}
    found = compare(compiled.model, **original, pictures=x, optimised=optimised, measure=False)
    assert not found.faults
