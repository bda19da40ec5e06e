"""Three hundred compiled files that lie: none ends `explain` or `verify` with a traceback, runs on,
takes gigabytes, writes beside its results, or reaches the terminal with what it would obey.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EACH = 150


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
@pytest.mark.parametrize("part", range(2))
def test_lying_files(part: int, tmp_path: Path) -> None:
    script = Path(__file__).parent / "lies.py"
    command = [sys.executable, str(script), str(part * EACH), str(EACH), str(tmp_path / "files")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert not report["wrong"], report["wrong"]
    tally = report["tally"]
    # Both kinds are there: lies that are told, and changes that leave the file right.
    assert tally["explain refused"] > 0.6 * EACH and tally["explain well"] > 0.1 * EACH, report
    assert tally["verify refused"] > 0.6 * EACH and tally["verify well"] > 0.1 * EACH, report
