"""Methods that only run a model: the same maps as through the compiler, and models it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from networks import with_rounding

from lrp_onnx.cli.commands import main
from lrp_onnx.errors import ModelFileError, UnsupportedModelError
from lrp_onnx.evaluation.black_box import BLACK_BOX_METHODS, BlackBox, is_black_box, subject_for
from lrp_onnx.evaluation.methods import find_method
from lrp_onnx.evaluation.subject import Subject
from lrp_onnx.runtime.images import read_image

ROOT = Path(__file__).parents[2]
MODEL, SAMPLES = ROOT / "models" / "shapes-resnet.onnx", ROOT / "models" / "samples"


def test_which_methods_only_run_a_model() -> None:
    assert set(BLACK_BOX_METHODS) == {"rise", "occlusion"}
    assert is_black_box("rise(masks=5)+c3") and is_black_box("constant")
    assert not is_black_box("grad-cam") and not is_black_box("residual-c3")
    assert type(subject_for(MODEL, ["rise", "random"])) is BlackBox
    assert type(subject_for(MODEL, ["rise", "grad-cam"])) is Subject


@pytest.mark.parametrize("method", ["rise(masks=40)", "occlusion(stride=0.2)"])
def test_maps_are_those_of_the_compiled_model(method: str) -> None:
    picture = read_image(SAMPLES / "star.png")
    maps = []
    for subject in (Subject(MODEL), BlackBox(MODEL)):
        x = subject.prepare(picture).tensor[None]
        maps.append(find_method(method, subject).maps(x, np.array([4])))
        assert subject.classes.count == 10 and subject.classes.names[0]
    np.testing.assert_allclose(maps[1], maps[0], atol=1e-5 * np.abs(maps[0]).max())


def test_probabilities_of_logits_and_of_a_softmax(tmp_path: Path) -> None:
    model = onnx.load(MODEL)
    output = model.graph.output[0].name
    model.graph.node.append(onnx.helper.make_node("Softmax", [output], ["p"], axis=1))
    del model.graph.output[:]
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("p", onnx.TensorProto.FLOAT, ["N", 10])
    )
    onnx.save(model, tmp_path / "softmax.onnx")
    x = np.random.default_rng(0).normal(size=(3, 3, 96, 96)).astype(np.float32)
    found = [BlackBox(path).probabilities(x) for path in (MODEL, tmp_path / "softmax.onnx")]
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    np.testing.assert_allclose(found[0].sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("method", ["occlusion", "grad-cam"])
def test_memory_is_bounded(method: str, tmp_path: Path) -> None:
    out = ["-o", str(tmp_path / "out"), "--provider", "cpu", "--max-memory", "0.000001"]
    arguments = ["explain", str(MODEL), str(SAMPLES / "star.png"), "--method", method, *out]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1 and "0.0 MB are allowed" in done.stderr


def test_memory_of_all_pictures_of_a_run_is_bounded() -> None:
    """One picture takes less than is allowed, and the pictures of a run more."""
    subject = BlackBox(MODEL, provider="cpu", choices={"max_memory": 1e7})
    assert subject.forward
    with pytest.raises(ModelFileError, match="for 32 pictures"):
        subject.probabilities(np.zeros((1, 3, 96, 96), np.float32))


def test_a_fixed_batch_is_filled(tmp_path: Path) -> None:
    model = onnx.load(MODEL)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, tmp_path / "two.onnx")
    x = np.random.default_rng(0).normal(size=(5, 3, 96, 96)).astype(np.float32)
    found = [BlackBox(path).probabilities(x) for path in (MODEL, tmp_path / "two.onnx")]
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_a_refused_model_is_compared_and_evaluated(tmp_path: Path) -> None:
    refused_model = tmp_path / "model.onnx"
    onnx.save(with_rounding(), refused_model)
    photo = str(SAMPLES / "star.png")
    arguments = ["compare", str(refused_model), photo, "-o", str(tmp_path / "grid.png")]
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 1 and "--method occlusion" in refused.stderr
    methods = ["--method", "occlusion", "--method", "rise(masks=20)"]
    compared = CliRunner().invoke(main, [*arguments, *methods])
    assert compared.exit_code == 0, compared.output
    assert cv2.imread(str(tmp_path / "grid.png")) is not None
    judged = CliRunner().invoke(
        main,
        [
            "evaluate",
            str(refused_model),
            photo,
            *methods,
            "--metrics",
            "exact",
            "--steps",
            "2",
            "--json",
        ],
    )
    assert judged.exit_code == 0, judged.output
    assert {"occlusion", "rise(masks=20)", "constant"} <= set(json.loads(judged.stdout))


def test_models_that_no_method_explains(tmp_path: Path) -> None:
    text = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,3] x) => (float[N,3] y)'
        " { y = Relu(x) }"
    )
    onnx.save(text, tmp_path / "flat.onnx")
    with pytest.raises(UnsupportedModelError, match="one picture"):
        _ = BlackBox(tmp_path / "flat.onnx").size
