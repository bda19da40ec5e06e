"""Converts a file with MNN's own converter and runs it on the CPU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import MNN
import numpy as np

from tools.runtimes.runners.exchange import Arrays, Run, serve

WINOGRAD_LEVEL = 3


def load(model: str, runs: list[Any], options: Mapping[str, Any]) -> tuple[str, Run]:
    converted = str(Path(model).with_suffix(".mnn"))
    tool = Path(sys.executable).parent / "mnnconvert"
    command = [str(tool), "-f", "ONNX", "--modelFile", model, "--MNNModel", converted]
    done = subprocess.run([*command, "--bizCode", "x"], capture_output=True, text=True, check=False)
    if done.returncode or not Path(converted).exists():
        sys.exit(f"mnnconvert ended with {done.returncode}: {(done.stdout + done.stderr)[-600:]}")
    inputs, outputs = list(runs[0]), list(options["outputs"])
    settings = MNN.nn.create_runtime_manager(
        ({"precision": "high", "backend": "CPU", "numThread": 2},)
    )
    # Convolutions by a Winograd algorithm of small tiles alone, which rounds less.
    settings.set_hint(WINOGRAD_LEVEL, 0)
    network = MNN.nn.load_module_from_file(converted, inputs, outputs, runtime_manager=settings)

    def run(feeds: Arrays) -> Arrays:
        given = []
        for name in inputs:
            array = feeds[name]
            # MNN has no int64: its converter reads every such tensor as int32.
            array = array.astype(np.int32) if array.dtype == np.int64 else array
            kind = MNN.expr.int if array.dtype == np.int32 else MNN.expr.float
            given.append(MNN.expr.const(array, list(array.shape), MNN.expr.NCHW, kind))
        found = network.forward(given)
        return {
            name: np.array(MNN.expr.convert(value, MNN.expr.NCHW).read())
            for name, value in zip(outputs, found, strict=True)
        }

    return str(MNN.version()), run


if __name__ == "__main__":
    serve(load)
