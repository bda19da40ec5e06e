"""`lrp-onnx web`: what the folder holds, and what is refused."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from web_sites import headers_in, with_batch
from zoo_files import manifest

import lrp_onnx
from lrp_onnx import compile_model
from lrp_onnx.cli.commands import main
from lrp_onnx.contract import Contract, describe
from lrp_onnx.deploy.web import ASSETS, BLOCKS, check_picture
from lrp_onnx.deploy.web_runtime import CDN, FILES, INTEGRITY, VERSION, WebRuntime, hash_of
from lrp_onnx.files.models import metadata_of
from lrp_onnx.runtime.explainer import Explainer
from lrp_onnx.runtime.preprocess import parse_preprocessing, preprocess

ROOT = Path(lrp_onnx.__file__).parents[1]
MODEL = ROOT / "models" / "shapes-resnet.onnx"
PICTURES = ROOT / "models" / "samples"
WEB = Path(lrp_onnx.__file__).parent / "deploy" / "web"
DEMO = 3_000_000
"""Most bytes of the embedded model's page, with its four pictures."""


def web(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["web", *map(str, arguments)])


def made(folder: Path, *arguments: Any, model: Path = MODEL) -> dict[str, Any]:
    """The facts of a site that was written."""
    done = web(model, "-o", folder, *arguments)
    assert done.exit_code == 0, done.output
    facts: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    return facts


def refused(*arguments: Any) -> str:
    """The one line with which a command is refused."""
    done = web(*arguments)
    assert done.exit_code == 1, done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "site"
    made(folder, "--samples", PICTURES)
    return folder


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """What counts of an installed onnxruntime-web."""
    folder = tmp_path / "node_modules" / "onnxruntime-web"
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"version": VERSION}), encoding="utf-8")
    for name in INTEGRITY:
        (folder / "dist" / name).write_bytes(name.encode())
    return folder


def test_the_folder_holds_a_whole_page(site: Path) -> None:
    own = {"index.html", "model.json", "model.onnx", "_headers", *ASSETS}
    assert names_in(site) == own | {f"samples/{n}.png" for n in range(1, 5)}
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < DEMO
    for number, picture in enumerate(sorted(PICTURES.iterdir()), 1):
        assert (site / "samples" / f"{number}.png").read_bytes() == picture.read_bytes()


def test_the_model_is_compiled_for_browsers(site: Path) -> None:
    contract = Contract.from_metadata(metadata_of(site / "model.onnx"))
    assert (contract.optimized_for, contract.inputs) == ("web", "target")
    expected = compile_model(MODEL, optimize_for="web").model.SerializeToString()
    assert (site / "model.onnx").read_bytes() == expected


def test_the_facts_are_the_contracts(site: Path) -> None:
    facts = json.loads((site / "model.json").read_text(encoding="utf-8"))
    explainer = Explainer(site / "model.onnx", providers="cpu")
    assert facts["input"] == {
        "name": "input",
        "type": "float32",
        "batch": 1,
        "dims": [3, 96, 96],
        "height": 96,
        "width": 96,
    }
    assert facts["labels"] == list(explainer.labels) and facts["classes"] == 10
    assert facts["scores"] == {"name": "logits", "kind": "logits", "selection": None}
    assert (facts["heatmap"], facts["region"], facts["target"]) == ("heatmap", "c3", "target")
    said = Contract.from_metadata(metadata_of(site / "model.onnx")).preprocessing
    assert facts["preprocessing"] == json.loads(said.to_json() if said else "")
    assert [one["name"] for one in facts["samples"]] == ["arrow", "gear", "heart", "star"]
    assert facts["bytes"] == (site / "model.onnx").stat().st_size
    assert facts["model"] == MODEL.name


def test_the_check_is_what_python_computes(site: Path) -> None:
    facts = json.loads((site / "model.json").read_text(encoding="utf-8"))
    explainer = Explainer(site / "model.onnx", providers="cpu")
    picture = check_picture(96, 96)
    assert picture[3, 17].tolist() == [
        (17 * k + 3 * m + (51 >> 3)) % 256 for k, m in ((7, 13), (9, 10), (11, 7))
    ]
    tensor = preprocess(picture, explainer.preprocessing, 96, 96).tensor
    outputs = explainer.explain(tensor[None])
    assert np.allclose(facts["check"]["scores"], outputs["logits"][0])
    assert facts["check"]["target"] == outputs["logits"][0].argmax()
    blocks = outputs["heatmap"][0].astype(float).reshape(BLOCKS, 12, BLOCKS, 12).mean((1, 3))
    assert np.allclose(facts["check"]["heatmap"], blocks.ravel())


def test_the_page_loads_nothing_but_its_own(site: Path) -> None:
    page = (site / "index.html").read_text(encoding="utf-8")
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert "unsafe-inline" not in policy and "default-src 'none'" in policy
    assert f"connect-src 'self' {CDN} blob:" in policy
    assert headers_in(site)["Content-Security-Policy"] == policy
    assert not re.search(r"<script(?![^>]*src)|\son\w+=|style=", page)
    for name in re.findall(r'(?:src|href)="([^"#:]+)"', page):
        assert (site / name).is_file()
    text = "".join((site / name).read_text(encoding="utf-8") for name in ASSETS)
    assert not re.findall(r"https?://", text)


