"""The page's JavaScript, run by Node, gives the numbers of the Python that it stands for."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import lrp_onnx
from lrp_onnx.cli.web import look_of
from lrp_onnx.contract import Contract, Preprocessing, Selection
from lrp_onnx.report.colors import Scale
from lrp_onnx.report.render import RenderStyle, overlay
from lrp_onnx.runtime.explanation import KINDS, probabilities_of, scores_of
from lrp_onnx.runtime.preprocess import CHOICES, PRESETS, preprocess

ASSETS = Path(lrp_onnx.__file__).parent / "deploy" / "web"
SCRIPT = Path(__file__).parent / "in_node.mjs"
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(
    NODE is None, reason="there is no node: install Node.js 18 or newer"
)

PICTURES = ((300, 401), (97, 53), (192, 288), (480, 640), (64, 64), (5, 7), (1, 1), (1000, 1333))
"""Heights and widths: photos, whole multiples, equal sides, and less than any model's input."""
SIZES = ((96, 96), (224, 224), (64, 48), (7, 9))
TIE = 1e-4
"""How near to the middle of two levels rounding decides, in levels."""


def base(values: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def array(text: str, dtype: Any) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(text), dtype)


def in_node(jobs: Sequence[dict[str, Any]]) -> list[Any]:
    done = subprocess.run(
        [str(NODE), str(SCRIPT), f"{ASSETS.as_uri()}/"],
        input=json.dumps(list(jobs)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


def picture(height: int, width: int, *, smooth: bool) -> NDArray[np.uint8]:
    """Noise, which knows no mercy, or soft shapes, as photos have."""
    rng = np.random.default_rng(height * width + smooth)
    values = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(values, (0, 0), 3)) if smooth else values


def prepared(
    cases: Sequence[tuple[NDArray[np.uint8], Preprocessing, tuple[int, int]]],
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8], tuple[int, int]]]:
    """Node's input, Python's, the part of the picture and the size, for every case; the boxes are
    compared here.
    """
    jobs = [
        {
            "does": "prepare",
            "picture": base(image),
            "height": image.shape[0],
            "width": image.shape[1],
            "spec": asdict(spec),
            "size": size,
        }
        for image, spec, size in cases
    ]
    for (image, spec, size), found in zip(cases, in_node(jobs), strict=True):
        expected = preprocess(image, spec, *size)
        assert found["box"] == asdict(expected.box)
        values = array(found["values"], np.float32).reshape(expected.tensor.shape)
        yield values, expected.tensor, expected.box.cut(image), size


def cases_of(**choices: Any) -> list[tuple[NDArray[np.uint8], Preprocessing, tuple[int, int]]]:
    spec = Preprocessing(layout="NCHW", **choices)
    shapes = itertools.product(PICTURES, SIZES, (True, False))
    return [(picture(*shape, smooth=smooth), spec, size) for shape, size, smooth in shapes]


@pytest.mark.parametrize("interpolation", [n for n in CHOICES["interpolation"] if n != "cubic"])
@pytest.mark.parametrize("resize", CHOICES["resize"])
def test_pictures_become_the_same_input(resize: str, interpolation: str) -> None:
    """Bit for bit."""
    for found, expected, _, _ in prepared(cases_of(resize=resize, interpolation=interpolation)):
        assert np.array_equal(found, expected)


def keys(target: int, source: int) -> NDArray[np.float64]:
    """(target, source): weights of Keys' cubic with a = -0.75; the last pixel goes on for ever."""
    centre = (np.arange(target)[:, None] + 0.5) * source / target - 0.5
    pixels = np.arange(-2, source + 2)
    near, a = np.abs(centre - pixels), -0.75
    inner = ((a + 2) * near - (a + 3)) * near**2 + 1
    outer = ((a * near - 5 * a) * near + 8 * a) * near - 4 * a
    weights = np.where(near <= 1, inner, np.where(near < 2, outer, 0))
    matrix = np.zeros((target, source))
    np.add.at(matrix.T, pixels.clip(0, source - 1), weights.T)
    return matrix


@pytest.mark.parametrize("resize", CHOICES["resize"])
def test_a_cubic_differs_where_rounding_decides(resize: str) -> None:
    """OpenCV's cubic is Intel's on x86, whose sums nobody knows in order: bytes differ by one level
    where the exact value lies in the middle of two.
    """
    if not cv2.ipp.useIPP():
        pytest.skip("this OpenCV has no IPP, whose cubic resizing the page has")
    raw: dict[str, Any] = {"mean": (0.0,), "std": (1.0,), "divisor": 1.0}
    equal = 0
    for found, expected, image, size in prepared(
        cases_of(resize=resize, interpolation="cubic", **raw)
    ):
        differ = found != expected
        equal += not differ.any()
        rows, columns = (keys(*sides) for sides in zip(size, image.shape, strict=False))
        exact = np.einsum("hH,wW,HWc->chw", rows, columns, image.astype(np.float64), optimize=True)
        assert np.abs(found - expected).max() <= 1
        assert (np.abs(exact - np.floor(exact) - 0.5)[differ] < TIE).all()
    assert equal > 40


