"""The guide of runtimes has snippets that can be read."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("fcntl", reason="environments are made on Linux and macOS alone")

from tools.runtimes import report


def test_snippets_are_python() -> None:
    guide = report.GUIDE.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", guide, flags=re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        compile(block, "runtimes.md", "exec")
