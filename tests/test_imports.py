"""Who may import whom, and how light the package is: the
architecture as a test, read off the folders.
"""

from __future__ import annotations

import ast
import os
import resource
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

import lrp_onnx

ROOT = Path(lrp_onnx.__file__).parent

EVERYWHERE = {"errors", "contract", "notation", "selection", "values", "files"}
"""Rooms that every room may use."""
FORBIDDEN: Mapping[str, set[str]] = {
    "model": {"relevance"},
    "relevance": {"model"},
    "runtime": {"model", "relevance", "compiled", "compiler", "plan"},
    "maps": {"model", "relevance", "compiled", "compiler", "plan", "runtime"},
    "evaluation/metrics": {"model", "relevance", "compiled", "compiler", "plan", "runtime"},
    "report": {"model", "relevance", "compiled", "compiler", "plan"},
}
"""Room → rooms that it must not import: `model` and
`relevance` meet in `plan`, the run half knows only files.
"""
ALLOWED: Mapping[str, set[str]] = {
    "errors": set(),
    "contract": {"errors", "values"},
    "notation": {"errors"},
    "selection": set(),
    "values": set(),
    "files": {"errors", "contract", "selection"},
    "plan": {"errors"},
    "deploy": {"errors", "contract", "selection", "files", "runtime", "maps"},
}
"""Room → all that it may import, where that is little."""
ONLY: Mapping[str, set[str]] = {
    "onnxruntime": {"runtime"},
    "cv2": {"runtime", "maps", "evaluation", "report", "cli"},
    "click": {"cli"},
    "rich": {"cli"},
    "onnx_graphsurgeon": {"relevance"},
    "onnx_ir": {"model", "compiler"},
}
"""Library → rooms that may import it."""
NEVER = {"torch", "tensorflow", "skimage", "scipy", "matplotlib", "PIL"}


def modules(root: Path) -> dict[str, Path]:
    """Dotted name within the package → file."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(path: Path, known: Iterable[str] = ()) -> set[str]:
    """Every module that a file imports, also inside functions and for types alone."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            found.update(
                name if name.removeprefix("lrp_onnx.") in known else module
                for name in (f"{module}.{alias.name}" for alias in node.names)
            )
    return found


def graph_of(root: Path) -> dict[str, set[str]]:
    """Module → modules of the package that it imports."""
    known = modules(root)
    return {
        name: {
            m.removeprefix("lrp_onnx").removeprefix(".")
            for m in imports_of(path, known)
            if m.startswith("lrp_onnx")
        }
        for name, path in known.items()
        if name
    }


def rooms_of(name: str) -> set[str]:
    """The room that a module lies in, and the folder inside
    it: ``evaluation`` and ``evaluation/metrics``.
    """
    parts = name.split(".")
    return {parts[0], "/".join(parts[:2])} if len(parts) > 2 else {parts[0]}


def faults_of(root: Path) -> list[str]:
    """Every import that breaks a rule."""
    faults = []
    graph = graph_of(root)
    for name, imported in graph.items():
        rooms = rooms_of(name)
        for other in sorted(imported - {""}):
            there = rooms_of(other)
            for room in rooms:
                if there & FORBIDDEN.get(room, set()):
                    faults.append(f"{name} must not import {other}")
                if room in ALLOWED and not there & (ALLOWED[room] | {room}):
                    faults.append(f"{name} may import {sorted(ALLOWED[room])} alone, not {other}")
    for name, path in modules(root).items():
        for library in {module.split(".")[0] for module in imports_of(path)}:
            if library in NEVER or (library in ONLY and not rooms_of(name) & ONLY[library]):
                faults.append(f"{name} must not import {library}")
    return faults


def circle_in(graph: Mapping[str, set[str]]) -> list[str]:
    """Names that import each other in a circle, or nothing."""
    left = {name: imported - {name} for name, imported in graph.items()}
    while left:
        free = {name for name, imported in left.items() if not imported & left.keys()}
        if not free:
            return sorted(left)
        left = {name: imported for name, imported in left.items() if name not in free}
    return []


