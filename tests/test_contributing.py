"""The worked examples of CONTRIBUTING.md, followed word by word in a copy of the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"<!-- example: (\w+) -->\n```diff\n(.*?\n)```", PAGE, flags=re.DOTALL))
MOST_LINES = 30
"""Of an addition, outside tests."""

CHECK_COMPOSITE = """
from lrp_onnx import compile_model
compiled = compile_model("models/shapes-resnet.onnx", composite="epsilon-plus-square")
assert "w-square" in compiled.contract.rules.values()
"""
CHECK_PASS = """
import sys; sys.path.insert(0, "tests")
import numpy as np, onnx
from networks import resnet
from lrp_onnx import compile_model
model = resnet("basic", size=(32, 32))
model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((), np.float32), "zero"))
for node in model.graph.node:
    if node.op_type == "Relu":
        node.op_type = "Max"
        node.input.append("zero")
onnx.save(model, "max.onnx")
operators = {step.op for step in compile_model("max.onnx").plan.steps}
assert "Relu" in operators and "Max" not in operators
"""
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
CHECKS: dict[str, tuple[str, ...]] = {
    "rule": (*PYTEST, "tests/relevance/rules/test_rules.py", "-k", "absolute or has_a_twin"),
    "operator": (
        *PYTEST,
        "tests/test_kinds.py",
        "tests/relevance/layers/test_gradients.py",
        "-k",
        "whole or running",
    ),
    "composite": ("-c", CHECK_COMPOSITE),
    "pass": ("-c", CHECK_PASS),
}
"""Example → what is run in the copy."""


def outside_tests(diff: str) -> list[str]:
    """Lines that an example adds to the package, empty ones left out."""
    parts = re.split(r"(?m)^diff --git ", diff)
    package = [part for part in parts if part.startswith("a/lrp_onnx/")]
    return [
        line for part in package for line in part.splitlines() if re.match(r"\+(?!\+\+).*\S", line)
    ]


def test_every_example_has_a_check() -> None:
    assert set(EXAMPLES) == set(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
def test_an_example_works(name: str, tmp_path: Path) -> None:
    for folder in ("lrp_onnx", "tests"):
        left_out = shutil.ignore_patterns("__pycache__", "*.xz", "*.npz")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=left_out)
    (tmp_path / "models").mkdir()
    shutil.copy(ROOT / "models" / "shapes-resnet.onnx", tmp_path / "models")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert 0 < len(outside_tests(EXAMPLES[name])) < MOST_LINES

    def run(*command: str, text: str | None = None) -> None:
        # Outside a repository `git apply` takes the folder that it is run in.
        alone = {"PATH": os.environ["PATH"], "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
        environment = alone | {"PYTHONPATH": str(tmp_path)}
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, cwd=tmp_path, env=environment
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    before = {path: path.read_bytes() for path in tmp_path.rglob("*.py")}
    run("git", "apply", "-", text=EXAMPLES[name])
    assert before != {path: path.read_bytes() for path in tmp_path.rglob("*.py")}
    run(sys.executable, *CHECKS[name])
