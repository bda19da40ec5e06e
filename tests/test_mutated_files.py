"""A thousand damaged files: none crashes the compiler, takes long or much memory, makes it read
another file, or leaves anything behind; what compiles passes our own gate and predicts what ONNX
Runtime says of the damaged file itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from changes import FILE, NODES, TENSORS, Change
from mutations import BYTES, SECONDS, original

PARTS, EACH = 4, 250
EVERY = 2
"""Of so many mutants that compile, one is run."""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
@pytest.mark.parametrize("part", range(PARTS))
def test_damaged_files(part: int, tmp_path: Path) -> None:
    script = Path(__file__).parent / "compiling_mutants.py"
    command = [sys.executable, "-W", "error", str(script), str(part * EACH), str(EACH)]
    command += [str(tmp_path / "files"), "--small", "--every", str(EVERY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr == "", "nothing is printed beside the errors"
    report = json.loads(done.stdout)
    assert not report["wrong"], report["wrong"]
    assert report["slowest"] <= SECONDS and report["memory"] <= BYTES, report
    # All kinds are there: damage that is found, and damage that leaves a model behind.
    outcomes, compared = report["outcomes"], report["compared"]
    assert sum(outcomes.values()) == EACH
    assert outcomes["refused"] > 0.4 * EACH and outcomes["compiled"] > 0.1 * EACH, report
    # What the compiler refuses after it has run it is a file that nothing can run, at most a few.
    assert outcomes.get("failed its check", 0) <= 0.02 * EACH, report["failed"]
    assert compared.get("equal", 0) + compared.get("rounding", 0) > 0.02 * EACH, report


@pytest.mark.parametrize("change", [*NODES, *TENSORS, *FILE], ids=lambda change: change.__name__)
def test_every_change_changes_a_file(change: Change) -> None:
    data = original("core-qdq.onnxruntime")
    for seed in range(5):
        model = onnx.load_from_string(data)
        change(model, np.random.default_rng(seed))
        if model != onnx.load_from_string(data):
            return
    raise AssertionError("nothing changed")


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_the_watch_sees_what_is_read_and_written(tmp_path: Path) -> None:
    program = """
import ctypes, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from compiling_mutants import Watch
folder = Path(sys.argv[1])
watch = Watch(folder, folder.parent / "secret")
with watch:
    (folder / "own").read_bytes()
print(watch.found())
with watch:
    (folder.parent / "secret").read_bytes()
print(len(watch.found()))
with watch:
    (folder / "new").write_bytes(b"x")
print(len(watch.found()))
libc = ctypes.CDLL(None)
with watch:  # as native code does
    libc.close(libc.open(str(folder.parent / "secret").encode(), 0))
print(len(watch.found()) if sys.platform == "linux" else 1)
"""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "own").write_bytes(b"x")
    (tmp_path / "secret").write_bytes(b"x")
    command = [sys.executable, "-c", program, str(folder), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "[]" and all(int(line) > 0 for line in lines[1:]) and len(lines) == 4, lines
