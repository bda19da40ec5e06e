"""Layers that only move elements: strided slices and zero
padding, alone and as option-A shortcuts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import relative, run_onnx
from float64 import run_float64
from networks import Network, picture, resnet

from lrp_onnx.compiler import Options, compile_model
from lrp_onnx.errors import UnsupportedModelError
from lrp_onnx.plan import kinds
from lrp_onnx.plan.kinds import Role

Save = Callable[[onnx.ModelProto], Path]


@pytest.mark.parametrize(
    "composite", ["gradient", "c3-lrp", "lrp-resnet", "epsilon-plus", "lrp-resnet-reference"]
)
@pytest.mark.parametrize("form", ["slice", "slices"])
def test_a_shortcut_without_weights_is_the_convolution_that_does_the_same(
    composite: str, form: str, saved: Save
) -> None:
    """Strided slice and channel padding against a 1×1
    convolution with the identity as its weights: equal maps.
    """
    moved, convolved = (resnet(size=(32, 32), widths=(16, 32), shortcut=s) for s in (form, "eye"))
    x = {"x": picture(moved)}
    compiled = [
        compile_model(saved(model), composite=composite, post="none")
        for model in (moved, convolved)
    ]
    maps = [run_float64(c.model, x)["heatmap"] for c in compiled]
    # ε in the convolution's own rule, which the moved elements do not have.
    assert relative(*maps) < (1e-9 if composite == "gradient" else 2e-4)
    assert relative(run_onnx(compiled[0].model, x)["heatmap"], maps[0]) < 1e-4
    shortcut = compiled[0].plan.blocks[2]
    assert (
        shortcut.shortcut is Role.IDENTITY and "only moved or left out" in shortcut.branches[1].why
    )


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (10, 11)])
@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps"),
    [
        ([0], [2**31], [2], [2]),
        ([1, 1], [2**31, -1], [2, 3], [2, 3]),
        ([1, 2, 0], [3, 6, 100], [1, -2, -1], [1, 1, 4]),
        ([-3], [-1], [3], [1]),
    ],
)
def test_the_transpose_of_a_slice(
    size: tuple[int, int],
    starts: list[int],
    ends: list[int],
    axes: list[int],
    steps: list[int],
    saved: Save,
) -> None:
    net = Network(0)
    values = {"starts": starts, "ends": ends, "axes": axes, "steps": steps}
    y = net.node("Slice", "x", *(net.constant(k, np.array(v)) for k, v in values.items()))
    check_transpose(net.model(net.node("Flatten", y), ["N", 4, *size]), y, saved)


@pytest.mark.parametrize("pads", [[0, 0, 1, 2, 0, 0, 3, 0], [0, 2, 0, 0, 0, 1, 0, 0]])
def test_the_transpose_of_padding(pads: list[int], saved: Save) -> None:
    net = Network(0)
    y = net.node(
        "Pad", "x", net.constant("pads", np.array(pads)), net.constant("value", np.float32(0))
    )
    check_transpose(net.model(net.node("Flatten", y), ["N", 4, 5, 6]), y, saved)


def check_transpose(model: onnx.ModelProto, y: str, saved: Save) -> None:
    """⟨s, f(x)⟩ = ⟨fᵀs, x⟩, with s the start."""
    x = picture(model)
    compiled = compile_model(
        saved(model), Options(composite="gradient", outputs=("relevance",))
    ).model
    out = run_float64(model, {"x": x}, [y])[y]
    s = np.random.default_rng(1).normal(size=(2, out[0].size)).astype(np.float32)
    for runner in (run_float64, run_onnx):
        back = runner(compiled, {"x": x, "start": s})["relevance"].astype(np.float64)
        assert back.shape == x.shape
        assert (
            abs((s * out.reshape(2, -1)).sum() - (back * x).sum())
            < 1e-6 * np.abs(s * out.reshape(2, -1)).sum()
        )


def test_padding_before_a_convolution_is_its_own(saved: Save) -> None:
    """Explicit zeros and the convolution's pads: one plan,
    one map, under the rules that see the border too.
    """

    def network(explicit: bool) -> onnx.ModelProto:
        net = Network(0)
        x = (
            net.node("Pad", "x", net.constant("pads", np.array([0, 0, 1, 2, 0, 0, 0, 1])))
            if explicit
            else "x"
        )
        y = net.conv(
            x, (3, 4), name="conv", pads=[0, 0, 0, 0] if explicit else [1, 2, 0, 1], strides=[2, 2]
        )
        return net.model(
            net.dense(
                net.node("Flatten", net.node("GlobalAveragePool", net.node("Relu", y))), (4, 5)
            ),
            ["N", 3, 9, 8],
        )

    x = {"x": picture(network(False))}
    for composite in ("epsilon-plus-flat", "epsilon-gamma-box", "c3-lrp"):
        compiled = [
            compile_model(saved(network(e)), composite=composite, post="none")
            for e in (True, False)
        ]
        layers = [next(c.plan.steps).kind for c in compiled]
        assert all(
            isinstance(layer, kinds.Convolution) and layer.pads == (1, 2, 0, 1) for layer in layers
        )
        assert relative(*(run_onnx(c.model, x)["heatmap"] for c in compiled)) < 1e-5


@pytest.mark.parametrize(
    ("attributes", "pads", "message"),
    [
        ({"mode": "reflect"}, [0, 1, 0, 0, 0, 1, 0, 0], "adds channels"),
        ({}, [0, 0, -1, 0, 0, 0, 0, 0], "pads are negative"),
        ({}, [1, 0, 0, 0, 0, 0, 0, 0], "the batch"),
    ],
)
def test_other_padding_is_refused(
    attributes: dict[str, str], pads: list[int], message: str, saved: Save
) -> None:
    net = Network(0)
    y = net.node("Pad", "x", net.constant("pads", np.array(pads)), **attributes)
    with pytest.raises(UnsupportedModelError, match=message):
        compile_model(saved(net.model(net.node("Flatten", y), ["N", 4, 5, 6])))


def test_real_option_a_networks(assets: Path) -> None:
    """Five exports of CIFAR ResNets: they compile, and forms of one network give one map."""
    folder = assets / "models"
    names = [
        "cifar10-resnet20.dynamo-op20",
        "cifar10-resnet20.torchscript-op11-bn",
        "cifar10-resnet20.torchscript-op13-folded",
    ]
    x = {"input": np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)}
    for composite in ("c3-lrp", "lrp-resnet", "epsilon-plus-flat"):
        maps = [
            run_onnx(
                compile_model(folder / f"{n}.onnx", composite=composite, post="none").model, x
            )["heatmap"]
            for n in names
        ]
        assert relative(maps[1], maps[0]) < 1e-4 and relative(maps[2], maps[0]) < 1e-4
    assert (
        len(compile_model(folder / "cifar10-resnet56.torchscript-op13-folded.onnx").plan.blocks)
        == 27
    )


def turned(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network for pictures (N, H, W, C), as TensorFlow's exporters write it."""
    nhwc = onnx.ModelProto()
    nhwc.CopyFrom(model)
    dims = nhwc.graph.input[0].type.tensor_type.shape.dim
    channels, height, width = (d.dim_value for d in dims[1:])
    for dim, size in zip(dims[1:], (height, width, channels), strict=True):
        dim.dim_value = size
    for node in nhwc.graph.node:
        node.input[:] = ["turned" if name == "x" else name for name in node.input]
    nhwc.graph.node.insert(
        0, onnx.helper.make_node("Transpose", ["x"], ["turned"], name="turn", perm=[0, 3, 1, 2])
    )
    return nhwc


