"""What is said of a model, as commands use it: remarks, settings of runs, scores of any kind."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from networks import Network

from lrp_onnx.cli.commands import main

GRAY = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": 28}


def call(*arguments: object, status: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == status, result.output
    return result


def network(path: Path, *tail: tuple[str, dict[str, Any]], channels: int = 3) -> Path:
    """A small classifier of four classes, and what follows its logits."""
    net = Network(1)
    pooled = net.node("GlobalAveragePool", net.activate("Relu", net.conv("x", (channels, 8))))
    y = net.dense(net.node("Flatten", pooled), (8, 4))
    for op, attributes in tail:
        others = [net.constant("hundred", np.float32(100))] if op == "Mul" else []
        y = net.node(op, y, *others, **attributes)
    onnx.save(net.model(y, ["N", channels, 16, 16], classes=4), path)
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photos" / "a.png"
    path.parent.mkdir()
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (20, 24, 3)).astype(np.uint8))
    return path


def test_a_list_of_names_that_is_not_used_is_said(tmp_path: Path, photo: Path) -> None:
    model = network(tmp_path / "model.onnx")
    (tmp_path / "labels.txt").write_text("cat\ndog\x1b[31m\n")
    printed = call("explain", model, photo, "-o", tmp_path / "out").output
    assert "labels.txt has 2 class names, the model 4 classes: not used" in printed
    hostile = model.with_name("\x1b[31m.onnx")
    hostile.write_bytes(model.read_bytes())
    (tmp_path / "\x1b[31m.txt").write_text("cat")
    printed = call("explain", hostile, photo, "-o", tmp_path / "other").output
    assert "31m.txt has 1 class names" in printed and "\x1b[31m" not in printed


def test_colours_of_another_model_do_not_stop_a_gray_one(tmp_path: Path, photo: Path) -> None:
    model = network(tmp_path / "model.onnx", channels=1)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(GRAY))
    printed = call("explain", model, photo, "-o", tmp_path / "out").output
    assert "is for RGB pictures, the model for those of 1 channel(s): not used" in printed
    assert "channels=GRAY" in printed and "is assumed" in printed
    found = json.loads(call("doctor", model, photo, "--json").output)
    assert any("is for RGB pictures" in warning for warning in found["warnings"])


def test_the_names_that_count_decide_whether_a_run_goes_on(tmp_path: Path, photo: Path) -> None:
    """A list of another length comes first and is not used; the one behind it is changed."""
    model = network(tmp_path / "model.onnx")
    (tmp_path / "labels.txt").write_text("one\ntwo\n")
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    arguments = ["explain", model, photo, "-o", tmp_path / "out"]
    call(*arguments)
    call(*arguments)
    (tmp_path / "classes.txt").write_text("a\nb\nC\nd\n")
    assert "classes 4: c there, C here" in call(*arguments, status=1).output


@pytest.mark.parametrize("tail", [[("Softmax", {"axis": 1}), ("Mul", {})]])
def test_scores_are_not_called_probabilities(tmp_path: Path, photo: Path, tail: Any) -> None:
    model, out = network(tmp_path / "model.onnx", *tail), tmp_path / "out"
    printed = call("explain", model, photo, "-o", out, "--top", 2)
    (line, _) = map(json.loads, (out / "explanations.jsonl").read_text().splitlines())
    assert "probability" not in line["top5"][0] and line["target"]["probability"] is None
    assert (
        f"(score {line['top5'][0]['score']:.4g})" in printed.output and "%)" not in printed.output
    )
    with (out / "results.csv").open(encoding="utf-8-sig", newline="") as file:
        assert next(csv.DictReader(file))["probability"] == ""
    (out / "report.html").unlink()
    assert call("explain", model, photo, "-o", out, "--top", 2).stdout == printed.stdout
    assert f"score {line['top5'][0]['score']:.4g}" in (out / "report.html").read_text()


def test_doctor_says_what_it_found_of_a_model_of_scores(tmp_path: Path, photo: Path) -> None:
    model = network(tmp_path / "model.onnx", ("Sigmoid", {}))
    found = json.loads(call("doctor", model, photo, "--json").output)
    assert found["model"]["classes"].startswith("4") and found["trials"] == []
    assert any("gives no probabilities" in warning for warning in found["warnings"])


@pytest.mark.parametrize("top", [1, 2])
def test_a_picture_whose_values_overflow_is_a_fault(tmp_path: Path, top: int) -> None:
    """The run goes on, and the other pictures have their results."""
    model = network(tmp_path / "model.onnx")
    proto = onnx.load(model)
    for tensor in proto.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.ndim == 4:
            tensor.CopyFrom(onnx.numpy_helper.from_array(values * 1e37, tensor.name))
    onnx.save(proto, model)
    for name, value in (("a", 0), ("b", 255), ("c", 0)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((20, 20, 3), value, np.uint8))
    out = tmp_path / "out"
    result = call(
        *("explain", model, tmp_path, "-o", out, "--top", top),
        *("--preprocess", "raw", "--composite", "lrp-epsilon"),
        status=1,
    )
    assert "b.png cannot be explained: the model's values are not finite" in result.output
    lines = [json.loads(text) for text in (out / "explanations.jsonl").read_text().splitlines()]
    assert [Path(line["image"]).name for line in lines] == ["a.png"] * top + ["b.png"] + [
        "c.png"
    ] * top


def test_labels_that_are_no_classes_are_a_warning(tmp_path: Path, photo: Path) -> None:
    model = network(tmp_path / "model.onnx")
    table = tmp_path / "labels.csv"
    table.write_text("file,label\na.png,4\nb.png,3\n")
    out = tmp_path / "out"
    printed = call("explain", model, photo, "-o", out, "--labels", table).output
    assert "1 of 2 labels are none of the model's classes 0 to 3, as 4 of a.png" in printed
    assert "none of the model" in (out / "report.html").read_text()
