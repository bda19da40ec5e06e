"""The page of what compiles is what the tool prints."""

from __future__ import annotations

import importlib.util
from pathlib import Path

PATH = Path(__file__).parents[2] / "tools" / "coverage_table.py"


def test_the_page_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("coverage_table", PATH)
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    page = tool.PAGE.read_text(encoding="utf-8")
    assert page == tool.replaced(page, tool.coverage()), "run python tools/coverage_table.py --write"
    assert "refused" in page and page.count("| compiles |") >= 30