def test_the_modules_are_whole() -> None:
    """Every file in the package is written and imported; every element that is used is there."""
    assert {path.name for path in WEB.iterdir()} == {"index.html", *ASSETS}
    page = (WEB / "index.html").read_text(encoding="utf-8")
    script = (WEB / "page.mjs").read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'\bat\("([^"]+)"\)', script))
    assert used and used <= set(ids)
    for target in re.findall(r'(?:for|list|aria-labelledby|aria-describedby)="([^"]+)"', page):
        assert target in ids


def test_the_cdns_files_are_pinned(site: Path) -> None:
    facts = json.loads((site / "model.json").read_text(encoding="utf-8"))["runtime"]
    assert facts["base"] == f"{CDN}/npm/onnxruntime-web@{VERSION}/dist/"
    needed = {name for files in FILES.values() for name in files.values()}
    assert needed == facts["integrity"].keys()
    assert all(re.fullmatch(r"sha384-[\w+/]{64}", each) for each in facts["integrity"].values())


@pytest.mark.parametrize("place", [".", "..", "../.."])
def test_an_installed_runtime_is_copied(place: str, package: Path, tmp_path: Path) -> None:
    facts = made(tmp_path / "site", "--runtime", package / place)["runtime"]
    assert facts["base"] == "runtime/" and facts["version"] == VERSION
    for name, integrity in facts["integrity"].items():
        data = (tmp_path / "site" / "runtime" / name).read_bytes()
        assert data == name.encode() and integrity == hash_of(data)
    for name in ("index.html", "_headers"):
        assert "https:" not in (tmp_path / "site" / name).read_text(encoding="utf-8")


def test_another_version_is_said(package: Path, tmp_path: Path) -> None:
    (package / "package.json").write_text('{"version": "9.9.9"}', encoding="utf-8")
    done = web(MODEL, "-o", tmp_path / "site", "--runtime", package)
    assert done.exit_code == 0 and f"9.9.9; the page was tested with {VERSION}" in done.stderr


def test_a_runtime_that_is_not_there(package: Path, tmp_path: Path) -> None:
    line = refused(MODEL, "-o", tmp_path / "site", "--runtime", tmp_path / "none")
    assert f"npm install onnxruntime-web@{VERSION}" in line
    (package / "dist" / "ort.webgpu.min.mjs").unlink()
    assert "lacks dist/ort.webgpu.min.mjs" in refused(
        MODEL, "-o", tmp_path / "site", "--runtime", package
    )
    assert not (tmp_path / "site").exists()


def test_nothing_is_overwritten_unless_forced(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    made(folder)
    (folder / "mine.txt").write_text("mine")
    (folder / "index.html").write_text("changed")
    before = (folder / "model.json").read_bytes()
    assert "index.html exists" in refused(MODEL, "-o", folder)
    assert (folder / "index.html").read_text() == "changed"
    assert "style.css exists" in refused_after_removing(folder, "index.html", "model.json")
    made(folder, "--force", "--composite", "lrp-resnet")
    assert (folder / "index.html").read_text().startswith("<!DOCTYPE html>")
    assert (folder / "model.json").read_bytes() != before
    assert (folder / "mine.txt").read_text() == "mine"


def refused_after_removing(folder: Path, *names: str) -> str:
    for name in (*names, "model.onnx", "_headers"):
        (folder / name).unlink()
    return refused(MODEL, "-o", folder)


def test_what_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is a file: name a folder" in refused(MODEL, "-o", tmp_path / "file")
    assert "name of a file" in refused(MODEL, "-o", tmp_path / "page.html")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").mkdir()
    assert "is a folder" in refused(MODEL, "-o", tmp_path / "site", "--force")


@pytest.mark.skipif(os.name != "posix" or not os.geteuid(), reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "cannot be created" in refused(MODEL, "-o", tmp_path / "site")


def test_files_that_are_compiled_already(tmp_path: Path) -> None:
    model = compile_model(MODEL)
    model.save(tmp_path / "cpu.onnx")
    line = refused(tmp_path / "cpu.onnx", "-o", tmp_path / "site")
    assert "optional inputs" in line and "--optimize-for web" in line
    compile_model(MODEL, optimize_for="portable").save(tmp_path / "portable.onnx")
    made(tmp_path / "site", model=tmp_path / "portable.onnx")
    data = (tmp_path / "portable.onnx").read_bytes()
    assert (tmp_path / "site" / "model.onnx").read_bytes() == data
    line = refused(tmp_path / "portable.onnx", "-o", tmp_path / "b", "--composite", "c3-lrp")
    assert "is compiled already, which settles --composite" in line
    line = refused(tmp_path / "portable.onnx", "-o", tmp_path / "b", "--post", "none")
    assert "settles --post" in line
    given = ("--preprocess", "caffe", "--classes", "a,b,c,d,e,f,g,h,i,j")
    facts = made(tmp_path / "b", *given, model=tmp_path / "portable.onnx")
    assert facts["preprocessing"]["channels"] == "BGR" and facts["labels"][:2] == ["a", "b"]
    options: dict[str, Any] = {"optimize_for": "web", "outputs": ("relevance",)}
    compile_model(MODEL, **options).save(tmp_path / "relevance.onnx")
    line = refused(tmp_path / "relevance.onnx", "-o", tmp_path / "c")
    assert "does not give the output heatmap" in line


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"inputs": "none"}, {"target": None, "start": None}),
        ({"inputs": "target,start"}, {"target": "target", "start": "start"}),
        ({"many_targets": True}, {"many_targets": True}),
        ({"composite": "lrp-resnet", "outputs": ("heatmap_raw",)}, {"heatmap": "heatmap_raw"}),
        ({"composite": "lrp-resnet"}, {"region": None, "post": "none"}),
    ],
    ids=str,
)
def test_other_forms_of_a_file(options: Any, facts: dict[str, Any], tmp_path: Path) -> None:
    compile_model(MODEL, optimize_for="web", **options).save(tmp_path / "model.onnx")
    found = made(tmp_path / "site", model=tmp_path / "model.onnx")
    assert {name: found[name] for name in facts} == facts


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("core.torchscript-uint8-nhwc", {"type": "uint8", "dims": [32, 32, 3]}),
        ("core-fp16.dynamo", {"type": "float16", "dims": [3, 32, 32]}),
        ("keras-v1.tf2onnx-nhwc", {"type": "float32", "dims": [32, 32, 3]}),
    ],
)
def test_other_inputs(name: str, facts: dict[str, Any], tmp_path: Path) -> None:
    (file,) = (one for one in manifest() if one.name == name)
    found = made(tmp_path / "site", "--preprocess", "raw", model=file.save(tmp_path))
    assert {name: found["input"][name] for name in facts} == facts
    assert found["preprocessing"]["layout"] == ("NHWC" if facts["dims"][2] == 3 else "NCHW")
    assert found["labels"] == []


