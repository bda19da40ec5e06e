"""What is read back from a folder of results is what was written."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest
from networks import resnet

from lrp_onnx.compiler import compile_model
from lrp_onnx.contract import Preprocessing
from lrp_onnx.report.gallery import Drawing, finish, sheet, stored_explanations, write_picture
from lrp_onnx.report.render import RenderStyle
from lrp_onnx.report.results import Results
from lrp_onnx.runtime.explainer import Explainer

DRAWING = Drawing(style=RenderStyle())


@pytest.mark.parametrize("outputs", [("heatmap", "c3", "heatmap_raw"), ("relevance",)])
def test_explanations_are_read_back(outputs: tuple[str, ...], tmp_path: Path) -> None:
    """Every field, bit by bit; not those whose photo changed, nor those with damaged values."""
    path = tmp_path / "model.onnx"
    path.write_bytes(resnet(size=(32, 32)).SerializeToString())
    names = tuple(f"class {index}" for index in range(10))
    compiled = compile_model(path, outputs=outputs, labels=names).model.SerializeToString()
    photos = [tmp_path / f"{index}.png" for index in range(4)]
    for index, photo in enumerate(photos):
        noise = np.random.default_rng(index).integers(0, 256, (40, 50, 3)).astype(np.uint8)
        cv2.imwrite(str(photo), noise)
    results = Results(tmp_path / "out", photos, settings={})
    written = list(Explainer(compiled, providers="cpu").explain_images(photos))
    for explanation in written:
        write_picture(results, [explanation], DRAWING)
    found = list(stored_explanations(results))
    assert len(found) == 4
    for one, expected in zip(found, written, strict=True):
        for field in fields(expected):
            value, wanted = getattr(one, field.name), getattr(expected, field.name)
            if isinstance(wanted, np.ndarray):
                assert np.array_equal(value, wanted) and value.dtype == wanted.dtype, field.name
            else:
                assert value == wanted, field.name
    drawn = sheet(iter(found), DRAWING)
    assert drawn is not None and np.array_equal(drawn, sheet(written, DRAWING))
    photos[1].write_bytes(photos[0].read_bytes())
    photos[2].unlink()
    (tmp_path / "out" / "3.npz").write_bytes(b"damaged")
    assert [explanation.path for explanation in stored_explanations(results)] == photos[:1]
    assert sheet([], DRAWING) is None


def test_two_runs_in_one_folder_at_once(tmp_path: Path) -> None:
    """Whoever ends last leaves one line of every picture."""
    path = tmp_path / "model.onnx"
    path.write_bytes(resnet(size=(32, 32)).SerializeToString())
    photos = [tmp_path / f"{index}.png" for index in range(4)]
    for index, photo in enumerate(photos):
        cv2.imwrite(str(photo), np.full((20 + index, 30, 3), 40 * index, np.uint8))
    explainer = Explainer(compile_model(path).model.SerializeToString(), providers="cpu")
    explanations = list(explainer.explain_images(photos))
    one, other = (Results(tmp_path / "out", photos, settings={}) for _ in range(2))
    for results, index in [(one, 0), (other, 0), (one, 1), *((other, i) for i in (1, 2, 3))]:
        write_picture(results, [explanations[index]], DRAWING)
    for index in (2, 3):
        write_picture(one, [explanations[index]], DRAWING)
    finish(one, {}, DRAWING, key="")
    finish(other, {}, DRAWING, key="")
    texts = (tmp_path / "out" / "explanations.jsonl").read_text().splitlines()
    assert [json.loads(text)["image"] for text in texts] == list(map(str, photos))
    table = (tmp_path / "out" / "results.csv").read_text(encoding="utf-8-sig")
    assert len(table.splitlines()) == 5


def test_flat_pictures_are_not_enlarged_without_end(tmp_path: Path) -> None:
    """A picture of 2 × 20,000 pixels, 288 pixels high, would have 2,880,000 columns."""
    path, photo = tmp_path / "model.onnx", tmp_path / "flat.png"
    path.write_bytes(resnet(size=(32, 32)).SerializeToString())
    cv2.imwrite(str(photo), np.zeros((2, 20_000, 3), np.uint8))
    spec = Preprocessing(resize="stretch")
    compiled = compile_model(path, preprocessing=spec).model.SerializeToString()
    (one,) = Explainer(compiled, providers="cpu").explain_images([photo])
    results = Results(tmp_path / "out", [photo], settings={})
    write_picture(results, [one], DRAWING)
    assert cv2.imread(str(tmp_path / "out" / "flat.overlay.png")).shape == (2, 20_000, 3)
    drawn = sheet([one], DRAWING)
    assert drawn is not None and drawn.shape[1] < 70_000
