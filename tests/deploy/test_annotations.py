"""Findings and the files for COCO, Label Studio and FiftyOne."""

from __future__ import annotations

import base64
import io
import json
import lzma
import shutil
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from test_rle import brush_mask, coco_mask, counts_of

import lrp_onnx
from lrp_onnx.cli.commands import main
from lrp_onnx.deploy.annotations import FORMATS, coco, common_folder, fiftyone, label_studio
from lrp_onnx.deploy.findings import Finding
from lrp_onnx.errors import OutputError
from lrp_onnx.report.results import stored_lines

MODELS = Path(__file__).parents[2] / "models"
NAMES = ("heart.png", "wide/star.png")


def lrp(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, one of them wide and cropped, and ``explained`` with two classes of each."""
    folder = tmp_path_factory.mktemp("annotations")
    (folder / "photos" / "wide").mkdir(parents=True)
    shutil.copy(MODELS / "samples" / "heart.png", folder / "photos")
    star = cv2.imread(str(MODELS / "samples" / "star.png"))
    wide = cv2.copyMakeBorder(star, 10, 20, 150, 61, cv2.BORDER_REFLECT)
    cv2.imwrite(str(folder / "photos" / "wide" / "star.png"), wide)
    options = ["--preprocess", "imagenet", "--top", 2, "--report", "none"]
    photos = [folder / "photos" / name for name in NAMES]
    done = lrp("explain", MODELS / "shapes-resnet.onnx", *photos, "-o", folder / "e", *options)
    assert done.exit_code == 0, done.stderr
    return folder


@pytest.fixture
def findings(folder: Path) -> list[Finding]:
    return [Finding.stored(line, folder / "e") for line in stored_lines(folder / "e")]


def exported(folder: Path, tmp_path: Path, to: str, *options: object) -> Any:
    output = tmp_path / "out.json"
    done = lrp("export", folder / "e", "--to", to, "-o", output, *options)
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"{output}: 4 maps of 2 photos, for {to}\n"
    return json.loads(output.read_text(encoding="utf-8"))


def array_of(code: dict[str, Any]) -> NDArray[Any]:
    deflated = base64.b64decode(code["$binary"]["base64"])
    return np.asarray(np.load(io.BytesIO(zlib.decompress(deflated))))


def test_stored_findings_are_those_of_python(folder: Path, findings: list[Finding]) -> None:
    explainer = lrp_onnx.Explainer(MODELS / "shapes-resnet.onnx", preprocessing="imagenet")
    for stored in findings:
        explanation = explainer(stored.path, target=stored.target)
        own = Finding.of(explanation)
        assert stored.mask is not None and own.mask is not None and explanation.c3 is not None
        assert np.array_equal(own.mask, explanation.c3) and np.array_equal(own.mask, stored.mask)
        assert stored.heatmap == pytest.approx(own.heatmap, abs=1e-5 * float(own.heatmap.max()))
        for name in ("path", "size", "box", "target", "name", "predicted", "composite"):
            assert getattr(stored, name) == getattr(own, name)
        assert stored.probability == pytest.approx(own.probability)
        assert stored.confidence == pytest.approx(own.confidence)


def test_a_cropped_map_lies_where_the_model_looks(findings: list[Finding]) -> None:
    cropped = findings[2]
    (height, width), box = cropped.size, cropped.box
    assert (height, width) == (318, 499) and (box.width, box.height) == (318, 318)
    whole, scale = cropped.whole, cropped.heatmap.shape[0] / box.height
    assert whole.shape == (96, round(499 * scale))
    left = round(box.left * scale)
    assert np.array_equal(whole[:, left : left + 96], cropped.heatmap)
    assert np.count_nonzero(whole) == np.count_nonzero(cropped.heatmap) > 0
    mask = cropped.mask
    assert mask is not None and not mask[:, : box.left].any() and mask.any()


def test_coco(folder: Path, tmp_path: Path, findings: list[Finding]) -> None:
    found = exported(folder, tmp_path, "coco")
    assert [photo["file_name"] for photo in found["images"]] == list(NAMES)
    photos = {photo["id"]: photo for photo in found["images"]}
    names = {category["id"]: category["name"] for category in found["categories"]}
    assert len({one["id"] for one in found["annotations"]}) == len(findings)
    for one, finding in zip(found["annotations"], findings, strict=True):
        photo, code = photos[one["image_id"]], one["segmentation"]
        assert str(finding.path).endswith(photo["file_name"])
        assert code["size"] == [photo["height"], photo["width"]] == list(finding.size)
        mask = coco_mask(code["size"], counts_of(code["counts"]))
        assert np.array_equal(mask, finding.mask)
        assert names[one["category_id"]] == finding.name and one["score"] == finding.probability
        left, top, width, height = one["bbox"]
        inside = mask[top : top + height, left : left + width]
        assert one["area"] == mask.sum() == inside.sum()
        assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()


def test_label_studio(folder: Path, tmp_path: Path, findings: list[Finding]) -> None:
    tasks = exported(folder, tmp_path, "label-studio", "--images", "https://photos.example/")
    assert [task["data"]["image"] for task in tasks] == [
        f"https://photos.example/{name}" for name in NAMES
    ]
    predictions = [one for task in tasks for one in task["predictions"]]
    for one, finding in zip(predictions, findings, strict=True):
        assert one["score"] == finding.probability and finding.composite in one["model_version"]
        (result,) = one["result"]
        assert (result["original_height"], result["original_width"]) == finding.size
        value = result["value"]
        assert value["brushlabels"] == [finding.name] and value["format"] == "rle"
        assert np.array_equal(brush_mask(value["rle"], finding.size), finding.mask)


def test_fiftyone(folder: Path, tmp_path: Path, findings: list[Finding]) -> None:
    samples = exported(folder, tmp_path, "fiftyone")["samples"]
    assert [sample["filepath"] for sample in samples] == [
        str(folder / "photos" / name) for name in NAMES
    ]
    for sample, first, second in zip(samples, findings[::2], findings[1::2], strict=True):
        assert sample["prediction"]["label"] == first.name
        assert sample["prediction"]["confidence"] == first.probability
        for suffix, finding in (("", first), ("_2", second)):
            heatmap, c3 = sample[f"heatmap{suffix}"], sample[f"c3{suffix}"]
            assert np.array_equal(array_of(heatmap["map"]), finding.whole)
            most = float(np.abs(finding.heatmap).max())
            assert heatmap["range"] == [-most, most] and heatmap["tags"] == [finding.name]
            assert np.array_equal(array_of(c3["mask"]) == 1, finding.mask)


def test_results_without_a_region(findings: list[Finding]) -> None:
    without = replace(findings[0], region=None)
    folder = common_folder([without.path])
    for write in (coco, label_studio):
        with pytest.raises(OutputError, match=r"no region of C3.*--to fiftyone"):
            list(write([without], folder))
    (sample,) = json.loads(b"".join(fiftyone([without], folder)))["samples"]
    assert "c3" not in sample and "heatmap" in sample


@pytest.mark.parametrize("to", FORMATS)
def test_parts_are_one_json_file(to: str, findings: list[Finding]) -> None:
    folder = common_folder(finding.path for finding in findings)
    for count, photos in ((0, 0), (1, 1), (2, 1), (4, 2)):
        found = json.loads(b"".join(FORMATS[to](findings[:count], folder)))
        entries = found if to == "label-studio" else found["images" if to == "coco" else "samples"]
        assert len(entries) == photos


def test_what_cannot_be_exported(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)

    def fault(*options: object) -> str:
        done = lrp("export", copy / "e", "--to", "coco", "-o", output, *options)
        assert done.exit_code == 1 and not done.stdout, done.stdout
        assert done.stderr.count("\n") == 1
        return done.stderr

    text = (copy / "e" / "explanations.jsonl").read_text(encoding="utf-8")
    moved = text.replace(str(folder), str(copy))
    (copy / "e" / "explanations.jsonl").write_text(moved, encoding="utf-8")
    output.write_text("mine")
    assert "exists" in fault() and output.read_text() == "mine"
    output.unlink()
    photo = copy / "photos" / "heart.png"
    cv2.imwrite(str(photo), np.zeros((288, 288, 3), np.uint8))
    assert "heart.png is not the picture any more that was explained" in fault()
    photo.unlink()
    assert "heart.png cannot be read" in fault()
    shutil.copy(folder / "photos" / "heart.png", photo)
    (copy / "e" / "heart.1.npz").write_bytes(b"PK and so on")
    assert "heart.1.npz cannot be read" in fault()
    assert not output.exists()
    shutil.copy(folder / "e" / "heart.1.npz", copy / "e")
    assert lrp("export", copy / "e", "--to", "coco", "-o", output).exit_code == 0


def test_signals_are_no_photos(tmp_path: Path) -> None:
    packed = Path(__file__).parents[1] / "zoo" / "resnet-1d.torchscript.onnx.xz"
    (tmp_path / "ecg.onnx").write_bytes(lzma.decompress(packed.read_bytes()))
    np.save(tmp_path / "signal.npy", np.random.default_rng(0).normal(size=(2, 128)))
    done = lrp("explain", tmp_path / "ecg.onnx", tmp_path / "signal.npy", "-o", tmp_path / "e")
    assert done.exit_code == 0, done.stderr
    done = lrp("export", tmp_path / "e", "--to", "fiftyone", "-o", tmp_path / "out.json")
    assert done.exit_code == 1 and "is a signal or a volume" in done.stderr
    assert not (tmp_path / "out.json").exists()
