"""A plan as JSON: of every architecture of the zoo, without values that JSON does not have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from zoo_files import REFUSED, families

from lrp_onnx.compiler import Options, plan_model
from lrp_onnx.plan.functions import FUNCTIONS
from lrp_onnx.plan.text import plan_json

FAMILIES = [family for family in families() if family not in REFUSED]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plan_is_json(family: str, tmp_path: Path) -> None:
    file = families()[family][0]
    _, plan, _ = plan_model(file.save(tmp_path), Options(**file.options))
    text = json.dumps(plan_json(plan), allow_nan=False)
    assert all(json.dumps(step.name) in text for step in plan.steps)
    for step in plan.steps:
        if step.op in FUNCTIONS:
            assert json.dumps(FUNCTIONS[step.op].formula) in text
