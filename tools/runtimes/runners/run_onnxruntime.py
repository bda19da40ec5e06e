"""Runs a file on ONNX Runtime's CPU provider; the option `level` names an optimisation level,
`pattern` says whether memory is planned from the second run on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnxruntime

from tools.runtimes.runners.exchange import Arrays, Run, serve


def load(model: str, runs: list[Any], options: Mapping[str, Any]) -> tuple[str, Run]:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    level = options.get("level", "ORT_ENABLE_ALL")
    settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    settings.enable_mem_pattern = options.get("pattern", True)
    settings.intra_op_num_threads = options.get("threads", 0)
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(feeds: Arrays) -> Arrays:
        return dict(zip(names, session.run(None, dict(feeds)), strict=True))

    return onnxruntime.__version__, run


if __name__ == "__main__":
    serve(load)
