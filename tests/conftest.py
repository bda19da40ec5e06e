"""What the tests share: running models, saving them, and the optional assets."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))

# Behind `&` and `nohup` these are ignored, which the programs that tests start would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

Arrays = dict[str, NDArray[Any]]


def run_onnx(
    model: onnx.ModelProto | bytes, feeds: Mapping[str, NDArray[Any]], *, optimize: bool = True
) -> Arrays:
    """Every output of a model on ONNX Runtime's CPU provider."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = model if isinstance(model, bytes) else model.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    given = with_defaults({v.name: list(v.shape) for v in session.get_inputs()}, feeds)
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, given), strict=True))


def with_defaults(
    inputs: Mapping[str, list[int | str | None]], feeds: Mapping[str, NDArray[Any]]
) -> Arrays:
    """`feeds`, and the predicted class where a model requires `target` or `start`."""
    given = dict(feeds)
    for name in {"target", "start"} & inputs.keys() - feeds.keys():
        size = inputs[name][0]
        many = 1 if size == "targets" else len(next(iter(feeds.values())))
        rows = size if isinstance(size, int) else many
        given[name] = (
            np.full(rows, -1, np.int64)
            if name == "target"
            else np.zeros((rows, *(int(n or 0) for n in inputs[name][1:])), np.float32)
        )
    return given


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[onnx.ModelProto], Path]:
    """Writes a model to a temporary file."""

    def save(model: onnx.ModelProto) -> Path:
        path = tmp_path / f"model{len(list(tmp_path.iterdir()))}.onnx"
        onnx.save(model, path)
        return path

    return save


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real models and photos."""
    folder = os.environ.get("LRP_ONNX_TEST_ASSETS")
    if not folder:
        pytest.skip("LRP_ONNX_TEST_ASSETS names no folder of real models and photos")
    return Path(folder)


def relative(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Largest difference, relative to the largest magnitude expected."""
    return float(
        np.abs(found.astype(np.float64) - expected).max()
        / max(float(np.abs(expected).max()), 1e-30)
    )
