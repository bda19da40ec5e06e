"""What metadata and files beside a model say: every layout that people have; order; bad files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from lrp_onnx.compiler import Options, compile_model
from lrp_onnx.contract import Preprocessing, describe
from lrp_onnx.errors import ContractError
from lrp_onnx.files.description import describe_model

MODEL = Path(__file__).parents[2] / "models" / "shapes-resnet.onnx"
VIT = {
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.25, 0.5, 0.5],
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "rescale_factor": 0.00392156862745098,
    "resample": 2,
    "size": {"height": 96, "width": 96},
}
CONVNEXT = {
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "crop_pct": 0.875,
    "resample": 3,
    "size": {"shortest_edge": 224},
}
RESNET = {
    "do_center_crop": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "size": {"shortest_edge": 256},
    "crop_size": {"height": 224, "width": 224},
}
OLD = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": 224, "resample": 0}
RAW = {"do_rescale": False, "do_normalize": False, "size": {"height": 32, "width": 32}}


def beside(folder: Path, **files: Any) -> Path:
    """A model's path in a folder with these files: JSON, or text as it is."""
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text, encoding="utf-8")
    return folder / "model.onnx"


@pytest.mark.parametrize(
    ("values", "expected", "size"),
    [
        (
            VIT,
            Preprocessing(
                mean=(0.5,) * 3, std=(0.25, 0.5, 0.5), resize="stretch", interpolation="area"
            ),
            (96, 96),
        ),
        (CONVNEXT, Preprocessing(crop_fraction=0.875, interpolation="area"), (224, 224)),
        (RESNET, Preprocessing(crop_fraction=0.875, interpolation="area"), (224, 224)),
        (
            OLD,
            Preprocessing(
                mean=(0.5,) * 3, std=(0.5,) * 3, resize="stretch", interpolation="nearest"
            ),
            (224, 224),
        ),
        (
            RAW,
            Preprocessing(
                mean=(0.0,), std=(1.0,), divisor=1.0, resize="stretch", interpolation="area"
            ),
            (32, 32),
        ),
    ],
    ids=["vit", "convnext", "resnet", "old", "raw"],
)
def test_hugging_face(
    tmp_path: Path,
    values: dict[str, Any],
    expected: Preprocessing,
    size: tuple[int, int] | None,
) -> None:
    path = beside(tmp_path, **{"preprocessor_config.json": values})
    found = describe_model({}, path)
    assert found.preprocessing == expected and found.input_size == size
    assert found.sources == {"preprocessing": f"preprocessor_config.json in {tmp_path}"}


def test_class_names_of_hugging_face(tmp_path: Path) -> None:
    names = {"1": "dog", "0": "cat", "2": "a, b"}
    path = beside(tmp_path, **{"config.json": {"id2label": names}})
    found = describe_model({}, path, classes=3)
    assert found.labels == ("cat", "dog", "a, b") and "config.json" in found.labels_from
    (tmp_path / "config.json").write_text('{"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}')
    assert describe_model({}, path).labels == ()


def test_the_folder_onnx_has_its_description_above(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    beside(tmp_path, **{"preprocessor_config.json": VIT, "config.json": {"id2label": {"0": "x"}}})
    found = describe_model({}, tmp_path / "onnx" / "model.onnx")
    assert found.preprocessing is not None and found.labels == ("x",)


def test_timm(tmp_path: Path) -> None:
    config = {
        "label_names": ["a", "b"],
        "pretrained_cfg": {
            "mean": [0.5, 0.4, 0.3],
            "std": [0.1, 0.2, 0.3],
            "input_size": [3, 160, 192],
            "crop_pct": 0.95,
            "interpolation": "bicubic",
            "crop_mode": "center",
        },
    }
    found = describe_model({}, beside(tmp_path, **{"config.json": config}))
    assert found.preprocessing == Preprocessing(
        mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3), crop_fraction=0.95, interpolation="area"
    )
    assert found.input_size == (160, 192) and found.labels == ("a", "b")


