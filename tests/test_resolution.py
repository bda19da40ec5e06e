"""Coarse maps: relevance at a feature map instead of the picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from conftest import relative, run_onnx
from networks import Network, picture, resnet

from lrp_onnx.cli.commands import main
from lrp_onnx.cli.verify import verify_file
from lrp_onnx.compiler import compile_model, plan_model
from lrp_onnx.errors import UnsupportedModelError
from lrp_onnx.maps.resample import resample
from lrp_onnx.relevance.composites.presets import COMPOSITES
from lrp_onnx.relevance.outputs import feature_map

Save = Callable[[onnx.ModelProto], Path]


@pytest.fixture
def path(saved: Save) -> Path:
    return saved(resnet(size=(32, 64), widths=(8, 16)))


@pytest.mark.parametrize("composite", COMPOSITES)
def test_a_coarse_map_is_the_relevance_of_its_feature_map(composite: str, path: Path) -> None:
    """The full compilation gives the same relevance at that
    tensor; only what lies before it is left out.
    """
    x = {"x": picture(onnx.load(path))}
    outputs = ("heatmap", "heatmap_raw")
    coarse = compile_model(
        path, composite=composite, resolution=(8, 16), post="none", outputs=outputs
    )
    _, plan, _ = plan_model(path)
    name = next(name for name, size in plan.cut_points.items() if size == (8, 16))
    full = compile_model(path, composite=composite, outputs=(name,), resolution="full").model
    expected = run_onnx(full, x)[f"relevance/{name}"]
    if COMPOSITES[composite].times_input:
        exposed = compile_model(path, composite="lrp-z", outputs=(name,)).model
        exposed.graph.output.append(onnx.ValueInfoProto(name=name))
        expected = expected * run_onnx(exposed, x)[name]
    results = run_onnx(coarse.model, x)
    found = results["heatmap_raw"]
    assert found.shape == (2, 8, 16) and coarse.contract.resolution == (8, 16)
    assert relative(found, expected.sum(1)) < 1e-5
    shown = np.stack([resample(one, (32, 64), method="bilinear") for one in found])
    assert relative(results["heatmap"], shown) < 1e-5
    whole = compile_model(path, composite=composite, post="none", resolution="full").model
    assert len(coarse.model.graph.node) < len(whole.graph.node)


def test_relevance_is_conserved_to_the_feature_map(saved: Save, tmp_path: Path) -> None:
    path = saved(resnet(size=(32, 32), widths=(16, 32), bias=False))
    for size in ((16, 16), (8, 8), (4, 4), (1, 1)):
        compiled = compile_model(
            path, composite="lrp-resnet", resolution=size, outputs=("heatmap_raw",)
        )
        x = {"x": picture(onnx.load(path))}
        found = run_onnx(compiled.model, x)
        start = found[next(iter(compiled.contract.outputs))].max(1)
        np.testing.assert_allclose(found["heatmap_raw"].sum((1, 2)), start, rtol=1e-3)
        audit = verify_file(
            compiled.save(tmp_path / f"{size[0]}.onnx"), original=path, images=(), provider="cpu"
        )
        assert audit.passed


def test_waists_are_where_every_path_passes(path: Path) -> None:
    """By brute force: without the tensor nothing of the picture reaches the logits."""
    _, plan, _ = plan_model(path)
    for step in plan.steps:
        reached = {plan.input}
        for other in plan.steps:
            if other.output != step.output and not reached.isdisjoint(other.inputs):
                reached.add(other.output)
        cut = plan.logits not in reached
        inside = any(step.output != block.output and step in block.steps for block in plan.blocks)
        if len(step.output_shape) == 4 and not inside:
            assert (step.output in plan.cut_points) == cut, step.output
    assert list(dict.fromkeys(plan.cut_points.values())) == [(16, 32), (8, 16), (4, 8), (1, 1)]


def test_paths_that_bypass_a_tensor(saved: Save) -> None:
    """A concatenation of an early and a late tensor: nothing between them is a waist."""
    net = Network(0)
    first = net.node("Relu", net.conv("x", (3, 8), pads=[1] * 4))
    late = net.node(
        "Relu",
        net.conv(net.node("Relu", net.conv(first, (8, 8), pads=[1] * 4)), (8, 8), pads=[1] * 4),
    )
    both = net.node("Concat", first, late, axis=1)
    logits = net.dense(net.node("Flatten", net.node("GlobalAveragePool", both)), (16, 5))
    _, plan, _ = plan_model(saved(net.model(logits, ["N", 3, 12, 12])))
    assert (
        first in plan.cut_points
        and both in plan.cut_points
        and late not in plan.cut_points
        and len(plan.cut_points) == 4
    )


def test_what_cannot_be_had(path: Path) -> None:
    with pytest.raises(
        UnsupportedModelError, match=r"is of 28x28; from the picture on there are 16x32 \('"
    ):
        compile_model(path, resolution=(28, 28))
    with pytest.raises(UnsupportedModelError, match="is nothing;"):
        compile_model(path, resolution="nothing")
    with pytest.raises(UnsupportedModelError, match="a coarse map never reaches"):
        compile_model(path, resolution=(8, 16), outputs=("heatmap", "relevance"))


def test_on_the_command_line(path: Path, tmp_path: Path) -> None:
    photo, out = tmp_path / "p.png", tmp_path / "out"
    cv2.imwrite(
        str(photo), np.random.default_rng(0).integers(0, 256, (64, 128, 3)).astype(np.uint8)
    )
    arguments = [
        "explain",
        path,
        photo,
        "-o",
        out,
        "--resolution",
        "8x16",
        "--composite",
        "lrp-resnet",
    ]
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    assert np.load(out / "p.npz")["heatmap_raw"].shape == (8, 16)
    assert np.load(out / "p.npz")["heatmap"].shape == (32, 64)
    assert cv2.imread(str(out / "p.heatmap.png")) is not None
    _, plan, _ = plan_model(path)
    name = list(plan.cut_points)[-2]
    for resolution in (name, "1/4", "full"):
        arguments = ["compile", str(path), "--resolution", resolution, "--json", "--force"]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["outputs"] == ["heatmap", "c3"]


def test_a_fraction_of_the_picture(path: Path, saved: Save) -> None:
    """The nearest size by ratio, and of its maps the last."""
    _, plan, _ = plan_model(path)
    maps = plan.cut_points  # 16x32, 8x16, 4x8 and 1x1 of 32x64
    assert feature_map(plan, "full") is None and feature_map(plan, "1/1") is None
    for fraction, size in (("1/2", (16, 32)), ("1/4", (8, 16)), ("1/8", (4, 8)), ("1/64", (4, 8))):
        assert feature_map(plan, fraction) == [n for n, s in maps.items() if s == size][-1]
    assert feature_map(plan, "1/3") == feature_map(plan, "1/4")
    with pytest.raises(UnsupportedModelError, match="that all paths pass through is 1/0"):
        feature_map(plan, "1/0")
    # Without a feature map that everything passes through, relevance goes to the picture.
    net = Network(0)
    logits = net.dense(net.node("Flatten", "x"), (48, 5))
    _, dense, _ = plan_model(saved(net.model(logits, ["N", 3, 4, 4])))
    assert feature_map(dense, "1/8") is None


def test_the_composites_own_resolution(path: Path) -> None:
    """The default stops at 1/8; outputs that only lie before that are still had."""
    compiled = compile_model(path)
    assert compiled.contract.resolution == (4, 8) and compiled.outputs == ("heatmap", "c3")
    assert compile_model(path, resolution="full").contract.resolution is None
    assert compile_model(path, composite="lrp-resnet").contract.resolution is None
    assert compile_model(path, composite="lrp-resnet").outputs == ("heatmap",)
    _, plan, _ = plan_model(path)
    first, *_, last, _ = plan.cut_points
    for outputs in (("relevance",), ("heatmap", first)):
        assert compile_model(path, outputs=outputs).contract.resolution is None
    assert compile_model(path, outputs=("heatmap", last)).contract.resolution == (4, 8)


def test_an_override_that_changes_nothing_is_said(path: Path) -> None:
    """Its layers lie before the feature map where relevance stops."""
    notes = compile_model(path, rules={"conv0": "flat", "@dense": "z-plus"}).plan.notes
    (note,) = (note for note in notes if "changes nothing" in note)
    assert note.startswith("the override conv0 changes nothing") and "--resolution full" in note
    for choices in ({"resolution": "full"}, {"composite": "lrp-resnet"}):
        notes = compile_model(path, rules={"conv0": "flat"}, **choices).plan.notes
        assert not any("changes nothing" in note for note in notes)


def mixer(order: str = "tokens") -> onnx.ModelProto:
    """Patches of 4 × 4 pixels, a residual block over their channels, mean, dense; the patches lie
    as tokens (N, H·W, C) or with channels last (N, H, W, C).
    """
    net = Network(3)
    y = net.node("Relu", net.conv("x", (3, 8), (4, 4), strides=[4, 4]))
    if order == "tokens":
        flat = net.node("Reshape", y, net.constant("flat", np.array([0, 8, -1])))
        y = net.node("Transpose", flat, perm=[0, 2, 1], name="moved")
    else:
        y = net.node("Transpose", y, perm=[0, 2, 3, 1], name="moved")
    scale, shift = (net.constant(k, np.ones(8, np.float32)) for k in ("scale", "shift"))
    inner = net.node("LayerNormalization", y, scale, shift, axis=-1)
    weight = net.constant("weight", net.rng.normal(0, 0.3, (8, 8)).astype(np.float32))
    y = net.node("Add", y, net.node("MatMul", inner, weight), name="block")
    axes = net.constant("axes", np.array([1] if order == "tokens" else [1, 2]))
    return net.model(
        net.dense(net.node("ReduceMean", y, axes, keepdims=0), (8, 5)), ["N", 3, 24, 16]
    )


@pytest.mark.parametrize("order", ["tokens", "channels last"])
@pytest.mark.parametrize("tensor", ["moved.out", "block.out"])
def test_a_map_of_tokens_or_channels_last(order: str, tensor: str, saved: Save) -> None:
    """The coarse map is the relevance of the tensor, summed over its channels, on its grid."""
    path = saved(mixer(order))
    x = {"x": picture(onnx.load(path))}
    coarse = compile_model(
        path, resolution=tensor, outputs=("heatmap_raw",), composite="lrp-resnet"
    )
    assert coarse.contract.resolution == (6, 4)
    inner = compile_model(path, outputs=(tensor,), composite="lrp-resnet", resolution="full")
    expected = run_onnx(inner.model, x)[f"relevance/{tensor}"].sum(-1).reshape(2, 6, 4)
    found = run_onnx(coarse.model, x)["heatmap_raw"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(found).max() > 0


def test_a_fraction_finds_the_last_grid_of_tokens(saved: Save) -> None:
    model = compile_model(saved(mixer()), resolution="1/4")
    assert model.contract.resolution == (6, 4)
    assert "block.out" in model.plan.cut_points
