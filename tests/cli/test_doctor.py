"""The command that says what is known: right presets named, doubts said, nothing made up."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from lrp_onnx.cli import doctor as command
from lrp_onnx.cli.commands import main
from lrp_onnx.contract import Preprocessing, describe

ROOT = Path(__file__).parents[2]
MODEL, SAMPLES = ROOT / "models" / "shapes-resnet.onnx", ROOT / "models" / "samples"
NAMES = (ROOT / "models" / "shapes-resnet.labels.txt").read_text().split()


def run(*arguments: str | Path, status: int = 0) -> Any:
    result = CliRunner().invoke(main, ["doctor", *map(str, arguments), "--json"])
    assert result.exit_code == status, result.output
    return json.loads(result.stdout)


def bare(path: Path, preprocessing: Preprocessing | None = None) -> Path:
    """The embedded model, saying nothing, or this."""
    model = onnx.load(MODEL)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, describe(preprocessing, ()))
    onnx.save(model, path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """The samples and their mirror images in folders named as the classes."""
    for sample in sorted(SAMPLES.glob("*.png")):
        folder = tmp_path / "photos" / sample.stem
        folder.mkdir(parents=True)
        picture = cv2.imread(str(sample))
        for index, turned in enumerate((picture, picture[:, ::-1], picture[::-1])):
            cv2.imwrite(str(folder / f"{index}.png"), np.ascontiguousarray(turned))
    return tmp_path / "photos"


def test_the_installation_alone() -> None:
    found = run()
    assert "onnxruntime" in found["installation"]["runtime"] and not found["faults"]
    assert found["model"] == {} and found["command"] == ""


def test_a_broken_installation_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "installed", lambda: ["onnxruntime", "onnxruntime-gpu"])
    found = run(status=1)
    assert "both installed" in found["faults"][0] and "pip uninstall" in found["faults"][0]


def test_what_the_model_says(tmp_path: Path) -> None:
    found = run(MODEL)
    assert found["model"]["preprocessing from"] == "the model's metadata"
    assert found["model"]["classes"].startswith(f"{len(NAMES)}: {NAMES[0]}")
    assert not found["warnings"] and "--preprocess" not in found["command"]
    said = run(bare(tmp_path / "bare.onnx"))
    assert "imagenet is assumed" in said["model"]["preprocessing"]
    assert any("every class and map is wrong" in text for text in said["warnings"])
    assert any("no names" in text for text in said["warnings"])


def test_labelled_photos_find_the_preset(tmp_path: Path, photos: Path) -> None:
    path = bare(tmp_path / "bare.onnx")
    (tmp_path / "labels.txt").write_text("\n".join(NAMES))
    folders = [str(folder) for folder in sorted(photos.iterdir())]
    found = run(path, *folders)
    best, *_, worst = found["trials"]
    assert best["accuracy"] == 1.0 and worst["accuracy"] < 0.7
    words = shlex.split(found["command"])
    chosen = words[words.index("--preprocess") + 1]
    assert chosen == best["preprocess"] and f"--preprocess {chosen} is right on" in found["verdict"]


def test_names_are_given_with_the_command(tmp_path: Path, photos: Path) -> None:
    found = run(
        bare(tmp_path / "bare.onnx"), *sorted(photos.iterdir()), "--classes", ",".join(NAMES)
    )
    assert found["trials"][0]["accuracy"] == 1.0
    assert found["model"]["names from"] == "the options" and "--classes" in found["command"]


def test_photos_contradict_what_is_said(tmp_path: Path, photos: Path) -> None:
    wrong = Preprocessing(mean=(0.0,), std=(1.0,), divisor=1.0)
    path = bare(tmp_path / "wrong.onnx", wrong)
    (tmp_path / "labels.txt").write_text("\n".join(NAMES))
    found = run(path, *sorted(photos.iterdir()))
    assert any("contradict" in text and "raw" in text for text in found["warnings"])
    assert "--preprocess" in found["command"]


def test_without_labels_the_evidence_is_called_weak(tmp_path: Path, photos: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for index, path in enumerate(sorted(photos.rglob("*.png"))):
        (flat / f"{index}.png").write_bytes(path.read_bytes())
    wrong = Preprocessing(mean=(0.0,), std=(1.0,), divisor=1.0)
    found = run(bare(tmp_path / "wrong.onnx", wrong), flat)
    assert "weak evidence" in found["verdict"] and found["trials"][0]["accuracy"] is None
    assert any("may be wrong" in text for text in found["warnings"])


def test_labels_of_another_order_are_doubted(tmp_path: Path, photos: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    rows = ["file,label"]
    for index, path in enumerate(sorted(photos.rglob("*.png"))):
        (flat / f"{index}.png").write_bytes(path.read_bytes())
        rows.append(f"{index}.png,{(NAMES.index(path.parent.name) + 3) % len(NAMES)}")
    (flat / "labels.csv").write_text("\n".join(rows))
    found = run(MODEL, flat)
    assert any("another order" in text for text in found["warnings"])
    (flat / "labels.csv").write_text("\n".join(rows[:4]))
    assert "3 of them labelled: weak evidence" in run(MODEL, flat)["verdict"]


def test_class_names_on_the_command_line(tmp_path: Path, photos: Path) -> None:
    """They are what the names of folders are compared with, and come into the command to use."""
    path = bare(tmp_path / "bare.onnx")
    names = ",".join(NAMES)
    compiled = tmp_path / "bare.lrp.onnx"
    assert CliRunner().invoke(main, ["compile", str(path), "--no-check"]).exit_code == 0
    for model in (path, compiled):
        found = run(model, photos, "--classes", names)
        assert "labelled" in found["verdict"] and "weak evidence" not in found["verdict"]
        assert f"--classes {names} --recursive" in found["command"]
        assert not any("have no names" in text for text in found["warnings"])
    assert "2 class names" in run(path, "--classes", "a,b", status=1)["faults"][0]


def test_a_model_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("<html>")
    assert "not an ONNX model" in run(path, status=1)["faults"][0]


def test_in_words() -> None:
    result = CliRunner().invoke(main, ["doctor", str(MODEL), str(SAMPLES)])
    assert result.exit_code == 0 and "verdict" in result.stdout and "use:" in result.stdout
    assert result.stdout.index("use:") < result.stdout.index("installation")
