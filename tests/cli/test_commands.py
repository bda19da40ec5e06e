"""The commands as a user types them: results on stdout,
progress on stderr, exit 0, 1 or 2, nothing half-written.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from networks import Network, resnet
from numpy.typing import NDArray
from zoo_files import manifest

from lrp_onnx.cli.commands import main
from lrp_onnx.compiler import compile_model
from lrp_onnx.maps.chain import parse_chain
from lrp_onnx.maps.resample import resample
from lrp_onnx.relevance.composites.presets import COMPOSITES, DEFAULT
from lrp_onnx.runtime.explainer import Explainer

Save = Callable[[onnx.ModelProto], Path]


def call(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def arrays_of(path: Path) -> dict[str, NDArray[np.generic]]:
    with np.load(path) as file:
        return dict(file)


@pytest.fixture
def model(saved: Save) -> Path:
    return saved(resnet(size=(32, 32)))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8))
    return path


def test_compile_writes_beside_the_model(model: Path) -> None:
    result = call("compile", model)
    assert result.exit_code == 0 and DEFAULT in result.stdout
    assert model.with_name("model0.lrp.onnx").exists()


def test_compile_json_and_options(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    result = call(
        "compile",
        model,
        "-o",
        out,
        "--composite",
        "epsilon-plus",
        "--outputs",
        "heatmap,relevance",
        "--start",
        "one",
        "--bias",
        "drop",
        "--rule",
        "conv0=flat",
        "--preprocess",
        "imagenet:resize=stretch",
        "--json",
    )
    found = json.loads(result.stdout)
    assert result.exit_code == 0 and found["output"] == str(out)
    assert (
        found["composite"] == "epsilon-plus"
        and found["start"] == "one"
        and found["outputs"] == ["heatmap", "relevance"]
    )
    assert found["rules"]["conv0"].startswith("flat") and all(
        "bias=drop" in r for n, r in found["rules"].items() if n.startswith("conv") and n != "conv0"
    )


def test_nothing_is_overwritten_without_force(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    out.write_text("mine")
    result = call("compile", model, "-o", out)
    assert result.exit_code == 1 and "--force" in result.stderr and out.read_text() == "mine"
    assert (
        call("compile", model, "-o", out, "--force").exit_code == 0 and out.read_bytes() != b"mine"
    )
    nowhere = call("compile", model, "-o", tmp_path / "no" / "out.onnx")
    assert nowhere.exit_code == 1 and "does not exist" in nowhere.stderr


@pytest.mark.parametrize("suffix", ["toml", "yaml"])
def test_rules_from_a_file(suffix: str, model: Path, tmp_path: Path) -> None:
    texts = {
        "toml": 'composite = "epsilon-plus"\nstart = "one"\n[rules]\n'
        '"conv0" = "flat"\n"conv3" = "w-square"\n',
        "yaml": 'composite: epsilon-plus\nstart: one\nrules:\n  conv0: flat\n  "conv3": w-square\n',
    }
    path = tmp_path / f"rules.{suffix}"
    path.write_text(texts[suffix])
    found = json.loads(
        call("compile", model, "--rules", path, "--rule", "conv3=gamma", "--json").stdout
    )
    assert found["composite"] == "epsilon-plus" and found["start"] == "one"
    assert found["rules"]["conv0"] == "flat" and found["rules"]["conv3"] == "gamma"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "colour = 1", "says colour"),
        ("a.toml", "= =", "not valid TOML"),
        ("a.yaml", "[1", "not valid YAML"),
        ("a.yaml", "- 1", "not a table"),
        ("a.ini", "x", "ends in .toml"),
        ("a.toml", "rules = 3", "a table of"),
    ],
)
def test_a_wrong_rules_file(
    name: str, text: str, message: str, model: Path, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    result = call("plan", model, "--rules", tmp_path / name)
    assert result.exit_code == 1 and message in result.stderr


def test_plan(model: Path) -> None:
    short = call("plan", model)
    result = call("plan", model, "--all")
    assert result.exit_code == short.exit_code == 0
    assert len(short.stdout.splitlines()) < len(result.stdout.splitlines()) / 2
    assert "spread(rule=gamma)" in short.stdout and "4 residual blocks" in short.stdout
    for word in (
        "block4",
        "identity",
        "projection",
        "main",
        "block",
        "N×10",
        "no BatchNormalization nodes",
    ):
        assert word in result.stdout
    found = json.loads(call("plan", model, "--json", "--composite", "lrp-resnet").stdout)
    assert len([i for i in found["plan"]["items"] if "block" in i]) == 4
    assert {rule["rule"] for rule in found["rules"].values()} >= {"ratio", "pass"}
    assert not list(model.parent.glob("*.lrp.onnx"))


def test_compiled_files_are_compared_and_evaluated(
    model: Path, photo: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model.lrp.onnx"
    call("compile", model, "-o", out, "--preprocess", "zero-one")
    grids = []
    for path, more in ((model, ["--preprocess", "zero-one"]), (out, [])):
        grid = tmp_path / f"{path.stem}.png"
        asked = ["-o", grid, "--method", "lrp-resnet", "--method", "occlusion", *more]
        result = call("compare", path, photo, *asked)
        assert result.exit_code == 0, result.output
        grids.append(grid.read_bytes())
    assert grids[0] == grids[1]
    judged = call("evaluate", out, photo, "--method", "lrp-resnet", "--steps", "3", "--json")
    assert judged.exit_code == 0, judged.output


def test_compare_shows_several_classes(model: Path, photo: Path, tmp_path: Path) -> None:
    asked = ["compare", model, photo, "--method", "lrp-resnet", "--json", "-o"]
    one = call(*asked, tmp_path / "one.png")
    many = call(*asked, tmp_path / "many.png", "--top", "3")
    assert one.exit_code == many.exit_code == 0, many.output
    classes = json.loads(many.stdout)["classes"]
    values = [found["probability"] for found in classes]
    assert len(classes) == 3 and values == sorted(values, reverse=True)
    assert json.loads(one.stdout)["classes"] == classes[:1]
    heights = [cv2.imread(str(tmp_path / f"{name}.png")).shape[0] for name in ("one", "many")]
    assert heights[1] > 2.2 * heights[0]
    both = call(*asked, tmp_path / "x.png", "--top", "3", "--target", "1")
    assert both.exit_code == 2 and "--target and --top" in both.stderr


def test_evaluate_says_what_is_highest_first(model: Path, photo: Path) -> None:
    asked = ["evaluate", model, photo, "--method", "lrp-resnet", "--steps", "3"]
    asked += ["--metrics", "exact,keio,srg,sparseness"]
    short, wide = call(*asked), call(*asked, "--all")
    assert short.exit_code == wide.exit_code == 0
    lines = short.stdout.splitlines()
    assert lines[0].startswith("verdict  highest in exact ID") and "[" not in lines[3]
    values = [float(line.split()[1]) for line in lines[3:8]]
    assert values == sorted(values, reverse=True) and "sparseness" in short.stdout
    assert "exact ID" in wide.stdout.splitlines()[0] and "[" in wide.stdout


def test_class_names_of_a_file_or_with_commas(model: Path, photo: Path, tmp_path: Path) -> None:
    names = [f"class {index}" for index in range(10)]
    (tmp_path / "names.txt").write_text("\n".join(names))
    for number, classes in enumerate((tmp_path / "names.txt", ",".join(names))):
        out = tmp_path / f"{number}"
        result = call("explain", model, photo, "-o", out, "--classes", classes, "--json")
        assert json.loads(result.stdout)["target"]["name"].startswith("class ")
    wrong = call("explain", model, photo, "-o", tmp_path / "x", "--classes", "a,b")
    assert wrong.exit_code == 1 and "2 class names" in wrong.stderr


def test_composites() -> None:
    result = call("composites")
    lines = result.stdout.splitlines()
    assert result.exit_code == 0 and len(lines) == len(COMPOSITES) + 1
    assert [line.split()[0] for line in lines[1:]] == list(COMPOSITES)
    assert set(json.loads(call("composites", "--json").stdout)) == set(COMPOSITES)


def test_verify(model: Path, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    call("compile", model, "-o", out, "--composite", "lrp-resnet")
    for arguments in ([], ["--original", model], ["--image", photo], ["--provider", "cpu"]):
        result = call("verify", out, *arguments)
        assert result.exit_code == 0, result.output
        assert result.stdout.splitlines()[0].startswith("ok ")
        assert "original outputs unchanged" in result.stdout
        assert "relevance of the first picture" in result.stdout
        assert "received" not in result.stdout
    assert "received" in call("verify", out, "--all", "--threads", "1").stdout
    found = json.loads(call("verify", out, "--json").stdout)
    assert found["passed"] and len(found["layers"]) > 20
    other = call(
        "verify", out, "--original", _saved_beside(tmp_path, resnet(size=(32, 32), seed=5))
    )
    assert other.exit_code == 1 and "FAILED" in other.stdout and "changed by" in other.stdout
    not_compiled = call("verify", model)
    assert not_compiled.exit_code == 1 and "not a compiled file" in not_compiled.stderr


def _saved_beside(folder: Path, model: onnx.ModelProto) -> Path:
    onnx.save(model, folder / "other.onnx")
    return folder / "other.onnx"


def test_explain_writes_its_files(model: Path, photo: Path, tmp_path: Path) -> None:
    names = tmp_path / "classes.txt"
    names.write_text("\n".join("abcdefghij"))
    out = tmp_path / "out"
    result = call(
        "explain",
        model,
        photo,
        "-o",
        out,
        "--classes",
        names,
        "--outputs",
        "heatmap,relevance",
        "--json",
        "--provider",
        "cpu",
    )
    assert result.exit_code == 0, result.output
    line = json.loads(result.stdout)
    assert line == json.loads((out / "explanations.jsonl").read_text())
    assert (
        line["target"]["name"] in set("abcdefghij")
        and len(line["top5"]) == 5
        and line["provider"] == "cpu"
    )
    assert {p.name for p in out.iterdir()} == {
        "photo.figure.png",
        "photo.overlay.png",
        "photo.heatmap.png",
        "photo.npz",
        "report.html",
        "explanations.jsonl",
        "results.csv",
        "sheet.png",
        "run.json",
    }
    values = np.load(out / "photo.npz")
    assert (
        values["heatmap"].shape == (32, 32)
        and values["relevance"].shape == (3, 32, 32)
        and values["heatmap_raw"].shape == (32, 32)
    )
    assert abs(line["sums"]["all"] - float(values["heatmap_raw"].sum(dtype=np.float64))) < 1e-6
    assert cv2.imread(str(out / "photo.overlay.png")).shape[0] >= 40
    assert "running on cpu" in result.stderr and "--preprocess imagenet is assumed" in result.stderr
    again = call("explain", model, photo, "-o", out)
    assert again.exit_code == 1 and "--force" in again.stderr and "outputs" in again.stderr
    assert call("explain", model, photo, "-o", out, "--force").exit_code == 0


def test_explain_with_a_compiled_file_gives_the_same(
    model: Path, photo: Path, tmp_path: Path
) -> None:
    call("compile", model, "-o", tmp_path / "c.onnx", "--composite", "lrp-resnet")
    call("explain", tmp_path / "c.onnx", photo, "-o", tmp_path / "one")
    call("explain", model, photo, "-o", tmp_path / "two", "--composite", "lrp-resnet")
    first, second = (np.load(tmp_path / d / "photo.npz")["heatmap"] for d in ("one", "two"))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("post", [None, "none", "c3:size=14", "quantize"])
def test_what_is_shown_is_the_files_own_heatmap(
    post: str | None, model: Path, photo: Path, tmp_path: Path
) -> None:
    """Post-processed once, in the file; the raw values come along."""
    choices = ("--post", post) if post else ()
    assert call("explain", model, photo, "-o", tmp_path / "out", *choices).exit_code == 0
    values = arrays_of(tmp_path / "out" / "photo.npz")
    chain = parse_chain(post or COMPOSITES[DEFAULT].post)
    outputs = ("heatmap", "heatmap_raw")
    raw = compile_model(model, post="none", outputs=outputs).model.SerializeToString()
    (expected,) = Explainer(raw, providers="cpu").explain_images([photo])
    scale = np.abs(expected.heatmap).max()
    np.testing.assert_allclose(values["heatmap_raw"], expected.heatmap_raw, atol=1e-5 * scale)
    assert values["heatmap_raw"].shape < values["heatmap"].shape == (32, 32)
    np.testing.assert_allclose(values["heatmap"], chain(expected.heatmap), atol=1e-5 * scale)
    region = chain.region(expected.heatmap)
    assert ("c3" in values) == (region is not None)
    if region is not None:
        np.testing.assert_array_equal(values["c3"], region)


def test_explain_does_not_post_process_twice(model: Path, photo: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "c.onnx", tmp_path / "out"
    compiled = call("compile", model, "-o", file, "--json", "--post", "c3:size=14")
    assert json.loads(compiled.stdout)["post"] == "c3(size=14)"
    result = call("explain", file, photo, "-o", out, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["sums"] is None
    values = arrays_of(out / "photo.npz")
    assert "heatmap_raw" not in values
    (own,) = Explainer(file, providers="cpu").explain_images([photo])
    np.testing.assert_array_equal(values["heatmap"], own.heatmap)
    np.testing.assert_array_equal(values["c3"], own.region)
    assert own.heatmap_raw is None
    assert "--post c3(size=14); the file does not give raw relevance" in result.stderr
    # The file's own chain, however it is written, is not applied again.
    again = call("explain", file, photo, "-o", out, "--force", "--post", "c3(size=14)")
    assert again.exit_code == 0, again.output
    np.testing.assert_array_equal(arrays_of(out / "photo.npz")["heatmap"], own.heatmap)
    for other in ("none", "smooth"):
        refused = call("explain", file, photo, "-o", tmp_path / "no", "--post", other)
        assert refused.exit_code == 1 and not (tmp_path / "no").exists()
        assert "--outputs heatmap,heatmap_raw" in refused.stderr


def test_another_post_processing_of_a_compiled_file(
    model: Path, photo: Path, tmp_path: Path
) -> None:
    """From the raw map, or from relevance, where the file has it."""
    for outputs in ("heatmap,heatmap_raw", "heatmap,relevance", "relevance", "heatmap_raw"):
        file, out = tmp_path / f"{outputs}.onnx", tmp_path / outputs
        assert call("compile", model, "-o", file, "--outputs", outputs).exit_code == 0
        for post, chain in (("c3", "c3"), (None, COMPOSITES[DEFAULT].post)):
            choices = ("--post", post) if post else ()
            result = call("explain", file, photo, "-o", out, "--force", *choices)
            assert result.exit_code == 0, result.output
            values = arrays_of(out / "photo.npz")
            before = resample(values["heatmap_raw"], (32, 32), method="bilinear")
            shown = parse_chain(chain)(before)
            scale = np.abs(shown).max()
            np.testing.assert_allclose(values["heatmap"], shown, atol=1e-5 * scale)


def test_a_chain_that_is_none(model: Path, tmp_path: Path) -> None:
    result = call("compile", model, "-o", tmp_path / "c.onnx", "--post", "sooth")
    assert result.exit_code == 1 and "'sooth'" in result.stderr and "smooth" in result.stderr


@pytest.mark.parametrize("alone", [False, True])
def test_a_feature_map_is_explained(alone: bool, photo: Path, tmp_path: Path) -> None:
    """Through the means of its channels, which are no probabilities, whatever else there is."""
    (file,) = (file for file in manifest() if file.name == "two-outputs.torchscript")
    proto = file.model
    if alone:
        kept = [value for value in proto.graph.output if value.name == "features"]
        del proto.graph.output[:]
        proto.graph.output.extend(kept)
    path = tmp_path / "backbone.onnx"
    onnx.save(proto, path)
    arguments = ("explain", path, photo, "--output-name", "features")
    arguments = (*arguments, "--target", 5, "--start", "logit")
    line = json.loads(call(*arguments, "-o", tmp_path / "json", "--json").stdout)
    best = line["top5"][0]
    means = np.load(tmp_path / "json" / "photo.npz")["scores"]
    assert means.shape == (16,) and set(best) == {"index", "name", "mean"}
    assert best["index"] == means.argmax() and best["mean"] == pytest.approx(means.max())
    assert line["target"]["index"] == 5 and line["start"]["value"] == pytest.approx(means[5])
    assert line["sums"]["positive"] > 0
    said = call(*arguments, "-o", tmp_path / "text").stdout
    assert f"{best['index']} (mean {best['mean']:.4g}), explained as 5" in said
    judged = call("compare", path, photo, "-o", tmp_path / "c.png", "--output-name", "features")
    assert judged.exit_code == 1 and "neither logits nor probabilities" in judged.stderr


def test_explain_prints_accuracy(model: Path, photo: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("file,label\nphoto.png,3\nother.png,1\n")
    result = call("explain", model, photo, "-o", tmp_path / "out", "--labels", table)
    assert "accuracy on 1 labelled pictures: " in result.stderr


def test_labels_beside_the_pictures_are_found(model: Path, photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "photo.png").write_bytes(photo.read_bytes())
    (folder / "labels.csv").write_text("file,label\nphoto.png,3\n")
    result = call("explain", model, folder, "-o", tmp_path / "out")
    assert result.exit_code == 0 and "accuracy on 1 labelled pictures: " in result.stderr
    assert "accuracy" not in call("explain", model, photo, "-o", tmp_path / "other").stderr
    (folder / "labels.csv").write_text("name,colour\nphoto.png,red\n")
    other = call("explain", model, folder, "-o", tmp_path / "out", "--force")
    assert other.exit_code == 0 and "accuracy" not in other.stderr


def test_pictures_of_one_name_do_not_collide(model: Path, photo: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "p.png").write_bytes(photo.read_bytes())
    result = call("explain", model, tmp_path / "a", tmp_path / "b", "-o", tmp_path / "out")
    assert result.exit_code == 0
    assert {"a__p.npz", "b__p.npz"} <= {p.name for p in (tmp_path / "out").iterdir()}


BAD = {
    "no model": (["compile", "{tmp}/nothing.onnx"], "there is no file"),
    "text as model": (["compile", "{tmp}/text.onnx"], "it is text that begins"),
    "text explained": (
        ["explain", "{tmp}/text.onnx", "{photo}", "-o", "{tmp}/out"],
        "it is text that begins",
    ),
    "no picture": (
        ["explain", "{model}", "{tmp}/text.onnx", "-o", "{tmp}/out"],
        "cannot be read as a picture",
    ),
    "missing picture": (
        ["explain", "{model}", "{tmp}/no.png", "-o", "{tmp}/out"],
        "no.png is not a file or a folder",
    ),
    "unknown class": (
        ["explain", "{model}", "{photo}", "-o", "{tmp}/out", "--target", "99"],
        "classes are 0 to 9",
    ),
    "unknown name": (
        ["explain", "{model}", "{photo}", "-o", "{tmp}/out", "--target", "cat"],
        "--classes FILE",
    ),
    "unknown composite": (["plan", "{model}", "--composite", "zennit"], "no composite"),
    "unknown preset": (["compile", "{model}", "--preprocess", "imagnet"], "did you mean imagenet"),
    "unknown step": (
        ["explain", "{model}", "{photo}", "-o", "{tmp}/out", "--post", "c4"],
        "--post c4",
    ),
    "grey preprocessing": (
        [
            "explain",
            "{model}",
            "{photo}",
            "-o",
            "{tmp}/out",
            "--preprocess",
            "raw:channels=GRAY,mean=0,std=1",
        ],
        "which is not NCHW",
    ),
    "metrics without boxes": (
        ["evaluate", "{model}", "{photo}", "--metrics", "exact,rank"],
        "no photo has a mask or a box",
    ),
    "no place for results": (
        ["explain", "{model}", "{photo}", "-o", "/proc/nowhere"],
        "cannot be created",
    ),
    "no place for a model": (
        ["compile", "{model}", "-o", "/proc/nothing.onnx"],
        "cannot be written",
    ),
    "a model inside a file": (
        ["compile", "{model}", "-o", "{photo}/m.onnx"],
        "is a file, not a folder",
    ),
    "a grid inside a file": (
        ["compare", "{model}", "{photo}", "-o", "{photo}/g.png"],
        "is a file, not a folder",
    ),
    "no folder for a grid": (
        ["compare", "{model}", "{photo}", "-o", "{tmp}/no/g.png"],
        "does not exist",
    ),
    "results inside a file": (
        ["evaluate", "{model}", "{photo}", "--method", "edges", "-o", "{photo}/out"],
        "cannot be created",
    ),
    "no labels": (
        ["evaluate", "{model}", "{photo}", "--labels", "{tmp}/no.csv"],
        "no.csv; a CSV file with the columns file,label is needed",
    ),
    "unknown method": (
        ["evaluate", "{model}", "{photo}", "--method", "rise(mask=3)"],
        "no parameter 'mask'",
    ),
    "output is a file": (["explain", "{model}", "{photo}", "-o", "{photo}"], "name a folder"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_paragraph_and_exit_1(
    case: str, model: Path, photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.onnx").write_text("This is a text, not a model. " * 10)
    before = {p.name for p in tmp_path.iterdir()}
    arguments, message = BAD[case]
    result = call(*(a.format(tmp=tmp_path, model=model, photo=photo) for a in arguments))
    assert result.exit_code == 1 and message in result.stderr and result.stdout == ""
    assert "Traceback" not in result.output
    assert {p.name for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["compile"],
        ["explain", "m.onnx"],
        ["plan", "--composit", "x"],
        ["nonsense"],
        ["plan", "m.onnx", "--rule", "x"],
    ],
)
def test_bad_usage_exits_2(arguments: list[str]) -> None:
    assert call(*arguments).exit_code == 2


def test_an_unsupported_model_lists_every_fault(saved: Save) -> None:
    net = Network(0)
    y = net.node(
        "Hardmax", net.node("LpNormalization", net.conv("x", (3, 4)), name="gate"), name="bend"
    )
    path = saved(
        net.model(
            net.dense(net.node("Flatten", net.node("GlobalAveragePool", y)), (4, 2)), ["N", 3, 8, 8]
        )
    )
    for command in ("plan", "compile"):
        result = call(command, path)
        assert result.exit_code == 1 and "LpNormalization 'gate'" in result.stderr
        assert "Hardmax 'bend'" in result.stderr
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_compiled_file_needs_only_onnxruntime_and_numpy(model: Path, tmp_path: Path) -> None:
    call("compile", model, "-o", tmp_path / "c.onnx")
    script = f"""
