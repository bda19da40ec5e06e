"""One picture, many targets: the maps are those of one run
a target, and ranks name the best classes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from conftest import relative, run_onnx
from networks import picture, resnet
from zoo_files import PRECISIONS, REFUSED, families, feeds

from lrp_onnx.cli.commands import main
from lrp_onnx.cli.verify import verify_file
from lrp_onnx.compiler import Options, compile_model
from lrp_onnx.errors import ImageError, UnsupportedModelError
from lrp_onnx.relevance.composites.presets import COMPOSITES
from lrp_onnx.runtime.explainer import Explainer

Save = Callable[[onnx.ModelProto], Path]
SAME = 1e-5
FAMILIES = [
    name for name in families() if name not in REFUSED and PRECISIONS.get(name) != "bfloat16"
]
NAMES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibex", "jay")


def together_and_alone(
    path: Path, x: dict[str, np.ndarray], **choices: object
) -> tuple[np.ndarray, np.ndarray]:
    """Maps of targets 1, 0, 1 and the predicted class: in one run, and in one run each."""
    targets = np.array([1, 0, 1, -1])
    many = compile_model(path, many_targets=True, **choices).model
    one = compile_model(path, **choices).model
    together = run_onnx(many, x | {"target": targets}, optimize=False)["heatmap"]
    alone = [
        run_onnx(one, x | {"target": targets[i : i + 1]}, optimize=False)["heatmap"]
        for i in range(4)
    ]
    return together, np.concatenate(alone)


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("optimize_for", ["cpu", "portable"])
def test_many_targets_are_single_runs(composite: str, optimize_for: str, saved: Save) -> None:
    model = resnet(size=(32, 40), widths=(8, 16), gate="Sigmoid")
    found, expected = together_and_alone(
        saved(model), {"x": picture(model, batch=1)}, composite=composite, optimize_for=optimize_for
    )
    assert found.shape == (4, 32, 40) and relative(found, expected) < SAME
    np.testing.assert_array_equal(found[0], found[2])
    assert relative(found[0], found[1]) > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("composite", ["gradient", "lrp-resnet"])
def test_every_family(family: str, composite: str, tmp_path: Path) -> None:
    file = families()[family][0]
    x = {name: value[:1] for name, value in feeds(file, file.model).items()}
    found, expected = together_and_alone(
        file.save(tmp_path), x, composite=composite, **file.options
    )
    assert relative(found, expected) < SAME


def test_ranks_starts_and_what_is_predicted(saved: Save) -> None:
    model = resnet(size=(32, 32))
    compiled = compile_model(saved(model), composite="lrp-resnet", many_targets=True).model
    x = {"x": picture(model, batch=1)}
    first = run_onnx(compiled, x)
    order = np.argsort(-first[model.graph.output[0].name][0])
    ranks = run_onnx(compiled, x | {"target": np.array([-1, -2, -10])})["heatmap"]
    classes = run_onnx(compiled, x | {"target": order[[0, 1, 9]]})["heatmap"]
    np.testing.assert_array_equal(ranks, classes)
    np.testing.assert_array_equal(ranks[:1], first["heatmap"])
    start = np.zeros((3, 10), np.float32)
    start[0, 4], start[1, 4], start[1, 7] = 2, 1, -1
    maps = run_onnx(compiled, x | {"start": start, "target": np.array([0, 0, 5])})["heatmap"]
    assert relative(maps[2:], run_onnx(compiled, x | {"target": np.array([5])})["heatmap"]) < SAME
    both = run_onnx(
        compiled, x | {"start": np.eye(10, dtype=np.float32)[[4, 7]], "target": np.array([0, 0])}
    )["heatmap"]
    assert relative(maps[0], 2 * both[0]) < SAME and relative(maps[1], both[0] - both[1]) < 1e-4


def test_the_file_verifies_and_says_what_it_is(saved: Save, tmp_path: Path) -> None:
    path = saved(resnet(size=(32, 32), widths=(16, 32), bias=False))
    compiled = compile_model(path, composite="lrp-resnet", many_targets=True)
    assert compiled.contract.many_targets
    audit = verify_file(
        compiled.save(tmp_path / "many.onnx"), original=path, images=(), provider="cpu"
    )
    assert audit.passed, audit.to_json()["checks"]


def test_more_than_one_picture_is_refused(saved: Save) -> None:
    model = resnet(size=(32, 32))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    with pytest.raises((UnsupportedModelError, ImageError)):
        explainer = Explainer(
            compile_model(saved(model), many_targets=True).model.SerializeToString()
        )
        explainer.explain(picture(model, batch=4))


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    for index in range(3):
        cv2.imwrite(
            str(tmp_path / f"{index}.png"), rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)
        )
    return sorted(tmp_path.glob("*.png"))


def test_the_explainer(saved: Save, photos: list[Path]) -> None:
    path = saved(resnet(size=(32, 32)))
    choices = Options(composite="lrp-resnet", labels=NAMES)
    many = Explainer(
        compile_model(path, choices, many_targets=True).model.SerializeToString(), providers="cpu"
    )
    one = Explainer(compile_model(path, choices).model.SerializeToString(), providers="cpu")
    found = list(many.explain_images(photos, target=[-1, -2, "cat", 5]))
    assert [e.path for e in found] == [photo for photo in photos for _ in range(4)]
    for index, photo in enumerate(photos):
        best, second, cat, fifth = found[4 * index : 4 * index + 4]
        assert (best.target, second.target, cat.target, fifth.target) == (
            best.top5[0][0],
            best.top5[1][0],
            2,
            5,
        )
        assert cat.target_name == "cat" and cat.start_value == cat.scores[2]
        for each in (best, second, cat, fifth):
            (alone,) = one.explain_images([photo], target=each.target)
            assert relative(each.heatmap, alone.heatmap) < SAME
    with pytest.raises(ImageError, match="-1 to -10 for the most probable classes"):
        list(many.explain_images(photos, target=[-11]))
    with pytest.raises(ImageError, match="-1 for the predicted class"):
        list(one.explain_images(photos, target=-2))
    assert many.batch_within(1e12) == 1


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_top_and_several_targets_on_the_command_line(
    saved: Save, photos: list[Path], tmp_path: Path
) -> None:
    path, out = saved(resnet(size=(32, 32))), tmp_path / "out"
    assert call("explain", path, *photos, "-o", out, "--top", 3, "--post", "none")[0] == 0
    lines = [json.loads(line) for line in (out / "explanations.jsonl").read_text().splitlines()]
    assert len(lines) == 9
    for index, line in enumerate(lines):
        assert line["target"]["index"] == line["top5"][index % 3]["index"]
        assert line["files"]["overlay"] == f"{index // 3}.{index % 3 + 1}.overlay.png"
        assert all((out / name).is_file() for name in line["files"].values())
    assert (
        call("explain", path, photos[0], "-o", tmp_path / "two", "--target", 3, "--target", 8)[0]
        == 0
    )
    lines = [
        json.loads(line)
        for line in (tmp_path / "two" / "explanations.jsonl").read_text().splitlines()
    ]
    assert [line["target"]["index"] for line in lines] == [3, 8]
    assert call("explain", path, photos[0], "-o", out, "--target", 3, "--top", 2)[0] == 2
    compiled = compile_model(path).save(tmp_path / "one.onnx")
    code, said = call("explain", compiled, photos[0], "-o", tmp_path / "three", "--top", 2)
    assert code == 1 and "--many-targets" in said


def test_compile_with_many_targets_on_the_command_line(
    saved: Save, photos: list[Path], tmp_path: Path
) -> None:
    path, out = saved(resnet(size=(32, 32))), tmp_path / "many.onnx"
    raw = ("--outputs", "heatmap,heatmap_raw")
    choices = ("--many-targets", "--optimize-for", "portable")
    assert call("compile", path, "-o", out, *choices, *raw)[0] == 0
    assert (
        call("explain", out, *photos, "-o", tmp_path / "out", "--top", 2, "--post", "none")[0] == 0
    )
    assert len(list((tmp_path / "out").glob("*.overlay.png"))) == 6
