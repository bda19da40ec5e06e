"""The stored fault matrix: nothing in it is wrong, and the guide has its table."""

from __future__ import annotations

import json
from pathlib import Path

from tools.faults.cells import JOBS
from tools.faults.faults import FAULTS
from tools.faults.matrix import Page, table

ROOT = Path(__file__).parents[2]


def test_the_stored_matrix_is_right_and_in_the_guide() -> None:
    stored = json.loads((ROOT / "models" / "faults" / "faults.json").read_text(encoding="utf-8"))
    assert not [trial for trial in stored["trials"] if trial["wrong"]]
    page = Page.read(ROOT / "models" / "faults", stored["seed"])
    tried = {(outcome.fault, outcome.command) for outcome in page.outcomes}
    for fault in FAULTS:
        assert fault.name in page.skipped or any(name == fault.name for name, _ in tried)
    assert {command for _, command in tried} == set(JOBS)
    assert table(page.outcomes, page.skipped) in (
        ROOT / "lrp_onnx" / "guides" / "explaining.md"
    ).read_text(encoding="utf-8")
