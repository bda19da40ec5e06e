"""Runs a file on the ONNX project's own evaluator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
from onnx.reference import ReferenceEvaluator

from tools.runtimes.runners.exchange import Arrays, Run, serve


def load(model: str, runs: list[Any], options: Mapping[str, Any]) -> tuple[str, Run]:
    evaluator = ReferenceEvaluator(model)
    names = list(evaluator.output_names)

    def run(feeds: Arrays) -> Arrays:
        return dict(zip(names, evaluator.run(None, dict(feeds)), strict=True))

    return onnx.__version__, run


if __name__ == "__main__":
    serve(load)
