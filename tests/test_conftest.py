"""What the tests share holds however they are started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform == "win32", reason="signals are not inherited")
def test_signals_are_heard_in_the_background() -> None:
    look = "import conftest, signal as s; print(*map(s.getsignal, (s.SIGINT, s.SIGHUP)))"
    shell = ["sh", "-c", "trap '' INT HUP; exec \"$@\"", "sh", sys.executable, "-c", look]
    done = subprocess.run(
        shell, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=60, check=True
    )
    assert "default_int_handler" in done.stdout and "SIG_IGN" not in done.stdout
    assert done.stdout.split()[-1] in ("0", "Handlers.SIG_DFL")