def test_ultralytics() -> None:
    metadata = {"task": "classify", "names": "{0: 'cat', 1: \"dog's\"}", "imgsz": "[64, 96]"}
    found = describe_model(metadata, None)
    assert found.labels == ("cat", "dog's") and found.input_size == (64, 96)
    assert found.preprocessing == Preprocessing(mean=(0.0,), std=(1.0,), interpolation="area")
    detector = describe_model({**metadata, "task": "detect"}, None)
    assert detector.preprocessing is None and detector.labels


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        ("NominalRange_0_255", (0.0, 1.0, 1.0)),
        ("Normalized_0_1", (0.0, 1.0, 255.0)),
        ("Normalized_1_1", (1.0, 1.0, 127.5)),
    ],
)
def test_onnx_s_own_keys(pixels: str, expected: tuple[float, float, float]) -> None:
    keys = {"Image.BitmapPixelFormat": "Bgr8", "Image.NominalPixelRange": pixels}
    spec = describe_model(keys, None).preprocessing
    assert spec is not None and spec.channels == "BGR"
    assert (*spec.mean, *spec.std, spec.divisor) == expected
    assert describe_model({"Image.BitmapPixelFormat": "Bgr8"}, None).preprocessing is None


def test_text_files_of_names(tmp_path: Path) -> None:
    path = beside(tmp_path, **{"labels.txt": "cat\n\n dog \n", "model.labels.txt": "A\nB\n"})
    assert describe_model({}, path).labels == ("A", "B")
    assert describe_model({}, path.with_name("model.lrp.onnx")).labels == ("A", "B")
    assert describe_model({}, path.with_name("other.onnx")).labels == ("cat", "dog")
    (tmp_path / "labels.txt").write_text("n01440764 tench, Tinca\nn01443537 goldfish\n")
    assert describe_model({}, tmp_path / "x.onnx").labels == ("tench, Tinca", "goldfish")


def test_long_names_of_models_are_no_remark(tmp_path: Path) -> None:
    path = beside(tmp_path, **{"labels.txt": "cat\ndog\n"}).with_name(f"{'m' * 250}.onnx")
    found = describe_model({}, path)
    assert found.labels == ("cat", "dog") and found.remarks == ()


def test_a_list_of_another_length_is_a_remark(tmp_path: Path) -> None:
    path = beside(tmp_path, **{"model.labels.txt": "a\nb\nc\n", "classes.txt": "x\ny\n"})
    found = describe_model({}, path, classes=2)
    assert found.labels == ("x", "y")
    (remark,) = found.remarks
    assert "3 class names" in remark and "2 classes" in remark


@pytest.mark.parametrize("key", ["id2label", "label_names"])
def test_names_by_other_keys_than_indices_are_a_remark(tmp_path: Path, key: str) -> None:
    found = describe_model({}, beside(tmp_path, **{"config.json": {key: {"a": "b"}}}))
    where = f"{key} of {tmp_path / 'config.json'}"
    said = f"{where} does not name the classes from 0 to 0 one by one: not used"
    assert found.labels == () and found.remarks == (said,)


