"""The region of C3 in a graph equals that of OpenCV, bit for bit, over 10,000 maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from post_graphs import graph_of, session_of

from lrp_onnx.compiler import compile_model
from lrp_onnx.maps.c3 import C3Options, c1c, c3
from lrp_onnx.maps.chain import C1C, C3, Chain, SmoothAverage
from lrp_onnx.relevance.graph.emission import EMISSIONS, Emission
from lrp_onnx.runtime.explainer import Explainer
from lrp_onnx.runtime.images import find_images

Maps = NDArray[np.float32]
SIDE = 28
LOOP = EMISSIONS["cpu"]
FREE = replace(LOOP, loops=False)
FORMS = {"loop": LOOP, "no loop": FREE}


def spiral(side: int, *, gap: int = 1) -> Maps:
    """A path that winds to the centre, `gap` pixels between its turns."""
    mask = np.zeros((side, side), np.float32)
    top, left, bottom, right = 0, 0, side - 1, side - 1
    while top <= bottom and left <= right:
        mask[top, left : right + 1] = 1
        mask[top : bottom + 1, right] = 1
        mask[bottom, left + gap + 1 : right + 1] = 1
        mask[top + gap + 1 : bottom + 1, left + gap + 1] = 1
        top, left, bottom, right = top + gap + 1, left + gap + 1, bottom - gap - 1, right - gap - 1
    return mask


def snake(side: int) -> Maps:
    """A path to and fro: the longest there is."""
    mask = np.zeros((side, side), np.float32)
    mask[::2] = 1
    mask[1::4, -1] = 1
    mask[3::4, 0] = 1
    return mask


def special(side: int) -> Iterator[Maps]:
    """Masks that are hard, each in all its turns, and with a rival of the same or another size."""
    ring = np.zeros((side, side), np.float32)
    ring[1:-1, 1:-1] = 1
    ring[3:-3, 3:-3] = 0
    ringed = ring.copy()
    ringed[side // 2 - 2 : side // 2 + 2, side // 2 - 2 : side // 2 + 2] = 1
    checker = np.indices((side, side)).sum(0).astype(np.float32) % 2
    single = np.zeros((side, side), np.float32)
    single[side // 2, side // 3] = 1
    corner = np.zeros((side, side), np.float32)
    corner[-1, -1] = 1
    masks = [spiral(side), spiral(side, gap=2), snake(side), ring, ringed, checker, single, corner]
    masks += [np.eye(side, dtype=np.float32), np.zeros((side, side), np.float32) + np.float32(0.1)]
    masks += [1 - mask for mask in masks[:5]]
    for mask in masks:
        for turned in (mask, mask.T, mask[::-1], mask[:, ::-1]):
            yield np.ascontiguousarray(turned)
            broken = turned.copy()
            broken[side // 2] = 0
            yield broken


def random_maps(number: int, side: int, seed: int) -> Iterator[Maps]:
    """Noise, rough to smooth; half of it in a few levels, so that ties are everywhere."""
    rng = np.random.default_rng(seed)
    for index in range(number):
        noise = rng.normal(size=(side, side)).astype(np.float32)
        width = (0.0, 0.6, 1.0, 2.0, 4.0)[index % 5]
        noise = cv2.GaussianBlur(noise, (0, 0), width) if width else noise
        if index % 2:
            levels = (2, 3, 5, 9)[index // 2 % 4]
            noise = np.rint(noise / np.abs(noise).max() * levels).astype(np.float32)
        if index % 7 == 0:
            noise *= np.float32(10.0 ** rng.integers(-20, 20))
        yield noise


def regions(maps: Maps, options: C3Options, *, contour: bool = True) -> NDArray[np.bool_]:
    return np.stack([(c3 if contour else c1c)(one, options).mask for one in maps])


def check(session: onnxruntime.InferenceSession, maps: Maps, expected: NDArray[np.bool_]) -> None:
    (found,) = session.run(["c3"], {"x": maps})
    wrong = np.flatnonzero((found != expected).any((1, 2)))
    assert found.dtype == np.float32 and not wrong.size, f"maps {wrong[:9]} of {len(maps)}"


def batched(maps: list[Maps], size: int) -> Iterator[Maps]:
    yield from (np.stack(maps[first : first + size]) for first in range(0, len(maps), size))


@pytest.mark.parametrize("form", FORMS)
def test_ten_thousand_maps(form: str) -> None:
    """Of the coarse grid's own size: the region's definition alone. Fewer without a Loop, where
    every map costs as much as the hardest.
    """
    number = 10_000 if FORMS[form].loops else 2_000
    maps = [*special(SIDE), *random_maps(number, SIDE, seed=0)]
    session = session_of(Chain((C3(),)), (SIDE, SIDE), FORMS[form])
    for part in batched(maps, 100):
        check(session, part, regions(part, C3Options()))


OPTIONS = [
    C3(component="peak"),
    C3(connectivity=4),
    C3(empty="contour"),
    C3(empty="nothing"),
    C3(empty="nothing", connectivity=4, component="peak"),
    C3(empty="contour", connectivity=4, threshold="quantile:0.6"),
    C3(threshold="quantile:0.25"),
    C3(threshold="quantile:0"),
    C3(threshold="quantile:1"),
    C3(threshold=0.1),
    C3(size=14),
    C3(size=13, connectivity=4),
    C3(size=1),
    C3(size=2),
    C3(size=3, empty="contour"),
    C1C(),
    C1C(component="area", connectivity=4),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("step", OPTIONS, ids=str)
def test_every_option(step: C3 | C1C, form: str) -> None:
    side = step.size
    maps = [*random_maps(30, side, seed=1), *(special(side) if side > 9 else ())]
    if not FORMS[form].loops:
        maps = maps[::2]
    session = session_of(Chain((step,)), (side, side), FORMS[form])
    for part in batched(maps, 60):
        check(session, part, regions(part, step, contour=isinstance(step, C3)))


@pytest.mark.parametrize("reduction", ["area", "antialiased", "nearest"])
@pytest.mark.parametrize("size", [(224, 224), (50, 77), (20, 31)])
def test_maps_of_other_sizes(reduction: str, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    step = C3(reduction=reduction)
    maps = np.stack(
        [
            cv2.GaussianBlur(rng.normal(size=size).astype(np.float32), (0, 0), width)
            for width in (1, 2, 4, 8, 16)
            for _ in range(8)
        ]
    )
    check(session_of(Chain((step,)), size, LOOP), maps, regions(maps, step))


def test_the_longest_path_takes_the_loop_as_long_as_it_needs() -> None:
    """A snake's number of pixels is more than eight times the steps of one iteration."""
    for side in (SIDE, 45):
        mask = snake(side)
        step = C3(size=side, threshold=0.5)
        session = session_of(Chain((step,)), (side, side), LOOP)
        check(session, mask[None], mask[None] > 0)


