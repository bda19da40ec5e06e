"""The package as Python code uses it: models and pictures of every kind, and what comes back."""

from __future__ import annotations

import base64
import inspect
import io
import json
import pickle
import re
import textwrap
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from conftest import relative
from networks import resnet

import lrp_onnx
from lrp_onnx import Explainer, Explanation, Options, api, compile_model, explain
from lrp_onnx.errors import (
    ImageError,
    ModelFileError,
    OutputError,
    OutputExistsError,
    RuleError,
    UnsupportedModelError,
)
from lrp_onnx.runtime.preprocess import parse_preprocessing, preprocess

Save = Callable[[onnx.ModelProto], Path]
NAMES = ("ant", "bee", "cat", "<b>dog</b>", "eel\x1b[2J", "fox", "gnu", "hen", "ibex", "jay")
HOW: dict[str, Any] = {"composite": "lrp-resnet", "preprocessing": "zero-one", "classes": NAMES}
RAW: dict[str, Any] = {"outputs": ("heatmap", "heatmap_raw", "c3"), "post": "c3"}


@pytest.fixture
def model(saved: Save) -> Path:
    return saved(resnet(size=(32, 32)))


@pytest.fixture
def explainer(model: Path) -> Explainer:
    return Explainer(model, provider="cpu", **HOW, **RAW)


def pixels(seed: int = 0, height: int = 48, width: int = 64) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    assert cv2.imwrite(str(path), pixels()[:, :, ::-1])
    return path


class Image:
    """What PIL's images have, as far as they are used."""

    def __init__(self, values: np.ndarray, mode: str = "RGB", **info: Any) -> None:
        self.values, self.mode, self.info = values, mode, info
        self.size = (values.shape[1], values.shape[0])

    def convert(self, mode: str) -> np.ndarray:
        if self.mode == "damaged":
            raise OSError("image file is truncated (3 bytes not processed)")
        return {
            ("RGB", "RGB"): lambda v: v,
            ("RGBA", "RGBA"): lambda v: v,
            ("L", "RGB"): lambda v: np.repeat(v[:, :, None], 3, axis=2),
        }[self.mode, mode](self.values)


class Tensor:
    """A tensor of another library."""

    def __init__(self, values: np.ndarray, *, far: bool = False) -> None:
        self.values, self.far = values, far

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        if self.far:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        return self.values


def prepared(image: np.ndarray) -> np.ndarray:
    return preprocess(image, parse_preprocessing("zero-one"), 32, 32).tensor


def test_one_picture_of_every_kind(explainer: Explainer, photo: Path) -> None:
    (expected,) = explainer.explain_images([photo])
    clear = np.dstack([pixels(), np.full(pixels().shape[:2], 255, np.uint8)])
    for image, path in (
        (photo, str(photo)),
        (str(photo), str(photo)),
        (photo.read_bytes(), "<bytes>"),
        (memoryview(photo.read_bytes()), "<bytes>"),
        (pixels(), "<array>"),
        (np.asfortranarray(pixels()), "<array>"),
        (clear, "<array>"),
        (Image(pixels()), "<array>"),
        (Image(clear, "RGBA"), "<array>"),
        (Tensor(pixels()), "<array>"),
    ):
        found = explainer(image)
        assert isinstance(found, Explanation) and str(found.path) == path
        assert np.array_equal(found.photo, expected.photo)
        assert relative(found.heatmap, expected.heatmap) < 1e-5
        assert found.top5 == expected.top5 and found.target == expected.target
    grey = pixels()[:, :, 0]
    for image in (grey, grey[:, :, None], Image(grey, "L")):
        assert np.array_equal(explainer(image).photo, np.repeat(grey[:, :, None], 3, axis=2))


def test_transparent_pixels_are_white(explainer: Explainer) -> None:
    clear = np.dstack([pixels(), np.zeros(pixels().shape[:2], np.uint8)])
    assert (explainer(clear).photo == 255).all()
    assert (explainer(Image(clear, "RGBA")).photo == 255).all()


def test_the_callers_array_may_change(explainer: Explainer) -> None:
    image = pixels()
    found = explainer(image)
    image[:] = 0
    assert np.array_equal(found.photo, pixels())


