"""What a terminal of 80 columns shows: no line is longer, and no letter is lost."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest
from rich.cells import cell_len

pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")

CLONE = Path(__file__).parents[2]
PREFIX = "/a_backbone_of_a_long_name/stages.stages.0/layers.layers.0"
"""What some exporters put before every name."""
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model with long names, its compiled file, and two photos."""
    folder = tmp_path_factory.mktemp("work")
    model = onnx.load(CLONE / "models" / "shapes-resnet.onnx")
    for node in model.graph.node:
        node.name = PREFIX + node.name
    onnx.save(model, folder / "model.onnx")
    (folder / "photos").mkdir()
    for name in ("heart.png", "star.png"):
        shutil.copy(CLONE / "models" / "samples" / name, folder / "photos")
    command = [sys.executable, "-m", "lrp_onnx", "compile", "model.onnx", "--no-check"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def shown(arguments: Sequence[str], folder: Path) -> str:
    """Standard output of a command in a terminal of 80 columns, without its colours."""
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "lrp_onnx", *arguments],
        cwd=folder,
        stdin=end,
        stdout=end,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": "80", "TERM": "xterm-256color"},
    )
    os.close(end)
    parts = []
    try:
        while part := os.read(terminal, 65536):
            parts.append(part)
    except OSError:  # how Linux says that the other side is closed
        pass
    os.close(terminal)
    assert process.wait(60) == 0
    return COLOURS.sub("", b"".join(parts).decode()).replace("\r", "")


@pytest.mark.parametrize(
    ("command", "whole"),
    [
        ("plan model.onnx", "winner-take-all"),
        ("plan --all model.onnx", f"{PREFIX}/8/Relu"),
        ("composites", "lrp-resnet-reference-main-only-symmetric"),
        ("verify model.lrp.onnx", "every layer's relevance accounted for"),
        ("verify --all model.lrp.onnx", f"{PREFIX}/8/Relu"),
        ("doctor model.onnx photos", "lrp-onnx explain model.onnx photos -o explained"),
        ("guide", "Speed and memory"),
        ("guide composites", "lrp-resnet-reference-main-only-symmetric"),
        (
            "evaluate model.onnx photos --method grad-cam --metrics exact,keio,srg --steps 2 --all",
            "grad-cam",
        ),
        (
            "evaluate model.onnx photos --method epsilon-alpha2-beta1-flat+c3:outside=rank "
            "--metrics exact,keio,srg,sparseness --steps 2",
            "gaussian",
        ),
    ],
)
def test_lines_fit_and_lose_no_letter(command: str, whole: str, folder: Path) -> None:
    text = shown(command.split(), folder)
    lines = text.splitlines()
    assert lines and max(map(cell_len, lines)) <= 80
    assert whole in text and not re.search(r"\w…", text)


def test_elsewhere_a_row_is_a_line_without_padding(folder: Path) -> None:
    command = [sys.executable, "-m", "lrp_onnx", "plan", "--all", "model.onnx"]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, encoding="utf-8")
    lines = done.stdout.splitlines()
    (relu,) = [line for line in lines if f"{PREFIX}/8/Relu" in line]
    assert relu.split()[1] == "Relu" and all(line == line.rstrip() for line in lines)