@pytest.mark.parametrize("name", ["loop", "no loop"])
def test_values_without_float64(name: str) -> None:
    """float32 alone: maps whose values are no nearer to the mean than it can tell."""
    emission: Emission = replace(FORMS[name], doubles=False)
    session = session_of(Chain((C3(),)), (SIDE, SIDE), emission)
    scaled = ((m, m.astype(np.float64) / np.abs(m).max()) for m in random_maps(200, SIDE, seed=3))
    kept = [m for m, unit in scaled if np.abs(unit - unit.mean()).min() > 1e-6]
    assert len(kept) > 100
    part = np.stack(kept)
    check(session, part, regions(part, C3Options()))
    constant = np.stack([np.full((SIDE, SIDE), value, np.float32) for value in (0.1, -0.3)])
    check(session, constant, np.zeros(constant.shape, np.bool_))


def test_real_maps(assets: Path) -> None:
    """Relevance of real photos from a real network."""
    model = assets / "models" / "tin10-resnet18w16.torchscript-op13-folded.onnx"
    photos = find_images([str(assets / "images" / "tin10")])[:40]
    for composite in ("c3-lrp", "lrp-resnet"):
        compiled = compile_model(
            model, composite=composite, post="c3", outputs=("heatmap_raw", "c3", "heatmap")
        ).model
        explainer = Explainer(compiled.SerializeToString(), providers="cpu")
        for found in explainer.explain_images(photos):
            assert found.heatmap_raw is not None
            expected = c3(found.heatmap_raw)
            scale = np.abs(found.heatmap_raw).max()
            assert np.abs(found.heatmap - expected.map).max() <= 1e-6 * scale, found.path
            assert ((found.heatmap != 0) == (expected.map != 0)).all(), found.path


def test_no_transpose_in_float64() -> None:
    """ONNX Runtime 1.18 fuses one with a product, and has no float64 kernel for both."""
    step = C3(expansion="bilinear")
    model = graph_of(Chain((SmoothAverage(), step)), (50, 77), LOOP)
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    turned = [node.output[0] for node in model.graph.node if node.op_type == "Transpose"]
    assert turned and all(kinds[name] == onnx.TensorProto.FLOAT for name in turned)


def test_bodies_read_nothing_of_the_outer_graph() -> None:
    """Tools that forget what an inner graph reads do no harm."""
    model = graph_of(Chain((C3(empty="nothing"),)), (SIDE, SIDE), LOOP)
    loops = [node for node in model.graph.node if node.op_type == "Loop"]
    assert len(loops) == 3
    for node in loops:
        (body,) = (a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH)
        own = {v.name for v in body.input} | {t.name for t in body.initializer}
        own |= {name for inner in body.node for name in inner.output}
        assert {name for inner in body.node for name in inner.input} <= own
