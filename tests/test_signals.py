"""Signals (N, C, L) and volumes (N, C, D, H, W): layers, maps, post-processing, commands."""

from __future__ import annotations

import json
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from conftest import relative, run_onnx
from float64 import run_float64
from networks import Network, picture
from numpy.typing import NDArray
from post_graphs import post_graph

from lrp_onnx import Explainer, compile_model, explain
from lrp_onnx.cli.commands import main
from lrp_onnx.compiler import plan_model
from lrp_onnx.errors import ImageError, LrpOnnxError, RuleError, UnsupportedModelError
from lrp_onnx.maps.chain import parse_chain
from lrp_onnx.maps.flat import Tiles, flat
from lrp_onnx.plan.kinds import Role
from lrp_onnx.relevance.composites.presets import COMPOSITES
from lrp_onnx.relevance.graph.emission import EMISSIONS
from lrp_onnx.report.render import overlay
from lrp_onnx.runtime.arrays import WIDTH, drawn

Save = Callable[[onnx.ModelProto], Path]
Array = NDArray[Any]
SIZES: dict[int, tuple[int, ...]] = {1: (40,), 3: (6, 12, 10)}
"""Axes behind the channels → their sizes."""
STEP = 1e-6


def resnet(axes: int, *, batch: int | str = "N", head: int = 4, open_size: bool = False) -> Any:
    """A ResNet with an identity and a projection block along so many axes."""
    net = Network(axes)

    def conv(x: str, channels: tuple[int, int], kernel: int = 3, stride: int = 1) -> str:
        pads = [kernel // 2] * (2 * axes)
        y = net.conv(x, channels, (kernel,) * axes, strides=[stride] * axes, pads=pads, bias=False)
        return net.batch_norm(y, channels[1])

    def block(x: str, channels: tuple[int, int], stride: int) -> str:
        body = conv(net.node("Relu", conv(x, channels, 3, stride)), (channels[1],) * 2)
        skip = x if stride == 1 else conv(x, channels, 1, stride)
        return net.node("Relu", net.node("Add", body, skip))

    y = net.node("Relu", conv("x", (2, 4)))
    window = {"kernel_shape": [3] * axes, "strides": [2] * axes, "pads": [1] * (2 * axes)}
    y = block(block(net.node("MaxPool", y, **window), (4, 4), 1), (4, 6), 2)
    y = net.node("Flatten", net.node("GlobalAveragePool", y))
    sizes = [f"s{axis}" for axis in range(axes)] if open_size else SIZES[axes]
    return net.model(net.dense(y, (6, head)), [batch, 2, *sizes], classes=head)


def differences(model: onnx.ModelProto, x: Array, target: int) -> Array:
    """The gradient of a logit by central differences in float64."""
    output = model.graph.output[0].name
    flat_x = x.astype(np.float64).reshape(-1)
    moves = np.eye(flat_x.size) * STEP
    shape = (-1, *x.shape[1:])
    up, down = (
        run_float64(model, {"x": (flat_x + sign * moves).reshape(shape)})[output][:, target]
        for sign in (1, -1)
    )
    return np.asarray((up - down) / (2 * STEP)).reshape(x.shape)


def pooled(net: Network, axes: int, op: str, **attributes: Any) -> str:
    kernel = {"kernel_shape": [3, 2, 2][:axes], "strides": [2, 1, 2][:axes]}
    return net.node(op, "conv0.out", **kernel, **attributes)


LAYERS: dict[str, Callable[[Network, int], str]] = {
    "max pool": lambda net, axes: pooled(net, axes, "MaxPool", pads=[1, 0, 0][:axes] * 2),
    "max pool, ceil": lambda net, axes: pooled(net, axes, "MaxPool", ceil_mode=1),
    "average pool": lambda net, axes: pooled(net, axes, "AveragePool", pads=[1, 0, 1][:axes] * 2),
    "lp pool": lambda net, axes: net.node("GlobalLpPool", "conv0.out", p=2),
    "global max": lambda net, axes: net.node("GlobalMaxPool", "conv0.out"),
    "mirrored border": lambda net, axes: net.node(
        "Pad",
        "conv0.out",
        net.constant("pads", np.array([0, 0, *[1] * axes, 0, 0, *[2] * axes])),
        mode="reflect",
    ),
    "zero border": lambda net, axes: net.node(
        "Pad", "conv0.out", net.constant("pads", np.array([0, 1, *[1] * axes, 0, 0, *[2] * axes]))
    ),
    "resize": lambda net, axes: net.node(
        "Resize",
        "conv0.out",
        "",
        net.constant("scales", np.array([1, 1, *[2.0, 1.5, 2.0][:axes]], np.float32)),
        mode="linear",
    ),
    "nearest": lambda net, axes: net.node(
        "Resize",
        "conv0.out",
        "",
        net.constant("scales", np.array([1, 1, *[2.0] * axes], np.float32)),
        mode="nearest",
    ),
    "transposed": lambda net, axes: net.deconv(
        "conv0.out", (3, 4), [3, 2, 2][:axes], strides=[2, 1, 2][:axes]
    ),
    "instance norm": lambda net, axes: net.node(
        "InstanceNormalization",
        "conv0.out",
        net.constant("scale", np.array([1, 0.5, 2], np.float32)),
        net.constant("shift", np.zeros(3, np.float32)),
    ),
}


@pytest.mark.parametrize("emission", ["cpu", "portable", "web"])
@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_s_gradient_is_that_of_central_differences(
    layer: str, axes: int, emission: str, saved: Save
) -> None:
    net = Network(1)
    sizes = (9,) if axes == 1 else (4, 5, 4)
    net.conv("x", (2, 3), (1,) * axes, name="conv0")
    y = LAYERS[layer](net, axes)
    model = net.model(net.node("Flatten", y, name="last"), [1, 2, *sizes])
    x = picture(model, batch=1)
    many = run_float64(model, {"x": x})["last.out"].shape[1]
    options: dict[str, Any] = {"composite": "gradient", "start": "one", "outputs": ("relevance",)}
    compiled = compile_model(saved(model), optimize_for=emission, **options).model
    for target in {0, many // 2, many - 1}:
        feeds = {"x": x, "target": np.array([target])}
        free = onnx.ModelProto()
        free.CopyFrom(model)
        free.graph.input[0].type.tensor_type.shape.dim[0].Clear()
        expected = differences(free, x, target)
        assert relative(run_onnx(compiled, feeds)["relevance"], expected) < 1e-4


@pytest.mark.parametrize("axes", [1, 3])
def test_the_gradient_of_a_resnet_is_that_of_central_differences(axes: int, saved: Save) -> None:
    model = resnet(axes)
    x = picture(model, batch=1)
    options: dict[str, Any] = {"composite": "gradient", "start": "one", "outputs": ("relevance",)}
    compiled = compile_model(saved(model), **options).model
    found = run_float64(compiled, {"x": x.astype(np.float64), "target": np.array([1])})["relevance"]
    expected = differences(model, x, 1)
    assert found.shape == x.shape and relative(found, expected) < 1e-6
    cosine = (found * expected).sum() / np.linalg.norm(found) / np.linalg.norm(expected)
    assert cosine > 0.9999


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("axes", [1, 3])
def test_every_composite_gives_maps_of_the_input_s_size(
    composite: str, axes: int, saved: Save
) -> None:
    path = saved(resnet(axes))
    rules = {"@first": "z-box(low=-4, high=4)"} if "gamma-box" in composite else {}
    compiled = compile_model(path, composite=composite, rules=rules)
    x = picture(resnet(axes))
    found = run_onnx(compiled.model, {"x": x})
    assert found["heatmap"].shape == (2, *SIZES[axes])
    assert np.isfinite(found["heatmap"]).all() and found["heatmap"].any()
    assert compiled.contract.post == str(parse_chain(COMPOSITES[composite].post).for_axes(axes))
    alone = run_onnx(compiled.model, {"x": x[:1]})["heatmap"]
    assert relative(alone, found["heatmap"][:1]) < 1e-4


@pytest.mark.parametrize("axes", [1, 3])
def test_what_every_runtime_gets_is_the_same(axes: int, saved: Save) -> None:
    path, x = saved(resnet(axes)), picture(resnet(axes))
    maps = [
        run_onnx(compile_model(path, optimize_for=name, composite="residual-c3").model, {"x": x})
        for name in EMISSIONS
    ]
    for found in maps[1:]:
        assert relative(found["heatmap"], maps[0]["heatmap"]) < 1e-3


@pytest.mark.parametrize("axes", [1, 3])
def test_blocks_are_recognised(axes: int, saved: Save) -> None:
    _, plan, _ = plan_model(saved(resnet(axes)))
    assert [block.shortcut for block in plan.blocks] == [Role.IDENTITY, Role.PROJECTION]
    assert plan.axes == axes and plan.layout == ("NCL" if axes == 1 else "NCDHW")
    assert plan.picture_size == SIZES[axes]
    half = tuple(-(-size // 2) for size in SIZES[axes])
    assert half in plan.cut_points.values()


@pytest.mark.parametrize("axes", [1, 3])
def test_channels_may_come_last(axes: int, saved: Save) -> None:
    first = resnet(axes)
    last = onnx.ModelProto()
    last.CopyFrom(first)
    order = [0, axes + 1, *range(1, axes + 1)]
    for node in last.graph.node:
        node.input[:] = ["turned" if name == "x" else name for name in node.input]
    turn = onnx.helper.make_node("Transpose", ["x"], ["turned"], name="turn", perm=order)
    last.graph.node.insert(0, turn)
    del last.graph.input[:]
    sizes = ["N", *SIZES[axes], 2]
    last.graph.input.append(onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, sizes))
    x = picture(first)
    options: dict[str, Any] = {"outputs": ("heatmap", "relevance"), "resolution": "full"}
    compiled = compile_model(saved(last), **options)
    assert compiled.contract.layout == ("NLC" if axes == 1 else "NDHWC")
    found = run_onnx(compiled.model, {"x": np.moveaxis(x, 1, -1)})
    expected = run_onnx(compile_model(saved(first), **options).model, {"x": x})
    assert relative(found["heatmap"], expected["heatmap"]) < 1e-4
    assert relative(np.moveaxis(found["relevance"], -1, 1), expected["relevance"]) < 1e-4
    explained = Explainer(compiled)(np.moveaxis(x, 1, -1)[0])
    assert relative(explained.heatmap, expected["heatmap"][0]) < 1e-4


@pytest.mark.parametrize("axes", [1, 3])
def test_maps_may_stop_at_a_feature_map(axes: int, saved: Save) -> None:
    path, x = saved(resnet(axes)), picture(resnet(axes))
    half = tuple(-(-size // 2) for size in SIZES[axes])
    outputs = ("heatmap", "heatmap_raw")
    for which in (half, "1/2"):
        compiled = compile_model(path, resolution=which, outputs=outputs, composite="lrp-resnet")
        found = run_onnx(compiled.model, {"x": x})
        assert compiled.contract.resolution == half
        assert found["heatmap_raw"].shape == (2, *half)
        assert found["heatmap"].shape == (2, *SIZES[axes])
    with pytest.raises(LrpOnnxError, match="no feature map"):
        compile_model(path, resolution=(7, 7))


@pytest.mark.parametrize("axes", [1, 3])
def test_a_fixed_batch_one_logit_and_an_open_size(axes: int, saved: Save) -> None:
    x = picture(resnet(axes))
    fixed = compile_model(saved(resnet(axes, batch=2)))
    assert run_onnx(fixed.model, {"x": x})["heatmap"].shape == (2, *SIZES[axes])
    single = compile_model(saved(resnet(axes, head=1)))
    assert single.contract.labels == ("no", "yes")
    assert run_onnx(single.model, {"x": x})["heatmap"].any()
    path = saved(resnet(axes, open_size=True))
    with pytest.raises(UnsupportedModelError, match="by --input-size"):
        compile_model(path)
    sized = compile_model(path, input_size=SIZES[axes])
    whole = compile_model(saved(resnet(axes)))
    maps = [run_onnx(one.model, {"x": x})["heatmap"] for one in (sized, whole)]
    assert relative(maps[0], maps[1]) < 1e-5
    cube = compile_model(path, input_size=(9,))
    assert (
        run_onnx(
            cube.model,
            {"x": x[(..., *[slice(9)] * axes)][:, :, :9]}
            if axes == 1
            else {"x": np.zeros((1, 2, 9, 9, 9), np.float32)},
        )["heatmap"].shape[1:]
        == (9,) * axes
    )


@pytest.mark.parametrize(
    "chain",
    [
        "smooth",
        "average(size=3)",
        "quantize",
        "normalize",
        "normalize(percentile=90)",
        "smooth+quantize(levels=4)",
    ],
)
@pytest.mark.parametrize("size", [(23,), (1,), (4, 9, 8), (20, 3, 5)])
@pytest.mark.parametrize("name", ["cpu", "portable", "web"])
def test_post_processing_in_the_file_is_that_of_python(
    chain: str, size: tuple[int, ...], name: str
) -> None:
    steps = parse_chain(chain)
    maps = np.random.default_rng(0).normal(size=(3, *size)).astype(np.float32)
    found = run_onnx(post_graph(steps, size, EMISSIONS[name]), {"x": maps})["heatmap"]
    expected = np.stack([steps(one) for one in maps])
    assert found.shape == maps.shape and relative(found, expected) < 1e-5


def test_a_box_must_be_stated(saved: Save) -> None:
    with pytest.raises(RuleError, match=r"z-box\(low="):
        compile_model(saved(resnet(1)), composite="epsilon-gamma-box")


def test_c3_is_for_pictures(saved: Save) -> None:
    path = saved(resnet(1))
    compiled = compile_model(path)
    assert compiled.contract.post == "none" and "c3" not in compiled.outputs
    assert any("C3 is for pictures" in note for note in compiled.plan.notes)
    for options in ({"post": "c3"}, {"outputs": ("c3",)}, {"post": "none", "outputs": ("c3",)}):
        with pytest.raises(RuleError, match="for pictures"):
            compile_model(path, **options)
    with pytest.raises(ValueError, match="take a map"):
        parse_chain("c3")(np.ones(8))


def test_montage() -> None:
    volume = np.arange(5 * 3 * 4, dtype=np.float32).reshape(5, 3, 4) + 1
    whole, tiles = flat(volume), Tiles.of(5, 3, 4)
    down, across = 3 + tiles.gap, 4 + tiles.gap
    for number, part in enumerate(volume):
        row, column = divmod(number, tiles.columns)
        top, left = row * down, column * across
        assert np.array_equal(whole[top : top + 3, left : left + 4], part)
    assert whole.sum() == volume.sum()
    assert Tiles.of(100, 3, 4).step == 3
    assert np.array_equal(flat(volume[0]), volume[0])
    assert flat(volume[0, 0]).shape == (1, 4)


def test_drawings_lie_under_their_maps() -> None:
    signal = np.zeros((1, 50), np.float32)
    signal[0, 30] = 1
    plot = drawn(signal, "NCL")
    dark = (plot[: plot.shape[0] // 2].min(axis=(0, 2)) < 128).nonzero()[0]
    assert abs(dark.mean() - (30.5 * WIDTH / 50 - 0.5)) < 2
    heat = np.zeros(50, np.float32)
    heat[30] = 1
    colored = overlay(plot, heat).astype(int)
    line = plot.max(2) == 0
    assert line.any() and (colored[line] == 0).all()
    warm = (colored[..., 0] - colored[..., 2])[1].argmax()
    assert abs(warm - 30.5 * WIDTH / 50) < WIDTH / 50
    volume = np.zeros((1, 6, 8, 8), np.float32)
    volume[0, 4, 2, 5] = 1
    montage, heat = drawn(volume, "NCDHW"), volume[0]
    factor = montage.shape[0] / flat(heat).shape[0]
    assert factor == montage.shape[1] / flat(heat).shape[1]
    row, column = np.unravel_index(flat(heat).argmax(), flat(heat).shape)
    assert montage[int((row + 0.5) * factor), int((column + 0.5) * factor)].min() == 255
    assert drawn(np.zeros((40, 30), np.float32), "NCL").shape[1] == 30  # a row for every channel


@pytest.mark.parametrize("axes", [1, 3])
def test_python_takes_arrays(axes: int, saved: Save, tmp_path: Path) -> None:
    path, x = saved(resnet(axes)), picture(resnet(axes))
    explainer = Explainer(path, composite="lrp-resnet", outputs=("heatmap", "relevance"))
    one = explainer(x[0])
    assert one.heatmap.shape == SIZES[axes] and one.relevance.shape == x.shape[1:]
    assert relative(one.relevance.sum(0), one.heatmap) < 1e-4
    batch = explainer(x)
    assert len(batch) == 2 and relative(batch[0].heatmap, one.heatmap) < 1e-4
    assert [e.target for e in explainer([x[0], x[1]])] == [e.target for e in batch]
    np.save(tmp_path / "one.npy", x[0])
    from_file = explainer(tmp_path / "one.npy")
    assert np.array_equal(from_file.heatmap, one.heatmap)
    saved_picture = from_file.save(tmp_path / "why.png")
    assert saved_picture.stat().st_size > 1000
    assert json.dumps(from_file.to_dict()) and "<img" in from_file._repr_html_()
    with pytest.raises(ImageError, match="cut, resample or transpose"):
        explainer(x[0][:, :3])
    with pytest.raises(ImageError, match="is no array"):
        explainer("photo.jpg")
    with pytest.raises(ImageError, match="finite"):
        explainer(np.full(x.shape[1:], np.nan))


@pytest.mark.parametrize("axes", [1, 3])
def test_similarity_to_another_array(axes: int, saved: Save) -> None:
    """One of the input's shape is a reference as a picture is; one of the output's, a vector."""
    x = picture(resnet(axes))
    explainer = Explainer(saved(resnet(axes)), composite="lrp-epsilon")
    vectors = [one.scores for one in explainer(x)]
    by_array, by_vector = (explainer(x[0], similar_to=one) for one in (x[1], vectors[1]))
    assert relative(by_array.heatmap, by_vector.heatmap) < 1e-5
    assert explainer(x[1], similar_to=x[1]).scores.item() == pytest.approx(1)
    with pytest.raises(ImageError, match=r"what is explained has shape \(4,\)"):
        explainer(x[0], similar_to=x[1][..., 1:])


def test_an_array_for_pictures_and_a_missing_channel(saved: Save, tmp_path: Path) -> None:
    np.save(tmp_path / "signal.npy", np.zeros((2, 40)))
    with pytest.raises(ImageError, match="a picture is needed here"):
        explain("models/shapes-resnet.onnx", tmp_path / "signal.npy")
    net = Network(0)
    y = net.node("GlobalAveragePool", net.node("Relu", net.conv("x", (1, 4), (3,))))
    model = net.model(net.dense(net.node("Flatten", y), (4, 3)), ["N", 1, 30], classes=3)
    samples = np.random.default_rng(0).normal(size=30).clip(-1, 1)
    found = explain(saved(model), samples.astype(np.float32), composite="lrp-resnet")
    assert found.heatmap.shape == (30,)
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    sound = explain(saved(model), tmp_path / "sound.wav", composite="lrp-resnet")
    assert relative(sound.heatmap, found.heatmap) < 1e-2


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return result.exit_code, result.output


@pytest.mark.parametrize("axes", [1, 3])
def test_the_commands(axes: int, saved: Save, tmp_path: Path) -> None:
    path, x = saved(resnet(axes)), picture(resnet(axes))
    folder = tmp_path / "arrays"
    folder.mkdir()
    for number in range(2):
        np.save(folder / f"s{number}.npy", x[number])
    out = tmp_path / "out"
    code, said = run("explain", path, folder, "-o", out)
    assert code == 0, said
    again, said = run("explain", path, folder, "-o", out)
    assert again == 0 and "all 2 pictures are done already" in said
    with np.load(out / "s0.npz") as arrays:
        assert arrays["heatmap"].shape == SIZES[axes]
    assert {"s0.figure.png", "s1.overlay.png", "sheet.png", "report.html"} <= {
        entry.name for entry in out.iterdir()
    }
    compiled = tmp_path / "model.lrp.onnx"
    assert run("compile", path, "-o", compiled)[0] == 0
    code, said = run("verify", compiled, "--original", path, "--image", folder / "s0.npy")
    assert code == 0, said
    assert run("plan", path)[0] == 0
    code, said = run("doctor", path)
    assert code == 0 and "imagenet" not in said and "ARRAYS" in said
    for command in (
        ("evaluate", path, folder),
        ("compare", path, folder / "s0.npy", "-o", tmp_path / "grid.png"),
        ("explain", path, folder, "--method", "grad-cam", "-o", tmp_path / "cam"),
        ("explain", path, folder, "--preprocess", "imagenet", "-o", tmp_path / "pre"),
        ("explain", path, "models/samples", "-o", tmp_path / "photos"),
    ):
        code, said = run(*command)
        assert code != 0 and "Traceback" not in said, said
        assert "picture" in said or "is no array" in said, said
