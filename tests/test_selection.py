"""Some pixels of an output (N, C, H, W): a segmentation's class at a place."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from conftest import run_onnx
from networks import Network, picture

from lrp_onnx.cli.commands import main
from lrp_onnx.cli.verify import run_once
from lrp_onnx.compiled.verify import audit, random_picture
from lrp_onnx.compiler import compile_model
from lrp_onnx.errors import ChoiceError
from lrp_onnx.report.figure import figure
from lrp_onnx.runtime.explainer import Explainer
from lrp_onnx.runtime.explanation import measure_of
from lrp_onnx.selection import Selection, selected

Save = Callable[[onnx.ModelProto], Path]


def segmenter(tail: str | None = None, classes: int = 4) -> onnx.ModelProto:
    """A network with an output (N, classes, 12, 12)."""
    net = Network(0)
    y = net.activate("Relu", net.conv("x", (3, 8), pads=[1] * 4))
    y = net.activate("Relu", net.node("Add", net.conv(y, (8, 8), pads=[1] * 4), y))
    y = net.conv(y, (8, classes), (1, 1))
    output = (
        net.node(tail, y, name="out", **({"axis": 1} if tail == "Softmax" else {})) if tail else y
    )
    model = net.model(output, ["N", 3, 12, 12], classes=classes)
    shape = ["N", classes, 12, 12]
    value = onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, shape)
    model.graph.output[0].CopyFrom(value)
    return model


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (":, :, 3, 4", "[:, 0:4, 3, 4]"),
        (":,1, 3:7 ,:", "[:, 1, 3:7, 0:12]"),
        (":, -1, -2, -3:", "[:, 3, 10, 9:12]"),
        (":, 1:, :5, 0:-1", "[:, 1:4, 0:5, 0:11]"),
    ],
)
def test_indices(text: str, expected: str) -> None:
    selection = Selection.of(text, (None, 4, 12, 12))
    assert str(selection) == expected and Selection.read(expected) == selection
    values = np.random.default_rng(0).normal(size=(2, 4, 12, 12))
    part = eval(f"values[{text}]", {"values": values})
    assert np.isclose(selection.scores(values).sum() / selection.classes, part.mean() * 2)


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("first", [(2, 3), (1, 4)])
def test_any_selection_is_read_back(axis: int, largest: bool, first: tuple[int, int]) -> None:
    ranges = [(0, 5), (2, 7), (1, 6)]
    ranges[1 if axis == 1 else 0] = first
    selection = Selection(tuple(ranges), axis, largest)
    assert Selection.read(str(selection)) == selection


@pytest.mark.parametrize(
    ("text", "shape", "expected"),
    [
        (":, 4:, max", (1, 9, 20), "[:, 4:9, max 0:20]"),
        (":, max, 1:", (1, 20, 9), "[:, max 0:20, 1:9]"),
        (":, mean 3:7, :", (1, 20, 9), "[:, mean 3:7, 0:9]"),
        (":, 5, :", (1, 20, 9), "[:, 5, 0:9]"),
        (":, 5, 3", (1, 20, 9), "[:, 5, 3]"),
        (":, mean 3, mean 4, :", (1, 9, 9, 5), "[:, mean 3, 4, 0:5]"),
        (":, :, max, max 3:5", (1, 5, 9, 9), "[:, 0:5, max 0:9, max 3:5]"),
        (":, max 3, 4:", (1, 20, 9), "[:, 3, 4:9]"),
        (":, 5:9", (None, 64), "[:, 5:9]"),
    ],
)
def test_outputs_of_other_ranks(text: str, shape: tuple[int | None, ...], expected: str) -> None:
    selection = Selection.of(text, shape)
    assert str(selection) == expected
    assert Selection.read(expected) == Selection.of(expected.strip("[]"), shape) == selection
    values = np.random.default_rng(0).normal(size=(2, *shape[1:]))
    part = values[(slice(None), *(slice(*one) for one in selection.ranges))]
    rows = np.moveaxis(part, selection.axis, 1).reshape(2, selection.classes, -1)
    expected_scores = rows.max(2) if "max" in expected else rows.mean(2)
    np.testing.assert_allclose(selection.scores(values), expected_scores)
    if "max" in expected:
        for target in range(selection.classes):
            found = selection.found(values[1], target)
            one = values[1][tuple(slice(*bounds) for bounds in found)]
            assert np.moveaxis(one, selection.axis - 1, 0)[target].item() == rows[1, target].max()


@pytest.mark.parametrize(
    ("text", "shape", "message"),
    [
        (":, :, :", (1, 3, 4), "axis 1 and axis 2 can be it"),
        (":, max, max", (1, 3, 4), "none can be it"),
        (":, max, mean, 3", (1, 3, 4, 4), "not both"),
        (":, most, 3", (1, 3, 4), "is not an index, a range, mean or max"),
        (":, 0, 0", (1, 3, None), "of known sizes"),
        (":", (1,), "two axes or more"),
    ],
)
def test_what_is_no_selection(text: str, shape: tuple[int | None, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Selection.of(text, shape)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (":, :, 3", "is not"),
        ("0, :, 3, 4", "is not"),
        (":, :, 12, 0", "not within"),
        (":, :, 5:5, 0", "not within"),
        (":, :, 1:2:3, 0", "not an index"),
        (":, :, -13, 0", "not within"),
    ],
)
def test_wrong_indices_say_why(saved: Save, text: str, message: str) -> None:
    path = saved(segmenter())
    name = onnx.load(path).graph.output[0].name
    with pytest.raises(ChoiceError, match=message):
        compile_model(path, explain=f"{name}[{text}]")


def test_names_with_brackets_are_names() -> None:
    assert selected("a[0]") == ("a", "0") and selected("a[b]") == ("a[b]", "")
    assert selected("a") == ("a", "") and selected("x[:, :, 1, 2:3]") == ("x", ":, :, 1, 2:3")


@pytest.mark.parametrize(
    ("tail", "holds"), [(None, "features"), ("Softmax", "probabilities"), ("Sigmoid", "sigmoids")]
)
def test_classes_at_a_pixel(saved: Save, tail: str | None, holds: str) -> None:
    """The gradient of every class at that pixel, by differences."""
    path = saved(segmenter(tail))
    name = onnx.load(path).graph.output[0].name
    asked = f"{name}[:, :, 3, 5:7]"
    compiled = compile_model(path, explain=asked, composite="gradient", runner=run_once)
    contract = compiled.contract
    assert (contract.classes, contract.outputs[name]) == (4, holds)
    assert contract.selection == "[:, 0:4, 3, 5:7]"
    logits = onnx.load(path)
    if tail:
        before = next(node for node in logits.graph.node if node.op_type == tail).input[0]
        logits.graph.output.append(onnx.ValueInfoProto(name=before))
        name = before
    x = picture(compiled.model, 1).astype(np.float64)
    maps = compile_model(
        path, explain=asked, composite="gradient", outputs=("relevance",), resolution="full"
    ).model
    way, step = np.random.default_rng(1).normal(size=x.shape), 1e-2
    for target in range(4):
        found = run_onnx(maps, {"x": x.astype(np.float32), "target": np.array([target])})
        ends = [
            run_onnx(logits, {"x": (x + sign * step * way).astype(np.float32)})[name]
            for sign in (1, -1)
        ]
        up, down = (float(end[0, target, 3, 5:7].mean()) for end in ends)
        slope = float((found["relevance"] * way).sum())
        assert slope == pytest.approx((up - down) / (2 * step), rel=2e-2, abs=2e-3)


@pytest.mark.parametrize("composite", ["residual-c3", "lrp-epsilon"])
def test_ledger_and_recompilation(saved: Save, composite: str) -> None:
    path = saved(segmenter())
    name = onnx.load(path).graph.output[0].name
    compiled = compile_model(path, explain=f"{name}[:, :, 3, 5]", composite=composite)
    found = audit(
        compiled.model,
        compiled.contract,
        run_once,
        pictures=random_picture(compiled.model, "x", batch=2),
        original=None,
    )
    assert found.passed, found.checks
    again = compile_model(saved(compiled.model), composite=composite)
    assert again.contract.selection == compiled.contract.selection
    feeds = {"x": picture(compiled.model, 1)}
    before, after = (run_onnx(one.model, feeds)["heatmap"] for one in (compiled, again))
    np.testing.assert_array_equal(after, before)


def test_one_channel_is_one_number(saved: Save, tmp_path: Path) -> None:
    path = saved(segmenter("Sigmoid", classes=1))
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 255, (12, 12, 3)))
    compiled = compile_model(path, explain="out.out[:, 0, 3, 5]")
    (found,) = Explainer(compiled.model.SerializeToString()).explain_images([tmp_path / "a.png"])
    assert compiled.contract.labels == ("no", "yes") and compiled.contract.classes == 2
    first, second = found.top5
    assert first[2] + second[2] == pytest.approx(1)


@pytest.mark.parametrize(
    ("indices", "measure"),
    [(":, :, 3, 5", "score"), (":, :, max, max", "score"), (":, :, 3, :", "mean"), ("", "mean")],
)
def test_the_measure_is_named(indices: str, measure: str, saved: Save, tmp_path: Path) -> None:
    """The largest of a class's values, and the only one, are no mean."""
    path = saved(segmenter())
    name = onnx.load(path).graph.output[0].name + (indices and f"[{indices}]")
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 255, (12, 12, 3)))
    compiled = compile_model(path, explain=name).model.SerializeToString()
    (found,) = Explainer(compiled).explain_images([tmp_path / "a.png"])
    assert measure_of(found.kind) == measure


