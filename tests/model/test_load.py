"""Files that nobody vouches for: each gets one paragraph that says what it is and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import run_onnx
from networks import picture, resnet

from lrp_onnx.errors import LrpOnnxError, ModelFileError, UnsupportedModelError
from lrp_onnx.model.load import load_model

Save = Callable[[onnx.ModelProto], Path]

BAD_FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "text": (b"# Notes\nThis is no model, it is a long text.\n" * 20, "it is text that begins"),
    "git-lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "git lfs pull",
    ),
    "random": (np.random.default_rng(0).bytes(4096), "not an ONNX model"),
    "checkpoint": (b"PK\x03\x04" + bytes(100), "PyTorch checkpoint"),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(100), "Keras model"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_what_is_no_model_is_named(kind: str, tmp_path: Path) -> None:
    data, message = BAD_FILES[kind]
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=message) as caught:
        load_model(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="there is no file"):
        load_model(tmp_path / "nothing.onnx")
    with pytest.raises(ModelFileError, match="is a folder"):
        load_model(tmp_path)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(kept: float, tmp_path: Path) -> None:
    data = resnet().SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(LrpOnnxError):
        load_model(path)


def test_flipped_bytes_give_our_errors_only(tmp_path: Path) -> None:
    data = bytearray(resnet().SerializeToString())
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        broken = bytearray(data)
        for position in rng.integers(0, len(data), 8):
            broken[position] = rng.integers(0, 256)
        path = tmp_path / "model.onnx"
        path.write_bytes(bytes(broken))
        try:
            load_model(path)
        except LrpOnnxError:
            refused += 1
    assert refused > 10


def test_external_data(tmp_path: Path) -> None:
    model = resnet()
    onnx.save(
        resnet(),
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location="weights.data",
        size_threshold=0,
    )
    x = {"x": picture(model)}
    found = ir.to_proto(load_model(tmp_path / "model.onnx").model)
    assert np.array_equal(
        *(next(iter(run_onnx(m, x, optimize=False).values())) for m in (model, found))
    )
    (tmp_path / "weights.data").unlink()
    with pytest.raises(ModelFileError, match=r"'weights\.data', which is not in"):
        load_model(tmp_path / "model.onnx")


@pytest.mark.parametrize("location", ["../weights.data", "/etc/passwd", "sub/weights.data", ""])
def test_external_data_elsewhere_is_refused(location: str, tmp_path: Path) -> None:
    model = resnet()
    onnx.save(
        model,
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location="weights.data",
        size_threshold=0,
    )
    proto = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelFileError, match="own folder"):
        load_model(tmp_path / "model.onnx")


def test_external_data_that_is_too_short(tmp_path: Path) -> None:
    onnx.save(
        resnet(),
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location="weights.data",
        size_threshold=0,
    )
    (tmp_path / "weights.data").write_bytes(b"1234")
    with pytest.raises(ModelFileError):
        load_model(tmp_path / "model.onnx")


def test_weights_that_are_not_finite(saved: Save) -> None:
    model = resnet()
    tensor = model.graph.initializer[0]
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.flat[3] = np.nan
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    with pytest.raises(UnsupportedModelError, match=f"{tensor.name}.*NaN"):
        load_model(saved(model))


def test_foreign_operators_are_all_named(saved: Save) -> None:
    model = resnet()
    model.graph.node[0].domain = "com.microsoft"
    model.graph.node[3].domain = "com.microsoft.nchwc"
    model.opset_import.extend(
        [onnx.helper.make_opsetid(d, 1) for d in ("com.microsoft", "com.microsoft.nchwc")]
    )
    with pytest.raises(UnsupportedModelError) as caught:
        load_model(saved(model))
    assert len(caught.value.faults) == 2 and "one processor" in caught.value.faults[1]


def test_an_ancient_opset(saved: Save) -> None:
    model = resnet()
    model.opset_import[0].version = 5
    with pytest.raises(UnsupportedModelError, match="older than 7"):
        load_model(saved(model))


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17, 18, 20, 22, 23])
def test_every_opset_computes_the_same(opset: int, saved: Save) -> None:
    model = resnet(opset=min(opset, 20))
    if opset > 20:
        model.opset_import[0].version = opset
    x = {"x": picture(model)}
    found = ir.to_proto(load_model(saved(model)).model)
    assert 18 <= found.opset_import[0].version <= 20
    assert np.array_equal(
        *(next(iter(run_onnx(m, x, optimize=False).values())) for m in (model, found))
    )


def test_old_habits_are_undone(saved: Save) -> None:
    """IR 3: weights listed as inputs. Constants as nodes. Identity
    between a weight and its reader.
    """
    model = resnet(opset=9)
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    alias = onnx.helper.make_node(
        "Identity", [model.graph.initializer[0].name], ["alias"], name="alias"
    )
    model.graph.node[0].input[1] = "alias"
    model.graph.node.insert(0, alias)
    graph = load_model(saved(model))
    assert [v.name for v in graph.inputs] == ["x"]
    assert not any(node.op_type == "Identity" for node in graph.nodes)
