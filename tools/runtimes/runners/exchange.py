"""How a runner is asked and how it answers: JSON, which Python, Node and a browser read alike.

A request has `runs`, a list of name → tensor, `repeat`, how often the first run is timed, and
`options`. An answer has `version`, `runs` in the same form, and `milliseconds`, one for every timed
run. A tensor is its `type` (NumPy's name), its `shape`, and its bytes, little-endian, in base64.
Runners import the standard library and NumPy beside their runtime, nothing else.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[Arrays], Arrays]
WARM = 3
"""Runs before the first that is timed."""


def packed(arrays: Arrays) -> dict[str, Any]:
    """Arrays as JSON-ready data."""
    return {
        name: {
            "type": str(array.dtype),
            "shape": list(array.shape),
            "data": base64.b64encode(np.ascontiguousarray(array).tobytes()).decode(),
        }
        for name, array in arrays.items()
    }


def unpacked(data: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The inverse of `packed`."""
    return {
        name: np.frombuffer(base64.b64decode(tensor["data"]), tensor["type"])
        .reshape(tensor["shape"])
        .copy()
        for name, tensor in data.items()
    }


def serve(
    load: Callable[[str, list[dict[str, NDArray[Any]]], Mapping[str, Any]], tuple[str, Run]],
) -> None:
    """Answer the request whose file the command line names.

    Args:
        load: given the model's path, every run's inputs and the options, returns the runtime's
            version and a function from inputs to outputs.
    """
    model, request, answer = sys.argv[1:4]
    asked = json.loads(Path(request).read_text(encoding="utf-8"))
    runs = [unpacked(run) for run in asked["runs"]]
    version, run = load(model, runs, asked.get("options", {}))
    outputs = [packed(run(feeds)) for feeds in runs]
    times = []
    for number in range(asked["repeat"] + WARM if asked.get("repeat") else 0):
        start = time.perf_counter()
        run(runs[0])
        if number >= WARM:
            times.append(1000 * (time.perf_counter() - start))
    said = {"version": version, "runs": outputs, "milliseconds": times}
    Path(answer).write_text(json.dumps(said), encoding="utf-8")
