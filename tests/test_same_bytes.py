"""Everything that is written has the same bytes again: in another process, under another hash seed,
locale, time zone and date, in another folder, with another number of threads.

`python -m tools.zoo.fingerprints --again` compiles the whole zoo so.
"""

from __future__ import annotations

import json
import lzma
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lrp_onnx.compiler import compile_model

ROOT = Path(__file__).parents[1]
MODEL, SAMPLES = ROOT / "models" / "shapes-resnet.onnx", ROOT / "models" / "samples"
TRANSFORMER = ROOT / "tests" / "zoo" / "deit.torchscript.onnx.xz"
PROGRAM = """
import contextlib, json, sys, time
late, *commands = json.load(sys.stdin)
now = time.time
time.time = lambda: now() + late
from lrp_onnx.cli.commands import main
for number, command in enumerate(commands):
    with open(f"said-{number}.txt", "w", encoding="utf-8") as said:
        with contextlib.redirect_stdout(said):
            main(command, standalone_mode=False)
"""
"""Runs commands in one process, on a later day, and keeps what they print."""
COMPILED = {
    **{name: ["--optimize-for", name] for name in ("cpu", "web", "portable")},
    "post": ["--composite", "epsilon-plus-flat", "--post", "c3+normalize"],
    "many": ["--many-targets", "--outputs", "heatmap,heatmap_raw,relevance", "--static"],
    "start": ["--start", "contrastive", "--rule", "@join=ratio", "--rule", "*Conv*=z-plus"],
}
"""Name of a compiled file → the options."""
COMMANDS = [
    *(["compile", "model.onnx", "-o", f"{name}.onnx", *how] for name, how in COMPILED.items()),
    ["compile", "vit.onnx", "-o", "vit.lrp.onnx", "--no-check"],
    ["plan", "model.onnx", "--json"],
    ["explain", "model.onnx", "photos", "-o", "explained", "--json", "--provider", "cpu"],
    ["web", "model.onnx", "-o", "site", "--samples", "photos", "--json"],
    ["triton", "model.onnx", "-o", "repository", "--json"],
]
HERE = {"PYTHONHASHSEED": "1", "LC_ALL": "C.UTF-8", "TZ": "UTC", "OMP_NUM_THREADS": "1"}
THERE = {"PYTHONHASHSEED": "2", "LC_ALL": "C", "TZ": "Asia/Kathmandu", "PYTHONUTF8": "0"}
LATER = 400 * 86_400
MEASURED = re.compile(
    rb'"(?:decode|run)": [\d.e-]+|<dt>When</dt><dd>[^<]*</dd>|<dt>Command</dt><dd>.*?</dd>'
)
"""What may differ: seconds, and when and by which command a page was made."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """Two folders in which the same commands were run under other circumstances, at once."""
    made, running = [], []
    for name, environment, late in (("here", HERE, 0), ("over there", THERE, LATER)):
        folder = tmp_path_factory.mktemp(name)
        shutil.copy(MODEL, folder / "model.onnx")
        (folder / "vit.onnx").write_bytes(lzma.decompress(TRANSFORMER.read_bytes()))
        shutil.copytree(SAMPLES, folder / "photos")
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            cwd=folder,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        json.dump([late, *COMMANDS], process.stdin)
        process.stdin.close()
        made.append(folder)
        running.append(process)
    for process in running:
        assert process.stderr is not None
        said = process.stderr.read()
        process.stderr.close()
        assert process.wait() == 0, said
    yield made[0], made[1]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder, by name, less what is measured."""
    return {
        path.relative_to(folder).as_posix(): MEASURED.sub(b"", path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_all_that_is_written(folders: tuple[Path, Path]) -> None:
    here, there = map(contents, folders)
    assert here.keys() == there.keys()
    assert [name for name in here if here[name] != there[name]] == []
    kinds = {Path(name).suffix for name in here if len(here[name]) > 500}
    assert kinds >= {".onnx", ".html", ".png", ".npz", ".jsonl", ".txt"}


def test_this_process_another_name_and_a_second_time(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copy(MODEL, tmp_path / "other name.onnx")
    expected = (folders[0] / "cpu.onnx").read_bytes()
    for _ in range(2):
        made: Any = compile_model(tmp_path / "other name.onnx", optimize_for="cpu")
        assert made.model.SerializeToString() == expected
