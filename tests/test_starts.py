"""Starts in the shape of what is explained: for every output, with masks and with references."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from conftest import run_onnx
from networks import Network, picture
from onnx import TensorProto, helper

import lrp_onnx
from lrp_onnx.cli.commands import main
from lrp_onnx.cli.verify import run_once
from lrp_onnx.compiled.verify import audit, random_picture
from lrp_onnx.compiler import compile_model
from lrp_onnx.errors import ContractError, ImageError
from lrp_onnx.runtime.explainer import Explainer
from lrp_onnx.runtime.starts import Mask

Save = Callable[[onnx.ModelProto], Path]
SIZE = 12


@dataclass(frozen=True)
class Output:
    """An output of a small network."""

    shape: tuple[int, ...]
    """Without its batch."""
    start: tuple[int, ...]
    explain: str = ""
    """Indices behind its name."""
    tail: str = ""
    """What follows the values that relevance starts from."""


OUTPUTS = {
    "classes": Output((5,), (5,)),
    "1x1": Output((5, 1, 1), (5, 1, 1)),
    "map": Output((4, 6, 6), (4, 6, 6)),
    "softmax map": Output((4, 6, 6), (4, 6, 6), tail="Softmax"),
    "one channel": Output((1, 6, 6), (1, 6, 6)),
    "table": Output((4, 36), (4, 36)),
    "sigmoid table": Output((4, 36), (4, 36), tail="Sigmoid"),
    "box": Output((4, 36), (4,), "[:, :, 7]"),
    "boxes": Output((4, 36), (3,), "[:, 1:, mean 7:20]", tail="Sigmoid"),
    "best box": Output((36, 4), (4,), "[:, max, :]"),
    "pixels": Output((4, 6, 6), (4,), "[:, :, 2, 3:5]"),
}


def network(output: Output, batch: int | str = "N") -> onnx.ModelProto:
    net = Network(0)
    y = net.activate("Relu", net.conv("x", (3, 8), pads=[1] * 4, strides=[2, 2]))
    channels = output.shape[1] if output.shape[0] == 36 else output.shape[0]
    y = net.conv(y, (8, channels), (1, 1))
    if len(output.shape) == 1 or output.shape[1:] == (1, 1):
        y = net.node("GlobalAveragePool", y)
    if len(output.shape) < 3:
        sizes = [0, channels, 36] if len(output.shape) == 2 else [0, channels]
        y = net.node("Reshape", y, net.constant("sizes", np.array(sizes)))
    if output.shape[0] == 36:
        y = net.node("Transpose", y, perm=[0, 2, 1])
    if output.tail:
        y = net.node(output.tail, y, **({"axis": 1} if output.tail == "Softmax" else {}))
    model = net.model(y, [batch, 3, SIZE, SIZE], classes=4)
    value = helper.make_tensor_value_info(y, TensorProto.FLOAT, [batch, *output.shape])
    model.graph.output[0].CopyFrom(value)
    return model


def before_tail(model: onnx.ModelProto, output: Output) -> onnx.ModelProto:
    """The model with the values that relevance starts from as its output."""
    if not output.tail:
        return model
    model = onnx.ModelProto.FromString(model.SerializeToString())
    last = model.graph.node[-1]
    model.graph.output[0].name = last.input[0]
    model.graph.node.remove(last)
    return model


@pytest.mark.parametrize("inputs", ["optional", "target,start"])
@pytest.mark.parametrize("name", OUTPUTS)
def test_a_start_has_the_shape_of_what_is_explained(saved: Save, name: str, inputs: str) -> None:
    """The gradient of the output's product with the start, by differences."""
    output = OUTPUTS[name]
    model = network(output)
    path = saved(model)
    compiled = compile_model(
        path,
        explain=f"{model.graph.output[0].name}{output.explain}",
        composite="gradient",
        outputs=("relevance",),
        inputs=inputs,
        runner=run_once,
    )
    contract = compiled.contract
    assert contract.start_shape == output.start
    rng = np.random.default_rng(1)
    x = picture(compiled.model, 2).astype(np.float64)
    start, way, step = rng.normal(size=(2, *output.start)), rng.normal(size=x.shape), 1e-3
    feeds = {"x": x.astype(np.float32), "start": start.astype(np.float32)}
    given = run_onnx(compiled.model, feeds)["relevance"]
    plain = before_tail(model, output)

    def value(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        (values,) = run_onnx(plain, {"x": x.astype(np.float32)}).values()
        part = values.astype(np.float64)
        if output.explain == "[:, :, 7]":
            part = part[:, :, 7]
        elif output.explain.startswith("[:, 1:"):
            part = part[:, 1:, 7:20].mean(2)
        elif output.explain == "[:, max, :]":
            part = part.max(1)
        elif output.explain:
            part = part[:, :, 2, 3:5].mean(2)
        return np.asarray((part * start).reshape(2, -1).sum(1))

    slopes = (value(x + step * way) - value(x - step * way)) / (2 * step)
    found = (given * way).reshape(2, -1).sum(1)
    np.testing.assert_allclose(found, slopes, rtol=2e-2, atol=2e-2 * np.abs(slopes).max())
    zeros = run_onnx(compiled.model, feeds | {"start": np.zeros_like(feeds["start"])})
    target = run_onnx(compiled.model, {"x": feeds["x"]})
    np.testing.assert_array_equal(zeros["relevance"], target["relevance"])
    mixed = run_onnx(
        compiled.model,
        feeds
        | {
            "start": feeds["start"]
            * np.array([1, 0]).reshape(2, *[1] * len(output.start)).astype(np.float32)
        },
    )["relevance"]
    np.testing.assert_allclose(mixed[0], given[0], atol=1e-6)
    np.testing.assert_allclose(mixed[1], target["relevance"][1], atol=1e-6)


@pytest.mark.parametrize("name", OUTPUTS)
def test_every_output_passes_the_audit(saved: Save, name: str) -> None:
    model = network(OUTPUTS[name], batch=1 if name == "table" else "N")
    explain = f"{model.graph.output[0].name}{OUTPUTS[name].explain}"
    compiled = compile_model(saved(model), explain=explain, composite="residual-c3")
    pictures = random_picture(compiled.model, "x", batch=2)
    found = audit(compiled.model, compiled.contract, run_once, pictures=pictures, original=model)
    assert found.passed, found.checks
    again = compile_model(saved(compiled.model), composite="residual-c3").contract
    assert (again.start_shape, again.selection) == (
        compiled.contract.start_shape,
        compiled.contract.selection,
    )
    # A default of one element keeps the file small.
    defaults = {t.name: list(t.dims) for t in compiled.model.graph.initializer}
    assert int(np.prod(defaults["start"])) <= 5


def test_a_wrong_shape_is_one_line(saved: Save) -> None:
    model = network(OUTPUTS["map"])
    compiled = compile_model(saved(model), explain=model.graph.output[0].name)
    explainer = Explainer(compiled.model.SerializeToString(), providers="cpu")
    x = picture(compiled.model, 2)
    with pytest.raises(ImageError, match=r"\(2, 4\); it must be \(2 or 1, 4, 6, 6\)"):
        explainer.explain(x, start=np.ones((2, 4), np.float32))
    without = compile_model(saved(model), explain=model.graph.output[0].name, inputs="target")
    explainer = Explainer(without.model.SerializeToString(), providers="cpu")
    with pytest.raises(ContractError, match="--inputs target,start"):
        explainer.explain(x, start=np.ones((2, 4, 6, 6), np.float32))


def photo(folder: Path, name: str = "a.png", seed: int = 0, size: int = 24) -> Path:
    values = np.random.default_rng(seed).integers(0, 255, (size, size, 3))
    cv2.imwrite(str(folder / name), values)
    return folder / name


@pytest.mark.parametrize("start", ["logit", "probability", "one", "contrastive"])
@pytest.mark.parametrize("tail", ["", "Softmax", "Sigmoid"])
def test_a_mask_is_a_start(saved: Save, tmp_path: Path, tail: str, start: str) -> None:
    """The map of a mask is the mean of the maps of its pixels, each explained alone."""
    path = saved(network(Output((4, 6, 6), (4, 6, 6), tail=tail)))
    name = onnx.load(path).graph.output[0].name
    choices: dict[str, Any] = {"composite": "lrp-epsilon", "start": start, "post": "none"}
    choices |= {"preprocessing": "zero-one", "resolution": "full"}
    mask = np.zeros((24, 24), np.uint8)
    mask[4:8, 8:16] = 1  # one row and two columns of the output
    image = photo(tmp_path)
    found = lrp_onnx.explain(path, image, target=2, mask=mask, explain=name, **choices)
    assert found.mask is not None and np.argwhere(found.mask).tolist() == [[1, 2], [1, 3]]
    if tail == "Softmax" and start != "one":  # logits are not told: every pixel counts alike
        choices["start"] = "one"
    pixels = [
        lrp_onnx.explain(path, image, target=2, explain=f"{name}[:, :, 1, {n}]", **choices).heatmap
        for n in (2, 3)
    ]
    expected = np.mean(pixels, axis=0)
    np.testing.assert_allclose(found.heatmap, expected, atol=2e-5 * np.abs(expected).max())


def test_masks_of_files(saved: Save, tmp_path: Path) -> None:
    """A mask covers the whole photo, whatever its size; the model sees the middle of a wide one."""
    whole = np.zeros((40, 80, 3), np.uint8)
    whole[10:20, 30:40] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), whole)
    np.save(tmp_path / "mask.npy", whole[::2, ::2, 0] > 0)
    picture = np.zeros((20, 40, 3), np.uint8)
    box = lrp_onnx.runtime.preprocess.Box(10, 0, 20, 20)
    for name in ("mask.png", "mask.npy"):
        found = Mask.read(tmp_path / name, picture, box, (4, 4))
        assert np.argwhere(found.inside).tolist() == [[1, 1]] and found.weights.sum() == 1
    for bad, message in (
        (np.zeros((4, 4), bool), "marks nothing of what the model sees"),
        (np.full((4, 4), np.nan), "a mask is"),
        (np.zeros((4, 4, 3)), "a mask is"),
        (tmp_path / "none.npy", "cannot be read as an array"),
    ):
        with pytest.raises(ImageError, match=message):
            Mask.read(bad, picture, box, (4, 4))