@pytest.mark.parametrize(
    "composite", ["c3-lrp", "lrp-resnet", "epsilon-gamma-box", "gradient-x-input"]
)
def test_pictures_with_channels_last(composite: str, saved: Save) -> None:
    """The explanation does not depend on the layout: equal
    heatmaps, relevance in the input's own order.
    """
    model = resnet(size=(32, 24), widths=(16, 32))
    x = picture(model)
    options = Options(composite=composite, outputs=("heatmap", "relevance"), post="none")
    plain, last = (compile_model(saved(m), options) for m in (model, turned(model)))
    assert (plain.contract.layout, last.contract.layout) == ("NCHW", "NHWC")
    expected = run_onnx(plain.model, {"x": x})
    found = run_onnx(last.model, {"x": np.ascontiguousarray(x.transpose(0, 2, 3, 1))})
    assert relative(found["heatmap"], expected["heatmap"]) < 1e-5
    assert relative(found["relevance"].transpose(0, 3, 1, 2), expected["relevance"]) < 1e-5


def test_one_network_through_three_exporters(assets: Path) -> None:
    """MLPerf Tiny's ResNet-8: Keras NCHW, Keras NHWC and
    TFLite files of the same weights give one map.
    """
    names = {"keras-nchw-op15": False, "keras-nhwc-op13": True, "tflite-op13": True}
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32)).astype(np.float32)
    for composite in ("c3-lrp", "lrp-resnet", "epsilon-plus-flat"):
        maps = []
        for name, last in names.items():
            compiled = compile_model(
                assets / "models" / f"mlperf-resnet8.{name}.onnx", composite=composite, post="none"
            )
            x = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)) if last else pixels
            maps.append(run_onnx(compiled.model, {compiled.contract.input: x})["heatmap"])
        assert relative(maps[1], maps[0]) < 1e-4 and relative(maps[2], maps[0]) < 1e-4


@pytest.mark.parametrize("automatic", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("size", [(9, 8), (12, 13)])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_automatic_padding(automatic: str, size: tuple[int, int], stride: int, saved: Save) -> None:
    """ONNX Runtime works the pads out in the forward pass;
    what the backward pass assumes must be the same.
    """
    net = Network(0)
    y = net.conv("x", (3, 4), (3, 2), strides=[stride] * 2, auto_pad=automatic)
    y = net.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2], auto_pad=automatic)
    y = net.node("AveragePool", y, kernel_shape=[2, 2], auto_pad="SAME_UPPER")
    model = net.model(
        net.dense(net.node("Flatten", net.node("GlobalAveragePool", y)), (4, 5)), ["N", 3, *size]
    )
    compiled = compile_model(saved(model), composite="gradient", outputs=("relevance",)).model
    x, v = picture(model).astype(np.float64), np.random.default_rng(1).normal(size=(2, 3, *size))
    start = np.random.default_rng(2).normal(size=(2, 5)).astype(np.float32)
    logits = model.graph.output[0].name
    gradient = run_onnx(compiled, {"x": x.astype(np.float32), "start": start})["relevance"]
    step = 1e-2  # The network is piecewise linear: in float32 a larger step loses less.
    ahead, behind = (
        run_onnx(model, {"x": (x + sign * step * v).astype(np.float32)})[logits].astype(np.float64)
        for sign in (1, -1)
    )
    slope = (start * (ahead - behind)).sum() / (2 * step)
    assert abs((gradient * v).sum() - slope) < 0.02 * np.abs(gradient * v).sum()
