"""The gate: every kind of hostile file is refused with a reason, all reasons at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import Network, resnet
from onnx import TensorProto, helper

from lrp_onnx.errors import ModelFileError, UnsupportedModelError
from lrp_onnx.files.models import SIZE_LIMIT
from lrp_onnx.model.gate import MOST_NODES, faults_of
from lrp_onnx.model.load import load_model

Save = Callable[[onnx.ModelProto], Path]


def node(kind: str, domain: str = "", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, ["x"], ["bad.out"], name="bad", domain=domain, **attributes)


def branch() -> onnx.GraphProto:
    return helper.make_graph(
        [], "branch", [], [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)]
    )


HOSTILE: dict[str, tuple[onnx.NodeProto, str]] = {
    "EPContext": (node("EPContext", "com.microsoft"), "EPContext 'bad' holds a program"),
    "If": (node("If", then_branch=branch(), else_branch=branch()), "If 'bad' is control flow"),
    "Loop": (node("Loop", body=branch()), "Loop 'bad' is control flow"),
    "random": (node("RandomNormalLike"), "RandomNormalLike 'bad' draws random numbers"),
    "Bernoulli": (node("Bernoulli"), "draws random numbers"),
    "sequence": (node("SequenceConstruct"), "does not compute tensors from tensors"),
    "unknown": (node("NoSuchOp"), "NoSuchOp 'bad' does not compute"),
    "custom": (node("Attack", "evil.corp"), r"of the domain 'evil\.corp'"),
    "integers": (node("ConvInteger"), "QDQ"),
    "QAttention": (node("QAttention", "com.microsoft"), "QDQ"),
    "group": (node("Conv", group=0), r"group=\[0\]: 1 to"),
    "strides": (node("Conv", strides=[0, 1]), r"strides=\[0, 1\]"),
    "dilations": (node("Conv", dilations=[1, -1]), r"dilations=\[1, -1\]"),
    "pads": (node("MaxPool", kernel_shape=[2, 2], pads=[0, 0, 0, 10**9]), "pads="),
    "kernel": (node("MaxPool", kernel_shape=[10**6, 2]), "kernel_shape="),
    "epsilon": (node("BatchNormalization", epsilon=float("nan")), "epsilon="),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_nodes(kind: str, saved: Save) -> None:
    bad, message = HOSTILE[kind]
    model = resnet()
    model.graph.node.insert(0, bad)
    with pytest.raises(UnsupportedModelError, match=message):
        load_model(saved(model))


def test_every_fault_is_in_one_message(saved: Save) -> None:
    model = resnet()
    for bad, _ in HOSTILE.values():
        model.graph.node.insert(0, bad)
    model.graph.initializer[0].data_type = TensorProto.COMPLEX64
    with pytest.raises(UnsupportedModelError) as caught:
        load_model(saved(model))
    assert len(caught.value.faults) >= len(HOSTILE) + 1


def test_hostile_nodes_inside_functions(saved: Save) -> None:
    model = resnet()
    model.opset_import.append(helper.make_opsetid("mine", 1))
    inner = helper.make_node("EPContext", ["a"], ["b"], name="inner", domain="com.microsoft")
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model.functions.append(helper.make_function("mine", "Wrapped", ["a"], ["b"], [inner], opsets))
    with pytest.raises(UnsupportedModelError, match="EPContext 'inner'"):
        load_model(saved(model))


def nested(levels: int, width: int) -> onnx.ModelProto:
    """Functions that each call the next `width` times: width ** levels nodes in a few bytes."""
    model = resnet()
    model.opset_import.append(helper.make_opsetid("mine", 1))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    for level in range(levels):
        last = level == levels - 1
        kind, domain = ("Relu", "") if last else (f"Level{level + 1}", "mine")
        names = ["a", *(f"t{i}" for i in range(width - 1)), "b"]
        calls = [
            helper.make_node(kind, [names[i]], [names[i + 1]], domain=domain) for i in range(width)
        ]
        model.functions.append(
            helper.make_function("mine", f"Level{level}", ["a"], ["b"], calls, opsets)
        )
    model.graph.node.insert(0, helper.make_node("Level0", ["x"], ["grown"], domain="mine"))
    return model


def test_functions_that_grow_or_never_end() -> None:
    assert faults_of(nested(3, 4)) == []
    assert any(f"up to {MOST_NODES:,}" in fault for fault in faults_of(nested(40, 10)))
    endless = nested(3, 2)
    endless.functions[2].node[0].op_type, endless.functions[2].node[0].domain = "Level0", "mine"
    assert any("in a circle" in fault for fault in faults_of(endless))


def test_functions_are_inlined(saved: Save) -> None:
    model = nested(2, 2)
    for reader in model.graph.node[1:]:
        for i, name in enumerate(reader.input):
            reader.input[i] = "grown" if name == "x" else name
    assert sum(found.op_type == "Relu" for found in load_model(saved(model)).nodes) >= 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.dims.append(2), "should take"),
        (lambda t: t.dims.append(-1), "has the shape"),
        (lambda t: t.dims.extend([-1, -1]), "has the shape"),
        (lambda t: t.dims.extend([1] * 9), "has the shape"),
        (lambda t: setattr(t, "data_type", TensorProto.STRING), "of type STRING"),
        (lambda t: setattr(t, "data_type", 77), "of type number 77"),
        (lambda t: setattr(t, "raw_data", t.raw_data[:-1]), "should take"),
        (lambda t: setattr(t, "raw_data", b"\xff" * len(t.raw_data)), "NaN"),
        (lambda t: t.ClearField("raw_data"), "holds 0 numbers"),
    ],
)
def test_weights_that_are_not_what_they_say(
    change: Callable[[TensorProto], None], message: str
) -> None:
    model = resnet()
    change(model.graph.initializer[0])
    name = model.graph.initializer[0].name
    faults = faults_of(model)
    assert any(message in fault and name in fault for fault in faults), faults


def test_sizes_below_zero_are_no_shape(saved: Save) -> None:
    """Two of them have a product above 0, and the right number of values."""
    model = resnet()
    weight = model.graph.initializer[0]
    weight.dims[0], weight.dims[1] = -weight.dims[0], -weight.dims[1]
    with pytest.raises(UnsupportedModelError, match=f"'{weight.name}' has the shape"):
        load_model(saved(model))


def test_a_picture_that_is_too_small(saved: Save) -> None:
    """Windows of 9 × 9 on 4 × 4 pixels: shape inference says less than 0."""
    net = Network(0)
    y = net.conv(net.conv("x", (3, 4), (5, 5)), (4, 4), (9, 9))
    y = net.node("Flatten", net.node("GlobalAveragePool", y))
    model = net.model(net.dense(y, (4, 5)), ["N", 3, 8, 8], classes=5)
    with pytest.raises(UnsupportedModelError, match="the input is too small for it"):
        load_model(saved(model))


def test_sparse_weights_and_other_values() -> None:
    model = resnet()
    model.graph.sparse_initializer.add()
    model.graph.input.append(
        helper.make_tensor_sequence_value_info("list", TensorProto.FLOAT, None)
    )
    faults = "\n".join(faults_of(model))
    assert "sparsely" in faults and "'list' is sequence_type" in faults


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """A model whose weights lie in weights.data beside it."""
    path = tmp_path / "model.onnx"
    onnx.save(resnet(), path, save_as_external_data=True, location="weights.data", size_threshold=0)
    return path


def edit(path: Path, key: str, value: str) -> None:
    proto = onnx.load(path, load_external_data=False)
    entries = proto.graph.initializer[1].external_data
    for entry in entries:
        if entry.key == key:
            entry.value = value
    path.write_bytes(proto.SerializeToString())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("offset", "-8"),
        ("offset", str(2**40)),
        ("length", str(2**40)),
        ("length", "-4"),
        ("offset", "ten"),
    ],
)
def test_external_data_out_of_bounds(key: str, value: str, external: Path) -> None:
    edit(external, key, value)
    with pytest.raises(ModelFileError, match=r"lies at bytes|is not a number"):
        load_model(external)


def test_links_to_elsewhere_are_not_followed(external: Path, tmp_path: Path) -> None:
    data = external.parent / "weights.data"
    secret = tmp_path / "elsewhere"
    secret.mkdir()
    data.rename(secret / "weights.data")
    os.link(secret / "weights.data", data)
    with pytest.raises(ModelFileError, match="hard links"):
        load_model(external)
    data.unlink()
    data.symlink_to(secret / "weights.data")
    with pytest.raises(ModelFileError, match="own folder"):
        load_model(external)


def test_a_second_name_is_enough(external: Path) -> None:
    os.link(external.parent / "weights.data", external.parent / "second")
    with pytest.raises(ModelFileError, match=r"has 2 names \(hard links\)"):
        load_model(external)


@pytest.mark.parametrize("name", ["model.onnx", "weights.data"])
def test_files_that_are_too_large_are_not_read(
    name: str, external: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (external.parent / name).open("r+b") as file:
        file.truncate(SIZE_LIMIT + 1)  # a hole: it takes no space

    def never(*_: object) -> None:
        raise AssertionError("it was read")

    for reader in ("regular_bytes", "onnx.load_external_data_for_model"):
        if name == "weights.data" and reader == "regular_bytes":
            continue
        monkeypatch.setattr(f"lrp_onnx.files.models.{reader}", never)
    with pytest.raises(ModelFileError, match=r"is 2,000,000,001 bytes"):
        load_model(external)


def test_a_huge_picture_is_not_tried(saved: Save) -> None:
    model = resnet()
    for axis, size in ((2, 2**20), (3, 2**20)):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size
    with pytest.raises(UnsupportedModelError, match="a side, can be explained"):
        load_model(saved(model))


def test_sizes_of_zero_are_any_size(saved: Save) -> None:
    model = resnet()
    for size in (0, -1):
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size
        assert load_model(saved(model)).inputs[0].shape is not None


def test_a_weight_computed_from_a_bomb_is_refused(saved: Save) -> None:
    model = resnet()
    conv = next(n for n in model.graph.node if n.op_type == "Conv")
    shape = onnx.numpy_helper.from_array(np.array([1 << 16, 1 << 16, 1, 1]), "bomb.shape")
    model.graph.initializer.append(shape)
    model.graph.node.insert(
        0, helper.make_node("ConstantOfShape", ["bomb.shape"], ["bomb"], name="bomb")
    )
    conv.input[1] = "bomb"
    with pytest.raises((UnsupportedModelError, ModelFileError)):
        from lrp_onnx.compiler import compile_model

        compile_model(saved(model))
