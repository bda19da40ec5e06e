r"""What an explanation costs: every composite and every
peer that is installed, interleaved in one run.

    python -m tools.benchmark.run --model models/shapes-resnet.onnx
    python -m tools.benchmark.run --network resnet50 --composite c3-lrp lrp-resnet \
        --top 5 --resolution 28 --peers --memory
    python -m tools.benchmark.run --network vit_small_patch16_224 --composite cp-lrp-gamma --memory
    python -m tools.benchmark.run --network resnet50 --batch 1 32 128 --device cuda \
        --precision fp32 tf32 fp16 --peers

`--model` takes any ONNX file that can be compiled; `--network` makes topologies of torchvision, or
else of timm, with seeded weights, which needs torch, and `--peers` then also times torch's autograd
(Gradient × Input), Captum's LRP and Zennit's composites where they are installed, on the same
weights, pictures and thread count. Times are wall time of one run, the median over `--runs`, with
the middle half's spread; speeds are multiples of the forward pass of the same model in the same
run, since machines are shared. Every timed run follows an untimed one of the same method, and a
pause: a runtime's threads go on waiting, at full speed, for a while after a run, and slow what runs
next. Peak memory is that of a process that does nothing else (tools/benchmark/peak.py).
`arithmetic` is the file's multiply-adds over the model's own: no implementation on the same
hardware can be expected to be cheaper.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from lrp_onnx import compile_model
from lrp_onnx.contract import TARGET
from lrp_onnx.relevance.composites.presets import COMPOSITES
from lrp_onnx.runtime.bound import Bound
from lrp_onnx.runtime.session import Session, Tuning, nodes_by_provider, open_session
from tools.benchmark.arithmetic import multiply_adds
from tools.benchmark.report import markdown

ROOT = Path(__file__).parents[2]
FORWARD = "forward"
PAUSE = 0.05
"""Seconds before every run. Without it the forward pass of a ResNet-50 takes twice its time on two
cores, an explanation 1.6 times its own, and every multiple looks a fifth better than it is.
"""
LONG_PAUSE = 0.5
"""Seconds between the frameworks: OpenMP's threads wait longer than ONNX Runtime's."""
Run = Callable[[NDArray[Any]], object]


@dataclass(frozen=True, slots=True)
class Row:
    """One method at one batch size."""

    model: str
    size: int
    precision: str
    batch: int
    method: str
    milliseconds: float
    """Median of one run."""
    spread: float
    """From the first to the third quartile, milliseconds."""
    multiple: float
    """Of the forward pass in the same framework and run."""
    pictures_per_second: float
    arithmetic: float | None
    """Multiply-adds over those of the forward pass."""
    compile_seconds: float | None
    session_seconds: float | None
    peak_megabytes: float | None
    """Of the whole process."""
    run_megabytes: float | None
    """The same, above what it holds with its session open."""


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """A file of ours, ready to run."""

    file: Path
    session: Session
    compile_seconds: float | None
    session_seconds: float
    targets: int = 1

    def feeds(self, x: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """The inputs for the pictures `x`; a file of many targets explains the best ones."""
        name = self.session.runtime.get_inputs()[0].name
        return {name: x} | ({TARGET: -1 - np.arange(self.targets)} if self.targets > 1 else {})


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", type=Path, help="an ONNX file")
    source.add_argument(
        "--network",
        nargs="+",
        help="networks of torchvision or timm, with seeded weights: resnet18 vit_small_patch16_224",
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument(
        "--composite", nargs="*", default=list(COMPOSITES), choices=list(COMPOSITES)
    )
    parser.add_argument("--top", type=int, help="also that many targets of one picture in one run")
    parser.add_argument(
        "--resolution",
        nargs="+",
        default=[],
        help="also coarse maps, e.g. 28, or feature maps' names",
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs="+",
        default=[224],
        help="height and width of --network's pictures",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--precision", nargs="+", choices=("fp32", "tf32", "fp16"), default=["fp32"]
    )
    parser.add_argument("--cuda-graph", action="store_true", help="record runs and play them back")
    parser.add_argument("--nhwc", action="store_true", help="CUDA convolutions with channels last")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--peers", action="store_true", help="time torch, Captum and Zennit too")
    parser.add_argument(
        "--memory", action="store_true", help="measure peak memory, one process for every row"
    )
    parser.add_argument("--profile", action="store_true", help="show what every operator takes")
    parser.add_argument("--json", type=Path, help="write the results here too")
    given = parser.parse_args(arguments)
    rows: list[Row] = []
    profiles: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (path, name, precision, size) in enumerate(models(given, Path(folder))):
            own = Path(folder) / str(number)
            own.mkdir()
            rows += measure(path, name, precision, size, given, own, profiles)
    words = sys.argv[1:] if arguments is None else arguments
    command = "python -m tools.benchmark.run " + " ".join(words).partition(" --json")[0]
    found = {
        "command": command,
        **machine(given),
        "rows": [asdict(row) for row in rows],
        "profiles": profiles,
    }
    print(markdown(found))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def models(given: argparse.Namespace, folder: Path) -> Iterator[tuple[Path, str | None, str, int]]:
    """(file, network's name, precision, size) of everything that is to be measured."""
    for precision in given.precision:
        if given.model:
            yield given.model, None, precision, pictures(given.model, 1).shape[-1]
        for name in given.network or ():
            for size in given.size:
                yield exported(name, size, folder, half=precision == "fp16"), name, precision, size


def methods(
    path: Path, precision: str, given: argparse.Namespace, folder: Path
) -> dict[str, Method]:
    """The forward pass, and every composite in the forms that were asked for."""
    found = {FORWARD: opened(path, precision, given, None)}
    device = "cuda" if given.device == "cuda" else "cpu"
    for name in given.composite:
        forms: dict[str, tuple[dict[str, Any], int]] = {name: ({}, 1)}
        if given.top:
            forms[f"{name} --top {given.top}"] = ({"many_targets": True}, given.top)
        for which in given.resolution:
            forms[f"{name} --resolution {which}"] = (
                {"resolution": (int(which),) * 2 if which.isdecimal() else which},
                1,
            )
        for form, (choices, targets) in forms.items():
            begun = time.perf_counter()
            compiled = compile_model(
                path, composite=name, optimize_for=device, post="none", **choices
            )
            file = compiled.save(folder / f"{len(found)}.onnx")
            found[form] = opened(file, precision, given, time.perf_counter() - begun, targets)
    return found


def opened(
    file: Path,
    precision: str,
    given: argparse.Namespace,
    compile_seconds: float | None,
    targets: int = 1,
) -> Method:
    """A session on the file; on a GPU, every node must run there."""
    tuning = Tuning(tf32=precision == "tf32", nhwc=given.nhwc, cuda_graph=given.cuda_graph)
    begun = time.perf_counter()
    session = open_session(file, providers=given.device, threads=given.threads, tuning=tuning)
    method = Method(file, session, compile_seconds, time.perf_counter() - begun, targets)
    if given.device == "cuda":
        elsewhere = nodes_by_provider(file, method.feeds(pictures(file, 1)), provider="cuda")
        if left := elsewhere.get("CPUExecutionProvider"):
            print(
                f"{file}: {len(left)} nodes run on the CPU: {', '.join(left[:5])}", file=sys.stderr
            )
    return method


def measure(
    path: Path,
    network: str | None,
    precision: str,
    size: int,
    given: argparse.Namespace,
    folder: Path,
    profiles: dict[str, dict[str, float]],
) -> list[Row]:
    """Every method at every batch size, one run of each in turn."""
    ours = methods(path, precision, given, folder)
    theirs = peers(network, precision, given) if given.peers and network else {}
    costs = {
        name: sum(multiply_adds(onnx.load(method.file)).values()) for name, method in ours.items()
    }
    rows = []
    for batch in given.batch:
        x = pictures(path, batch)
        theirs = {name: run for name, run in theirs.items() if works(name, run, x)}
        here = {name: method for name, method in ours.items() if method.targets == 1 or batch == 1}
        runs = {name: bound(method, x) for name, method in here.items()} | theirs
        times: dict[str, list[float]] = {name: [] for name in runs}
        for index in range(given.runs + 1):
            for name, run in runs.items():
                time.sleep(
                    LONG_PAUSE
                    if theirs and (name == FORWARD or name == next(iter(theirs)))
                    else PAUSE
                )
                run(x)  # a service runs one model again and again: caches and pages are its own
                begun = time.perf_counter()
                run(x)
                if index:  # the first run of each only warms up
                    times[name].append(1000 * (time.perf_counter() - begun))
        for name, found in times.items():
            median = statistics.median(found)
            first, _, third = (
                statistics.quantiles(found, n=4) if len(found) > 1 else (median, median, median)
            )
            method = here.get(name)
            single = method is not None and method.targets == 1
            ready, peak = (
                child(method.file, batch, given)
                if given.memory and method and single
                else (None, None)
            )
            rows.append(
                Row(
                    model=path.stem.partition("-size")[0],
                    size=size,
                    precision=precision,
                    batch=batch,
                    method=name,
                    milliseconds=median,
                    spread=third - first,
                    multiple=median
                    / statistics.median(times[FORWARD if method else "torch forward"]),
                    pictures_per_second=1000 * batch / median,
                    arithmetic=costs[name] / costs[FORWARD] if single else None,
                    compile_seconds=method.compile_seconds if method else None,
                    session_seconds=method.session_seconds if method else None,
                    peak_megabytes=peak,
                    run_megabytes=peak - ready if peak is not None and ready is not None else None,
                )
            )
        if given.profile:
            for name, method in here.items():
                profiles[f"{path.stem} {name}, batch {batch}"] = profile(method, x, given)
    return rows


def bound(method: Method, x: NDArray[Any]) -> Run:
    """Runs with buffers that stay on the device."""
    feeds = method.feeds(x)
    ready = Bound(method.session, feeds)
    return lambda _: ready.run(feeds)


def works(name: str, run: Run, x: NDArray[Any]) -> bool:
    """Whether a peer runs on this network at all; what it says is printed where it does not."""
    try:
        run(x)
    except Exception as error:
        print(f"{name} does not run: {error}", file=sys.stderr)
        return False
    return True


def profile(method: Method, x: NDArray[Any], given: argparse.Namespace) -> dict[str, float]:
    """Operator → milliseconds of a run, each node's median over `--runs`."""
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(
            method.file,
            providers=given.device,
            threads=given.threads,
            tuning=Tuning(spinning=False),
            profile=Path(folder) / "p",
        )
        for _ in range(given.runs):
            session.run(None, method.feeds(x))
        events = json.loads(Path(session.runtime.end_profiling()).read_text(encoding="utf-8"))
    times: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times.setdefault((event["args"]["op_name"], event["name"]), []).append(
                event["dur"] / 1000
            )
    total: Counter[str] = Counter()
    for (op, _), found in times.items():
        total[op] += statistics.median(found)  # type: ignore[assignment]
    return dict(total.most_common())


def pictures(path: Path, batch: int) -> NDArray[Any]:
    """Random pictures of the model's size and type."""
    stored = onnx.load(path, load_external_data=False).graph
    weights = {tensor.name for tensor in stored.initializer}
    value = next(v for v in stored.input if v.name not in weights)
    sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim][1:]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    return np.random.default_rng(0).normal(size=(batch, *sizes)).astype(dtype)