def test_the_commands(saved: Save, tmp_path: Path) -> None:
    path = saved(segmenter("Softmax"))
    photo = tmp_path / "a.png"
    cv2.imwrite(str(photo), np.random.default_rng(0).integers(0, 255, (24, 24, 3)))
    base: list[Any] = ["--output-name", "out.out[:, :, 2:4, 5]", "--preprocess", "zero-one"]
    for more in ([], ["--method", "occlusion(stride=0.3)"], ["--top", "2"]):
        out = tmp_path / f"out{len(more)}{more[:1]}"
        command = ["explain", str(path), str(photo), "-o", str(out), "--json", *base, *more]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
        line = json.loads(result.stdout.splitlines()[0])
        values = run_onnx(onnx.load(path), {"x": _prepared(photo)})["out.out"]
        expected = values[0, :, 2:4, 5].mean(1)
        assert line["top5"][0]["index"] == expected.argmax()
        assert line["top5"][0]["probability"] == pytest.approx(expected.max(), abs=1e-5)


def test_the_figure_marks_the_pixels(saved: Save, tmp_path: Path) -> None:
    path = saved(segmenter())
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 255, (24, 24, 3)))
    output = onnx.load(path).graph.output[0].name
    compiled = compile_model(path, explain=f"{output}[:, :, 9:11, 2:4]", resolution="full")
    (found,) = Explainer(compiled.model.SerializeToString()).explain_images([tmp_path / "a.png"])
    assert found.marked == (9 / 12, 2 / 12, 11 / 12, 4 / 12)
    drawn, plain = (
        figure([one], method="x").astype(int) for one in (found, replace(found, marked=None))
    )
    rows = min(len(drawn), len(plain))
    columns = min(drawn.shape[1], plain.shape[1])
    where = np.argwhere(np.abs(drawn[:rows, :columns] - plain[:rows, :columns]).max(2) > 60)
    inside = where[where[:, 0] < 300]  # the pictures are 288 pixels high, words lie below
    assert len(inside) and inside[:, 0].min() > 288 * 0.7


def _prepared(photo: Path) -> np.ndarray[Any, Any]:
    rgb = cv2.imread(str(photo))[:, :, ::-1]
    small = cv2.resize(rgb, (12, 12), interpolation=cv2.INTER_LINEAR)
    return (small / 255).astype(np.float32).transpose(2, 0, 1)[None]
