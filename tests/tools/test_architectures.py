"""The command that tries whole architectures: its list, its rows, and processes that fail."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from tools.zoo import architectures
from tools.zoo.architectures import ENOUGH, NETWORKS, Row, table


def test_there_are_enough_networks_of_both_libraries() -> None:
    names = [network.name for network in NETWORKS]
    assert len(names) == len(set(names)) >= 60 > ENOUGH
    assert {network.library for network in NETWORKS} == {"timm", "torchvision"}


def test_a_table_counts_what_passed() -> None:
    good = Row("good", "dynamo", True, (), 1.0, 2.5, 0.75, 0.25)
    bad = Row("bad", faults=("MatMul 'm': no", "more"))
    lines = table([good, bad]).splitlines()
    assert lines[2] == "| good | dynamo | 1.000000 | 75.0% | 25.0% | 0.0% | 0.0% | 0 | passed |"
    assert lines[3].endswith("| MatMul 'm': no |") and lines[-1] == "1 of 2 passed."


def test_the_last_row_of_a_network_counts(tmp_path: Path) -> None:
    rows = [Row("a", faults=("slow",)), Row("b", passed=True), Row("a", passed=True)]
    lines = "".join(json.dumps(asdict(row)) + "\n" for row in rows)
    (tmp_path / "architectures.jsonl").write_text(lines, encoding="utf-8")
    assert architectures._stored(tmp_path) == {"a": rows[2], "b": rows[1]}


@pytest.mark.parametrize(
    ("fails", "fault"),
    [
        (lambda network: os._exit(9), "its process ended with 9"),
        (lambda network: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_what_fails_is_a_row(
    fails: object, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(architectures, "made", fails)
    row = architectures._in_a_process(NETWORKS[0].name, tmp_path, keep=False)
    assert row.name == NETWORKS[0].name and not row.passed
    assert row.faults[0].startswith(fault)
