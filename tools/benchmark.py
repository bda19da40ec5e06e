"""What an explanation costs: every composite and every peer that is installed, interleaved in one run.

    python tools/benchmark.py --model models/shapes-resnet.onnx
    python tools/benchmark.py --network resnet50 --batch 1 8 --composite c3-lrp lrp-resnet --peers --json out.json

`--model` takes any ONNX file that can be compiled; `--network` makes a torchvision topology with seeded weights, which
needs torch, and `--peers` then also times torch's autograd (Gradient × Input), Captum's LRP and Zennit's composites
where they are installed, on the same weights, pictures and thread count. Times are wall time of one run, the median
over `--runs`, with the middle half's spread; speeds are multiples of the forward pass of the same model in the same
run, since machines are shared. A runtime's threads go on waiting, at full speed, for a while after a run, and slow what
runs next, short runs most: every run begins after a pause in which they have gone to sleep. Peak memory is that of a
process of its own, above what it holds before the first run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from lrp_onnx.compiler import compile_model
from lrp_onnx.relevance.presets import COMPOSITES
from lrp_onnx.runtime.session import open_session

FORWARD = "forward"
PAUSE = 0.05
"""Seconds before every run. Without it the forward pass of a ResNet-50 takes twice its time on two cores, an
explanation 1.6 times its own, and every multiple looks a fifth better than it is.
"""
Run = Callable[[NDArray[np.float32]], object]


@dataclass(frozen=True, slots=True)
class Row:
    """One method at one batch size."""

    model: str
    batch: int
    method: str
    milliseconds: float
    """Median of one run."""
    spread: float
    """From the first to the third quartile, milliseconds."""
    multiple: float
    """Of the forward pass in the same framework and run."""
    pictures_per_second: float
    peak_megabytes: float | None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", type=Path, help="an ONNX file")
    source.add_argument("--network", help="a torchvision ResNet, with seeded weights: resnet18, resnet50, resnet152")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--composite", nargs="+", default=list(COMPOSITES), choices=[FORWARD, *COMPOSITES])
    parser.add_argument("--size", type=int, default=224, help="height and width of --network's pictures")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--peers", action="store_true", help="time torch, Captum and Zennit too")
    parser.add_argument("--memory", action="store_true", help="measure peak memory, one process for every row")
    parser.add_argument("--json", type=Path, help="write the results here too")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        path = given.model or exported(given.network, given.size, Path(folder))
        if given.child:
            print(peak_of(path, given.batch[0], given))
            return 0
        rows = measure(path, given, Path(folder))
    print(markdown(rows))
    if given.json:
        given.json.write_text(json.dumps({**machine(given), "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    return 0


def measure(path: Path, given: argparse.Namespace, folder: Path) -> list[Row]:
    """Every method at every batch size, one run of each in turn."""
    files = {FORWARD: path} | {name: compiled(path, name, folder) for name in given.composite if name != FORWARD}
    ours = {name: runs(file, given) for name, file in files.items()}
    theirs = peers(given) if given.peers else {}
    rows = []
    for batch in given.batch:
        x = pictures(path, batch)
        theirs = {name: run for name, run in theirs.items() if works(name, run, x)}
        times: dict[str, list[float]] = {name: [] for name in (*ours, *theirs)}
        for index in range(given.runs + 1):
            for group in (ours, theirs):
                for name, run in group.items():
                    time.sleep(PAUSE)
                    begun = time.perf_counter()
                    run(x)
                    if index:  # the first run of each only warms up
                        times[name].append(1000 * (time.perf_counter() - begun))
        for name, found in times.items():
            base = statistics.median(times["torch forward" if name in theirs else FORWARD])
            median = statistics.median(found)
            first, _, third = statistics.quantiles(found, n=4) if len(found) > 1 else (median, median, median)
            peak = child(files[name], batch, given) if given.memory and name in files else None
            speed = 1000 * batch / median
            rows.append(Row(path.stem, batch, name, median, third - first, median / base, speed, peak))
    return rows


def works(name: str, run: Run, x: NDArray[np.float32]) -> bool:
    """Whether a peer runs on this network at all; what it says is printed where it does not."""
    try:
        run(x)
    except Exception as error:
        print(f"{name} does not run: {error}", file=sys.stderr)
        return False
    return True


def compiled(path: Path, name: str, folder: Path) -> Path:
    """The model compiled with the composite `name`."""
    return compile_model(path, composite=name).save(folder / f"{name}.onnx", force=True)


def runs(file: Path, given: argparse.Namespace) -> Run:
    """What runs a file, compiled or not."""
    session = open_session(file, providers=given.device, threads=given.threads)
    picture = session.runtime.get_inputs()[0].name
    return lambda x: session.run(None, {picture: x})


def pictures(path: Path, batch: int) -> NDArray[np.float32]:
    """Random pictures of the model's size."""
    stored = onnx.load(path, load_external_data=False).graph
    weights = {tensor.name for tensor in stored.initializer}
    value = next(v for v in stored.input if v.name not in weights)
    sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim][1:]
    return np.random.default_rng(0).normal(size=(batch, *sizes)).astype(np.float32)


