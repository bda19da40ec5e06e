"""The README and the guides: their blocks of code, run as they stand."""

from __future__ import annotations

import lzma
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from v2_server import serving

import lrp_onnx

ROOT = Path(__file__).parents[1]
MODELS = ROOT / "models"
PAGES: Mapping[str, Path] = {"README": ROOT / "README.md"} | {
    path.stem: path for path in sorted((ROOT / "lrp_onnx" / "guides").glob("*.md"))
}
"""Name → file."""
BLOCK = re.compile(r"((?:^<!-- [^\n]* -->\n)*)^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!-- not run: ([^\n]*) -->")

SERVER = "localhost:8000"
"""Where the pages have a model server, which has a free port here."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    not_run: str | None
    """Why it is not run; None where it is."""


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page, in order."""
    found = []
    for marks, language, text in BLOCK.findall(PAGES[page].read_text(encoding="utf-8")):
        mark = MARK.search(marks)
        found.append(Block(language, text, mark and mark[1]))
    return found


def set_up(folder: Path) -> Path:
    """What the pages assume: ``model.onnx``, ``photo.jpg``, ``photos`` with ``labels.csv``, and
    models of signals and films with an input each.

    Returns the folder of the program ``lrp-onnx``, which is the package that is tested.
    """
    (folder / "model.onnx").write_bytes((MODELS / "shapes-resnet.onnx").read_bytes())
    classes = (MODELS / "shapes-resnet.labels.txt").read_text(encoding="utf-8").split()
    (folder / "photos").mkdir()
    rows = ["file,label"]
    for path in sorted((MODELS / "samples").glob("*.png")):
        cv2.imwrite(str(folder / "photos" / f"{path.stem}.jpg"), cv2.imread(str(path)))
        rows.append(f"{path.stem}.jpg,{classes.index(path.stem)}")
    (folder / "photos" / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "photo.jpg").write_bytes((folder / "photos" / "star.jpg").read_bytes())
    for name, family in (("ecg", "resnet-1d"), ("film", "resnet-3d")):
        packed = ROOT / "tests" / "zoo" / f"{family}.torchscript.onnx.xz"
        (folder / f"{name}.onnx").write_bytes(lzma.decompress(packed.read_bytes()))
    rng = np.random.default_rng(0)
    np.save(folder / "signal.npy", rng.normal(size=(2, 128)))
    np.save(folder / "film.npy", rng.normal(size=(3, 4, 32, 32)))
    programs = folder / "programs"
    programs.mkdir()
    program = programs / "lrp-onnx"
    program.write_text(
        f"#!{sys.executable}\nfrom lrp_onnx.cli.commands import main\n\nmain()\n", encoding="utf-8"
    )
    program.chmod(0o755)
    return programs


def shell(
    text: str, folder: Path, programs: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run lines of bash in a folder, up to the first that fails."""
    package = Path(lrp_onnx.__file__).parents[1]
    places = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(package)}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env=os.environ | places | variables,
        capture_output=True,
        text=True,
        timeout=600,
    )


def run(page: str, folder: Path) -> dict[str, object]:
    """Run every block of a page in order; the folder is the working directory already.

    A server in small answers what the page asks of `SERVER`. Returns the names that the Python
    blocks have defined.

    Raises AssertionError with the block and its output where one fails.
    """
    programs = set_up(folder)
    names: dict[str, object] = {}
    with serving(folder / "repository") as address:
        for block in blocks_of(page):
            if block.not_run is not None:
                continue
            text = block.text.replace(SERVER, address)
            if block.language == "python":
                exec(compile(text, f"{page}.md", "exec"), names)
            else:
                done = shell(text, folder, programs)
                assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return names