def test_lists_and_batches_give_lists(explainer: Explainer, photo: Path) -> None:
    images = [photo, pixels(1), Image(pixels(2))]
    alone = [explainer(image) for image in images]
    for several in (images, tuple(images), iter(images)):
        found = explainer(several, batch_size=2)
        assert isinstance(found, list) and len(found) == 3
        for one, expected in zip(found, alone, strict=True):
            assert relative(one.heatmap, expected.heatmap) < 1e-5
    assert explainer([]) == [] and len(explainer([photo])) == 1
    stack = explainer(np.stack([pixels(1), pixels(2)]))
    assert relative(stack[1].heatmap, alone[2].heatmap) < 1e-5


def test_prepared_batches(explainer: Explainer) -> None:
    """The picture is what the preprocessing would have made the tensor of."""
    batch = np.stack([prepared(pixels(seed)) for seed in range(3)])
    expected = explainer([pixels(seed) for seed in range(3)])
    for given in (batch, batch.astype(np.float64), Tensor(batch)):
        found = explainer(given, batch_size=2)
        for one, other in zip(found, expected, strict=True):
            assert relative(one.heatmap, other.heatmap) < 1e-5 and one.top5[0][0] == other.target
            assert one.photo.shape == (32, 32, 3) and str(one.path) == "<array>"
            exact = one.photo.astype(np.float64) / 255
            assert np.abs(exact - prepared(other.photo).transpose(1, 2, 0)).max() < 0.51 / 255
    assert [e.target for e in explainer(batch, target=[3, 1, 2])] == [3, 1, 2]


def test_a_prepared_batch_in_a_fixed_batch_and_in_other_colours(saved: Save) -> None:
    network = resnet(size=(32, 32))
    for value in (*network.graph.input, *network.graph.output):
        value.type.tensor_type.shape.dim[0].ClearField("dim_param")
        value.type.tensor_type.shape.dim[0].dim_value = 2
    fixed = Explainer(saved(network), provider="cpu", preprocessing="caffe")
    spec = parse_preprocessing("caffe")
    flat = np.full((40, 40, 3), (200, 100, 50), np.uint8)
    batch = np.stack([preprocess(flat, spec, 32, 32).tensor] * 3)
    found = fixed(batch)
    assert len(found) == 3 and (found[2].photo == (200, 100, 50)).all()


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (pixels() / 255, r"\(image \* 255\)\.round\(\)\.astype\(np\.uint8\)"),
        (pixels().astype(np.float32), r"image\.round\(\)\.astype\(np\.uint8\)"),
        (pixels().astype(np.int64), r"astype\(np\.uint8\)"),
        (pixels() > 100, r"image \* 255"),
        (pixels().transpose(2, 0, 1), r"image\.transpose\(1, 2, 0\)"),
        (np.zeros((3, 32, 32), np.float32) - 1, r"image\[None\]"),
        (np.zeros((2, 3, 31, 32), np.float32), r"shape of the model's input, \[.*3, 32, 32\]"),
        (np.zeros((5, 5, 2), np.uint8), r"\(H, W, 3\) RGB"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (np.zeros((1, 1, 1, 1, 1), np.uint8), r"\(H, W, 3\) RGB"),
        (np.array(["photo.jpg"]), "uint8"),
        (Image(pixels(), "I;16"), "mode I;16, with more than 8 bits"),
        (Image(pixels(), "damaged"), "PIL image cannot be read: image file is truncated"),
        (Tensor(pixels(), far=True), r"\.cpu\(\)\.numpy\(\)"),
        ([3], "type int is no picture"),
        (None, "type NoneType is no picture"),
        (io.BytesIO(b"x"), "type BytesIO is no picture: give a path, the bytes"),
        (b"no picture", "<bytes> cannot be read as a picture: it is text"),
        ("nowhere.png", "nowhere.png cannot be read: No such file"),
        (".", "is a folder: name the pictures in it"),
    ],
)
def test_what_is_no_picture_is_refused_with_a_remedy(
    image: Any, words: str, explainer: Explainer
) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        explainer(image)
    assert "\n" not in str(caught.value)


def test_a_huge_pil_image_is_refused_before_it_is_decoded(explainer: Explainer) -> None:
    image = Image(pixels())
    image.size = (30_000, 30_000)
    with pytest.raises(ImageError, match="the PIL image has 30000×30000 pixels"):
        explainer(image)


