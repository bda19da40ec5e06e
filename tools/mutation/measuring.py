"""A plugin of pytest that writes how long every test took: ``-p tools.mutation.measuring``.

The file is named by the environment variable MUTATION_DURATIONS. It holds a JSON object, the id of
a test → seconds with its fixtures, of the tests that passed; a test that is skipped finds nothing.
MUTATION_CASES is a JSON object, folder or file → how many cases of a parametrised test run,
evenly drawn from all; the first that fits counts. What the file held before stays in it.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path

import pytest

_seconds: dict[str, float] = defaultdict(float)
_passed: set[str] = set()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out cases of tests that have many."""
    most: dict[str, int] = json.loads(os.environ["MUTATION_CASES"])
    cases: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        cases[item.nodeid.partition("[")[0]].append(item)
    items[:] = [
        item for test, all_of in cases.items() for item in _drawn(all_of, _most(most, test))
    ]


def _most(most: dict[str, int], test: str) -> int:
    return next(number for path, number in most.items() if test.startswith(path))


def _drawn(items: list[pytest.Item], most: int) -> list[pytest.Item]:
    """`most` of `items`, evenly over all of them."""
    count = min(most, len(items))
    return [items[place * len(items) // count] for place in range(count)]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add one phase of a test."""
    _seconds[report.nodeid] += report.duration
    if report.when == "call" and report.passed:
        _passed.add(report.nodeid)


def pytest_sessionfinish() -> None:
    """Write what was added."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        file = Path(os.environ["MUTATION_DURATIONS"])
        found: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
        found |= {test: round(_seconds[test], 4) for test in sorted(_passed)}
        file.write_text(json.dumps(found, indent=0))
