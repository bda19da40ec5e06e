"""Sessions of ONNX Runtime on a provider that is available: CUDA or the CPU."""

from __future__ import annotations

import ctypes
import functools
import io
import json
import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.contract import PREDICTED, START, TARGET, TARGETS, is_compiled
from lrp_onnx.errors import ModelFileError, ProviderError
from lrp_onnx.files.models import source_name
from lrp_onnx.runtime.installation import REPAIR, installed, onnx_runtime

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
PREFERENCE = ("cuda", "cpu")
FATAL_ONLY = 4
"""Log level. The runtime also raises the errors that it logs, and it warns of the optional inputs
that every compiled file has.
"""

OUT_OF_MEMORY = (
    "Failed to allocate",
    "out of memory",
    "bad_alloc",
    "bad allocation",
    "ALLOC_FAILED",
)
"""Texts of the runtime, CUDA and cuDNN for this error, which has no exception type of its own."""

_log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How a session uses its machine. Results change only by rounding."""

    spinning: bool = True
    """Whether threads wait busily between operators: runs are faster, but idle cores are not free
    for other processes.
    """
    arena: bool = True
    """Whether the CPU provider keeps freed memory for the next run; without it, runs are slower and
    use less memory.
    """
    tf32: bool = False
    """CUDA: round products to TensorFloat-32 (10 bits of mantissa)."""
    nhwc: bool = False
    """CUDA: compute convolutions with channels last."""
    cuda_graph: bool = False
    """CUDA: record a run and replay it. Only for `Bound` sessions whose nodes all run on CUDA."""


DEFAULT_TUNING = Tuning()


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """A model, ready to run."""

    runtime: Any
    provider: str
    """``cpu`` or ``cuda``: where the model runs."""

    @property
    def outputs(self) -> list[str]:
        """Output names, in the model's order."""
        return [value.name for value in self.runtime.get_outputs()]

    @property
    def metadata(self) -> dict[str, str]:
        """The model's metadata properties."""
        return dict(self.runtime.get_modelmeta().custom_metadata_map)

    def input_of(self, name: str) -> tuple[str, list[int | str | None]]:
        """(ONNX Runtime's element type, shape) of the input `name`."""
        value = next(v for v in self.runtime.get_inputs() if v.name == name)
        return value.type, list(value.shape)

    def completed(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """`feeds`, with the defaults of the inputs `target` and `start` where the file requires
        them and they are not given: the predicted class of every row.
        """
        missing = [v for v in self.runtime.get_inputs() if v.name not in feeds]
        complete = dict(feeds)
        for value in missing:
            if value.name not in (TARGET, START) or not is_compiled(self.metadata):
                continue
            rows = _rows(value.shape[0], feeds)
            if value.name == TARGET:
                complete[TARGET] = np.full(rows, PREDICTED, np.int64)
            else:
                complete[START] = np.zeros((rows, *value.shape[1:]), np.float32)
        return complete

    def run(self, outputs: Sequence[str] | None, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run once.

        Args:
            outputs: names; None for all.
            feeds: input name → array. The inputs `target` and `start` may be left out.

        Returns:
            Output name → array.

        Raises:
            ProviderError: there is not enough memory.
            ModelFileError: the model cannot be run.
        """
        names = list(outputs) if outputs is not None else self.outputs
        feeds = self.completed(feeds)
        with self.faults(feeds):
            return dict(zip(names, self.runtime.run(names, feeds), strict=True))

    @contextmanager
    def faults(self, feeds: Mapping[str, NDArray[Any]]) -> Iterator[None]:
        """Turns exceptions of the runtime in the block into ProviderError or ModelFileError."""
        try:
            yield
        except Exception as error:  # the runtime's exceptions have no common base below Exception
            if not any(word in str(error) for word in OUT_OF_MEMORY):
                raise ModelFileError(
                    f"ONNX Runtime failed on this model and this input: {_first_line(error)}"
                ) from error
            sizes = ", ".join(f"'{name}' {value.shape}" for name, value in feeds.items())
            raise ProviderError(
                f"the memory of {self.provider} does not suffice for {sizes}: "
                f"{_first_line(error)}; a smaller batch needs less"
            ) from error


def _rows(size: int | str | None, feeds: Mapping[str, NDArray[Any]]) -> int:
    """Rows of an input of the compiler's: its own size, the number of targets, or the batch."""
    if isinstance(size, int):
        return size
    given = feeds.get(TARGET, feeds.get(START))
    if given is not None:
        return len(given)
    return 1 if size == TARGETS else len(next(iter(feeds.values())))


def open_session(
    model: Path | bytes,
    *,
    providers: str | Sequence[str] | None = None,
    threads: int | None = None,
    optimize: bool = True,
    tuning: Tuning = DEFAULT_TUNING,
    profile: Path | None = None,
) -> Session:
    """A session on the first of `providers` that is available.

    There is no silent fallback: where CUDA is preferred and a GPU is present but CUDA does not
    start, the session runs on the CPU and a warning is logged.

    Args:
        model: a file or a serialized model.
        providers: ``cpu``, ``cuda``, or several in the order of preference; None for CUDA, then the
            CPU.
        threads: CPU threads within an operator; None for all cores.
        optimize: whether the runtime may optimise the graph.
        tuning: how the session uses its machine.
        profile: prefix of the profile file that the runtime writes when the session ends; None
            for no profile.

    Raises:
        ProviderError: none of `providers` is available.
        ModelFileError: the runtime cannot load the model.
    """
    preferred = [providers] if isinstance(providers, str) else list(providers or PREFERENCE)
    if unknown := [name for name in preferred if name not in PROVIDERS]:
        raise ProviderError(
            f"there is no provider {unknown[0]!r}; there are {', '.join(PROVIDERS)}"
        )
    fault = cuda_fault() if "cuda" in preferred else None
    if fault is not None and "cpu" not in preferred:
        raise ProviderError(_no_cuda(fault))
    chosen = next(name for name in preferred if name != "cuda" or fault is None)
    load = functools.partial(
        _load, model, threads=threads, optimize=optimize, tuning=tuning, profile=profile
    )
    try:
        return Session(load(chosen), chosen)
    except ProviderError as error:
        if chosen == "cpu" or "cpu" not in preferred:
            raise
        _log.warning("running on the CPU: %s", error)
    return Session(load("cpu"), "cpu")


def _load(
    model: Path | bytes,
    provider: str,
    *,
    threads: int | None,
    optimize: bool,
    tuning: Tuning,
    profile: Path | None,
) -> Any:
    """ONNX Runtime's session on `provider`.

    Raises:
        ProviderError: the provider does not start.
        ModelFileError: the model cannot be loaded.
    """
    onnxruntime = onnx_runtime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL_ONLY
    options.intra_op_num_threads = threads or 0
    # A memory pattern is allocated in addition to the memory of the first run: half as much again.
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = tuning.arena
    if not tuning.spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    source = model if isinstance(model, bytes) else str(model)
    names = _providers(provider, tuning)
    try:
        # The runtime's own fallback would print to standard output and continue without CUDA.
        runtime = onnxruntime.InferenceSession(source, options, providers=names, enable_fallback=0)
    except Exception as error:  # the runtime's exceptions have no common base below Exception
        # An error of the model has one of the runtime's own types; a provider that does not start
        # raises a plain RuntimeError.
        if provider == "cuda" and (
            isinstance(error, (RuntimeError, ValueError)) or "CUDA" in str(error)
        ):
            raise ProviderError(_no_cuda(_first_line(error))) from error
        raise ModelFileError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {source_name(model)}: "
            f"{_first_line(error)}; the file is damaged, or of a newer ONNX version than this "
            "runtime reads: make it again, or upgrade onnxruntime"
        ) from error
    if PROVIDERS[provider] != runtime.get_providers()[0]:
        raise ProviderError(_no_cuda("ONNX Runtime's CUDA provider failed to load its libraries"))
    return runtime


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _providers(provider: str, tuning: Tuning) -> list[Any]:
    if provider == "cpu":
        return [PROVIDERS["cpu"]]
    options = {
        # The default asks cuDNN for its slow fallback; HEURISTIC asks for its own choice.
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": str(int(tuning.tf32)),
        "prefer_nhwc": str(int(tuning.nhwc)),
        "enable_cuda_graph": str(int(tuning.cuda_graph)),
    }
    return [(PROVIDERS["cuda"], options), PROVIDERS["cpu"]]


def cuda_fault() -> str | None:
    """Why CUDA cannot be used, or None where it can.

    The runtime's own list of providers names CUDA even where its libraries are missing.
    """
    onnxruntime = onnx_runtime()
    if PROVIDERS["cuda"] not in onnxruntime.get_available_providers():
        both = f"; both are installed, run `{REPAIR}`" if len(installed()) > 1 else ""
        return (
            "this ONNX Runtime was built without CUDA "
            f"(the package onnxruntime instead of onnxruntime-gpu{both})"
        )
    fault = _driver_fault()
    if fault is None and hasattr(onnxruntime, "preload_dlls"):
        with redirect_stdout(io.StringIO()):  # it prints the libraries that it does not find
            onnxruntime.preload_dlls()
    return fault


def _driver_fault() -> str | None:
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver on this machine"
    count = ctypes.c_int(0)
    if (
        driver.cuInit(0) != 0
        or driver.cuDeviceGetCount(ctypes.byref(count)) != 0
        or count.value == 0
    ):
        return "the NVIDIA driver finds no GPU"
    return None


def _no_cuda(fault: str) -> str:
    return (
        f"CUDA was requested and is not available: {fault}. Run on the CPU with --provider cpu, "
        'or install an NVIDIA driver and `pip install "lrp-onnx[cuda]"`'
    )


def nodes_by_provider(
    model: Path | bytes, feeds: Mapping[str, NDArray[Any]], *, provider: str
) -> dict[str, list[str]]:
    """The nodes that each provider ran, from the runtime's profile of one run.

    Returns:
        Name of a provider in ONNX Runtime → its nodes as ``Op name``, in the order of the run.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(model, providers=provider, profile=Path(folder) / "profile")
        session.run(None, feeds)
        events = json.loads(Path(session.runtime.end_profiling()).read_text(encoding="utf-8"))
    nodes_of: dict[str, dict[str, None]] = {}  # the keys are the nodes, each once
    for event in events:
        details = event.get("args", {})
        if event.get("cat") == "Node" and "provider" in details:
            nodes = nodes_of.setdefault(details["provider"], {})
            nodes[f"{details.get('op_name')} {event['name']}"] = None
    return {name: list(nodes) for name, nodes in nodes_of.items()}


def element_type(runtime_type: str) -> np.dtype[Any]:
    """NumPy's type for a type of ONNX Runtime such as ``tensor(float)``."""
    names = {"float": "float32", "float16": "float16", "double": "float64"}
    inner = runtime_type.removeprefix("tensor(").removesuffix(")")
    return np.dtype(names.get(inner, inner))
