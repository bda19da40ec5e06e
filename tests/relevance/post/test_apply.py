"""Every step of post-processing in a graph gives what it gives in Python, and the compiled file's
heatmap is the map that is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import relative, run_onnx
from networks import picture, resnet
from numpy.typing import NDArray
from post_graphs import graph_of, session_of

from lrp_onnx.compiler import compile_model
from lrp_onnx.contract import Contract
from lrp_onnx.errors import RuleError, UnsupportedModelError
from lrp_onnx.maps.c3 import c3
from lrp_onnx.maps.chain import STEPS, Chain, parse_chain
from lrp_onnx.maps.resample import resample
from lrp_onnx.relevance.composites.presets import COMPOSITES, DEFAULT
from lrp_onnx.relevance.graph.append import append
from lrp_onnx.relevance.graph.builder import POSITIVE, Builder
from lrp_onnx.relevance.graph.emission import EMISSIONS
from lrp_onnx.relevance.post.grid import Grid, indicator, order_statistic

Save = Callable[[onnx.ModelProto], Path]
SAME = 1e-5
"""Largest difference, relative to the map's maximum: float32 sums."""
SIZES = [(40, 40), (33, 50)]
CHAINS = [
    *STEPS,
    "none",
    "average:size=7,expansion=antialiased",
    "average:size=5,expansion=area",
    "smooth:size=20,expansion=nearest",
    "c3:expansion=bilinear",
    "c3:outside=rank",
    "c3:outside=rank,expansion=bilinear,threshold=quantile:0.8",
    "c1c:outside=rank,threshold=-1e30",
    "c3:threshold=1e30",
    "quantize:levels=2",
    "quantize:levels=33",
    "normalize:mode=positive",
    "normalize:percentile=99.5",
    "normalize:percentile=30",
    "normalize:mode=positive,percentile=50",
    "average+c3:component=peak+normalize",
    "c3:size=14+quantize:4",
]


def maps_of(size: tuple[int, int]) -> NDArray[np.float32]:
    """Noise of several scales, whole numbers, one sign, zeros, one pixel, a constant."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(6, *size))
    noise[1] *= 1e-12
    noise[2] = np.rint(noise[2] * 2)
    noise[3] = np.abs(noise[3])
    noise[4] = -np.abs(noise[4])
    special = np.zeros((3, *size))
    special[1, size[0] // 2, 3] = 1
    special[2] = 0.1
    return np.concatenate([noise, special]).astype(np.float32)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("text", CHAINS)
def test_every_chain(text: str, size: tuple[int, int]) -> None:
    chain = parse_chain(text)
    maps = maps_of(size)
    expected = np.stack([chain(one) for one in maps])
    found, _ = session_of(chain, size, EMISSIONS["cpu"]).run(["heatmap", "c3"], {"x": maps})
    for one, other in zip(found, expected, strict=True):
        assert relative(one, other) < SAME
    if text.startswith("quantize"):  # bins too
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("text", [text for text in CHAINS if "quantize" not in text])
def test_every_chain_in_float32(text: str) -> None:
    """Of maps without ties: where a value is no threshold, and a constant map's parts are equal."""
    chain, size = parse_chain(text), (33, 50)
    maps = np.random.default_rng(1).normal(size=(4, *size)).astype(np.float32)
    expected = np.stack([chain(one) for one in maps])
    found = session_of(chain, size, EMISSIONS["portable"]).run(["heatmap"], {"x": maps})[0]
    for one, other in zip(found, expected, strict=True):
        assert relative(one, other) < SAME


def test_levels_in_float32() -> None:
    """A value that is a bin may fall to the next one; others do not."""
    chain, size = parse_chain("quantize"), (33, 50)
    maps = np.random.default_rng(1).normal(size=(4, *size)).astype(np.float32)
    expected = np.stack([chain(one) for one in maps])
    found = session_of(chain, size, EMISSIONS["portable"]).run(["heatmap"], {"x": maps})[0]
    assert relative(found, expected) < SAME
    for one, other in zip(found, maps, strict=True):
        assert (one.min(), one.max()) == (other.min(), other.max()) and len(np.unique(one)) == 8


