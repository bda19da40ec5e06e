"""Detectors: one box of a table of scores, whatever stands behind it in the file."""

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
from onnx import TensorProto, helper

import lrp_onnx
from lrp_onnx.cli.commands import main
from lrp_onnx.cli.verify import run_once
from lrp_onnx.compiled.verify import audit, random_picture
from lrp_onnx.compiler import compile_model
from lrp_onnx.errors import ChoiceError, UnsupportedModelError
from lrp_onnx.report.entry import Entry
from lrp_onnx.report.figure import figure
from lrp_onnx.runtime.boxes import Boxes
from lrp_onnx.runtime.explainer import Explainer

Save = Callable[[onnx.ModelProto], Path]
BEHIND = ("nothing", "nms", "topk", "nonzero", "if", "loop")


def detector(behind: str = "nothing", batch: int | str = "N") -> onnx.ModelProto:
    """As YOLOv8 is exported: ``out`` is (N, 4 + 6, 36), boxes and the classes' sigmoids."""
    net = Network(0)
    y = net.activate("Relu", net.conv("x", (3, 8), pads=[1] * 4, strides=[2, 2]))
    y = net.activate("Relu", net.node("Add", net.conv(y, (8, 8), pads=[1] * 4), y))
    number = iter(range(99))

    def c(values: Any, dtype: Any = np.float32) -> str:
        return net.constant(f"c{next(number)}", np.asarray(values, dtype))

    box = net.node("Reshape", net.conv(y, (8, 4), (1, 1)), c([0, 4, 36], np.int64))
    box = net.node("Exp", box)
    scores = net.node("Reshape", net.conv(y, (8, 6), (1, 1)), c([0, 6, 36], np.int64))
    scores = net.node("Sigmoid", scores)
    out = net.node("Concat", box, scores, axis=1, name="out")
    extra: tuple[str, int, list[int | str]] | None = None
    if behind == "nms":
        turned = net.node("Transpose", box, perm=[0, 2, 1])
        limits = c([20], np.int64), c([0.5]), c([0.3])
        kept = net.node("NonMaxSuppression", turned, scores, *limits)
        extra = kept, TensorProto.INT64, ["K", 3]
    elif behind == "topk":
        best = net.node("ReduceMax", scores, c([1], np.int64), keepdims=0)
        kept = net.node("TopK", best, c([5], np.int64), outputs=2)
        extra = kept, TensorProto.FLOAT, [batch, 5]
    elif behind == "nonzero":
        kept = net.node("NonZero", net.node("Greater", scores, c(0.5)))
        extra = kept, TensorProto.INT64, [3, "K"]
    elif behind == "if":
        some = net.node("Greater", net.node("ReduceMax", scores, keepdims=0), c(0.5))
        branches = {
            f"{name}_branch": helper.make_graph(
                [helper.make_node(op, [scores], [name])],
                name,
                [],
                [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
            )
            for name, op in (("then", "Identity"), ("else", "Neg"))
        }
        extra = net.node("If", some, **branches), TensorProto.FLOAT, [batch, 6, 36]
    elif behind == "loop":
        infos = [
            helper.make_tensor_value_info(name, kind, shape)
            for name, kind, shape in (
                ("i", TensorProto.INT64, []),
                ("go", TensorProto.BOOL, []),
                ("sum", TensorProto.FLOAT, None),
                ("still", TensorProto.BOOL, []),
                ("more", TensorProto.FLOAT, None),
            )
        ]
        body = helper.make_graph(
            [
                helper.make_node("Identity", ["go"], ["still"]),
                helper.make_node("Add", ["sum", scores], ["more"]),
            ],
            "body",
            infos[:3],
            infos[3:],
        )
        kept = net.node("Loop", c(3, np.int64), c(True, np.bool_), scores, body=body)
        extra = kept, TensorProto.FLOAT, [batch, 6, 36]
    model = net.model(out, [batch, 3, 12, 12], classes=6)
    info = helper.make_tensor_value_info(out, TensorProto.FLOAT, [batch, 10, 36])
    model.graph.output[0].CopyFrom(info)
    if extra is not None:
        model.graph.output.append(helper.make_tensor_value_info(*extra))
    return model


@pytest.mark.parametrize("batch", ["N", 1])
@pytest.mark.parametrize("behind", BEHIND)
def test_what_stands_behind_is_no_matter(saved: Save, behind: str, batch: int | str) -> None:
    """The maps are those of the file without it, and its outputs are unchanged."""
    plain = compile_model(saved(detector()), explain="out.out[:, 4:, 7]")
    path = saved(detector(behind, batch))
    compiled = compile_model(path, explain="out.out[:, 4:, 7]", runner=run_once)
    assert compiled.contract.outputs["out.out"] == "sigmoids" and compiled.contract.classes == 6
    x = picture(plain.model, 1)
    for target in (-1, 2):
        maps = [
            run_onnx(one.model, {"x": x, "target": np.array([target])})["heatmap"]
            for one in (plain, compiled)
        ]
        np.testing.assert_allclose(maps[1], maps[0], atol=1e-6 * np.abs(maps[0]).max())
    found = audit(
        compiled.model,
        compiled.contract,
        run_once,
        pictures=random_picture(compiled.model, "x", batch=1),
        original=onnx.load(path),
    )
    assert found.passed, found.checks
    assert len(compiled.contract.outputs) == (1 if behind == "nothing" else 2)


@pytest.mark.parametrize("behind", ["if", "loop"])
def test_control_flow_before_what_is_explained(saved: Save, behind: str) -> None:
    path = saved(detector(behind))
    last = onnx.load(path).graph.output[1].name
    for explain in (None, f"{last}[:, :, 3]"):
        with pytest.raises(UnsupportedModelError, match=r"is control flow.*--output-name"):
            compile_model(path, explain=explain)


@pytest.mark.parametrize(
    ("explain", "classes", "holds"),
    [
        ("[:, 4:, max]", 6, "sigmoids"),
        ("[:, 6, max]", 2, "probability"),
        ("[:, 6, 7]", 2, "probability"),
        ("[:, 0, 7]", 2, "logit"),
        ("[:, :4, 7]", 4, "scores"),
    ],
)
def test_the_gradient_is_that_of_the_box(
    saved: Save, explain: str, classes: int, holds: str
) -> None:
    """Of a class's logit, or of a coordinate, by differences."""
    path = saved(detector())
    compiled = compile_model(
        path, explain=f"out.out{explain}", composite="gradient", outputs=("relevance",)
    )
    assert (compiled.contract.classes, compiled.contract.outputs["out.out"]) == (classes, holds)
    x = picture(compiled.model, 1).astype(np.float64)
    way, step = np.random.default_rng(1).normal(size=x.shape), 1e-3

    def value(x: np.ndarray[Any, Any], target: int) -> float:
        out = run_onnx(onnx.load(path), {"x": x.astype(np.float32)})["out.out"][0]
        out = out.astype(np.float64)
        out[4:] = np.log(out[4:] / (1 - out[4:]))
        if classes == 2:
            row = out[int(explain[4])]
            return float(row.max() if "max" in explain else row[7])
        return float(out[4:].max(1)[target] if "max" in explain else out[target, 7])

    for target in range(1, min(classes, 4)):
        feeds = {"x": x.astype(np.float32), "target": np.array([target])}
        found = float((run_onnx(compiled.model, feeds)["relevance"] * way).sum())
        up, down = value(x + step * way, target), value(x - step * way, target)
        assert found == pytest.approx((up - down) / (2 * step), rel=2e-2, abs=2e-3)


@pytest.mark.parametrize(
    ("text", "values", "place"),
    [
        ("cxcywh:b", [[6, 4, 4, 2]], (3 / 12, 4 / 12, 5 / 12, 8 / 12)),
        ("b[:, :, :4]", [[6, 4, 4, 2, 9]], (3 / 12, 4 / 12, 5 / 12, 8 / 12)),
        ("xyxy:b", [[0.1, 0.2, 0.5, 1.1]], (0.2, 0.1, 1.0, 0.5)),
        ("xywh:b", [[2, 3, 4, 5]], (3 / 12, 2 / 12, 8 / 12, 6 / 12)),
    ],
)
def test_formats_of_boxes(text: str, values: Any, place: tuple[float, ...]) -> None:
    boxes = Boxes.of(text, {"b": ""})
    rows = np.concatenate([np.zeros((6, len(values[0]))), values])
    assert boxes.place(rows, 6, (12, 12)) == pytest.approx(place)
    if "[" not in text:
        assert boxes.place(rows.T, 6, (12, 12)) == pytest.approx(place)


def test_boxes_that_are_none(saved: Save) -> None:
    path = saved(detector())
    with pytest.raises(ChoiceError, match=r"the outputs are out\.out"):
        compile_model(path, explain="out.out[:, 4:, 7]", boxes="nothing")
    with pytest.raises(ChoiceError, match="no box is explained"):
        compile_model(path, explain="out.out", boxes="out.out")


def test_the_box_is_marked(saved: Save, tmp_path: Path) -> None:
    path = saved(detector())
    photo = tmp_path / "a.png"
    cv2.imwrite(str(photo), np.random.default_rng(0).integers(0, 255, (24, 24, 3)))
    boxes = "cxcywh:out.out[:, :4, :]"
    compiled = compile_model(
        path, explain="out.out[:, 4:, max]", boxes=boxes, preprocessing=_zero_one(), post="none"
    )
    for one in (compiled, compile_model(saved(compiled.model), post="none")):
        (found,) = Explainer(one.model.SerializeToString()).explain_images([photo], target=3)
        small = cv2.resize(cv2.imread(str(photo))[:, :, ::-1], (12, 12))
        x = (small / 255).astype(np.float32).transpose(2, 0, 1)[None]
        out = run_onnx(onnx.load(path), {"x": x})["out.out"][0]
        x0, y0, width, height = out[:4, out[7].argmax()]
        expected = [y0 - height / 2, x0 - width / 2, y0 + height / 2, x0 + width / 2]
        assert found.marked == pytest.approx(np.clip(expected, 0, 12) / 12, abs=1e-5)
    assert figure([found], method="x").shape[2] == 3
    out = tmp_path / "out"
    for more in ([], ["--method", "occlusion(stride=0.5)"]):
        command = ["explain", str(path), str(photo), "-o", str(out), "--json", "--force", *more]
        command += ["--output-name", "out.out[:, 4:, max]", "--boxes", boxes]
        command += ["--preprocess", "zero-one", "--target", "3"]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
        line = json.loads(result.stdout)
        assert line["marked"] == pytest.approx(found.marked, abs=1e-5)


def _zero_one() -> Any:
    return lrp_onnx.runtime.preprocess.parse_preprocessing("zero-one")


def test_marks_are_in_overlay_and_page(saved: Save, tmp_path: Path) -> None:
    path = saved(detector())
    photo = tmp_path / "a.png"
    cv2.imwrite(str(photo), np.full((96, 96, 3), 90, np.uint8))
    choices: dict[str, Any] = {"preprocessing": "zero-one", "boxes": "out.out[:, :4, :]"}
    found = lrp_onnx.explain(path, photo, target=1, explain="out.out[:, 4:, 14]", **choices)
    assert found.marked is not None
    bare = found.overlay(outline=False)
    assert np.array_equal(replace(found, marked=None).overlay(outline=False), bare)
    assert (found.overlay() != replace(found, marked=None).overlay()).any()
    entry, plain = Entry.of([found]), Entry.of([replace(found, marked=None)])
    assert (entry.photo != plain.photo).any() and np.array_equal(plain.photo, found.photo)
    other = replace(found, marked=(0.0, 0.0, 0.5, 0.5))
    assert np.array_equal(Entry.of([found, other]).photo, found.photo)
