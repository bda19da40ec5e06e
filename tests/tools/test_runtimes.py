"""The guides of runtimes and of deployment say what is stored, and no more."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("fcntl", reason="environments are made on Linux and macOS alone")

from tools.runtimes import report
from tools.runtimes.measure import COMPOSITES, MODELS
from tools.runtimes.registry import RUNTIMES


def test_the_tables_are_what_is_stored() -> None:
    matrix, speed = report.read("matrix"), report.read("speed")
    guide = report.GUIDE.read_text(encoding="utf-8")
    assert report.guide(guide, matrix, speed) == guide, "run python -m tools.runtimes write"
    deployment = report.DEPLOYMENT.read_text(encoding="utf-8")
    made = report.between(deployment, report.BEGIN, report.END, report.summary(matrix))
    assert made == deployment, "run python -m tools.runtimes write"


def test_every_runtime_form_model_and_composite_is_stored_once() -> None:
    stored = [
        (c["runtime"], c["form"], c["model"], c["composite"])
        for c in report.read("matrix")["cells"]
    ]
    assert len(stored) == len(set(stored))
    assert set(stored) == {
        (runtime.name, form.flags, model, composite)
        for runtime in RUNTIMES
        for form in runtime.forms
        for model in MODELS[: 1 if runtime.small else None]
        for composite in COMPOSITES
    }


def test_portable_is_right_on_every_runtime_but_where_the_table_says_why() -> None:
    """What other tools make of a file is another matter: rounding to float16 and int8."""
    rounded = {"float16", "float16-common", "int8", "int8-forward"}
    for cell in report.read("matrix")["cells"]:
        if "portable" in cell["form"] and cell["runtime"] not in rounded:
            assert report.is_right(cell), cell


def test_speed_on_openvino() -> None:
    """The default's multiple of forward passes is at most 1.3 times that on ONNX Runtime."""
    multiples = {row["runtime"]: row["multiple"] for row in report.read("speed")["rows"]}
    assert multiples["openvino"] <= 1.3 * multiples["onnxruntime"]


def test_snippets_are_python() -> None:
    guide = report.GUIDE.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", guide, flags=re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        compile(block, "runtimes.md", "exec")
