"""Exported results, read by the libraries that they are for, with the guide's own code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from pages import MODELS, blocks_of

from lrp_onnx.cli.commands import main
from lrp_onnx.deploy.findings import Finding
from lrp_onnx.deploy.rle import brush_rle, coco_rle
from lrp_onnx.report.results import stored_lines

pytest.importorskip("fcntl", reason="environments are made on Linux and macOS alone")

from tools.runtimes.environments import Environment, python_of
from tools.runtimes.errors import UnavailableError

pytestmark = pytest.mark.runtimes

COCO = Environment(("pycocotools==2.0.11", "numpy"))
LABEL_STUDIO = Environment(("label-studio-sdk==2.1.2",))
FIFTYONE = "LRP_ONNX_FIFTYONE"
"""The variable that names a Python with FiftyOne, which takes minutes to install."""

Arrays = dict[str, NDArray[np.generic]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, one of them cropped by the model's preparation, and their exported results."""
    folder = tmp_path_factory.mktemp("readers")
    (folder / "photos").mkdir()
    shutil.copy(MODELS / "samples" / "heart.png", folder / "photos")
    star = cv2.imread(str(MODELS / "samples" / "star.png"))
    wide = cv2.copyMakeBorder(star, 10, 20, 150, 61, cv2.BORDER_REFLECT)
    cv2.imwrite(str(folder / "photos" / "wide.png"), wide)
    results, model = folder / "explained", MODELS / "shapes-resnet.onnx"
    options = ["--preprocess", "imagenet", "--top", 2, "--report", "none"]
    commands = [["explain", model, folder / "photos", "-o", results, *options]]
    for to, name in (("coco", "regions"), ("label-studio", "tasks"), ("fiftyone", "samples")):
        commands.append(["export", results, "--to", to, "-o", folder / f"{name}.json"])
    for command in commands:
        done = CliRunner().invoke(main, list(map(str, command)))
        assert done.exit_code == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def findings(folder: Path) -> list[Finding]:
    return [
        Finding.stored(line, folder / "explained") for line in stored_lines(folder / "explained")
    ]


def python(environment: Environment) -> Path:
    try:
        return python_of(environment)
    except UnavailableError as reason:
        pytest.skip(str(reason))


def read(interpreter: Path, code: str, folder: Path) -> Arrays:
    """Run `code`, which fills ``found``; returns its arrays."""
    code = f"import numpy as np\nfound = {{}}\n{code}\nnp.savez('found.npz', **found)\n"
    done = subprocess.run(
        [str(interpreter), "-c", code], cwd=folder, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    with np.load(folder / "found.npz") as arrays:
        return dict(arrays)


def block(library: str) -> str:
    """The guide's code for a library."""
    (text,) = (
        one.text
        for one in blocks_of("annotations")
        if one.language == "python" and library in one.text
    )
    return text


def masks() -> Arrays:
    """Masks whose codes are easily wrong: empty, full, fine, and with runs beyond 16 bits."""
    rng = np.random.default_rng(0)
    found: Arrays = {
        "empty": np.zeros((9, 7), np.bool_),
        "full": np.ones((9, 7), np.bool_),
        "fine": rng.random((60, 43)) < 0.5,
        "rare": rng.random((400, 300)) < 1e-4,
        "one": np.ones((1, 1), np.bool_),
    }
    return found


def test_pycocotools_reads_the_masks(tmp_path: Path) -> None:
    codes = {
        name: [coco_rle(mask), coco_rle(mask, compressed=False)] for name, mask in masks().items()
    }
    (tmp_path / "codes.json").write_text(json.dumps(codes))
    code = (
        "import json\nfrom pycocotools import mask as coco\n"
        "for name, (packed, plain) in json.load(open('codes.json')).items():\n"
        "    found[name] = coco.decode(packed)\n"
        "    found[f'{name} plain'] = coco.decode(coco.frPyObjects(plain, *plain['size']))\n"
        "    same = coco.encode(np.asfortranarray(found[name]))['counts'].decode()\n"
        "    assert same == packed['counts'], name\n"
    )
    found = read(python(COCO), code, tmp_path)
    for name, mask in masks().items():
        assert np.array_equal(found[name], mask), name
        assert np.array_equal(found[f"{name} plain"], mask), name


def test_pycocotools_reads_the_file(folder: Path, findings: list[Finding]) -> None:
    code = block("pycocotools") + "    found[str(one['id'])] = mask\n"
    code += "    assert abs(coco.annToRLE(one)['size'][0] - photo['height']) == 0\n"
    found = read(python(COCO), code, folder)
    assert len(found) == len(findings)
    for number, finding in enumerate(findings, 1):
        assert np.array_equal(found[str(number)], finding.mask)


def test_label_studio_reads_the_masks(tmp_path: Path) -> None:
    codes = {name: brush_rle(mask) for name, mask in masks().items()}
    (tmp_path / "codes.json").write_text(json.dumps(codes))
    code = (
        "import json\nfrom label_studio_sdk.converter.brush import decode_rle\n"
        "for name, code in json.load(open('codes.json')).items():\n"
        "    found[name] = decode_rle(code)\n"
    )
    found = read(python(LABEL_STUDIO), code, tmp_path)
    for name, mask in masks().items():
        values = np.repeat(np.where(mask, 255, 0).ravel(), 4)
        assert np.array_equal(found[name], values), name


def test_label_studio_reads_the_file(folder: Path, findings: list[Finding]) -> None:
    code = block("label_studio_sdk") + "        found[str(len(found))] = mask\n"
    found = read(python(LABEL_STUDIO), code, folder)
    assert len(found) == len(findings)
    for number, finding in enumerate(findings):
        assert np.array_equal(found[str(number)], finding.mask)


def test_fiftyone_reads_the_file(folder: Path, findings: list[Finding]) -> None:
    if FIFTYONE not in os.environ:
        pytest.skip(f"takes minutes to install: set {FIFTYONE} to a Python that has fiftyone")
    code = block("fiftyone") + (
        "for number, sample in enumerate(dataset):\n"
        "    assert sample.prediction.label in ('heart', 'star'), sample\n"
        "    for suffix in ('', '_2'):\n"
        "        heatmap, c3 = sample[f'heatmap{suffix}'], sample[f'c3{suffix}']\n"
        "        found[f'{number}{suffix} map'] = heatmap.get_map()\n"
        "        found[f'{number}{suffix} range'] = heatmap.range\n"
        "        found[f'{number}{suffix} mask'] = c3.get_mask()\n"
        "dataset.delete()\n"
    )
    found = read(Path(os.environ[FIFTYONE]), code, folder)
    assert len(found) == 3 * len(findings)
    for i, finding in enumerate(findings):
        name = f"{i // 2}{'_2' if i % 2 else ''}"
        assert np.array_equal(found[f"{name} map"], finding.whole)
        most = float(np.abs(finding.heatmap).max())
        assert found[f"{name} range"].tolist() == [-most, most]
        assert np.array_equal(found[f"{name} mask"] == 1, finding.mask)
