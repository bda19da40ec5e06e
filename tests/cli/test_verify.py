"""The `verify` command on files as exporters write them: fixed batches, integer pictures."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from networks import resnet
from zoo_files import manifest

from lrp_onnx.cli.commands import main

Save = Callable[[onnx.ModelProto], Path]
ROOT = Path(__file__).parents[2]
UNCHANGED = "original outputs unchanged"


def verified(compiled: Path, *arguments: object) -> dict[str, list[str]]:
    """Check → its faults, of ``lrp-onnx verify COMPILED …``."""
    command = ["verify", compiled, *arguments, "--provider", "cpu", "--json"]
    result = CliRunner().invoke(main, [str(argument) for argument in command])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (0, 1) and result.stdout, result.stderr
    return {entry["check"]: entry["faults"] for entry in json.loads(result.stdout)["checks"]}


def compiled(model: Path, *arguments: object) -> Path:
    path = model.with_suffix(".lrp.onnx")
    command = ["compile", model, "-o", path, "--composite", "lrp-resnet", "--force", *arguments]
    result = CliRunner().invoke(main, [str(argument) for argument in command])
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3))
    cv2.imwrite(str(path), pixels.astype(np.uint8))
    return path


def with_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The model as ``torch.onnx.export(model, x)`` writes it without dynamic axes."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    return model


@pytest.mark.parametrize("opset", [11, 18])
@pytest.mark.parametrize("batch", [1, 4])
def test_the_original_runs_in_batches_of_its_own_size(batch: int, opset: int, saved: Save) -> None:
    model = saved(with_batch(resnet(size=(32, 32), opset=opset), batch))
    faults = verified(compiled(model), "--original", model)
    assert faults[UNCHANGED] == [] and not any(faults.values())
    other = saved(with_batch(resnet(size=(32, 32), opset=opset, seed=1), batch))
    (fault,) = verified(compiled(model), "--original", other)[UNCHANGED]
    assert re.search(r"changed by .* of its largest value; no change is allowed", fault)


@pytest.mark.parametrize(
    "name",
    [
        "cifar10-resnet20.dynamo-op20",
        "cifar10-resnet20.torchscript-op11-bn",
        "cifar10-resnet2b.torch1.8-op9",
        "tin10-resnet18w16.dynamo-op20",
    ],
)
def test_exports_of_a_fixed_batch(name: str, assets: Path, tmp_path: Path) -> None:
    source = assets / "models" / f"{name}.onnx"
    model = Path(shutil.copy(source, tmp_path / "model.onnx"))
    shape = onnx.load(model).graph.input[0].type.tensor_type.shape
    assert shape.dim[0].dim_value == 1
    assert verified(compiled(model), "--original", model)[UNCHANGED] == []


def test_the_readme_s_commands_on_the_embedded_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Word by word, as the README's section on one's own model has them."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [
        re.sub(r"\s+#.*", "", line).split()
        for line in text.splitlines()
        if line.startswith(("lrp-onnx compile model.onnx ", "lrp-onnx verify model.lrp.onnx "))
    ]
    assert [words[1] for words in commands[:2]] == ["compile", "verify"]
    shutil.copy(ROOT / "models" / "shapes-resnet.onnx", tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    for _, *arguments in commands[:2]:
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
    assert f"ok      {UNCHANGED}" in result.stdout


@pytest.mark.parametrize("name", ["core.torchscript-uint8-nhwc", "core-fp16.dynamo"])
def test_a_picture_is_cast_to_the_input_s_type(name: str, photo: Path, tmp_path: Path) -> None:
    (file,) = (file for file in manifest() if file.name == name)
    model = file.save(tmp_path)
    faults = verified(compiled(model), "--image", photo, "--image", photo, "--original", model)
    assert faults[UNCHANGED] == []


def test_a_picture_is_cast_to_int8(assets: Path, tmp_path: Path) -> None:
    source = assets / "models" / "mlperf-resnet8.tflite-int8-qdq.onnx"
    model = Path(shutil.copy(source, tmp_path / "model.onnx"))
    photo = min((assets / "images" / "cifar10-jpeg").rglob("*.*g"))
    element = onnx.load(model).graph.input[0].type.tensor_type.elem_type
    assert element == onnx.TensorProto.INT8
    faults = verified(compiled(model), "--image", photo, "--original", model)
    assert faults[UNCHANGED] == []


def test_pictures_fill_a_fixed_batch(photo: Path, tmp_path: Path, saved: Save) -> None:
    path = compiled(saved(resnet(size=(32, 32))), "--static")
    assert not any(verified(path, "--image", photo).values())
    command = ["verify", str(path), "--image", str(photo), "--image", str(photo)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1 and "takes 1 per run: give 1 at most" in result.stderr
