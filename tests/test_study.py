"""The study runs on the embedded model and generated pictures, and says what it found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2

ROOT = Path(__file__).parents[1]


def study(folder: Path, *arguments: object) -> str:
    command = [sys.executable, str(ROOT / "tools" / "study.py"), str(folder), "-o", str(folder / "out")]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return (folder / "out" / "EVALUATION.md").read_text(encoding="utf-8")


def test_a_small_study(tmp_path: Path) -> None:
    page = study(tmp_path, "--case", "shapes", "--photos", 3, "--steps", 5)
    rows = [json.loads(line) for line in (tmp_path / "out" / "shapes.jsonl").read_text().splitlines()][1:]
    methods = {row["method"] for row in rows}
    assert len(methods) >= 20 and len(rows) == 3 * len(methods)
    assert {"constant", "random", "gaussian", "edges", "grad-cam", "lrp-resnet", "c3-lrp+c3"} <= methods
    for name in methods:
        assert f"| {name} | 3 |" in page
    constant = [row for row in rows if row["method"] == "constant"]
    assert all(row["keio"]["id"] > row["exact"]["id"] + 0.4 for row in constant)
    assert "keio: the constant map scores" in page and "the best is" in page
    assert cv2.imread(str(tmp_path / "out" / "shapes-exact.png")) is not None
    assert study(tmp_path, "--case", "shapes", "--photos", 3, "--steps", 5) == page
