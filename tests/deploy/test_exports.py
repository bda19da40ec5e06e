"""Exports for COCO, Label Studio and FiftyOne, read by these tools' own readers."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import lrp_onnx
from lrp_onnx.deploy import exports
from lrp_onnx.errors import ContractError

# pycocotools gives arrays by a way of numpy 1.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
ROOT = Path(lrp_onnx.__file__).parents[1]
MODEL = ROOT / "models" / "shapes-resnet.onnx"
PHOTO = ROOT / "models" / "samples" / "star.png"
masks = arrays.arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40)))


def needs(*libraries: str) -> Any:
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(
        bool(missing),
        reason=f"{', '.join(missing)} missing: see exports-tests in pyproject.toml",
    )


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo of which the model sees the middle."""
    path = tmp_path_factory.mktemp("photos") / "wide.png"
    cv2.imwrite(str(path), cv2.copyMakeBorder(cv2.imread(str(PHOTO)), 0, 0, 30, 71, 0))
    return path


@pytest.fixture(scope="module")
def explanations(wide: Path) -> list[Any]:
    """Of the predicted class and the second, of a photo that the model sees a part of."""
    return list(lrp_onnx.explain(MODEL, wide, top=2, preprocessing="imagenet"))


def ellipse(height: int, width: int) -> exports.Mask:
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, (width // 2, height // 3), (width // 4, height // 5), 30, 0, 360, 1, -1)
    return mask.astype(np.bool_)


@needs("pycocotools")
@settings(max_examples=200, deadline=None)
@given(masks)
def test_coco_reads_every_mask(mask: exports.Mask) -> None:
    from pycocotools import mask as coco

    found = exports.coco_rle(mask)
    np.testing.assert_array_equal(coco.decode(found), mask)
    assert found["counts"].encode() == coco.encode(np.asfortranarray(mask, np.uint8))["counts"]


@needs("pycocotools")
def test_coco_reads_a_large_mask() -> None:
    from pycocotools import mask as coco

    mask = ellipse(1100, 1500)
    np.testing.assert_array_equal(coco.decode(exports.coco_rle(mask)), mask)


@needs("pycocotools")
def test_coco_reads_the_dataset(explanations: Any, wide: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    file = tmp_path / "regions.json"
    file.write_text(json.dumps(exports.coco_dataset(explanations)), encoding="utf-8")
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO(str(file))
    (image,) = dataset.loadImgs(dataset.getImgIds())
    assert image["file_name"] == str(wide)
    found = dataset.loadAnns(dataset.getAnnIds())
    assert [one["category_id"] for one in found] == [one.target for one in explanations]
    names = {c["id"]: c["name"] for c in dataset.loadCats(dataset.getCatIds())}
    for one, explanation in zip(found, explanations, strict=True):
        mask = dataset.annToMask(one)
        np.testing.assert_array_equal(mask, explanation.c3)
        assert names[one["category_id"]] == explanation.target_name
        assert one["area"] == mask.sum() > 0
        assert one["bbox"] == list(cv2.boundingRect(mask))
        assert one["score"] == pytest.approx(explanation.probability)


def test_bounds_of_nothing() -> None:
    assert exports._bounds(np.zeros((3, 4), np.bool_)) == [0, 0, 0, 0]


@needs("label_studio_sdk", "PIL")
@settings(max_examples=100, deadline=None)
@given(masks)
def test_label_studio_reads_every_mask(mask: exports.Mask) -> None:
    from label_studio_sdk.converter.brush import decode_rle

    found = decode_rle(exports.label_studio_rle(mask)).reshape(*mask.shape, 4)
    np.testing.assert_array_equal(found, np.repeat(mask[..., None] * np.uint8(255), 4, 2))


@needs("label_studio_sdk", "PIL")
def test_label_studio_reads_the_task(explanations: Any) -> None:
    from label_studio_sdk.converter.brush import decode_from_annotation

    task = exports.label_studio_task(explanations, "https://host/wide.png")
    assert task["data"] == {"image": "https://host/wide.png"}
    (prediction,) = task["predictions"]
    json.dumps(task)
    # Label Studio's export has the values of `value` beside the others.
    results = [{**one, **one["value"]} for one in prediction["result"]]
    layers = decode_from_annotation("tag", results)
    for one in explanations:
        layer = layers[f"tag-{one.target_name}-0"]
        np.testing.assert_array_equal(layer > 0, one.c3)
    assert prediction["score"] == pytest.approx(explanations[0].probability)


@needs("label_studio_sdk", "PIL")
def test_label_studio_reads_long_runs() -> None:
    from label_studio_sdk.converter.brush import decode_rle

    mask = np.zeros((300, 400), np.bool_)
    mask[100:] = True
    found = decode_rle(exports.label_studio_rle(mask)).reshape(300, 400, 4)
    np.testing.assert_array_equal(found[..., 3] > 0, mask)


def test_a_map_lies_where_the_model_looked(explanations: Any) -> None:
    one = explanations[0]
    whole = exports.whole_map(one)
    assert one.box.left > 0 and one.box.width < one.photo.shape[1]
    assert whole.shape == (96, round(one.photo.shape[1] * 96 / one.box.height))
    left = round(one.box.left * 96 / one.box.width)
    np.testing.assert_array_equal(whole[:, left : left + 96], one.heatmap)
    assert np.count_nonzero(whole) == np.count_nonzero(one.heatmap)


def test_the_range_of_a_signed_map_is_symmetric(wide: Path) -> None:
    signed = lrp_onnx.explain(MODEL, wide, composite="lrp-z", post="none")
    found = exports.fiftyone_heatmap(signed)
    low, high = found["range"]
    assert low == -high and high == np.abs(signed.heatmap).max()
    assert signed.heatmap.min() < 0


@needs("fiftyone")
@pytest.mark.filterwarnings("ignore")
def test_fiftyone_reads_the_heatmap(explanations: Any, tmp_path: Path) -> None:
    import fiftyone as fo

    found = exports.fiftyone_heatmap(explanations[0])
    heatmap = fo.Heatmap(**found)
    assert list(heatmap.range) == found["range"] and found["range"][1] > 0
    sample = fo.Sample(filepath=str(explanations[0].path), relevance=heatmap)
    np.testing.assert_array_equal(sample["relevance"].map, exports.whole_map(explanations[0]))
    heatmap.export_map(str(tmp_path / "map.png"), update=False)
    drawn = cv2.imread(str(tmp_path / "map.png"), cv2.IMREAD_UNCHANGED)
    assert drawn.shape[:2] == found["map"].shape and drawn.max() > 200


def test_without_a_region() -> None:
    explanation = lrp_onnx.explain(MODEL, PHOTO, post="none", outputs=("heatmap",))
    with pytest.raises(ContractError, match="has no region of C3: compile the model"):
        exports.coco_dataset([explanation])
