"""Runs a file on OpenVINO's CPU plugin; the options `static` fixes the shapes of the inputs,
`hint` is a performance hint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import openvino

from tools.runtimes.runners.exchange import Arrays, Run, serve


def load(model: str, runs: list[Any], options: Mapping[str, Any]) -> tuple[str, Run]:
    core = openvino.Core()
    network = core.read_model(model)
    if options.get("static"):
        network.reshape({name: list(array.shape) for name, array in runs[0].items()})
    # The plugin otherwise computes in bfloat16 where the processor can.
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    if "hint" in options:
        settings["PERFORMANCE_HINT"] = options["hint"]
    if "threads" in options:
        settings["INFERENCE_NUM_THREADS"] = options["threads"]
    request = core.compile_model(network, "CPU", settings).create_infer_request()
    names = options["outputs"]  # a tensor may have several: `heatmap` and `heatmap_raw`

    def run(feeds: Arrays) -> Arrays:
        request.infer(dict(feeds), share_inputs=True)
        return {name: np.array(request.get_tensor(name).data) for name in names}

    return openvino.__version__.split("-")[0], run


if __name__ == "__main__":
    serve(load)