def test_our_own_metadata_comes_first(tmp_path: Path) -> None:
    path = beside(tmp_path, **{"preprocessor_config.json": VIT, "labels.txt": "a\nb\n"})
    mine = Preprocessing(mean=(0.1,), std=(0.2,))
    found = describe_model(describe(mine, ("x", "y")), path)
    assert (found.preprocessing, found.labels, found.remarks) == (mine, ("x", "y"), ())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("preprocessor_config.json", "{"),
        ("preprocessor_config.json", "[" * 100_000),
        ("preprocessor_config.json", '{"image_mean": "x", "image_std": [1]}'),
        ("preprocessor_config.json", '{"image_mean": [0.5], "image_std": null}'),
        ("preprocessor_config.json", '{"rescale_factor": 0, "image_mean": [0], "image_std": [1]}'),
        ("config.json", '{"pretrained_cfg": {"mean": 3}}'),
        ("config.json", '{"pretrained_cfg": {"mean": [1], "std": [1], "input_size": 5}}'),
        ("preprocessor_config.json", '{"image_mean": [0], "image_std": [0]}'),
        ("preprocessor_config.json", '{"image_mean": [0, 0], "image_std": [1, 1]}'),
        ("preprocessor_config.json", '{"image_mean": [NaN], "image_std": [1]}'),
        ("config.json", '{"pretrained_cfg": {"mean": [0], "std": [1], "crop_pct": 2}}'),
        ("labels.txt", "\udcff"),
    ],
)
def test_damaged_files_are_remarks(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    found = describe_model({}, tmp_path / "model.onnx")
    assert found.preprocessing is None and found.labels == ()
    assert len(found.remarks) == 1 and name in found.remarks[0]


@pytest.mark.parametrize(
    "names", ["[" * 5000, "{1e999: 'a'}", "__import__('os')", "{0: 'a', 2: 'b'}", "3", ""]
)
def test_names_that_are_no_list_are_none(names: str) -> None:
    assert describe_model({"names": names}, None).labels == ()


@pytest.mark.parametrize("text", ["5", "null", '"abc"', '{"0": "cat"}', "[1", "[" * 100_000])
def test_our_own_names_are_a_list(text: str) -> None:
    with pytest.raises(ContractError, match="labels is damaged"):
        describe_model({"lrp_onnx.labels": text}, None)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"divisor": "x"}', f'{{"mean": [1{"0" * 400}]}}'])
def test_our_own_preprocessing_may_be_hostile(text: str) -> None:
    with pytest.raises(ContractError, match="cannot be read"):
        describe_model({"lrp_onnx.preprocessing": text}, None)


def without_metadata(path: Path, **inputs: str) -> Path:
    """The embedded model with nothing said of it, in `path`; axes of its input may be opened."""
    model = onnx.load(MODEL)
    del model.metadata_props[:]
    for axis, name in inputs.items():
        model.graph.input[0].type.tensor_type.shape.dim[int(axis[1:])].dim_param = name
    onnx.save(model, path)
    return path


def test_the_compiled_file_says_what_was_found_and_where(tmp_path: Path) -> None:
    path = without_metadata(beside(tmp_path, **{"preprocessor_config.json": VIT}))
    (tmp_path / "labels.txt").write_text("\n".join("abcdefghij"))
    contract = compile_model(path).contract
    assert contract.preprocessing is not None
    assert contract.preprocessing.std == (0.25, 0.5, 0.5)
    assert contract.preprocessing.layout == "NCHW" and contract.labels == tuple("abcdefghij")
    assert contract.sources == {
        "preprocessing": f"preprocessor_config.json in {tmp_path}",
        "labels": str(tmp_path / "labels.txt"),
    }
    given = Options(preprocessing=Preprocessing(), labels=tuple("ABCDEFGHIJ"))
    options = compile_model(path, given).contract
    assert options.sources == {"preprocessing": "the options", "labels": "the options"}
    assert options.labels[0] == "A" and options.preprocessing == Preprocessing(layout="NCHW")


def test_an_open_size_is_what_the_files_say(tmp_path: Path) -> None:
    path = beside(tmp_path, **{"preprocessor_config.json": VIT})
    without_metadata(path, d2="height", d3="width")
    compiled = compile_model(path).model
    sizes = [size.dim_value for size in compiled.graph.input[0].type.tensor_type.shape.dim]
    assert sizes[1:] == [3, 96, 96]


def test_an_open_number_of_channels_is_that_of_the_weights(tmp_path: Path) -> None:
    """As Hugging Face's exporter writes it."""
    path = beside(tmp_path, **{"preprocessor_config.json": VIT})
    without_metadata(path, d1="num_channels", d2="height", d3="width")
    compiled = compile_model(path).model
    sizes = [size.dim_value for size in compiled.graph.input[0].type.tensor_type.shape.dim]
    assert sizes[1:] == [3, 96, 96]