def test_a_region_that_is_too_large_without_a_loop() -> None:
    with pytest.raises(RuleError, match=r"70x70 pixels .* size of at most 64"):
        graph_of(parse_chain("c3:size=70"), (96, 96), EMISSIONS["portable"])
    graph_of(parse_chain("c3:size=70"), (96, 96), EMISSIONS["cpu"])


@pytest.mark.parametrize("emission", ["cpu", "portable"])
@pytest.mark.parametrize("composite", COMPOSITES)
def test_the_heatmap_is_the_map_that_is_shown(composite: str, emission: str, saved: Save) -> None:
    path = saved(resnet(size=(32, 40), widths=(8, 16)))
    outputs = ("heatmap", "heatmap_raw", "c3")
    compiled = compile_model(
        path, composite=composite, outputs=outputs, optimize_for=emission, inputs="none"
    )
    chain = parse_chain(COMPOSITES[composite].post)
    assert compiled.contract.post == COMPOSITES[composite].post == str(chain)
    found = run_onnx(compiled.model, {"x": picture(onnx.load(path), batch=3)})
    raw = compile_model(
        path,
        composite=composite,
        post="none",
        optimize_for=emission,
        inputs="none",
        outputs=("heatmap_raw",),
    ).model
    plain = run_onnx(raw, {"x": picture(onnx.load(path), batch=3)})["heatmap_raw"]
    for index, one in enumerate(found["heatmap_raw"]):
        assert relative(one, plain[index]) < 1e-6
        expanded = resample(one, (32, 40), method="bilinear")
        assert relative(found["heatmap"][index], chain(expanded)) < SAME
        region = chain.region(expanded)
        expected = c3(expanded).mask if region is None else region
        np.testing.assert_array_equal(found["c3"][index], expected)


@pytest.mark.parametrize("composite", ["c3-lrp", "epsilon-gamma-plus"])
@pytest.mark.parametrize(
    "choices",
    [
        {"many_targets": True},
        {"static": True},
        {"resolution": (8, 10)},
        {"optimize_for": "cuda"},
        {"optimize_for": "tensorrt", "opset": 13},
        {"optimize_for": "web", "many_targets": True},
    ],
    ids=str,
)
def test_in_every_form(composite: str, choices: dict[str, object], saved: Save) -> None:
    path = saved(resnet(size=(32, 40), widths=(8, 16)))
    outputs = ("heatmap", "heatmap_raw", "c3")
    compiled = compile_model(path, composite=composite, outputs=outputs, **choices)
    x = {"x": picture(onnx.load(path), batch=1)}
    if choices.get("many_targets"):
        x["target"] = np.array([0, 3, -2])
    found = run_onnx(compiled.model, x)
    chain = parse_chain(compiled.contract.post)
    assert found["heatmap"].shape[1:] == (32, 40)
    assert found["heatmap_raw"].shape[1:] == choices.get("resolution", (32, 40))
    assert len(found["heatmap"]) == len(found["c3"]) == (3 if "target" in x else 1)
    for shown, raw, region in zip(*(found[name] for name in outputs), strict=True):
        expanded = resample(raw, (32, 40), method="bilinear")
        assert relative(shown, chain(expanded)) < SAME
        np.testing.assert_array_equal(region, c3(expanded).mask)


def test_the_region_is_that_of_the_chain(saved: Save) -> None:
    path = saved(resnet(size=(32, 40), widths=(8, 16)))
    for text in ("c1c:size=14", "c3:size=9+c3:size=14", "smooth+c3:size=14"):
        model = compile_model(
            path, composite="lrp-resnet", post=text, outputs=("heatmap_raw", "c3")
        ).model
        found = run_onnx(model, {"x": picture(onnx.load(path), batch=2)})
        *before, step = parse_chain(text).steps
        options = replace(step)
        for raw, region in zip(found["heatmap_raw"], found["c3"], strict=True):
            expected = c3(Chain(tuple(before))(raw), options).mask
            np.testing.assert_array_equal(region, expected)