def test_a_mask_needs_a_map(saved: Save, tmp_path: Path) -> None:
    path = saved(network(OUTPUTS["classes"]))
    with pytest.raises(ContractError, match="a mask is for all of an output"):
        lrp_onnx.explain(path, photo(tmp_path), mask=np.ones((4, 4), bool), preprocessing="raw")


def test_similarity_to_a_reference(saved: Save, tmp_path: Path) -> None:
    """Relevance of the dot product: it sums to it, but for biases; a picture is its own twin."""
    path = saved(network(OUTPUTS["classes"]))
    first, second = photo(tmp_path), photo(tmp_path, "b.png", seed=1)
    choices: dict[str, Any] = {"composite": "gradient-x-input", "post": "none"}
    choices |= {"preprocessing": "zero-one", "resolution": "full"}
    explainer = lrp_onnx.Explainer(path, **choices)
    own, other = (explainer(image, similar_to=first) for image in (first, second))
    assert own.scores.item() == pytest.approx(1) and other.scores.item() < 1
    assert own.target_name == "similarity to a.png" and own.kind == "similarity"
    vectors = [explainer(image).scores for image in (first, second)]
    cosine = float(
        vectors[0] @ vectors[1] / np.linalg.norm(vectors[0]) / np.linalg.norm(vectors[1])
    )
    assert other.scores.item() == pytest.approx(cosine, abs=1e-5)
    np.save(tmp_path / "v.npy", vectors[0])
    by_file = explainer(second, similar_to=tmp_path / "v.npy")
    np.testing.assert_allclose(by_file.heatmap, other.heatmap, atol=1e-6)
    by_array = explainer([second, first], similar_to=vectors[0])
    np.testing.assert_allclose(by_array[0].heatmap, other.heatmap, atol=1e-6)
    with pytest.raises(ImageError, match=r"has shape \(3,\); what is explained has shape \(5,\)"):
        explainer(first, similar_to=np.ones(3))
    with pytest.raises(ValueError, match="without a target"):
        explainer(first, similar_to=second, target=1)
    probabilities = saved(network(Output((4, 6, 6), (4, 6, 6), tail="Softmax")))
    name = onnx.load(probabilities).graph.output[0].name
    with pytest.raises(ContractError, match="not an embedding"):
        lrp_onnx.explain(
            probabilities, first, similar_to=second, explain=name, preprocessing="zero-one"
        )


