"""The default composite's multiple of forward passes on OpenVINO and on ONNX Runtime."""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from lrp_onnx.compiler import Options, compile_model
from tools.runtimes.execute import Arrays, execute
from tools.runtimes.measure import pictures
from tools.runtimes.registry import RUNTIMES, Runtime

THREADS = 2
REPEAT = 30
"""Timed runs of a process."""
ROUNDS = 3
"""Processes for every figure, in turns; the middle one counts."""
OPTIONS: dict[str, dict[str, Any]] = {
    "onnxruntime": {"threads": THREADS},
    "openvino": {"threads": THREADS, "static": True, "hint": "LATENCY"},
}
"""Runtime → options of its runner."""


def speed(original: Path) -> dict[str, Any]:
    """JSON-ready medians of milliseconds, and the multiples.

    Raises:
        UnavailableError: a runtime cannot be had here.
        CannotRunError: a runtime does not run the file.
    """
    x = pictures(1)
    measured = [runtime for runtime in RUNTIMES if runtime.name in OPTIONS]
    proto = onnx.load(original, load_external_data=False)
    name, logits = proto.graph.input[0].name, proto.graph.output[0].name
    times: dict[tuple[str, str], list[float]] = {}
    versions: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "forward.onnx"
        onnx.save(onnx.load(original), bare)
        compiled = {}
        for runtime in measured:
            form = runtime.forms[0].optimize_for
            model = compile_model(original, Options(optimize_for=form, inputs="none"))
            compiled[runtime.name] = model.save(Path(folder) / f"{form}.onnx")
        for _ in range(ROUNDS):
            for runtime in measured:
                for what, path, outputs in (
                    ("forward", bare, [logits]),
                    ("explained", compiled[runtime.name], [logits, "heatmap"]),
                ):
                    median, version = _timed(runtime, path, {name: x}, outputs)
                    times.setdefault((runtime.name, what), []).append(median)
                    versions[runtime.name] = version
    rows = []
    for runtime in measured:
        forward, explained = (
            statistics.median(times[runtime.name, what]) for what in ("forward", "explained")
        )
        rows.append(
            {
                "runtime": runtime.name,
                "title": runtime.title.partition(",")[0],
                "version": versions[runtime.name],
                "forward": forward,
                "explained": explained,
                "multiple": explained / forward,
            }
        )
    said = (
        f"{original.name.split('.')[0]}, {x.shape[2]} pixels, batch 1, {THREADS} threads, one "
        f"process each, median of {REPEAT} runs, the middle one of {ROUNDS} processes; OpenVINO "
        "with fixed shapes and the latency hint."
    )
    return {"command": "python -m tools.runtimes speed", "said": said, "rows": rows}


def _timed(runtime: Runtime, path: Path, run: Arrays, outputs: list[str]) -> tuple[float, str]:
    """The median of milliseconds of one process, and the runtime's version."""
    given = replace(runtime, options=OPTIONS[runtime.name])
    answer = execute(given, path, [run], outputs=outputs, repeat=REPEAT)
    return statistics.median(answer.milliseconds), answer.version