def child(file: Path, batch: int, given: argparse.Namespace) -> float:
    """Peak memory of one run in a process of its own, megabytes."""
    command = [sys.executable, __file__, "--model", str(file), "--batch", str(batch), "--child"]
    command += ["--threads", str(given.threads), "--device", given.device]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def peak_of(file: Path, batch: int, given: argparse.Namespace) -> float:
    """Megabytes that this process grows by when it runs the file."""
    run, x = runs(file, given), pictures(file, batch)
    before = held("VmRSS")
    run(x)
    return held("VmHWM") - before


def held(what: str) -> float:
    """Megabytes that this process holds now (VmRSS) or has held at most (VmHWM, and always where Linux does not say).

    Not ru_maxrss: a process begins with its parent's.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith(what))
    return int(line.split()[1]) / 1024


def torch_network(name: str) -> object:
    """A torchvision network in evaluation mode, weights and batch statistics seeded."""
    sys.path.insert(0, str(Path(__file__).parent))
    from zoo import torch_models  # it makes torchvision importable without its compiled half

    return torch_models.seeded(getattr(torch_models.torchvision.models, name)(weights=None))


def exported(name: str, size: int, folder: Path) -> Path:
    """`name` as ONNX; what the peers time has the same weights."""
    import torch

    model, path = torch_network(name), folder / f"{name}.onnx"
    axes = {"input": {0: "N"}, "logits": {0: "N"}}
    torch.onnx.export(
        model,
        (torch.zeros(2, 3, size, size),),
        str(path),
        dynamo=False,
        opset_version=17,
        input_names=["input"],
        output_names=["logits"],
        dynamic_axes=axes,
    )
    return path


def peers(given: argparse.Namespace) -> dict[str, Run]:
    """torch's forward pass and Gradient × Input, and what else is installed; what is not is named."""
    missing = [name for name in ("torch", "captum", "zennit") if importlib.util.find_spec(name) is None]
    for name in missing:
        print(f"{name} is not installed: not measured", file=sys.stderr)
    if "torch" in missing or given.network is None:
        return {}
    from peers import torch_methods  # beside this file

    return torch_methods(torch_network(given.network), given, missing)


def machine(given: argparse.Namespace) -> dict[str, object]:
    """The processor by its name, threads, and versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = {}
    for tool in ("lrp-onnx", "onnxruntime-gpu", "onnxruntime", "torch", "captum", "zennit"):
        try:
            versions[tool] = version(tool)
        except PackageNotFoundError:
            continue
    processor = names[0] if names else platform.processor()
    return {"processor": processor, "threads": given.threads, "device": given.device, "versions": versions}


def markdown(rows: list[Row]) -> str:
    """The rows as a table."""
    lines = [
        "| model | batch | method | ms | spread | × forward | pictures/s | peak MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        peak = "" if row.peak_megabytes is None else f"{row.peak_megabytes:.0f}"
        lines.append(
            f"| {row.model} | {row.batch} | {row.method} | {row.milliseconds:.1f} | {row.spread:.1f} "
            f"| {row.multiple:.2f} | {row.pictures_per_second:.1f} | {peak} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
