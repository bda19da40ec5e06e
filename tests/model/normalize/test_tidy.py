"""The validity check, where memory is short."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from google.protobuf.message import EncodeError

from lrp_onnx.cli.commands import main

MODEL = Path(__file__).parents[3] / "models" / "shapes-resnet.onnx"


def test_a_model_that_memory_is_too_short_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def serialize(model: onnx.ModelProto) -> None:
        raise EncodeError("Failed to serialize proto")

    monkeypatch.setattr(onnx.checker, "check_model", serialize)
    done = CliRunner().invoke(main, ["plan", str(MODEL)])
    assert done.exit_code == 1 and done.stdout == ""
    assert done.stderr == (
        "Error: out of memory (the model cannot be serialized): run it where more memory is free\n"
    )
