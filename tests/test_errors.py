"""Messages that list reasons: every kind once, the most frequent first, twenty lines at most."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner
from zoo_files import families

from lrp_onnx.cli.commands import main
from lrp_onnx.errors import MOST_LINES, UnsupportedModelError


def test_reasons_of_one_kind_are_one_line() -> None:
    faults = [f"MatMul '/block.{i}/MatMul': it multiplies ({i}, None) by (3, 4)" for i in range(9)]
    error = UnsupportedModelError("no:", ["Gather 'x': not yet", *faults])
    assert str(error).splitlines() == [
        "no:",
        "  - MatMul '/block.0/MatMul': it multiplies (0, None) by (3, 4) (and 8 more like it)",
        "  - Gather 'x': not yet",
    ]
    assert error.whole.count("\n") == 10 and len(error.faults) == 10


def test_many_kinds_are_counted() -> None:
    faults = [f"Op{'abcdefghijklmnopqrstuvwxyz'[i]}: reason" for i in range(26)]
    lines = str(UnsupportedModelError("no:", faults)).splitlines()[1:]
    assert len(lines) == MOST_LINES and "7 others" in lines[-1] and "--all" in lines[-1]


def test_the_command_lists_them_all_on_request(tmp_path: Path) -> None:
    path = families()["core-training"][0].save(tmp_path)
    short = CliRunner().invoke(main, ["plan", str(path)]).stderr
    every = CliRunner().invoke(main, ["plan", str(path), "--all"]).stderr
    assert short.count("BatchNormalization '") == 1 and "(and 14 more like it)" in short
    assert every.count("BatchNormalization '") == 15