import sys
sys.modules["onnx"] = sys.modules["lrp_onnx"] = sys.modules["cv2"] = None
import numpy as np, onnxruntime
path, providers = {str(tmp_path / "c.onnx")!r}, ["CPUExecutionProvider"]
session = onnxruntime.InferenceSession(path, providers=providers)
name = session.get_inputs()[0].name
x = np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)
logits, heatmap, region = session.run(None, {{name: x}})
assert logits.shape == (3, 10) and heatmap.shape == (3, 32, 32) and np.abs(heatmap).max() > 0
assert region.shape == (3, 14, 14) and 0 < region.sum() < region.size
print(len(session.get_inputs()))
"""
    out = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": ""},
    )
    assert out.stdout.strip() == "1"


def test_real_photos_are_recognised(assets: Path, tmp_path: Path) -> None:
    """Right preprocessing shows in the accuracy: 77 % on all
    validation photos; of these 50, at least 35 are right.
    """
    folder = assets / "images" / "tin20"
    model = assets / "models" / "tin20-resnet50.torchscript-op17-folded.onnx"
    photos = sorted(folder.glob("*.JPEG"))[::10]
    result = call(
        "explain", model, *photos, "-o", tmp_path / "out", "--labels", folder / "labels.csv",
        "--classes", folder / "classes.txt", "--composite", "lrp-resnet", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(lines) == len(photos) == 50
    accuracy = float(re.search(r"accuracy on 50 labelled pictures: ([\d.]+)%", result.stderr)[1])  # type: ignore[index]
    assert accuracy >= 70
    for line in lines:
        assert abs(line["sums"]["all"] / line["start"]["value"] - 1) < 1e-3


def test_compile_names_what_depends_on_the_exporter(model: Path, tmp_path: Path) -> None:
    result = call(
        "compile", model, "-o", tmp_path / "m.onnx", "--composite", "lrp-resnet-reference"
    )
    assert (
        result.exit_code == 0
        and "takes batch normalisation for a layer of its own" in result.stderr
    )
    assert (
        "batch normalisation for a layer"
        not in call("compile", model, "-o", tmp_path / "n.onnx").stderr
    )


@pytest.mark.parametrize("size", ["0", "x", "12x", "1x2x3x4", "-5", "99999", "big"])
def test_a_size_that_is_none(size: str, model: Path) -> None:
    result = call("plan", model, "--input-size", size)
    assert result.exit_code == 2 and "is not a size" in result.stderr


@pytest.mark.parametrize("size", ["0", "99999", "1x2x3x4"])
def test_a_resolution_that_is_none(size: str, model: Path) -> None:
    result = call("plan", model, "--resolution", size)
    assert (
        result.exit_code == 2
        and "is not a size" in result.stderr
        and "--resolution" in result.stderr
    )


def test_a_size_that_does_not_fit_is_refused(model: Path) -> None:
    result = call("plan", model, "--input-size", "50x60")
    assert result.exit_code == 1 and "which is not 50×60" in result.stderr
