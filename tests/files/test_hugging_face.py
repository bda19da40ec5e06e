"""Preprocessing of Hugging Face's processors and of timm, as their own files and code have it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lrp_onnx.contract import Preprocessing
from lrp_onnx.files.description import describe_model

IMAGENET: dict[str, Any] = {
    "do_normalize": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
}
BOTH = {"height": 224, "width": 224}

PROCESSORS: dict[str, tuple[dict[str, Any], str, tuple[str, float, str], tuple[int, int]]] = {
    "ConvNextFeatureExtractor": (
        {"size": 224, "crop_pct": 0.875},
        "",
        ("crop", 0.875, "RGB"),
        (224, 224),
    ),
    "ConvNextImageProcessor": (
        {"size": {"shortest_edge": 384}, "crop_pct": 0.875},
        "",
        ("stretch", 1.0, "RGB"),
        (384, 384),
    ),
    "ViTFeatureExtractor": ({"size": 224}, "", ("stretch", 1.0, "RGB"), (224, 224)),
    "": ({"size": 224}, "vit", ("stretch", 1.0, "RGB"), (224, 224)),
    "DeiTFeatureExtractor": (
        {"size": 256, "crop_size": 224, "do_center_crop": True},
        "",
        ("stretch", 0.875, "RGB"),
        (224, 224),
    ),
    "DeiTImageProcessor": (
        {"size": {"height": 256, "width": 256}, "crop_size": BOTH},
        "",
        ("stretch", 0.875, "RGB"),
        (224, 224),
    ),
    "CLIPFeatureExtractor": ({"size": 224, "crop_size": 224}, "", ("crop", 1.0, "RGB"), (224, 224)),
    "LevitFeatureExtractor": ({"size": 224}, "", ("crop", 0.875, "RGB"), (224, 224)),
    "MobileNetV1ImageProcessor": (
        {"size": {"shortest_edge": 256}, "crop_size": BOTH},
        "",
        ("crop", 0.875, "RGB"),
        (224, 224),
    ),
    "PoolFormerImageProcessor": (
        {"size": {"shortest_edge": 224}, "crop_size": BOTH, "crop_pct": 0.9},
        "",
        ("crop", 0.9, "RGB"),
        (224, 224),
    ),
    "EfficientNetImageProcessor": (
        {"size": BOTH, "crop_size": {"height": 289, "width": 289}, "do_center_crop": False},
        "",
        ("stretch", 1.0, "RGB"),
        (224, 224),
    ),
}


def described(folder: Path, values: Any, config: Any = None, **known: int) -> Any:
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    (folder / "config.json").write_text(json.dumps(config or {}))
    return describe_model({}, folder / "model.onnx", **known)


@pytest.mark.parametrize("name", PROCESSORS)
def test_every_processor_has_its_way(tmp_path: Path, name: str) -> None:
    """Whether pictures are stretched, what is cut out, and the size, as its own code does it."""
    values, architecture, (resize, share, channels), size = PROCESSORS[name]
    found = described(
        tmp_path,
        {**IMAGENET, **values, "feature_extractor_type": name},
        {"model_type": architecture},
    )
    spec = found.preprocessing
    assert spec is not None and found.remarks == ()
    assert (spec.resize, spec.crop_fraction, spec.channels) == (resize, share, channels)
    assert spec.mean == (0.485, 0.456, 0.406) and spec.divisor == 255
    assert found.input_size == size


def test_a_processor_that_turns_channels_does_not_normalise(tmp_path: Path) -> None:
    values = {"crop_size": 256, "do_flip_channel_order": True, "resample": 2, "size": 288}
    found = described(tmp_path, {**values, "feature_extractor_type": "MobileViTFeatureExtractor"})
    assert found.preprocessing == Preprocessing(
        mean=(0.0,), std=(1.0,), channels="BGR", crop_fraction=256 / 288, interpolation="area"
    )


def test_efficientnet_divides_twice_and_may_shift(tmp_path: Path) -> None:
    values = {**IMAGENET, "size": BOTH, "include_top": True, "rescale_offset": True}
    spec = described(tmp_path, {**values, "rescale_factor": 1 / 127.5}).preprocessing
    pixel = 200.0
    own = (pixel / 127.5 - 1 - 0.485) / 0.229 / 0.229
    assert (pixel / spec.divisor - spec.mean[0]) / spec.std[0] == pytest.approx(own)


@pytest.mark.parametrize(
    "values",
    [
        {"sampling_rate": 16000, "feature_extractor_type": "Wav2Vec2FeatureExtractor"},
        {"do_normalize": True, "size": 224},
        {**IMAGENET, "image_mean": [10**400] * 3},
        {**IMAGENET, "image_mean": [1e300] * 3},
        {**IMAGENET, "image_std": [1e-320] * 3},
        {**IMAGENET, "size": 224, "crop_size": 10**400},
        {**IMAGENET, "rescale_factor": 10**400},
    ],
)
def test_what_cannot_be_used_is_a_remark(tmp_path: Path, values: dict[str, Any]) -> None:
    found = described(tmp_path, values)
    assert found.preprocessing is None
    (remark,) = found.remarks
    assert "preprocessor_config.json" in remark


def test_a_crop_of_timm_that_is_no_part_is_a_remark(tmp_path: Path) -> None:
    config = {"mean": [0.5] * 3, "std": [0.5] * 3, "crop_mode": "border"}
    found = described(tmp_path, {}, {"pretrained_cfg": config})
    assert found.preprocessing is None and "border" in found.remarks[0]


def test_three_means_are_not_for_gray(tmp_path: Path) -> None:
    config = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [1, 28, 28]}
    found = described(tmp_path, {}, {"pretrained_cfg": config})
    assert found.preprocessing is None and len(found.remarks) == 1


def test_a_size_is_of_whole_numbers(tmp_path: Path) -> None:
    assert described(tmp_path, {**IMAGENET, "size": [True, True]}).input_size is None
    assert described(tmp_path, {**IMAGENET, "size": 10**40}).input_size is None


def test_preprocessing_for_other_channels_is_left_out(tmp_path: Path) -> None:
    """Colours of another model are a remark; one mean alone serves both."""
    found = described(tmp_path, {**IMAGENET, "size": 28}, channels=1)
    assert found.preprocessing is None
    assert "RGB" in found.remarks[0] and "1 channel" in found.remarks[0]
    one = {**IMAGENET, "image_mean": [0.5], "image_std": [0.25], "size": 28}
    assert described(tmp_path, one, channels=1).preprocessing.channels == "GRAY"
    assert described(tmp_path, one).preprocessing.channels == "GRAY"
    assert described(tmp_path, one, channels=3).preprocessing.channels == "RGB"
