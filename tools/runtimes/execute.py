"""A file and a request on a runtime, in that runtime's own process."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.runtimes.browser import run_in_browser
from tools.runtimes.environments import last_line, node_of, python_of
from tools.runtimes.errors import CannotRunError
from tools.runtimes.registry import Runtime
from tools.runtimes.runners.exchange import packed, unpacked

ROOT = Path(__file__).parents[2]
MINUTES = 15
"""Longest time that one file may take."""
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a runtime gave."""

    version: str
    runs: list[dict[str, NDArray[Any]]]
    """Outputs by name, for every run."""
    milliseconds: list[float]


def execute(
    runtime: Runtime,
    model: Path,
    runs: Sequence[Arrays],
    *,
    outputs: Sequence[str],
    options: Mapping[str, Any] | None = None,
    repeat: int = 0,
) -> Answer:
    """Run a compiled file on a runtime.

    Args:
        runtime: which.
        model: the file; what a transform makes of it is written beside it.
        runs: inputs by name, for every run.
        outputs: names of the outputs.
        options: of the runner, beside the runtime's own.
        repeat: how often the first run is timed.

    Raises:
        UnavailableError: the runtime cannot be had here.
        CannotRunError: it does not load or run the file.
    """
    request, answer = (model.with_suffix(f".{runtime.name}.{end}") for end in ("ask", "json"))
    given = {**runtime.options, **(options or {}), "outputs": list(outputs)}
    request_of(request, runs, repeat=repeat, options=given)
    if runtime.runner == "browser":
        _, folder = node_of(runtime.environment)
        data = run_in_browser(folder, model, request)
    else:
        version = _transformed(runtime, model, request)
        if version is not None:
            model = _made_by(runtime, model)
        call(_command(runtime, model, request, answer), answer)
        data = json.loads(answer.read_text(encoding="utf-8"))
        data["version"] = version or data["version"]
    return Answer(data["version"], [unpacked(run) for run in data["runs"]], data["milliseconds"])


def request_of(
    path: Path, runs: Sequence[Arrays], *, repeat: int = 0, options: Mapping[str, Any] | None = None
) -> Path:
    """Write a request in exchange.py's form to `path`; return it."""
    asked = {"runs": [packed(run) for run in runs], "repeat": repeat, "options": options or {}}
    path.write_text(json.dumps(asked), encoding="utf-8")
    return path


def call(command: Sequence[str], result: Path) -> str:
    """Run a command that writes `result`; what it printed.

    Raises:
        CannotRunError: it failed.
    """
    result.unlink(missing_ok=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60 * MINUTES,
        check=False,
        cwd=ROOT,
        env=environment | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    if done.returncode or not result.exists():
        reason = _reason(done.stderr) or last_line(done.stdout)
        raise CannotRunError(f"{reason[:400]} (exit status {done.returncode})")
    return done.stdout


def _reason(text: str) -> str:
    """What a failed runner says: the last Python error and, of tract's chain, its deepest cause."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = r"[\w.]*(Error|Exception|error|_state\.\w+)\b"
    errors = [line for line in lines if re.match(named, line)]
    causes = [line for line in lines if re.match(r"\d+: (?!0x)[A-Z][\w ]+", line)]
    said = errors[-1:] + causes[-1:] if errors else lines[-1:]
    return re.sub(r"/\S*/", "", "; ".join(said))


def _made_by(runtime: Runtime, model: Path) -> Path:
    return model.with_suffix(f".{runtime.name}.{'ort' if runtime.transform == 'ort' else 'onnx'}")


def _transformed(runtime: Runtime, model: Path, request: Path) -> str | None:
    """Change the file by the runtime's tool; that tool's version, or None where there is none."""
    if runtime.transform is None:
        return None
    result = _made_by(runtime, model)
    python = str(python_of(runtime.tools))
    module = "tools.runtimes.runners.transform"
    command = [python, "-m", module, runtime.transform, str(model), str(result), str(request)]
    return last_line(call(command, result))


def _command(runtime: Runtime, model: Path, request: Path, answer: Path) -> list[str]:
    files = [str(model), str(request), str(answer)]
    if runtime.runner == "node":
        node, folder = node_of(runtime.environment)
        script = Path(__file__).parent / "runners" / "run_node.mjs"
        return [node, str(script), str(folder), runtime.options["package"], *files]
    module = f"tools.runtimes.runners.{runtime.runner}"
    return [str(python_of(runtime.environment)), "-m", module, *files]


def largest(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference of any picture, relative to that picture's largest magnitude.

    Infinite where shapes differ or a value is not a number.
    """
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    axes = tuple(range(1, expected.ndim))
    differences = np.abs(found.astype(np.float64) - expected).max(axis=axes)
    return float((differences / np.abs(expected).max(axis=axes)).max())


def correlation(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """The lowest correlation of a map of `found` with that of `expected`; 0 where there is none."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return 0.0
    pairs = zip(found.reshape(len(found), -1), expected.reshape(len(found), -1), strict=True)
    return float(min(np.corrcoef(a, b)[0, 1] if a.std() else 0.0 for a, b in pairs))
