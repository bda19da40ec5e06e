"""Memory over many explanations stays flat, and a leak is seen."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tools.benchmark import endurance as tool


def test_three_hundred_explanations() -> None:
    """In a process of their own, whose memory is nobody else's."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for name in ("one by one", "threads"):
            found = pool.apply(partial(tool.readings, name, 300))
            result = tool.judged(name, found, seconds=1)
            assert result["flat"] and result["explanations"] == 300, found


def test_a_leak_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []

    def keeping(count: int, folder: Path) -> Iterator[object]:
        for number in range(count):
            kept.append(b"1" * 5_000_000)
            yield number

    def opening(count: int, folder: Path) -> Iterator[object]:
        for number in range(count):
            kept.append((folder / str(number)).open("w"))
            yield number
        for file in kept:
            file.close()

    for way in (keeping, opening):
        monkeypatch.setitem(tool.WAYS, "leak", (way, 1))
        found = tool.readings("leak", 20)
        assert [one["done"] for one in found] == list(range(2, 21, 2))
        assert not tool.judged("leak", found, seconds=1)["flat"]
        kept.clear()