def child(file: Path, batch: int, given: argparse.Namespace) -> tuple[float, float]:
    """Megabytes (with its session open, at most) of a process that runs the file."""
    words = [str(file.absolute()), str(batch), str(given.threads), given.device]
    command = [sys.executable, "-m", "tools.benchmark.peak", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    ready, peak = done.stdout.split()
    return float(ready), float(peak)


def torch_network(name: str) -> Any:
    """A network of torchvision, or else of timm, in evaluation mode, weights and batch statistics
    seeded.
    """
    from tools.zoo.torch_models import (
        seeded,
    )  # it makes torchvision importable without its compiled half

    # isort: split
    import timm
    import torch
    import torchvision

    torch.manual_seed(3)
    make = getattr(torchvision.models, name, None)
    return seeded(make(weights=None) if make else timm.create_model(name, pretrained=False))


def exported(name: str, size: int, folder: Path, *, half: bool) -> Path:
    """`name` as ONNX; what the peers time has the same weights."""
    import torch

    path = folder / f"{name}-size{size}{'-fp16' if half else ''}.onnx"
    model, x = torch_network(name), torch.zeros(2, 3, size, size)
    if path.exists():
        return path
    torch.onnx.export(
        model.half() if half else model,
        (x.half() if half else x,),
        str(path),
        dynamo=False,
        opset_version=17,
        input_names=["input"],
        output_names=["logits"],
        dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}},
    )
    return path


def peers(network: str, precision: str, given: argparse.Namespace) -> dict[str, Run]:
    """torch's forward pass and Gradient × Input, and what else is
    installed; what is not is named.
    """
    missing = [
        name for name in ("torch", "captum", "zennit") if importlib.util.find_spec(name) is None
    ]
    for name in missing:
        print(f"{name} is not installed: not measured", file=sys.stderr)
    if "torch" in missing:
        return {}
    from tools.benchmark.peers import torch_methods

    return torch_methods(torch_network(network), given, missing, precision)


def machine(given: argparse.Namespace) -> dict[str, Any]:
    """The processor by its name, threads, and versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    wide = next((name for name in ("avx512f", "avx2") if name in flags), "")
    versions = {}
    for tool in ("lrp-onnx", "onnxruntime-gpu", "onnxruntime", "torch", "captum", "zennit"):
        try:
            versions[tool] = version(tool)
        except PackageNotFoundError:
            continue
    processor = " ".join(filter(None, (names[0] if names else platform.processor(), wide)))
    return {
        "processor": processor,
        "threads": given.threads,
        "device": given.device,
        "versions": versions,
    }


if __name__ == "__main__":
    sys.exit(main())
