"""What a compiled file gives: shapes that are stated are those that come, and coarse maps are those
of the nearest feature map.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import run_onnx
from networks import Network, picture

from lrp_onnx.compiler import compile_model, plan_model
from lrp_onnx.errors import ChoiceError
from lrp_onnx.relevance.outputs import feature_map

Save = Callable[[onnx.ModelProto], Path]


def gated(maps: int = 1) -> onnx.ModelProto:
    """As many products with one value for every pixel, the second behind half the resolution."""
    net = Network(1)
    y = net.node("Relu", net.conv("x", (3, 4), pads=[1] * 4))
    for _ in range(maps):
        gate = net.node("Sigmoid", net.conv(y, (4, 1), (1, 1)))
        y = net.node("Relu", net.conv(net.node("Mul", y, gate), (4, 4), (2, 2), strides=[2, 2]))
    pooled = net.node("Flatten", net.node("GlobalAveragePool", y))
    return net.model(net.dense(pooled, (4, 3)), ["N", 3, 8, 12], classes=3)


@pytest.mark.parametrize("many", [False, True], ids=["one target each", "many targets"])
@pytest.mark.parametrize("maps", [1, 2])
def test_shapes_are_what_comes(maps: int, many: bool, saved: Save) -> None:
    path = saved(gated(maps))
    model = onnx.load(path)
    inner = model.graph.node[0].output[0]
    outputs = ("heatmap", "heatmap_raw", "c3", "relevance", "attention", inner)
    choices: dict[str, Any] = {"many_targets": many, "outputs": outputs, "post": "c3(size=5)"}
    compiled = compile_model(path, composite="epsilon-plus", **choices).model
    targets = [1, 0, 2] if many else [1, 0]
    feeds = {"x": picture(model, batch=1 if many else 2), "target": np.array(targets)}
    found = run_onnx(compiled, feeds)
    stated = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in compiled.graph.output
    }
    rows = "targets" if many else "N"
    gates = {name for name in stated if name.startswith("attention")}
    assert stated["heatmap"] == stated["heatmap_raw"] == [rows, 8, 12]
    assert stated["c3"] == [rows, 5, 5] and stated["relevance"] == [rows, 3, 8, 12]
    assert stated[f"relevance/{inner}"] == [rows, 4, 8, 12]
    assert len(gates) == maps and ("attention" in gates) == (maps == 1)
    sizes = [stated[name] for name in stated if name in gates]
    batch: int | str = 1 if many else "N"
    assert sizes == [[batch, 8, 12], [batch, 4, 6]][:maps]
    lengths = {"targets": 3, "N": 2}
    for name, shape in stated.items():
        if name not in [value.name for value in model.graph.output]:
            assert found[name].shape == tuple(lengths.get(str(n), n) for n in shape), name


def test_an_attention_map_is_the_gate(saved: Save) -> None:
    model = gated()
    gate = next(n.output[0] for n in model.graph.node if n.op_type == "Sigmoid")
    compiled = compile_model(saved(model), outputs=("attention",)).model
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(gate, onnx.TensorProto.FLOAT, ["N", 1, 8, 12])
    )
    x = {"x": picture(model)}
    expected = run_onnx(model, x)[gate][:, 0]
    np.testing.assert_allclose(run_onnx(compiled, x)["attention"], expected, rtol=1e-6)


def ladder(sizes: list[int], picture_side: int) -> onnx.ModelProto:
    """Convolutions to every one of these sizes, by kernels without pads."""
    net = Network(2)
    y, side = "x", picture_side
    for place, size in enumerate(sizes):
        kernel = side - size + 1
        y = net.node("Relu", net.conv(y, (3, 3), (kernel, kernel), name=f"to{place}"))
        side = size
    pooled = net.node("Flatten", net.node("GlobalAveragePool", y))
    return net.model(net.dense(pooled, (3, 3)), ["N", 3, picture_side, picture_side], classes=3)


@pytest.mark.parametrize(
    ("fraction", "place"),
    [
        ("1/1", None),
        ("1/2", 0),  # 12 is half of 24
        ("1/3", 2),  # 9 is nearer to 8 than 6 is
        ("1/4", 3),
        ("1/12", 4),
        ("1/1000", 4),
    ],
)
def test_a_fraction_is_the_nearest_by_ratio(fraction: str, place: int | None, saved: Save) -> None:
    """Of several of one size the last; maps of one pixel are none."""
    sizes = [12, 9, 9, 6, 2, 1]
    _, plan, _ = plan_model(saved(ladder(sizes, 24)))
    found = feature_map(plan, fraction)
    if place is None:
        assert found is None
    else:
        assert found is not None and found in plan.cut_points
        last = [name for name, size in plan.cut_points.items() if size == (sizes[place],) * 2][-1]
        assert found == last


def test_the_larger_of_two_that_are_equally_near(saved: Save) -> None:
    """16 and 4 are both twice 8."""
    _, plan, _ = plan_model(saved(ladder([16, 4], 32)))
    (found,) = {plan.cut_points[name] for name in [feature_map(plan, "1/4")] if name}
    assert found == (16, 16)


def test_a_feature_map_by_size_and_by_name(saved: Save) -> None:
    _, plan, _ = plan_model(saved(ladder([6, 6, 3], 8)))
    names = [name for name, size in plan.cut_points.items() if size == (6, 6)]
    assert feature_map(plan, (6, 6)) == names[0]  # the nearest to the picture
    for name in names:
        assert feature_map(plan, name) == name
    with pytest.raises(ChoiceError, match="is of 5x5; it is full, a fraction"):
        feature_map(plan, (5, 5))
    with pytest.raises(ChoiceError, match="is unknown; it is full"):
        feature_map(plan, "unknown")


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ((), "no output was asked for"),
        (("heatmap", "wrong"), "there is no tensor 'wrong' between"),
        (("attention",), "there is no attention map"),
    ],
)
def test_outputs_that_cannot_be_made(outputs: tuple[str, ...], words: str, saved: Save) -> None:
    with pytest.raises(ChoiceError, match=words):
        compile_model(saved(ladder([4], 6)), outputs=outputs)


def test_relevance_of_the_picture_is_none_of_a_coarse_map(saved: Save) -> None:
    with pytest.raises(ChoiceError, match="which a coarse map never reaches"):
        compile_model(saved(ladder([4], 6)), outputs=("relevance",), resolution="1/2")
