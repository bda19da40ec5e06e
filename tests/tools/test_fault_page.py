"""The stored fault matrix covers every fault and command, and the guide has its table."""

from __future__ import annotations

import json
from pathlib import Path

from tools.faults.cells import JOBS
from tools.faults.faults import FAULTS
from tools.faults.matrix import Outcome, table

ROOT = Path(__file__).parents[2]


def test_the_stored_matrix_is_whole_and_in_the_guide() -> None:
    stored = json.loads((ROOT / "models" / "faults" / "faults.json").read_text(encoding="utf-8"))
    outcomes = [Outcome(**trial) for trial in stored["trials"]]
    tried = {outcome.fault for outcome in outcomes}
    assert {fault.name for fault in FAULTS} == tried | stored["skipped"].keys()
    assert {outcome.command for outcome in outcomes} == set(JOBS)
    guide = (ROOT / "lrp_onnx" / "guides" / "explaining.md").read_text(encoding="utf-8")
    assert table(outcomes, stored["skipped"]) in guide
