"""Sessions: no silent fallback, clear words about
installations, devices and memory that are not there.

CUDA's failures are real or imitated: a runtime that lists CUDA and cannot load it needs no GPU.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

from lrp_onnx.errors import ModelFileError, ProviderError
from lrp_onnx.runtime import installation, session
from lrp_onnx.runtime.installation import onnx_runtime
from lrp_onnx.runtime.session import Session, cuda_fault, nodes_by_provider, open_session

DOUBLE: onnx.ModelProto = parser.parse_model(
    """<ir_version: 10, opset_import: ["" : 18]>
    double (float[N, 2] x) => (float[N, 2] y) { y = Add(x, x) }"""
)
MODEL = DOUBLE.SerializeToString()
ONES = {"x": np.ones((3, 2), np.float32)}
without_cuda = pytest.mark.skipif(cuda_fault() is None, reason="this machine has CUDA")


def test_running() -> None:
    opened = open_session(MODEL, providers="cpu", threads=1, optimize=False)
    assert opened.provider == "cpu" and opened.outputs == ["y"] and opened.metadata == {}
    assert opened.input_of("x") == ("tensor(float)", ["N", 2])
    assert np.array_equal(opened.run(None, ONES)["y"], 2 * ONES["x"])
    assert list(nodes_by_provider(MODEL, ONES, provider="cpu")) == ["CPUExecutionProvider"]


@without_cuda
def test_a_gpu_without_its_libraries(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The driver is there (as if), the provider then does not load: an error where only CUDA is
    asked for, a warning where the CPU may take over, and nothing on standard output.
    """
    if "CUDAExecutionProvider" not in onnx_runtime().get_available_providers():
        pytest.skip("this ONNX Runtime was built without CUDA")
    monkeypatch.setattr(session, "cuda_fault", lambda: None)
    with pytest.raises(ProviderError, match=r"failed to load its libraries.*--provider cpu"):
        open_session(MODEL, providers="cuda")
    with caplog.at_level(logging.WARNING):
        assert open_session(MODEL).provider == "cpu"
    assert "running on the CPU: CUDA was requested" in caplog.text
    assert open_session(MODEL, providers=["cpu", "cuda"]).provider == "cpu"
    assert capfd.readouterr().out == ""


def runtime_that(fails: Exception, real: Any) -> Any:
    """A runtime whose sessions fail with `fails` on CUDA."""

    def create(source: Any, options: Any, *, providers: list[Any], **more: Any) -> Any:
        if len(providers) > 1:
            raise fails
        return real.InferenceSession(source, options, providers=providers, **more)

    return SimpleNamespace(
        SessionOptions=real.SessionOptions, InferenceSession=create, __version__="0"
    )


@pytest.mark.parametrize(
    "fails",
    [
        RuntimeError("CUDA failure 2: out of memory\nmore"),
        Exception("CUDNN failure on CUDA device 0"),
    ],
)
def test_a_gpu_that_does_not_start(
    fails: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = runtime_that(fails, onnx_runtime())
    monkeypatch.setattr(session, "onnx_runtime", lambda: broken)
    monkeypatch.setattr(session, "cuda_fault", lambda: None)
    first = str(fails).splitlines()[0]
    with pytest.raises(ProviderError, match=first) as caught:
        open_session(MODEL, providers="cuda")
    assert "more" not in str(caught.value)
    assert open_session(MODEL).provider == "cpu" and first in caplog.text


def test_a_bad_model_is_not_blamed_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    if "CUDAExecutionProvider" not in onnx_runtime().get_available_providers():
        pytest.skip("this ONNX Runtime was built without CUDA")
    monkeypatch.setattr(session, "cuda_fault", lambda: None)
    newer = onnx.ModelProto()
    newer.CopyFrom(DOUBLE)
    newer.ir_version = 99
    for model in (b"no model", newer.SerializeToString()):
        with pytest.raises(ModelFileError, match=r"cannot load the model: .*make it again"):
            open_session(model)


@pytest.mark.parametrize("providers", ["tpu", ["cpu", "gpu"]])
def test_unknown_providers(providers: Any) -> None:
    with pytest.raises(ProviderError, match="there are cpu, cuda"):
        open_session(MODEL, providers=providers)


def test_memory_that_does_not_suffice() -> None:
    def failing(message: str) -> Session:
        def run(*_: Any) -> None:
            raise RuntimeError(message)

        return Session(SimpleNamespace(run=run, get_inputs=list), "cuda")

    with pytest.raises(
        ProviderError, match=r"memory of cuda does not suffice for 'x' \(3, 2\).*smaller batch"
    ):
        failing("BFCArena: Failed to allocate memory for requested buffer of size 9").run(
            ["y"], ONES
        )
    with pytest.raises(ModelFileError, match="something else"):
        failing("something else").run(["y"], ONES)


@pytest.fixture
def fresh() -> Callable[[], Any]:
    """`onnx_runtime` without its memory."""
    return onnx_runtime.__wrapped__


def test_both_distributions(
    fresh: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(installation, "installed", lambda: list(installation.DISTRIBUTIONS))
    fresh()
    assert "both installed" in caplog.text and installation.REPAIR in caplog.text


@pytest.mark.parametrize("names", [[], ["onnxruntime-gpu"], ["onnxruntime", "onnxruntime-gpu"]])
def test_a_broken_installation(
    names: list[str], fresh: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "installed", lambda: names)
    monkeypatch.setattr(installation.importlib, "import_module", lambda _: SimpleNamespace())
    with pytest.raises(ProviderError, match="its files are gone") as caught:
        fresh()
    assert installation.REPAIR in str(caught.value)


def test_what_is_installed_here() -> None:
    assert installation.installed()


def test_a_runtime_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = SimpleNamespace(get_available_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(session, "onnx_runtime", lambda: plain)
    monkeypatch.setattr(session, "installed", lambda: list(installation.DISTRIBUTIONS))
    assert installation.REPAIR in str(cuda_fault())
    monkeypatch.setattr(session, "installed", lambda: ["onnxruntime"])
    assert "built without CUDA" in str(cuda_fault()) and installation.REPAIR not in str(
        cuda_fault()
    )