def test_models_of_every_kind(model: Path, photo: Path, tmp_path: Path) -> None:
    compiled = compile_model(model, composite="lrp-resnet", preprocessing=parse_preprocessing("tf"))
    file = compiled.save(tmp_path / "compiled.onnx")
    expected = Explainer(file, provider="cpu")(photo)
    how = {"composite": "lrp-resnet", "preprocessing": "tf", "provider": "cpu"}
    for given in (model, str(model), model.read_bytes(), onnx.load(model)):
        assert relative(explain(given, photo, **how).heatmap, expected.heatmap) < 1e-5
    for given in (file, file.read_bytes(), compiled.model, compiled):
        assert relative(explain(given, photo, provider="cpu").heatmap, expected.heatmap) < 1e-5
    options = Options(composite="lrp-resnet")
    found = explain(model, photo, options=options, preprocessing="tf", provider="cpu", threads=1)
    assert relative(found.heatmap, expected.heatmap) < 1e-5


def test_models_that_are_refused(model: Path, photo: Path, tmp_path: Path) -> None:
    compiled = compile_model(model).save(tmp_path / "compiled.onnx")
    with pytest.raises(RuleError, match="compiled already"):
        Explainer(compiled, composite="lrp-resnet")
    with pytest.raises(ModelFileError, match="there is no file"):
        explain("nothing.onnx", photo)
    with pytest.raises(ModelFileError, match="the model is not an ONNX model"):
        explain(b"nothing", photo)
    with pytest.raises(TypeError, match="no option 'compsite'; did you mean composite"):
        explain(model, photo, compsite="lrp-resnet")
    with pytest.raises(RuleError, match="did you mean lrp-resnet"):
        explain(model, photo, composite="lrp-resnett")
    with pytest.raises(ImageError, match="preprocessing preset"):
        explain(model, photo, preprocessing="imagenett")
    proto = onnx.load(model)
    proto.graph.node[0].op_type = "Unknown"
    with pytest.raises((UnsupportedModelError, ModelFileError)) as caught:
        explain(proto, photo, preprocessing="tf")
    assert "the model" in str(caught.value) and "/model.onnx" not in str(caught.value)


