"""Pictures as the model takes them: hand-computed values, geometry, and clear errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrp_onnx.contract import Preprocessing
from lrp_onnx.errors import ImageError
from lrp_onnx.notation import write
from lrp_onnx.runtime.preprocess import (
    CHOICES,
    PRESETS,
    checked,
    crop_box,
    input_size,
    parse_preprocessing,
    preprocess,
)

RAW = PRESETS["raw"][0]


def test_bilinear_has_half_pixel_centres_and_no_antialiasing() -> None:
    """2 → 4 pixels: samples at −0.25, 0.25, 0.75, 1.25 of
    the source, clamped: torch's align_corners=False.
    """
    picture = np.zeros((2, 2, 3), np.uint8)
    picture[:, 1] = 100
    found = preprocess(picture, RAW, 4, 4).tensor
    assert np.array_equal(found[0, 0], [0, 25, 75, 100])


def test_area_averages_what_shrinks_and_interpolates_what_grows() -> None:
    spec = parse_preprocessing("raw:interpolation=area,resize=stretch")
    picture = np.zeros((2, 4, 3), np.uint8)
    picture[:, 1::2] = 100
    assert np.array_equal(preprocess(picture, spec, 1, 2).tensor[0], [[50, 50]])
    assert np.array_equal(preprocess(picture[:, :2], spec, 2, 4).tensor[0, 0], [0, 25, 75, 100])


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_normalise_as_they_say(preset: str) -> None:
    spec = PRESETS[preset][0]
    colour = np.array([10, 128, 250], np.uint8)
    picture = np.tile(colour, (8, 8, 1))
    expected = colour[::-1] if spec.channels == "BGR" else colour
    values = (expected / spec.divisor - np.array(spec.mean)) / np.array(spec.std)
    assert np.allclose(preprocess(picture, spec, 4, 4).tensor[:, 2, 2], values, atol=1e-5)


def test_layouts_and_grey() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    chw = preprocess(picture, RAW, 8, 8).tensor
    hwc = preprocess(picture, parse_preprocessing("raw:layout=NHWC"), 8, 8).tensor
    assert chw.shape == (3, 8, 8) and np.array_equal(chw.transpose(1, 2, 0), hwc)
    grey = preprocess(picture, parse_preprocessing("raw:channels=GRAY,mean=0,std=1"), 8, 8).tensor
    assert grey.shape == (1, 8, 8)
    assert np.allclose(grey[0], picture @ [0.299, 0.587, 0.114], atol=1)


@given(
    st.integers(1, 500),
    st.integers(1, 500),
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from([1.0, 0.875, 0.5]),
)
def test_the_crop_is_inside_and_centred(
    rows: int, columns: int, height: int, width: int, fraction: float
) -> None:
    spec = Preprocessing(crop_fraction=fraction)
    box = crop_box(rows, columns, spec, height, width)
    assert box.left >= 0 and box.top >= 0 and box.width >= 1 and box.height >= 1
    assert box.left + box.width <= columns and box.top + box.height <= rows
    assert (
        abs(2 * box.left + box.width - columns) <= 1 and abs(2 * box.top + box.height - rows) <= 1
    )
    if fraction == 1.0:
        assert box.width == columns or box.height == rows


def test_stretch_sees_everything() -> None:
    box = crop_box(50, 200, parse_preprocessing("imagenet-stretch"), 96, 96)
    assert (box.left, box.top, box.width, box.height) == (0, 0, 200, 50)


def test_stretch_with_a_crop_is_resized_and_then_cut() -> None:
    """As ``Resize((256, 256)), CenterCrop(224)``: seven eighths of both sides."""
    spec = parse_preprocessing("raw:resize=stretch,crop_fraction=.875")
    box = crop_box(64, 160, spec, 56, 56)
    assert (box.left, box.top, box.width, box.height) == (10, 4, 140, 56)
    ramp = np.tile(np.arange(64, dtype=np.uint8)[:, None, None], (1, 64, 3))
    cut = preprocess(ramp, spec, 56, 56).tensor
    assert np.array_equal(cut, preprocess(ramp, RAW, 64, 64).tensor[:, 4:60, 4:60])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imagnet", "did you mean imagenet"),
        ("tensorflow", "there are imagenet, imagenet-stretch, torchvision"),
        ("imagenet:sise=3", "no parameter 'sise'; it takes mean, std, divisor, channels"),
        ("imagenet:resize", "'resize' is not parameter=value"),
        ("imagenet:layout=NCHW,layout=NCHW", "layout is given twice"),
        ("imagenet:mean=", "3 values"),
        ("imagenet:resize=zoom", "crop, stretch"),
        ("imagenet:mean=a/b/c", "mean=a/b/c: the value must be a number, or numbers joined by /"),
        ("imagenet:divisor=1/2", "divisor=1/2: the value must be a number"),
        ("imagenet:interpolation=lanczos", "bilinear, area, cubic, nearest"),
        ("imagenet:mean=1/2", "3 values"),
        ("imagenet:std=0/1/1", "above 0"),
        ("imagenet:std=1e-320/1/1", "above 0"),
        ("imagenet:mean=1e300/0/0", "finite"),
        ("imagenet:crop_fraction=1.5", "up to 1"),
        ("imagenet:std=nan", "finite"),
    ],
)
def test_a_wrong_specification_is_explained(text: str, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        parse_preprocessing(text)


SPECS = {name: spec for name, (spec, _) in PRESETS.items()}


@pytest.mark.parametrize(
    "text",
    [
        "raw:layout=NHWC,mean=1/2/3",
        "raw(layout=NHWC, mean=1/2/3)",
        " raw( mean=1/2/3,layout=NHWC ) ",
    ],
)
def test_one_specification_in_two_forms(text: str) -> None:
    spec = parse_preprocessing(text)
    assert spec == Preprocessing(mean=(1.0, 2.0, 3.0), std=(1.0,) * 3, divisor=1.0, layout="NHWC")
    assert write(spec, SPECS) == "raw(mean=1/2/3, layout=NHWC)"


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_comes_back(preset: str) -> None:
    assert write(SPECS[preset], SPECS) == preset and parse_preprocessing(preset) == SPECS[preset]


three = st.tuples(*[st.floats(1e-3, 1e6)] * 3)


@given(
    st.builds(
        Preprocessing,
        mean=three,
        std=three,
        divisor=st.floats(1e-3, 1e6),
        crop_fraction=st.floats(0, 1, exclude_min=True),
        channels=st.sampled_from(["RGB", "BGR"]),
        **{name: st.sampled_from(CHOICES[name]) for name in ("layout", "resize", "interpolation")},
    )
)
def test_every_specification_comes_back(spec: Preprocessing) -> None:
    assert parse_preprocessing(write(spec, SPECS)) == spec


def test_what_a_file_states_is_checked_too() -> None:
    assert checked(Preprocessing()) == Preprocessing()
    with pytest.raises(ImageError, match="resize=zoom: resize is one of crop, stretch"):
        checked(Preprocessing.from_json('{"resize": "zoom"}'))


def test_the_input_must_fit() -> None:
    assert input_size(["N", 3, 32, 48], RAW) == (32, 48)
    with pytest.raises(ImageError, match="layout=NHWC"):
        input_size([1, 32, 32, 3], RAW)
    with pytest.raises(ImageError, match="must be fixed"):
        input_size([1, 3, "H", "W"], RAW)