def test_an_open_size_needs_a_size(tmp_path: Path) -> None:
    (file,) = (one for one in manifest() if one.name == "core.dynamo-any-size")
    path = file.save(tmp_path)
    done = web(path, "-o", tmp_path / "site")
    assert done.exit_code == 1 and "--input-size" in done.stderr
    assert not (tmp_path / "site").exists()
    facts = made(tmp_path / "site", "--input-size", "40x48", model=path)
    assert (facts["input"]["height"], facts["input"]["width"]) == (40, 48)


def test_a_fixed_batch(tmp_path: Path) -> None:
    facts = made(tmp_path / "site", model=with_batch(4, tmp_path / "four.onnx"))
    assert facts["input"]["batch"] == 4 and len(facts["check"]["scores"]) == 10


def test_samples_that_browsers_do_not_show(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.tif"), np.zeros((9, 9, 3), np.uint8))
    line = refused(MODEL, "-o", tmp_path / "site", "--samples", folder)
    assert "a.tif" in line and "TIFF" in line and "convert" in line
    (folder / "a.tif").unlink()
    (folder / "b.png").write_bytes(b"no picture")
    assert "b.png" in refused(MODEL, "-o", tmp_path / "site", "--samples", folder)
    assert "is not a file or a folder" in refused(
        MODEL, "-o", tmp_path / "site", "--samples", tmp_path / "none"
    )
    assert not (tmp_path / "site").exists()


def test_as_json(tmp_path: Path) -> None:
    done = web(MODEL, "-o", tmp_path / "site", "--json")
    said = json.loads(done.stdout)
    assert said["output"] == str(tmp_path / "site") and said["notes"]
    assert said["files"].keys() == names_in(tmp_path / "site")
    for name, size in said["files"].items():
        assert (tmp_path / "site" / name).stat().st_size == size


def test_in_words(tmp_path: Path) -> None:
    done = web(MODEL, "-o", tmp_path / "my site")
    first, second = done.stdout.splitlines()
    assert first.endswith(f"onnxruntime-web {VERSION} from jsDelivr")
    assert f"http.server --directory '{tmp_path / 'my site'}'" in second


def test_preprocessing_that_nothing_says(tmp_path: Path) -> None:
    model = onnx.load(MODEL)
    keep = [entry for entry in model.metadata_props if not entry.key.startswith("lrp_onnx.")]
    del model.metadata_props[:]
    model.metadata_props.extend(keep)
    onnx.save(model, tmp_path / "bare.onnx")
    done = web(tmp_path / "bare.onnx", "-o", tmp_path / "site")
    assert "imagenet is assumed" in done.stderr
    assert "prepared" in json.loads((tmp_path / "site" / "model.json").read_text())
    spec = parse_preprocessing("tf")
    onnx.helper.set_model_props(model, describe(spec, ()))
    onnx.save(model, tmp_path / "said.onnx")
    facts = made(tmp_path / "said", model=tmp_path / "said.onnx")
    assert facts["prepared"] == "tf" and facts["labels"] == []


def test_the_policy_names_the_cdn_alone() -> None:
    assert WebRuntime().origin == CDN