def test_an_explainer_compiles_once(
    model: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counted(*arguments: Any, **choices: Any) -> Any:
        calls.append(arguments)
        return compile_model(*arguments, **choices)

    monkeypatch.setattr(api, "compile_model", counted)
    explainer = Explainer(model, provider="cpu", **HOW)
    for _ in range(3):
        explainer(photo)
    explainer([photo, pixels()], top=2)
    assert len(calls) == 1


def test_targets(model: Path, explainer: Explainer, photo: Path) -> None:
    assert explainer(photo, target="fox").target == explainer(photo, target=5).target == 5
    assert explainer(photo, target=np.int64(5)).target_name == "fox"
    listed = explainer(photo, target=["fox", 2])
    assert [e.target for e in listed] == [5, 2]
    assert [e.target for e in explainer(photo, target=[7])] == [7]
    assert [e.target for e in explainer([photo, pixels(1)], target=["fox", 2])] == [5, 2]
    once = explain(model, photo, target=["fox", 2], provider="cpu", **HOW, **RAW)
    for one, other in zip(listed, once, strict=True):
        assert one.target == other.target and relative(one.heatmap, other.heatmap) < 1e-5
    with pytest.raises(ImageError, match="did you mean fox"):
        explainer(photo, target="foxx")


def test_the_most_probable_classes(model: Path, explainer: Explainer, photo: Path) -> None:
    best = [index for index, _, _ in explainer(photo).top5]
    apart = explainer(photo, top=3)
    assert [e.target for e in apart] == best[:3]
    together = explain(model, photo, top=3, provider="cpu", **HOW, **RAW)
    for one, other in zip(apart, together, strict=True):
        assert one.target == other.target and relative(one.heatmap, other.heatmap) < 1e-5
        assert np.array_equal(one.photo, other.photo)
        expected = {index: value for index, _, value in one.top5}[one.target]
        assert one.probability == pytest.approx(expected) == pytest.approx(other.probability)
    images = [photo, pixels(1)]
    for nested in (explainer(images, top=2), explain(model, images, top=2, provider="cpu", **HOW)):
        assert [len(found) for found in nested] == [2, 2]
        assert [e.target for e in nested[0]] == best[:2]
    batch = prepared(pixels())[None]
    assert [e.target for e in explainer(batch, top=10)[0]][:5] == best
    for wrong in ({"top": 0}, {"top": 11}, {"top": 2, "target": 1}):
        with pytest.raises(ValueError, match=r"it is 1 to 10"):
            explainer(photo, **wrong)


def test_an_assumption_is_said_once(model: Path, photo: Path) -> None:
    explainer = Explainer(model, provider="cpu")
    with pytest.warns(UserWarning, match="imagenet is assumed") as caught:
        explainer(photo)
        explainer(photo)
    assert len(caught) == 1
    Explainer(model, provider="cpu")(prepared(pixels())[None])  # nothing was assumed


def test_heatmap_and_region(explainer: Explainer) -> None:
    """A wide picture: the model sees its middle, and the region lies there."""
    found = explainer(pixels(height=40, width=100))
    assert found.heatmap.shape == (32, 32) and found.heatmap.dtype == np.float32
    assert found.c3 is not None and found.region is not None
    assert found.c3.shape == (40, 100) and found.c3.dtype == np.bool_
    assert found.c3[:, 30:70].any() and not found.c3[:, :30].any() and not found.c3[:, 70:].any()
    assert found.c3[:, 30:70].mean() == pytest.approx(found.region.mean(), abs=0.1)
    assert found.photo[found.c3].shape == (found.c3.sum(), 3)


def test_without_a_region(model: Path, photo: Path) -> None:
    found = explain(model, photo, post="none", provider="cpu", **HOW)
    assert found.region is None and found.c3 is None and found.to_dict()["region"] is None


def test_overlays(explainer: Explainer) -> None:
    found = explainer(pixels(height=40, width=100))
    drawn = found.overlay()
    assert drawn.shape == (40, 100, 3) and drawn.dtype == np.uint8
    assert np.array_equal(found.photo, pixels(height=40, width=100))
    outside = np.rint(found.photo[:, :30] * 0.5)
    assert np.array_equal(drawn[:, :30], outside)
    assert not np.array_equal(drawn[:, 30:70], found.photo[:, 30:70])
    assert not np.array_equal(drawn, found.overlay(outline=False))
    assert found.overlay(height=80).shape == (80, 200, 3)
    assert found.overlay(height=1).shape == (1, 2, 3)


def test_one_pixel(explainer: Explainer) -> None:
    found = explainer(np.full((1, 1, 3), 200, np.uint8))
    assert found.overlay().shape == (1, 1, 3) and found.overlay(height=50).shape == (50, 50, 3)


def test_saving(explainer: Explainer, photo: Path, tmp_path: Path) -> None:
    found = explainer(photo)
    drawn = found.overlay(height=288)
    png = cv2.imread(str(found.save(tmp_path / "a.png")))[:, :, ::-1]
    assert np.array_equal(png, drawn)
    for name in ("a.jpg", "b.JPEG"):
        data = found.save(str(tmp_path / name)).read_bytes()
        assert data.startswith(b"\xff\xd8")
        jpeg = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
        assert jpeg.shape == drawn.shape and np.abs(jpeg.astype(int) - drawn).mean() < 6
    with np.load(found.save(tmp_path / "a.npz")) as arrays:
        assert set(arrays) == {"scores", "heatmap", "heatmap_raw", "c3"}
        assert np.array_equal(arrays["heatmap"], found.heatmap)
    assert json.loads(found.save(tmp_path / "a.json").read_text()) == found.to_dict()
    with pytest.raises(OutputExistsError, match="force=True"):
        found.save(tmp_path / "a.png")
    found.save(tmp_path / "a.png", force=True)
    for name in ("a.gif", "a", "a.onnx"):
        with pytest.raises(OutputError, match=r"\.png, \.jpg, \.jpeg, \.npz, \.json"):
            found.save(tmp_path / name)
    with pytest.raises(OutputError, match="does not exist"):
        found.save(tmp_path / "no" / "a.png")


def test_the_dictionary_is_plain_json(explainer: Explainer, photo: Path) -> None:
    found = explainer(photo, target=3)
    data = found.to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["target"] == {"index": 3, "name": NAMES[3], "probability": found.probability}
    assert data["image"] == str(photo) and (data["height"], data["width"]) == (48, 64)
    assert data["box"] == {"left": 8, "top": 0, "width": 48, "height": 48}
    assert data["sums"]["all"] == pytest.approx(
        data["sums"]["positive"] + data["sums"]["negative"], abs=1e-6
    )
    assert len(data["top5"]) == 5 and data["composite"] == "lrp-resnet" and "c3" in data["post"]


def test_what_is_not_finite_is_none(explainer: Explainer, photo: Path) -> None:
    from dataclasses import replace

    found = replace(explainer(photo), probability=float("nan"), start_value=float("inf"))
    data = found.to_dict()
    assert data["target"]["probability"] is None and data["start"]["value"] is None
    json.dumps(data, allow_nan=False)


def test_the_text_form_is_one_short_line(explainer: Explainer, photo: Path) -> None:
    found = explainer(photo, target="fox")
    assert repr(found) == f"<Explanation of {photo}: fox (5), {found.probability:.1%}>"
    odd = explainer(pixels(), target=4)
    assert (
        repr(odd).startswith(r"<Explanation of <array>: eel\x1b[2J (4), ") and len(repr(odd)) < 80
    )


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.values: dict[str, str] = {}
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.values |= {name: value or "" for name, value in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_in_a_notebook(explainer: Explainer, tmp_path: Path) -> None:
    """One picture inside the text, and names that stay text."""
    path = tmp_path / "<img src=x onerror=alert(1)>'\".png"
    assert cv2.imwrite(str(path), pixels(height=500, width=700)[:, :, ::-1])
    html = explainer(path, target=3)._repr_html_()
    page = Tags()
    page.feed(html)
    assert page.tags == ["figure", "img", "figcaption", "b", "br"]
    assert "<b>dog</b> (3)" in page.text and path.name in page.text
    assert "<b>dog</b>" in page.values["alt"] and path.name in page.values["alt"]
    kind, data = page.values["src"].split(",", 1)
    assert kind == "data:image/jpeg;base64" and "http" not in html
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (360, 504, 3)
    assert "\x1b" not in explainer(path, target=4)._repr_html_()


@pytest.mark.parametrize("documented", [explain, Explainer])
def test_the_examples_run(
    documented: Any, model: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    (folder / "photos").mkdir(parents=True)
    described = compile_model(model, preprocessing=parse_preprocessing("tf"))
    proto = onnx.load(model)
    wanted = {"lrp_onnx.preprocessing"}
    proto.metadata_props.extend(p for p in described.model.metadata_props if p.key in wanted)
    onnx.save(proto, folder / "model.onnx")
    for name in ("photo.jpg", "a.jpg", "b.jpg", "photos/one.png"):
        assert cv2.imwrite(str(folder / name), pixels())
    monkeypatch.chdir(folder)
    example = re.search(r"Example::\n\n(.*?)\n\n    \S", inspect.getsource(documented), re.DOTALL)
    assert example is not None
    names = {name: getattr(lrp_onnx, name) for name in lrp_onnx.__all__}
    exec(textwrap.dedent(example[1]), {"lrp_onnx": lrp_onnx, **names})
    assert list(folder.glob("*.png"))


def test_one_picture_is_no_list(explainer: Explainer, photo: Path) -> None:
    for image in (photo, str(photo), photo.read_bytes()):
        with pytest.raises(TypeError, match=r"write \[image\]"):
            next(explainer.explain_images(image))  # type: ignore[arg-type]


def test_copies(explainer: Explainer, photo: Path) -> None:
    found = explainer(photo)
    again = pickle.loads(pickle.dumps(found))
    assert type(again) is Explanation and again.to_dict() == found.to_dict()
    assert np.array_equal(again.overlay(), found.overlay())


def test_public_names() -> None:
    assert lrp_onnx.Explainer is api.Explainer and lrp_onnx.explain is api.explain
    assert all(getattr(lrp_onnx, name) for name in lrp_onnx.__all__)
