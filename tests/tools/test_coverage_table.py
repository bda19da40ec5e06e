"""The page of what compiles is what the tool prints."""

from __future__ import annotations

from tools.zoo.coverage import PAGE, coverage, replaced


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == replaced(page, coverage()), "run python -m tools.zoo.coverage --write"
    assert "refused" in page and page.count("| compiles |") >= 30
