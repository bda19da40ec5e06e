"""What other tools make of a compiled file: python -m … TOOL MODEL OUTPUT REQUEST."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx

from tools.runtimes.runners.exchange import unpacked

Requests = list[dict[str, Any]]


def onnxsim(model: str, output: str, runs: Requests) -> str:
    import onnxsim as tool

    simplified, same = tool.simplify(onnx.load(model))
    if not same:
        sys.exit("onnxsim says that its result is not the same")
    onnx.save(simplified, output)
    return version("onnxsim")


def onnxslim(model: str, output: str, runs: Requests) -> str:
    import onnxslim as tool

    onnx.save(tool.slim(model), output)
    return version("onnxslim")


def ort(model: str, output: str, runs: Requests) -> str:
    """ONNX Runtime's own format, optimised for every machine."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = output
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return str(onnxruntime.__version__)


def float16(model: str, output: str, runs: Requests) -> str:
    """Weights and tensors in float16, inputs and outputs in float32, by ONNX Runtime's tool."""
    import onnxruntime
    from onnxruntime.transformers import float16 as tool

    onnx.save(tool.convert_float_to_float16(onnx.load(model), keep_io_types=True), output)
    return str(onnxruntime.__version__)


def converter_common(model: str, output: str, runs: Requests) -> str:
    """The same by onnxconverter-common."""
    from onnxconverter_common import float16 as tool

    onnx.save(tool.convert_float_to_float16(onnx.load(model), keep_io_types=True), output)
    return version("onnxconverter-common")


def int8(model: str, output: str, runs: Requests) -> str:
    """Static quantisation in the QDQ format, calibrated on the pictures of the runs."""
    return _quantized(model, output, runs, exclude=[])


def int8_forward(model: str, output: str, runs: Requests) -> str:
    """The same of the original's nodes alone: relevance stays float32."""
    names = [node.name for node in onnx.load(model).graph.node]
    return _quantized(model, output, runs, exclude=[n for n in names if n.startswith("lrp/")])


def _quantized(model: str, output: str, runs: Requests, *, exclude: list[str]) -> str:
    import onnxruntime
    from onnxruntime import quantization as tool

    class Reader(tool.CalibrationDataReader):
        def __init__(self) -> None:
            self.runs: Iterator[dict[str, Any]] = iter(runs)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.runs, None)

    form = tool.QuantFormat.QDQ
    tool.quantize_static(model, output, Reader(), quant_format=form, nodes_to_exclude=exclude)
    return str(onnxruntime.__version__)


TOOLS: dict[str, Callable[[str, str, Requests], str]] = {
    f.__name__: f for f in (onnxsim, onnxslim, ort, float16, converter_common, int8, int8_forward)
}


def main() -> None:
    tool, model, output, request = sys.argv[1:5]
    asked = json.loads(Path(request).read_text(encoding="utf-8"))
    print(TOOLS[tool](model, output, [unpacked(run) for run in asked["runs"]]))


if __name__ == "__main__":
    main()