@pytest.mark.parametrize("channels", CHOICES["channels"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_every_preset_layout_and_order_of_channels(layout: str, channels: str) -> None:
    image = picture(130, 170, smooth=True)
    cases = []
    for spec, _ in PRESETS.values():
        count = 1 if channels == "GRAY" else 3
        numbers = {"mean": spec.mean[:count], "std": spec.std[:count]}
        changed = replace(spec, layout=layout, channels=channels, **numbers)
        one = replace(changed, mean=changed.mean[:1], std=changed.std[:1], crop_fraction=0.7)
        cases += [(image, changed, (96, 80)), (image, one, (40, 40))]
    for found, expected, *_ in prepared(cases):
        assert np.array_equal(found, expected)


def tensors() -> Iterator[tuple[str, NDArray[Any], str]]:
    """(kind, output, selection) of every kind of output."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (2, 12)).astype(np.float32)
    yield "logits", logits, ""
    yield "logits", logits.astype(np.float16), ""
    yield "logits", np.zeros((1, 12), np.float32), ""
    yield "logits", logits[:, :, None, None], ""
    yield "probabilities", np.asarray(np.exp(logits) / np.exp(logits).sum(1, keepdims=True)), ""
    yield "probabilities", rng.integers(0, 200, (1, 12)).astype(np.uint8), ""
    yield "probabilities", rng.integers(-128, 100, (1, 12)).astype(np.int8), ""
    yield "log-probabilities", -np.abs(logits), ""
    yield "logit", logits[:, :1], ""
    yield "probability", np.abs(logits[:, 0]) / 20, ""
    features = rng.normal(0, 1, (2, 12, 5, 7)).astype(np.float32)
    yield "features", features, ""
    yield "logits", features, str(Selection((0, 12), (1, 3), (2, 7)))
    yield "other", logits, ""


def test_every_kind_of_output_gives_the_same_classes() -> None:
    assert {kind for kind, _, _ in tensors()} == set(KINDS)
    labels = [f"name {n}" for n in range(12)]
    jobs, expected = [], []
    for kind, values, selection in tensors():
        part = Selection.read(selection)
        facts = {"kind": kind, "selection": part and asdict(part)}
        kinds = {"type": str(values.dtype), "dims": values.shape}
        jobs.append(
            {"does": "answer", "values": base(values), "facts": facts, "labels": labels, **kinds}
        )
        scores = scores_of(kind, values, selection)
        expected.append((scores[0], probabilities_of(kind, scores)[0]))
    for job, found, (scores, probabilities) in zip(jobs, in_node(jobs), expected, strict=True):
        assert np.allclose(found["scores"], scores.astype(np.float64), rtol=1e-12, atol=0), job
        assert np.allclose(found["probabilities"], probabilities, rtol=1e-12, atol=1e-300), job
        order = np.argsort(-probabilities, kind="stable")[:5]
        best = [(one["index"], one["name"]) for one in found["best"]]
        assert best == [(int(index), labels[index]) for index in order]


def test_halves_are_numpys() -> None:
    values = np.concatenate(
        [
            np.float32([0, -0.0, 1, -1, 65504, 65519, 65520, 1e9, -1e9, 6e-8, 2.9e-8, 6.1e-5]),
            np.random.default_rng(0).normal(0, 10, 500).astype(np.float32),
            np.float16([0.1, 5e-6, 1234]).astype(np.float32) * np.float32(1 + 2**-11),
        ]
    ).astype(np.float32)
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16).view(np.uint16)
    (found,) = in_node([{"does": "halves", "values": base(values)}])
    assert found == expected.tolist()


CONTRACT = Contract("x", {}, "z", 3, "lrp-resnet", "logit", {}, {})


@pytest.mark.parametrize("post", ["none", "c3"])
@pytest.mark.parametrize("signed", [True, False])
def test_the_map_is_painted_as_python_paints_it(post: str, signed: bool) -> None:
    """The colours of `explain`'s pictures, to rounding."""
    rng = np.random.default_rng(3)
    heatmap = cv2.GaussianBlur(rng.normal(0, 1, (56, 56)).astype(np.float32), (0, 0), 4)
    heatmap = np.asarray(heatmap if signed else np.abs(heatmap))
    photo = picture(120, 160, smooth=True)
    look = look_of(replace(CONTRACT, post=post))
    job = {"does": "paint", "look": look, "picture": base(photo), "heatmap": base(heatmap)}
    (found,) = in_node([{**job, "map": heatmap.shape, "width": 160, "height": 120}])
    style = RenderStyle(colors=look["colors"])
    scale = Scale.of([heatmap], colors=style.colors, percentile=style.percentile)
    assert found["scale"]["scheme"] == scale.scheme
    assert found["scale"]["full"] == pytest.approx(scale.full, rel=1e-6)
    assert (scale.scheme == "diverging") == (signed and post == "none")
    rgba = array(found["data"], np.uint8).reshape(120, 160, 4)
    drawn = overlay(photo, heatmap, style)
    assert np.abs(rgba[..., :3].astype(int) - drawn).max() <= 2
    assert (rgba[..., 3] == 255).all()


def test_the_place_of_relevance_is_said() -> None:
    heatmap = np.zeros((30, 30), np.float32)
    heatmap[2:5, 24:28] = 1
    heatmap[12:18, 12:18] = -9
    look, photo = look_of(CONTRACT), picture(30, 30, smooth=True)
    jobs = [
        {"does": "paint", "look": look, "picture": base(photo), "heatmap": base(one)}
        | {"map": (30, 30), "width": 30, "height": 30}
        for one in (heatmap, np.zeros_like(heatmap))
    ]
    found, nothing = in_node(jobs)
    assert found["place"].startswith("top right first, with 100 %")
    assert nothing["place"].startswith("nowhere") and nothing["scale"]["full"] == 0
