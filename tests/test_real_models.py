"""Trained models and real photos: what a compiled file
predicts is what its original predicts, photo by photo.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import run_onnx
from numpy.typing import NDArray

from lrp_onnx.compiler import compile_model
from lrp_onnx.model.normalize.padded_pools import runnable
from lrp_onnx.runtime.explainer import Explainer
from lrp_onnx.runtime.images import read_image
from lrp_onnx.runtime.preprocess import input_size, parse_preprocessing, preprocess

CIFAR_MEAN = "zero-one:mean=0.4914/0.4822/0.4465,std=0.2471/0.2435/0.2616"
PHOTOS = {
    # beginning of the model's name: (photos, preprocessing, how many, least accuracy on them)
    "cifar10-resnet2b": ("cifar10-jpeg", CIFAR_MEAN, 200, 0.5),
    "cifar10-resnet": ("cifar10-jpeg", "imagenet", 200, 0.75),
    "mlperf-resnet8.keras-nchw": ("cifar10-jpeg", "raw", 200, 0.7),
    "mlperf-resnet8.tflite-int8": ("cifar10-jpeg", None, 200, 0.7),
    "mlperf-resnet8": ("cifar10-jpeg", "raw:layout=NHWC", 200, 0.7),
    "tin10": ("tin10", "imagenet-stretch", 250, 0.7),
    "tin20": ("tin20", "imagenet-stretch", 100, 0.7),
}
"""int8 takes its preprocessing from the compiled file: nobody has to say it."""


def photos(folder: Path, count: int) -> tuple[list[Path], NDArray[np.int64]]:
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    step = len(rows) // count
    chosen = rows[::step][:count]
    return [folder / row["file"] for row in chosen], np.array([int(row["label"]) for row in chosen])


def test_every_real_model_predicts_the_same_and_explains(assets: Path, tmp_path: Path) -> None:
    paths = sorted((assets / "models").glob("*.onnx"))
    assert len(paths) >= 13
    for path in paths:
        folder, spec, count, floor = next(
            found for name, found in PHOTOS.items() if path.name.startswith(name)
        )
        files, labels = photos(assets / "images" / folder, count)
        compiled = compile_model(path, composite="lrp-resnet")
        stated = compiled.contract.preprocessing
        how = parse_preprocessing(spec) if spec else stated
        assert how is not None, path.name
        value = next(v for v in compiled.model.graph.input if v.name == compiled.contract.input)
        sizes = [dim.dim_value or None for dim in value.type.tensor_type.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        height, width = input_size(sizes, how)
        x = np.stack(
            [preprocess(read_image(file), how, height, width).tensor for file in files]
        ).astype(dtype)
        before = predictions(runnable(onnx.load(path)), x)
        after = predictions(compiled.model, x)
        assert np.array_equal(before, after), path.name
        accuracy = float((after == labels).mean())
        assert accuracy >= floor, f"{path.name}: {accuracy:.1%}"
        explainer = Explainer(compiled.save(tmp_path / f"{path.stem}.lrp.onnx"), preprocessing=how)
        for explanation in explainer.explain_images(files[:4]):
            assert np.isfinite(explanation.heatmap).all() and explanation.heatmap.any(), path.name


def predictions(model: onnx.ModelProto, x: NDArray[np.generic]) -> NDArray[np.int64]:
    """The predicted class of every picture; a model of fixed batch takes them one by one."""
    stored = {tensor.name for tensor in model.graph.initializer}
    value = next(v for v in model.graph.input if v.name not in stored)
    batch = value.type.tensor_type.shape.dim[0].dim_value or 50
    output = model.graph.output[0].name
    if batch == 1:
        return np.concatenate(
            [run_onnx(model, {value.name: x[i : i + 1]})[output].argmax(1) for i in range(len(x))]
        )
    return np.concatenate(
        [
            run_onnx(model, {value.name: x[i : i + 50]})[output].argmax(1)
            for i in range(0, len(x), 50)
        ]
    )


@pytest.mark.parametrize("name", ["mlperf-resnet8.tflite-int8-qdq"])
def test_a_quantised_map_is_near_the_original_network_s(
    name: str, assets: Path, tmp_path: Path
) -> None:
    """int8 weights and activations: the map correlates with
    that of the float32 file of the same network.
    """
    files, _ = photos(assets / "images" / "cifar10-jpeg", 20)
    maps = []
    for stem, spec in ((name, None), ("mlperf-resnet8.tflite-op13", "raw:layout=NHWC")):
        compiled = compile_model(assets / "models" / f"{stem}.onnx", composite="lrp-resnet")
        how = parse_preprocessing(spec) if spec else None
        explainer = Explainer(compiled.save(tmp_path / f"{stem}.lrp.onnx"), preprocessing=how)
        maps.append(np.stack([e.heatmap for e in explainer.explain_images(files, target=3)]))
    each = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(*maps, strict=True)]
    assert np.median(each) > 0.9, each