def test_the_region_costs_nothing_beside_the_map(saved: Save) -> None:
    """Both are made of the same nodes."""
    path = saved(resnet(size=(32, 32)))
    for name in ("cpu", "portable"):
        one, both = (
            compile_model(path, composite="c3-lrp", outputs=outputs, optimize_for=name).model
            for outputs in (("heatmap",), ("heatmap", "c3"))
        )
        assert len(both.graph.node) == len(one.graph.node) + 1


def test_what_the_file_says(saved: Save) -> None:
    path = saved(resnet(size=(32, 32)))
    own = COMPOSITES[DEFAULT].post
    for post, expected in ((None, own), ("none", "none"), (" c3:size=14 ", "c3(size=14)")):
        model = compile_model(path, post=post).model
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        assert parse_chain(Contract.from_metadata(metadata).post) == parse_chain(expected)
    with pytest.raises(RuleError, match="sooth"):
        compile_model(path, post="sooth")
    with pytest.raises(UnsupportedModelError, match="heatmap_raw, c3, relevance"):
        compile_model(path, outputs=("heatmaps",))


def test_without_post_processing_nothing_is_added(saved: Save) -> None:
    path = saved(resnet(size=(32, 32)))
    plain = compile_model(path, composite="lrp-resnet")
    raw = compile_model(path, composite="lrp-resnet", outputs=("heatmap_raw",)).model
    both = compile_model(path, composite="lrp-resnet", outputs=("heatmap", "heatmap_raw")).model
    last = plain.model.graph.node[-1]
    assert (last.op_type, list(last.output)) == ("ReduceSum", ["heatmap"])
    assert len(plain.model.graph.node) == len(raw.graph.node) == len(both.graph.node) - 1


@pytest.mark.parametrize("name", ["c3", "heatmap_raw"])
def test_a_model_may_have_a_tensor_of_that_name(name: str, saved: Save) -> None:
    model = resnet(size=(32, 32))
    first = model.graph.node[0]
    for node in model.graph.node:
        for index, read in enumerate(node.input):
            if read == first.output[0]:
                node.input[index] = name
    first.output[0] = name
    path = saved(model)
    x = {"x": picture(model)}
    expected = run_onnx(model, x)
    found = run_onnx(compile_model(path).model, x)
    for output, value in expected.items():
        assert relative(found[output], value) < SAME
    with pytest.raises(UnsupportedModelError, match=f"a tensor called '{name}' already"):
        compile_model(path, outputs=("heatmap", name))


def test_an_indicator_is_not_negative() -> None:
    builder = Builder()
    assert indicator("Equal", builder.known("x"), builder.known("y")).sign == POSITIVE


@pytest.mark.parametrize("share", [0.0, 0.1, 0.24, 0.5, 0.51, 0.76, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(4, 6), (25,)])
def test_a_quantile_sorts_the_smaller_part(share: float, shape: tuple[int, ...]) -> None:
    """From the end that is nearer; the value itself is NumPy's."""
    builder = Builder(taken=frozenset("xy"))
    grid = Grid(builder.known("x"), shape)
    result = order_statistic(grid, share, double=False)
    (sorting,) = (node for node in builder.nodes if node.op == "TopK")
    count = int(np.prod(shape))
    below = int(np.floor(share * (count - 1)))
    (most,) = sorting.inputs[1].values
    assert most == min(count - below, min(below + 1, count - 1) + 1)
    builder.node("Identity", result, output="z")
    values = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    info = onnx.helper.make_tensor_value_info
    x, y = (info(name, onnx.TensorProto.FLOAT, ["N", *shape]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    forward = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8
    )
    ones: list[int | str] = ["N", *(1 for _ in shape)]
    model = append(builder, forward, inputs={}, defaults={}, outputs={"z": ones})
    expected = np.quantile(values.reshape(3, -1).astype(np.float64), share, axis=1)
    np.testing.assert_allclose(run_onnx(model, {"x": values})["z"].ravel(), expected, rtol=1e-5)
