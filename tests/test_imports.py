"""Who may import whom, and how light the package is: the architecture as a test."""

from __future__ import annotations

import ast
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import lrp_onnx

ROOT = Path(lrp_onnx.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
COMPILE = ("model", "relevance", "compiler", "kinds", "outputs", "plan", "plan_json", "preparation")
RUN = ("runtime",)
EDGE = (
    "cli",
    "command_options",
    "tables",
    "checking",
    "explaining",
    "gallery",
    "baselines",
    "methods",
    "subject",
    "evaluating",
    "comparing",
    "evaluation_report",
    "evaluation_request",
    "photos",
    "sanity",
    "scoring",
    "settings",
    "files",
    "__init__",
    "__main__",
)
"""What may know both halves: commands and what they print."""


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports_of(path: Path, *, lazy: bool = True) -> set[str]:
    """Every module that a file imports, relative to nothing; without `lazy`, only at its top level."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree)) if lazy else tree.body
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def uses(found: set[str], *names: str) -> set[str]:
    return {module for module in found for name in names if module == name or module.startswith(f"{name}.")}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_import_rules(path: Path) -> None:
    room, found = room_of(path), imports_of(path)
    forbidden: set[str] = set()
    if room == "model":
        forbidden |= uses(found, "lrp_onnx.relevance")
    if room == "relevance":
        forbidden |= uses(found, "lrp_onnx.model")
    if room in COMPILE:
        forbidden |= uses(
            found, "onnxruntime", "cv2", "click", "rich", *(f"lrp_onnx.{r}" for r in (*RUN, "maps", "cli"))
        )
    if room in RUN:
        forbidden |= uses(found, *(f"lrp_onnx.{r}" for r in COMPILE), "click")
    if room in ("maps", "evaluation"):
        forbidden |= uses(found, *(f"lrp_onnx.{r}" for r in (*COMPILE, *RUN)), "onnx", "onnxruntime", "click")
    if room not in RUN:
        forbidden |= uses(found, "onnxruntime")
    if path.name in ("rules.py", "joins.py", "passing.py") and room == "relevance":
        forbidden |= uses(found, "onnx", "onnx_graphsurgeon", "onnx_ir", "numpy")
    if path.name == "emit.py":
        forbidden |= {
            name for name in found if name.startswith("lrp_onnx.relevance.rules.") and not name.endswith(".Ledger")
        }
        forbidden |= uses(found, "lrp_onnx.relevance.joins", "lrp_onnx.relevance.passing", "lrp_onnx.relevance.presets")
    if room in ("plan", "kinds"):
        forbidden |= uses(found, "onnx", "onnx_ir", "onnx_graphsurgeon") | {
            m for m in found if m.startswith("lrp_onnx.") and not m.startswith("lrp_onnx.kinds")
        }
    assert not forbidden, f"{path.relative_to(ROOT)} must not import {sorted(forbidden)}"
    assert not uses(found, "torch", "tensorflow", "skimage", "scipy", "matplotlib", "PIL")


def test_every_room_is_known() -> None:
    assert {room_of(path) for path in MODULES} <= {*COMPILE, *RUN, *EDGE, "maps", "evaluation", "contract", "errors"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short_and_well_named(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300
    assert path.stem not in ("utils", "helpers", "common", "manager", "base")


HEAVY = ("numpy", "onnx", "onnx_ir", "onnx_graphsurgeon", "onnxruntime", "cv2", "rich")


@pytest.mark.parametrize("arguments", [["--help"], ["compile", "--help"], ["explain", "--help"], ["--version"]])
def test_help_is_light(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom lrp_onnx.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "[]"


def test_help_takes_less_than_half_a_second_of_cpu() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "lrp_onnx", "--help"],
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONHASHSEED": "0"},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
