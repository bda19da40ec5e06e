"""`lrp-onnx triton`: what the repository holds, run as its config declares, and what is refused."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from conftest import relative
from networks import picture
from numpy.typing import NDArray
from test_heads import of_one_number
from triton_server import Served, parsed, type_of
from zoo_files import feeds, manifest

import lrp_onnx
from lrp_onnx.cli.commands import main
from lrp_onnx.compiler import compile_model
from lrp_onnx.contract import Contract
from lrp_onnx.deploy.triton import Serving, config, write_repository
from lrp_onnx.errors import ContractError, OutputError, RuleError
from lrp_onnx.files.models import load_proto, metadata_of
from lrp_onnx.runtime.explainer import Explainer
from lrp_onnx.runtime.preprocess import parse_preprocessing

ROOT = Path(lrp_onnx.__file__).parents[1]
MODEL = ROOT / "models" / "shapes-resnet.onnx"
CLASSES = (ROOT / "models" / "shapes-resnet.labels.txt").read_text(encoding="utf-8").split()
NEAR = 1e-5
"""How far apart maps of one picture may be, in parts of their maximum: other batches, other sums
of float32.
"""
reads_configs = pytest.mark.skipif(
    importlib.util.find_spec("tritonclient") is None,
    reason="tritonclient is missing, which defines config.pbtxt: pip install -e '.[servers-tests]'",
)

Save = Callable[[onnx.ModelProto], Path]


def triton(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["triton", *map(str, arguments)])


def made(model: Path, folder: Path, *arguments: Any) -> dict[str, Any]:
    """What the command says of a repository that it wrote."""
    done = triton(model, "-o", folder, "--name", "m", "--json", *arguments)
    assert done.exit_code == 0, done.output
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def refused(*arguments: Any) -> str:
    """The one line with which a command is refused."""
    done = triton(*arguments)
    assert done.exit_code == 1, done.output
    (line,) = done.stderr.splitlines()
    return line


def zoo(name: str) -> onnx.ModelProto:
    return next(file for file in manifest() if file.name == name).model


def with_fixed_batch(size: int) -> onnx.ModelProto:
    """A model whose batch the compiler leaves fixed: it has a Concat."""
    model = zoo("densenet.torchscript")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = size
    return model


def input_batch(model: onnx.ModelProto, name: str, size: int) -> NDArray[Any]:
    """Inputs for a model of `CASES`: pictures as it takes them, or noise."""
    if name == "batches of 3":
        name = "densenet.torchscript"
    file = next((file for file in manifest() if file.name == name), None)
    if file is None:
        return picture(model, batch=size)
    (two,) = feeds(file, model).values()
    return np.resize(two, (size, *two.shape[1:]))


CASES: dict[str, Callable[[], onnx.ModelProto]] = {
    "any batch": lambda: onnx.load(MODEL),
    "batches of 3": lambda: with_fixed_batch(3),
    "one number, (N, 1)": lambda: of_one_number("sigmoid"),
    "one number, (N)": lambda: of_one_number("flat"),
    **{
        name: lambda name=name: zoo(name)  # type: ignore[misc]
        for name in (
            "core.torchscript-uint8-nhwc",  # prepares pictures of bytes itself
            "core-fp16.torchscript",
            "core.torchscript-op9-weights-as-inputs",
            "two-outputs.torchscript",
            "resnet-1d.torchscript",
            "resnet-3d.torchscript",
            "vit.torchscript",
        )
    },
}
"""Models of every form that a config has to declare."""


@reads_configs
@pytest.mark.parametrize("case", CASES)
def test_a_model_is_run_as_its_config_declares(case: str, saved: Save, tmp_path: Path) -> None:
    """Requests of one and of two pictures, each for a class of its own, joined to one batch."""
    model = CASES[case]()
    path = saved(model)
    said = made(path, tmp_path / "repository")
    served = Served(tmp_path / "repository", "m")
    fixed = 3 if case == "batches of 3" else 0
    assert said["max_batch_size"] == served.config.max_batch_size == (0 if fixed else 8)
    expected = Explainer(compile_model(path).model.SerializeToString(), providers="cpu")
    x = input_batch(model, case, 3)
    targets = np.array([1, 0, -1])
    name = expected.contract.input
    shape = (3,) if fixed else (3, 1)
    parts = [slice(0, 3)] if fixed else [slice(0, 1), slice(1, 3)]
    answers = served.infer(
        [{name: x[part], "target": targets.reshape(shape)[part]} for part in parts]
    )
    reference = expected.explain(x, target=targets)
    assert [answer.keys() for answer in answers] == [reference.keys()] * len(parts)
    for output, values in reference.items():
        found = np.concatenate([answer[output] for answer in answers])
        assert found.shape == (values.shape if values.ndim > 1 else (3, 1))
        assert relative(found.reshape(values.shape), values) < NEAR, output
        assert np.abs(values).max() > 0


@reads_configs
def test_the_config_of_a_dynamic_batch(tmp_path: Path) -> None:
    preferred = ("--preferred-batch-size", 4, "--preferred-batch-size", 16)
    made(MODEL, tmp_path, "--max-batch-size", 16, *preferred, "--queue-delay", 500)
    found = Served(tmp_path, "m").config
    assert found.max_batch_size == 16
    assert list(found.dynamic_batching.preferred_batch_size) == [4, 16]
    assert found.dynamic_batching.max_queue_delay_microseconds == 500
    (group,) = found.instance_group
    assert (group.kind, group.count) == (group.KIND_AUTO, 1)
    assert found.parameters["enable_mem_pattern"].string_value == "0"
    assert found.parameters["lrp_onnx.composite"].string_value == "residual-c3"
    said = json.loads(found.parameters["lrp_onnx.preprocessing"].string_value)
    assert said["mean"] == [0.485, 0.456, 0.406]


@reads_configs
def test_pictures_of_bytes_are_declared_as_bytes(saved: Save, tmp_path: Path) -> None:
    made(saved(zoo("core.torchscript-uint8-nhwc")), tmp_path)
    pictures, target = Served(tmp_path, "m").config.input
    assert (
        pictures.data_type == parsed('input { data_type: TYPE_UINT8 name: "x" }').input[0].data_type
    )
    assert list(pictures.dims) == [32, 32, 3]
    assert list(target.dims) == [1] and target.HasField("reshape")
    assert not list(target.reshape.shape)


@reads_configs
def test_a_fixed_batch_is_declared_whole(saved: Save, tmp_path: Path) -> None:
    said = made(saved(with_fixed_batch(3)), tmp_path)
    found = Served(tmp_path, "m").config
    assert found.max_batch_size == 0 and not found.HasField("dynamic_batching")
    assert [list(one.dims) for one in found.input] == [[3, 3, 32, 32], [3]]
    assert not any(one.HasField("reshape") for one in (*found.input, *found.output))
    assert "enable_mem_pattern" not in found.parameters
    assert any("has 3 in place of any number of pictures" in note for note in said["notes"])
    message = refused(saved(with_fixed_batch(3)), "-o", tmp_path / "n", "--max-batch-size", 4)
    assert "leave --max-batch-size out" in message
    assert not (tmp_path / "n").exists()


@reads_configs
def test_a_static_file_takes_one_picture(tmp_path: Path) -> None:
    made(MODEL, tmp_path, "--static")
    served = Served(tmp_path, "m")
    assert [list(one.dims) for one in served.config.input] == [[1, 3, 96, 96], [1]]
    assert served.labels == {"logits": CLASSES}
    x = picture(onnx.load(MODEL), batch=1)
    (found,) = served.infer([{"input": x, "target": np.array([5])}])
    expected = Explainer(compile_model(MODEL).model.SerializeToString()).explain(x, target=5)
    assert relative(found["heatmap"], expected["heatmap"]) < NEAR


@reads_configs
@pytest.mark.parametrize("size", [0, 1])
def test_without_batching_by_the_server(size: int, tmp_path: Path) -> None:
    made(MODEL, tmp_path, "--max-batch-size", size)
    served = Served(tmp_path, "m")
    assert not served.config.HasField("dynamic_batching")
    assert served.config.max_batch_size == size
    assert list(served.config.input[0].dims) == ([3, 96, 96] if size else [-1, 3, 96, 96])
    pattern = served.config.parameters
    assert ("enable_mem_pattern" in pattern) is (size == 0)
    x = picture(onnx.load(MODEL), batch=1)
    target = np.full((1, 1) if size else (1,), 3)
    (found,) = served.infer([{"input": x, "target": target}])
    expected = Explainer(compile_model(MODEL).model.SerializeToString()).explain(x, target=3)
    assert relative(found["heatmap"], expected["heatmap"]) < NEAR


@reads_configs
@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("", None),
        ("core.tf2onnx-nhwc", "imagenet"),
        ("core.torchscript-op13-bn", "imagenet:channels=BGR,divisor=1,mean=100/110/120,std=50"),
        ("core-fp16.torchscript", "imagenet"),
        ("batches of 3", "imagenet"),
    ],
)
def test_pixels_are_prepared_in_the_file(
    name: str, spec: str | None, saved: Save, tmp_path: Path
) -> None:
    model = CASES[name]() if name in CASES else zoo(name) if name else onnx.load(MODEL)
    path = saved(model)
    given = ("--preprocess", spec) if spec else ()
    made(path, tmp_path / "r", "--pixels", *given)
    served = Served(tmp_path / "r", "m")
    pictures, _ = served.config.input
    assert (pictures.name, type_of(pictures)[1]) == ("pixels", np.uint8)
    choices = {"preprocessing": parse_preprocessing(spec)} if spec else {}
    reference = Explainer(compile_model(path, **choices).model.SerializeToString())
    _, shape = reference.session.input_of(reference.contract.input)
    pixels = np.random.default_rng(5).integers(0, 256, (3, *shape[1:])).astype(np.uint8)
    how = reference.preprocessing
    axes = [-1 if letter == "C" else 1 for letter in reference.contract.layout]
    mean, std = (np.reshape(numbers, axes) for numbers in (how.mean, how.std))
    x = ((pixels / how.divisor - mean) / std).astype(np.float32)
    targets = np.array([1, 0, -1])
    sent = targets if name == "batches of 3" else targets[:, None]
    (found,) = served.infer([{"pixels": pixels, "target": sent}])
    expected = reference.explain(x, target=targets)
    # Rounded to float16, a number on the edge between two may become the other.
    near = np.finfo(np.float16).eps if "fp16" in name else NEAR
    for output, values in expected.items():
        assert relative(found[output], values) < near, output
    said = json.loads(served.config.parameters["lrp_onnx.preprocessing"].string_value)
    assert set(said["mean"]) == {0.0} and set(said["std"]) == {1.0} and said["divisor"] == 1
    assert said["channels"] == how.channels


def test_a_file_of_pixels_explains_photos(tmp_path: Path) -> None:
    """It is a compiled file as any other: it says how it takes pictures, and passes the audit."""
    made(MODEL, tmp_path, "--pixels")
    written = tmp_path / "m" / "1" / "model.onnx"
    photo = ROOT / "models" / "samples" / "star.png"
    found, expected = (lrp_onnx.explain(one, photo) for one in (written, MODEL))
    assert found.target_name == expected.target_name == "star"
    assert np.corrcoef(found.heatmap.ravel(), expected.heatmap.ravel())[0, 1] > 0.999
    audited = CliRunner().invoke(main, ["verify", str(written)])
    assert audited.exit_code == 0, audited.output
    assert "input" not in {value.name for value in onnx.load(written).graph.input}


def test_pixels_are_for_pictures_that_are_prepared(saved: Save, tmp_path: Path) -> None:
    for name in ("core.torchscript-uint8-nhwc", "resnet-1d.torchscript"):
        message = refused(saved(zoo(name)), "-o", tmp_path / "r", "--pixels")
        assert "--pixels is for pictures that must be divided" in message
    compiled = compile_model(MODEL).save(tmp_path / "c.onnx")
    message = refused(compiled, "-o", tmp_path / "r", "--preprocess", "imagenet")
    assert "settles --preprocess" in message
    assert not (tmp_path / "r").exists()


@reads_configs
def test_the_predicted_class_alone(tmp_path: Path) -> None:
    made(MODEL, tmp_path, "--no-target")
    served = Served(tmp_path, "m")
    assert [one.name for one in served.config.input] == ["input"]
    x = picture(onnx.load(MODEL), batch=2)
    one, other = served.infer([{"input": x[:1]}, {"input": x[1:]}])
    expected = Explainer(compile_model(MODEL).model.SerializeToString()).explain(x)
    found = np.concatenate([one["heatmap"], other["heatmap"]])
    assert relative(found, expected["heatmap"]) < NEAR


@reads_configs
@pytest.mark.parametrize("inputs", ["optional", "target", "target,start", "none"])
@pytest.mark.parametrize("many", [False, True])
def test_a_compiled_file_is_taken_as_it_is(inputs: str, many: bool, tmp_path: Path) -> None:
    """Its values stay bit for bit; what may be left out must be given, or is a constant."""
    if many and inputs == "none":
        return
    compiled = compile_model(MODEL, inputs=inputs, many_targets=many)
    path = compiled.save(tmp_path / "model.lrp.onnx")
    made(path, tmp_path / "r")
    served = Served(tmp_path / "r", "m")
    assert served.config.max_batch_size == (0 if many else 8)
    given = {
        "optional": ["input", "target"],
        "target": ["input", "target"],
        "target,start": ["input", "target", "start"],
        "none": ["input"],
    }[inputs]
    assert [one.name for one in served.config.input] == given
    x = picture(onnx.load(MODEL), batch=1)
    targets = np.array([4, -1]) if many else np.array([-1 if inputs == "none" else 4])
    sent = {"input": x, "target": targets if many else targets[:, None]}
    sent["start"] = np.zeros((len(targets), 10), np.float32)
    (found,) = served.infer([{name: sent[name] for name in given}])
    expected = Explainer(path, providers="cpu").explain(x, target=targets)
    np.testing.assert_array_equal(found["heatmap"], expected["heatmap"])
    said = Contract.from_metadata(metadata_of(tmp_path / "r" / "m" / "1" / "model.onnx"))
    assert said.inputs == ("target" if inputs == "optional" else inputs)


def test_an_optional_target_becomes_a_constant(tmp_path: Path) -> None:
    path = compile_model(MODEL).save(tmp_path / "model.lrp.onnx")
    made(path, tmp_path / "r", "--no-target")
    written = tmp_path / "r" / "m" / "1" / "model.onnx"
    assert [value.name for value in onnx.load(written).graph.input] == ["input"]
    x = picture(onnx.load(MODEL), batch=2)
    found, expected = (Explainer(one, providers="cpu").explain(x) for one in (written, path))
    np.testing.assert_array_equal(found["heatmap"], expected["heatmap"])
    assert Explainer(written).contract.inputs == "none"


@reads_configs
def test_weights_in_other_files_go_into_a_folder(tmp_path: Path) -> None:
    model = compile_model(MODEL).model
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=2048)
    said = made(path, tmp_path / "r")
    folder = "m/1/model.onnx"
    assert {f"{folder}/model.onnx", f"{folder}/weights.bin"} < set(said["files"])
    weights = (tmp_path / "a" / "weights.bin").read_bytes()
    assert (tmp_path / "r" / folder / "weights.bin").read_bytes() == weights
    assert said["files"][f"{folder}/model.onnx"] < len(weights)
    x = picture(onnx.load(MODEL), batch=1)
    (found,) = Served(tmp_path / "r", "m").infer([{"input": x, "target": np.array([[2]])}])
    expected = Explainer(path, providers="cpu").explain(x, target=2)
    np.testing.assert_array_equal(found["heatmap"], expected["heatmap"])
    (tmp_path / "a" / "weights.bin").unlink()
    assert "weights.bin" in refused(path, "-o", tmp_path / "other")


@reads_configs
def test_class_names_are_the_servers(saved: Save, tmp_path: Path) -> None:
    made(MODEL, tmp_path / "a")
    assert Served(tmp_path / "a", "m").labels == {"logits": CLASSES}
    made(saved(of_one_number("flat")), tmp_path / "b", "--classes", "cat,dog")
    assert not Served(tmp_path / "b", "m").labels  # one number has no value for every class
    path = compile_model(MODEL).save(tmp_path / "c.onnx")
    names = [f"class {k}" for k in range(10)]
    made(path, tmp_path / "c", "--classes", ",".join(names))
    assert Served(tmp_path / "c", "m").labels == {"logits": names}
    message = refused(path, "-o", tmp_path / "d", "--classes", "cat,dog")
    assert "there are 2 class names and the model has 10 classes" in message


@reads_configs
def test_texts_are_quoted() -> None:
    """Whatever stands in a name of a tensor or a class, Triton reads it as it is."""
    contract = Contract.from_metadata(
        {e.key: e.value for e in compile_model(MODEL).model.metadata_props}
    )
    odd = 'a "quoted\\" name,\nµ {'
    found = parsed(config(odd, 0, Serving(), [], [], [], contract))
    assert found.name == odd


@pytest.mark.parametrize(
    ("kind", "form", "name"),
    [("auto", "cuda", "KIND_AUTO"), ("gpu", "cuda", "KIND_GPU"), ("cpu", "cpu", "KIND_CPU")],
)
def test_the_file_is_for_the_servers_processor(
    kind: str, form: str, name: str, tmp_path: Path
) -> None:
    made(MODEL, tmp_path, "--kind", kind, "--instances", 2)
    text = (tmp_path / "m" / "config.pbtxt").read_text(encoding="utf-8")
    assert f"instance_group {{ kind: {name} count: 2 }}" in text
    written = Contract.from_metadata(metadata_of(tmp_path / "m" / "1" / "model.onnx"))
    assert (written.optimized_for, written.inputs) == (form, "target")
    expected = compile_model(MODEL, optimize_for=form, inputs="target")
    written_bytes = (tmp_path / "m" / "1" / "model.onnx").read_bytes()
    assert written_bytes == expected.model.SerializeToString()


def test_a_repository_holds_several_models(tmp_path: Path) -> None:
    done = triton(MODEL, "-o", tmp_path)
    assert done.exit_code == 0 and "shapes-resnet: 2" in done.stdout
    assert triton(MODEL, "-o", tmp_path, "--name", "other").exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "shapes-resnet"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    made(MODEL, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert "exists" in refused(MODEL, "-o", tmp_path, "--name", "m")
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    made(MODEL, tmp_path, "--no-target", "--force")
    assert "target" not in (tmp_path / "m" / "config.pbtxt").read_text(encoding="utf-8")


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    none = compile_model(MODEL, inputs="none").save(tmp_path / "none.onnx")
    needed = compile_model(MODEL, inputs="target").save(tmp_path / "needed.onnx")
    assert "leave --target out" in refused(none, "-o", tmp_path / "r", "--target")
    assert "leave --no-target out" in refused(needed, "-o", tmp_path / "r", "--no-target")
    message = refused(none, "-o", tmp_path / "r", "--composite", "c3-lrp", "--post", "none")
    assert "settles --composite, --post" in message or "settles --post, --composite" in message
    assert "cannot be a model's name" in refused(MODEL, "-o", tmp_path / "r", "--name", "a/b")
    message = refused(MODEL, "-o", tmp_path / "r", "--preferred-batch-size", 9)
    assert "9 is not within 1 to the largest batch, 8" in message
    assert not (tmp_path / "r").exists()


def test_a_name_is_made_of_the_files(tmp_path: Path) -> None:
    path = tmp_path / ".été 1.lrp.onnx"
    path.write_bytes(MODEL.read_bytes())
    assert triton(path, "-o", tmp_path / "r").exit_code == 0
    assert [one.name for one in (tmp_path / "r").iterdir()] == ["__t__1"]


def test_a_folder_is_not_written_over_a_file(tmp_path: Path) -> None:
    model = load_proto(compile_model(MODEL).save(tmp_path / "model.lrp.onnx"))
    write_repository(model, tmp_path / "r", name="m")
    with pytest.raises(OutputError, match="is a file, and this model needs a folder"):
        write_repository(
            model,
            tmp_path / "r",
            name="m",
            weights={"w.bin": tmp_path / "model.lrp.onnx"},
            force=True,
        )


def test_how_to_serve_is_checked() -> None:
    with pytest.raises(RuleError, match="there is no kind 'tpu'; there are auto, cpu, gpu"):
        Serving(kind="tpu")
    with pytest.raises(RuleError, match="at least 0, 0 and 1"):
        Serving(instances=0)


def test_a_file_that_is_not_compiled_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="not a compiled file"):
        write_repository(onnx.load(MODEL), tmp_path / "r", name="m")