def merged(graph: Mapping[str, set[str]], part: int) -> dict[str, set[str]]:
    """The graph of what names have in place `part`: rooms
    (0), or folders of rooms (1); other modules are left out.
    """

    def folder(name: str) -> str | None:
        parts = name.split(".")
        return ".".join(parts[: part + 1]) if part == 0 or len(parts) > part + 1 else None

    found: dict[str, set[str]] = {}
    for name, imported in graph.items():
        if (start := folder(name)) is not None:
            found.setdefault(start, set()).update(
                end for end in map(folder, imported) if end is not None
            )
    return found


def test_every_import_keeps_the_rules() -> None:
    assert not faults_of(ROOT)


def test_no_circle() -> None:
    """Neither among modules, nor among rooms, nor among the folders of one room."""
    graph = graph_of(ROOT)
    assert not circle_in(graph)
    for part in (0, 1):
        assert not circle_in(merged(graph, part))


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("model/graph.py", "from lrp_onnx.relevance import emit"),
        ("relevance/emit.py", "from lrp_onnx.model.graph import Graph"),
        ("runtime/session.py", "def late():\n    from lrp_onnx.compiler import Options"),
        ("maps/c3.py", "import lrp_onnx.plan.kinds"),
        ("report/render.py", "from lrp_onnx.compiled import verify"),
        ("evaluation/metrics/curves.py", "import lrp_onnx.runtime.session"),
        ("compiler.py", "import onnxruntime"),
        ("runtime/images.py", "from rich.table import Table"),
        ("plan/plan.py", "from lrp_onnx.contract import Contract"),
        ("files/writing.py", "import torch"),
    ],
)
def test_a_forbidden_import_is_seen(module: str, line: str, tmp_path: Path) -> None:
    for path in ROOT.rglob("*.py"):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    assert not faults_of(tmp_path)
    (tmp_path / module).write_text(
        f"{(tmp_path / module).read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8"
    )
    (fault,) = faults_of(tmp_path)
    assert module.removesuffix(".py").replace("/", ".") in fault


def test_a_circle_is_seen() -> None:
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]
    graph = {"a.x": {"b.y.z", "c"}, "b.y.z": {"a.w"}, "a.w": set(), "c": set()}
    assert not circle_in(graph)
    assert merged(graph, 0) == {"a": {"b", "c"}, "b": {"a"}, "c": set()}
    assert circle_in(merged(graph, 0)) == ["a", "b"]
    assert merged(graph, 1) == {"b.y": set()}


def test_rules_know_layers_and_values_alone() -> None:
    """No rule asks for the builder, or for what a runtime is fast at."""
    for path in (ROOT / "relevance" / "rules").glob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        asked = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        assert not asked & {"builder", "emission"}, path.name
        assert not {"onnx", "onnx_graphsurgeon", "onnx_ir", "numpy"} & imports_of(path), path.name


def test_only_the_command_line_prints() -> None:
    for name, path in modules(ROOT).items():
        calls = [
            node.func
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
        ]
        if any(isinstance(call, ast.Name) and call.id == "print" for call in calls):
            assert "cli" in rooms_of(name), f"{name} prints"


def test_no_module_is_a_drawer() -> None:
    assert not {"utils", "helpers", "common", "manager", "base"} & {
        path.stem for path in ROOT.rglob("*.py")
    }


HEAVY = ("numpy", "onnx", "onnx_ir", "onnx_graphsurgeon", "onnxruntime", "cv2", "rich")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["compile", "--help"], ["explain", "--help"], ["--version"]]
)
def test_help_is_light(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom lrp_onnx.cli.commands import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "[]"


def test_help_takes_less_than_three_tenths_of_a_second_of_cpu() -> None:
    """The least of three runs: what else the machine does adds to each."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "lrp_onnx", "--help"]
        subprocess.run(
            command, check=True, capture_output=True, env=os.environ | {"PYTHONHASHSEED": "0"}
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.3
