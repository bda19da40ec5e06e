"""Six hundred damaged files: none crashes the compiler, none
takes long or much memory, none leaves anything behind.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mutations import BYTES, SECONDS

EACH = 150


@pytest.mark.parametrize("part", range(4))
def test_damaged_files(part: int, tmp_path: Path) -> None:
    script = Path(__file__).parent / "mutations.py"
    command = [
        sys.executable,
        "-W",
        "error",
        str(script),
        str(part * EACH),
        str(EACH),
        str(tmp_path / "files"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr == "", "nothing is printed beside the errors"
    report = json.loads(done.stdout)
    assert not report["wrong"], report["wrong"]
    assert report["slowest"] <= SECONDS and report["memory"] <= BYTES, report
    # Both kinds are there: damage that is found, and damage that leaves a model behind.
    assert report["refused"] > 0.4 * EACH and report["compiled"] > 0.1 * EACH, report
    assert report["refused"] + report["compiled"] == EACH
