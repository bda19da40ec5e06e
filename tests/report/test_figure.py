"""The figure of a photo: what is where in it, what it says, and pictures of any size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lrp_onnx.report import figure as module
from lrp_onnx.report import text
from lrp_onnx.report.colors import Scale, ground
from lrp_onnx.report.figure import LARGEST, OUTSIDE, SMALLEST, SMALLEST_TEXT, TOGETHER, figure
from lrp_onnx.report.legend import BAR, color_bar
from lrp_onnx.report.render import RenderStyle, outline, overlay
from lrp_onnx.report.text import Line
from lrp_onnx.runtime.explanation import Explanation
from lrp_onnx.runtime.preprocess import Box

RNG = np.random.default_rng(0)
HEAT = RNG.normal(size=(8, 8)).astype(np.float32)
REGION = np.zeros((8, 8), np.bool_)
REGION[2:6, 2:6] = True
PLAIN = RenderStyle(percentile=100)
EDGE = SMALLEST_TEXT
"""White pixels around a figure, and between its pictures, if it is not large."""


def explained(
    shape: tuple[int, int] = (300, 400), *, box: Box | None = None, **fields: Any
) -> Explanation:
    """An explanation of a photo of noise."""
    photo = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    values: dict[str, Any] = {
        "path": Path("folder/photo.png"),
        "photo": photo,
        "box": box or Box(0, 0, shape[1], shape[0]),
        "heatmap": HEAT,
        "heatmap_raw": None,
        "region": None,
        "relevance": None,
        "scores": np.log(np.float32([0.7, 0.2, 0.1])),
        "top5": ((0, "cat", 0.7), (1, "dog", 0.2), (2, "fish", 0.1)),
        "target": 0,
        "target_name": "cat",
        "start": "logit",
        "start_value": 2.0,
        "provider": "cpu",
        "seconds": {},
    }
    return Explanation(**values | fields)


def tile(picture: NDArray[np.uint8], number: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture at a place of the first row."""
    left = EDGE + number * (shape[1] + EDGE)
    return picture[EDGE : EDGE + shape[0], left : left + shape[1]]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts of all figures."""
    texts: list[str] = []
    for name in ("lrp_onnx.report.figure", "lrp_onnx.report.legend"):

        def note(lines: Sequence[Line], *args: Any, **kwargs: Any) -> NDArray[np.uint8]:
            texts.extend(line.text for line in lines)
            return text.text_block(lines, *args, **kwargs)

        monkeypatch.setattr(f"{name}.text_block", note)
    return texts


def test_photo_and_map_at_their_own_resolution() -> None:
    one = explained()
    drawn = figure([one], PLAIN, method="LRP")
    np.testing.assert_array_equal(tile(drawn, 0, (300, 400)), one.photo)
    np.testing.assert_array_equal(tile(drawn, 1, (300, 400)), overlay(one.photo, HEAT, PLAIN))
    assert (drawn[:EDGE] == 255).all() and (drawn[:, :EDGE] == 255).all()
    assert (drawn[:, -EDGE:] == 255).all() and (drawn[-4:] == 255).all()


def test_the_frame_is_around_what_the_model_sees() -> None:
    box = Box(50, 20, 260, 240)
    one = explained(box=box)
    drawn = figure([one], PLAIN, method="LRP")
    changed = (tile(drawn, 0, (300, 400)) != one.photo).any(axis=2)
    border = np.zeros((300, 400), np.bool_)
    border[18:263, 48:313] = True
    border[23:257, 53:307] = False
    assert not changed[~border].any()
    for side in (
        changed[20, 60:300],
        changed[259, 60:300],
        changed[30:250, 50],
        changed[30:250, 309],
    ):
        assert side.mean() > 0.9
    frame = tile(drawn, 0, (300, 400))[20, 60:300]
    assert (frame.min(axis=1) > 250).mean() > 0.3 and (frame.max(axis=1) < 60).mean() > 0.3
    shown = tile(drawn, 1, (300, 400)).astype(int)
    inside = overlay(np.ascontiguousarray(box.cut(one.photo)), HEAT, PLAIN)
    np.testing.assert_array_equal(shown[25:255, 55:305], inside[5:-5, 5:-5])
    off = np.abs(shown - ground(one.photo) * OUTSIDE)
    assert max(off[:18].max(), off[:, 320:].max()) <= 0.5 + 1e-6  # rounding to 8 bits


def test_several_maps_share_one_scale() -> None:
    shape = (300, 300)
    weak = explained(shape, heatmap=HEAT / 4, target=1, target_name="dog")
    drawn = figure([explained(shape), weak], PLAIN, method="LRP")
    scale = Scale("diverging", float(np.abs(HEAT).max()))
    for number, heatmap in ((1, HEAT), (2, HEAT / 4)):
        np.testing.assert_array_equal(
            tile(drawn, number, shape), overlay(weak.photo, heatmap, PLAIN, scale=scale)
        )
    alone = tile(figure([weak], PLAIN, method="LRP"), 1, shape)
    assert not np.array_equal(alone, tile(drawn, 2, shape))


def test_the_region_of_c3_is_a_line() -> None:
    one = explained(region=REGION)
    with_line = tile(figure([one], PLAIN, method="LRP"), 1, (300, 400))
    without = tile(figure([one], PLAIN, method="LRP", outlined=False), 1, (300, 400))
    np.testing.assert_array_equal(without, overlay(one.photo, HEAT, PLAIN))
    np.testing.assert_array_equal(with_line, outline(without, REGION))
    changed = (with_line != without).any(axis=2)
    assert changed[150, 95:105].any() and changed[150, 295:305].any()
    assert changed[70:80, 200].any() and not changed[150, 110:290].any()


@pytest.mark.parametrize("colors", ["diverging", "sequential"])
def test_the_colour_bar_has_the_colours_of_the_map(colors: str) -> None:
    style = RenderStyle(colors=colors)
    drawn = figure([explained()], style, method="LRP")
    size = EDGE
    bar = color_bar(colors, BAR * size, size, ends=("", ""), ticks=("", ""), style=style)
    colour = np.flatnonzero((bar != 255).any(axis=2).sum(axis=1) > 300)
    strip = bar[colour[0], size:-size]
    below = drawn[EDGE + 300 :, EDGE + size : EDGE + size + len(strip)]
    rows = [row for row in below if np.array_equal(row, strip)]
    assert len(rows) == len(colour) >= size
    whole = Scale(colors, 1.0)
    grey = np.full((1, 1, 3), 119, np.uint8)
    np.testing.assert_array_equal(rows[0][-1], overlay(grey, [[1]], style, scale=whole)[0, 0])
    lowest = -1 if colors == "diverging" else 0
    np.testing.assert_array_equal(rows[0][0], overlay(grey, [[lowest]], style, scale=whole)[0, 0])


def test_what_a_figure_says(said: list[str]) -> None:
    raw = np.float32([[3, -1]])
    one = explained(box=Box(50, 0, 300, 300), region=REGION, heatmap_raw=raw)
    figure([one], PLAIN, method="LRP, epsilon")
    together = "\n".join(said)
    for words in (
        "photo.png\n1. cat, 70 %\n2. dog, 20 %\n3. fish, 10 %\n",
        "cat, 70 %\n75 % of relevance for the class\n25 % against it\n",
        "Method: LRP, epsilon.",
        f"relevance of {np.abs(HEAT).max():.2g} or more has the full colour. Relevance starts from "
        "the logit of the class.",
        "White line: the region that C3 keeps, 25 % of what the model sees.",
        "Dashed frame: what the model sees",
        "against cat\nfor cat",
    ):
        assert words in together
    said.clear()
    figure([one, replace(one, target=2, target_name="fish")], method="LRP")
    together = "\n".join(said)
    assert "percentile 99.5), in all 2 maps alike" in together
    assert "\nfish, 10 %\n" in together and "against the class\nfor the class" in together


def test_what_is_not_drawn_is_said(said: list[str]) -> None:
    style = RenderStyle(colors="sequential")
    figure([explained()], style, method="LRP")
    assert any(line.endswith("against it (not drawn)") for line in said)
    assert "no relevance" in said and "for cat" in said


def test_c3_s_values_outside_are_not_counted_as_relevance(said: list[str]) -> None:
    figure([explained(region=REGION)], method="LRP")
    assert not any("of relevance" in line for line in said)
    said.clear()
    figure([explained(heatmap=np.abs(HEAT))], method="LRP")
    assert "all relevance is for the class" in said


def test_a_map_of_zeros(said: list[str]) -> None:
    one = explained(heatmap=np.zeros((8, 8), np.float32))
    drawn = figure([one], method="LRP")
    np.testing.assert_array_equal(tile(drawn, 1, (300, 400)), ground(one.photo))
    assert "no relevance at all" in said and "Scale: every value of the map is zero." in said


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (1, "100 %"),
        (0.9999, "> 99.9 %"),
        (0.985, "98.5 %"),
        (0.5, "50 %"),
        (0.0421, "4.2 %"),
        (0.0001, "< 0.1 %"),
        (0, "0 %"),
    ],
)
def test_shares_do_not_claim_more_than_is_so(share: float, words: str) -> None:
    assert module._percent(share) == words


def test_channels_of_a_feature_map_have_means(said: list[str]) -> None:
    figure([explained(kind="features", scores=np.float32([1.5, 0, 0]))], method="LRP")
    assert "cat, mean 1.5" in said


@pytest.mark.parametrize(
    ("kind", "rivals"), [("logits", True), ("sigmoids", False), ("logit", False)]
)
def test_the_contrastive_start_names_rivals_where_there_are_some(
    kind: str, rivals: bool, said: list[str]
) -> None:
    figure([explained(kind=kind, start="contrastive")], method="LRP")
    assert ("the logit of the class against the others" in "\n".join(said)) == rivals
    assert "Relevance starts from the logit of the class" in "\n".join(said)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize(
    "shape", [(1, 1), (32, 32), (3000, 20), (20, 3000), (1, 3000), (3000, 1), (64, 48), (500, 400)]
)
def test_photos_of_any_size(shape: tuple[int, int], count: int, said: list[str]) -> None:
    one = explained(shape, region=REGION)
    drawn = figure([one] * count, method="LRP")
    assert drawn.dtype == np.uint8 and drawn.shape[2] == 3
    assert 500 < drawn.shape[1] < TOGETHER + 400 or shape[1] > 2 * shape[0]
    assert max(shape) <= LARGEST or any(f"{shape[1]} × {shape[0]} pixels" in s for s in said)


def test_small_photos_are_enlarged_and_large_ones_bounded(said: list[str]) -> None:
    small = figure([explained((32, 16))], method="LRP")
    assert "Photo of 16 × 32 pixels, drawn at 144 × 288." in said and SMALLEST == 288
    assert small.shape[0] < 2 * SMALLEST + 200
    photo = np.full((4000, 6000, 3), 90, np.uint8)
    one = replace(explained(), photo=photo, box=Box(1000, 0, 4000, 4000))
    large = figure([one], method="LRP")
    assert "Photo of 6000 × 4000 pixels, drawn at 2048 × 1365." in said and LARGEST == 2048
    assert TOGETHER <= large.shape[1] < TOGETHER + 300
    three = figure([one] * 3, method="LRP")
    assert "Photo of 6000 × 4000 pixels, drawn at 1024 × 683." in said
    assert TOGETHER <= three.shape[1] < TOGETHER + 400


def test_a_box_of_one_pixel() -> None:
    for box in (Box(299, 299, 1, 1), Box(0, 0, 1, 300)):
        figure([explained((300, 300), box=box, region=REGION)], method="LRP")
    figure([explained((3000, 20), box=Box(0, 2999, 20, 1))], method="LRP")


@pytest.mark.parametrize("unicode", [False, True])
@pytest.mark.parametrize(
    "name", ["猫", "Schäferhund", "x" * 200, "many words " * 20, "", "a\n\x1b[0m"]
)
def test_names_of_any_kind_stay_below_their_picture(
    name: str, unicode: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if unicode and not text.UNICODE:
        pytest.skip("OpenCV draws ASCII alone before its release 5")
    monkeypatch.setattr(text, "UNICODE", unicode)
    one = explained(
        (300, 300), target_name=name, top5=((0, name, 0.7), (1, name, 0.2), (2, name, 0.1))
    )
    drawn = figure([one, one], method=f"LRP {name}")
    assert (drawn[:, -EDGE:] == 255).all()
    for number in (1, 2):
        left = EDGE + number * (300 + EDGE)
        assert (drawn[EDGE + 300 : EDGE + 330, left - EDGE + 2 : left - 2] == 255).all()


def test_what_is_no_figure() -> None:
    one = explained()
    with pytest.raises(ValueError, match="at least one"):
        figure([], method="LRP")
    for other in (explained((300, 401)), replace(one, box=Box(0, 0, 9, 9))):
        with pytest.raises(ValueError, match="one photo"):
            figure([one, other], method="LRP")
    with pytest.raises(ValueError, match="a picture"):
        figure([replace(one, photo=np.zeros((0, 5, 3), np.uint8))], method="LRP")


def test_nothing_given_is_changed() -> None:
    one = explained(box=Box(50, 20, 260, 240), region=REGION)
    before = one.photo.copy(), one.heatmap.copy()
    figure([one], method="LRP")
    np.testing.assert_array_equal(one.photo, before[0])
    np.testing.assert_array_equal(one.heatmap, before[1])