@pytest.mark.parametrize("batch", ["N", 1])
def test_the_commands(saved: Save, tmp_path: Path, batch: int | str) -> None:
    path = saved(network(OUTPUTS["map"], batch))
    name = onnx.load(path).graph.output[0].name
    (tmp_path / "photos").mkdir()
    (tmp_path / "masks").mkdir()
    for n in range(3):
        photo(tmp_path / "photos", f"{n}.png", seed=n)
        mask = np.zeros((24, 24), np.uint8)
        mask[8 * n : 8 * n + 8, 8:16] = 255
        cv2.imwrite(str(tmp_path / "masks" / f"{n}.png"), mask)
    base = ["explain", str(path), str(tmp_path / "photos"), "--json", "--output-name", name]
    base += ["--preprocess", "zero-one", "--batch", "2"]
    out = ["-o", str(tmp_path / "out"), "--mask", str(tmp_path / "masks")]
    for more in ([], ["--top", "2"]):
        result = CliRunner().invoke(main, [*base, *out, *more, "--force"])
        assert result.exit_code == 0, result.output
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        assert len(lines) == 3 * (2 if more else 1)
        values = run_onnx(onnx.load(path), {"x": _prepared(tmp_path / "photos" / "1.png")})[name]
        expected = values[0, :, 2:4, 2:4].mean((1, 2))
        best = lines[2 if more else 1]["top5"][0]
        assert best["index"] == expected.argmax()
        assert best["mean"] == pytest.approx(expected.max(), rel=1e-4)
    again = CliRunner().invoke(main, [*base, *out, "--top", "2"])
    assert "done already" in again.stderr
    (tmp_path / "masks" / "2.png").unlink()
    missing = CliRunner().invoke(main, [*base, *out, "--force"])
    assert missing.exit_code == 1 and "no mask for 2.png" in missing.stderr
    wrong = CliRunner().invoke(main, [*base, *out, "--similar-to", "x.jpg"])
    assert wrong.exit_code == 2 and "--mask and --similar-to" in wrong.stderr


def test_similarity_by_command(saved: Save, tmp_path: Path) -> None:
    path = saved(network(OUTPUTS["classes"], 1))
    first, second = photo(tmp_path), photo(tmp_path, "b.png", seed=1)
    command = ["explain", str(path), str(first), str(second), "-o", str(tmp_path / "out")]
    command += ["--similar-to", str(second), "--preprocess", "zero-one", "--json"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    one, two = (json.loads(line) for line in result.stdout.splitlines())
    assert two["top5"][0]["score"] == pytest.approx(1) and one["top5"][0]["score"] < 1
    assert one["target"]["name"] == "similarity to b.png" and one["output"] == "similarity"


def _prepared(path: Path) -> np.ndarray[Any, Any]:
    small = cv2.resize(cv2.imread(str(path))[:, :, ::-1], (SIZE, SIZE))
    return (small / 255).astype(np.float32).transpose(2, 0, 1)[None]
