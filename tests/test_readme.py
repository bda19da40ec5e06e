"""What the README says is what the code does."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from pages import PAGES, ROOT, blocks_of, set_up, shell

import lrp_onnx
from lrp_onnx.compiler import Options, compile_model
from lrp_onnx.relevance.composites.presets import COMPOSITES
from lrp_onnx.runtime.explainer import Explainer

README = PAGES["README"].read_text(encoding="utf-8")
MODEL = ROOT / "models" / "shapes-resnet.onnx"
MOST = 8000
"""Bytes of the README: what is more belongs into a guide."""


def test_it_is_short() -> None:
    assert len(README.encode()) <= MOST


def test_every_guide_is_linked() -> None:
    for name in PAGES.keys() - {"README"}:
        assert f"(lrp_onnx/guides/{name}.md)" in README


def test_the_first_command_explains_the_samples(tmp_path: Path) -> None:
    """Its last part, in a copy: installing is tried by hand."""
    commands = [one for one in blocks_of("README") if "models/shapes-resnet.onnx" in one.text]
    (line,) = commands[0].text.strip().splitlines()
    *_, explain = line.split(" && ")
    assert explain.startswith(".venv/bin/lrp-onnx ") and len(commands) == 1
    shutil.copytree(ROOT / "models", tmp_path / "models")
    done = shell(explain.removeprefix(".venv/bin/"), tmp_path, set_up(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "explained" / "explanations.jsonl").is_file()
    assert len(done.stdout.splitlines()) == 4


def test_the_test_command_stands_where_it_is_looked_for() -> None:
    (command,) = re.findall(r"^<!-- test command -->\n```bash\n(.*)\n```$", README, re.M)
    assert "pip install -q -e '.[dev]'" in command and command.endswith("pytest -q -n 2")


def test_the_costs_beside_others_are_the_benchmark_s() -> None:
    stored = ROOT / "models" / "benchmark"
    rows = [
        *json.loads((stored / "resnet50.json").read_text(encoding="utf-8"))["rows"],
        *json.loads((stored / "alone.json").read_text(encoding="utf-8"))["alone"],
    ]
    costs = {row["method"]: row["multiple"] for row in rows if row["batch"] == 1}
    for tool, method in (
        (r"\*\*lrp-onnx\*\*", "residual-c3"),
        ("Captum LRP", "Captum LRP"),
        ("Zennit", "Zennit EpsilonPlusFlat"),
    ):
        assert re.search(rf"^\| {tool} \|.*\| {costs[method]:.1f} \|", README, re.M), tool


def test_the_changelog_and_the_package_agree() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {lrp_onnx.__version__}" in changelog
    assert f"lists {len(COMPOSITES)} named composites" in changelog


@pytest.mark.parametrize("composite", COMPOSITES)
def test_a_compiled_file_is_hardly_larger(composite: str) -> None:
    compiled = compile_model(
        MODEL, Options(composite=composite, outputs=("heatmap", "relevance"))
    ).model
    # The matrices that resample maps depend on the picture's size, not on the model.
    resampling = sum(
        tensor.ByteSize()
        for tensor in compiled.graph.initializer
        if tensor.data_type == onnx.TensorProto.DOUBLE
    )
    assert len(compiled.SerializeToString()) - resampling <= 1.05 * MODEL.stat().st_size


def test_the_embedded_model_explains_its_objects() -> None:
    """Samples are recognised; under lrp-resnet relevance is
    at least 2.5 times denser on and beside the object.
    """
    import cv2

    data = compile_model(MODEL, Options(composite="lrp-resnet")).model.SerializeToString()
    paths = sorted((ROOT / "models" / "samples").glob("*.png"))
    assert len(paths) == 4
    for found in Explainer(data, providers="cpu").explain_images(paths):
        assert found.target_name == found.path.stem and found.top5[0][2] > 0.9
        mask = cv2.imread(str(ROOT / "models" / "masks" / found.path.name), cv2.IMREAD_GRAYSCALE)
        near = (
            cv2.resize(
                cv2.dilate(mask, np.ones((25, 25), np.uint8)),
                (96, 96),
                interpolation=cv2.INTER_AREA,
            )
            > 127
        )
        share = float(found.heatmap[near].sum() / found.heatmap.sum())
        assert share > 2.5 * near.mean(), (found.path.name, share)


def test_the_embedded_model_is_small_and_says_how_to_use_it() -> None:
    proto = onnx.load(MODEL)
    keys = {entry.key for entry in proto.metadata_props}
    assert MODEL.stat().st_size <= 3_000_000 and keys == {
        "lrp_onnx.preprocessing",
        "lrp_onnx.labels",
    }
    assert (ROOT / "models" / "shapes-resnet.labels.txt").read_text().split() == list(
        Explainer(compile_model(MODEL).model.SerializeToString()).labels
    )
