"""What explanations cost as they are shipped, every method in a process of its own.

    python -m tools.benchmark.alone --network resnet50 --json models/benchmark/alone.json
    python -m tools.benchmark.alone --model models/shapes-resnet.onnx --rounds 1
    python -m tools.benchmark.alone --network vit_small_patch16_224 --memory --forms cp-lrp-gamma \
        "cp-lrp-gamma --rule @first=gamma --rule @convolution=epsilon --rule @dense=epsilon"

Threads of one session go on waiting at full speed after a run and slow another session's: here no
process has two. The files are those that `compile` writes, post-processing included, unless a form
says otherwise. A form is a composite, `@` and where relevance stops, `--top` and a number of
targets of one picture, `--rule` and an override, each where it is wanted. Every process warms up,
then takes the median of its runs; of `--rounds` processes the fastest counts, as others of this
machine only ever slow one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx

from lrp_onnx import compile_model
from lrp_onnx.contract import TARGET
from lrp_onnx.relevance.composites.presets import DEFAULT
from lrp_onnx.runtime.session import open_session
from tools.benchmark.arithmetic import multiply_adds
from tools.benchmark.report import alone_table, said
from tools.benchmark.run import FORWARD, PAUSE, ROOT, child, exported, machine, pictures

FORMS = (
    DEFAULT,
    f"{DEFAULT} --top 5",
    f"{DEFAULT} @full",
    "lrp-resnet @1/8",
    "c3-lrp @1/8",
    "epsilon-gamma-plus",
)
"""The default, the bounds of coarse maps, and the former default's composite."""
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
"""The processor's time of one thread is the same on a machine that others use too."""
TIMED = "--timed"
"""The word that makes a process the one that is timed."""


def compiled(form: str, model: Path, file: Path) -> int:
    """Writes the file of `form`; returns its number of targets."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("composite")
    parser.add_argument("resolution", nargs="?", type=lambda text: text.removeprefix("@"))
    parser.add_argument("--top", type=int, default=1)
    parser.add_argument("--rule", action="append", default=[], type=lambda text: text.split("=", 1))
    words = parser.parse_args(form.split())
    choices = {"resolution": words.resolution} if words.resolution else {}
    many = {"many_targets": words.top > 1, "rules": dict(words.rule)}
    compile_model(model, composite=words.composite, **many, **choices).save(file)
    return int(words.top)


def timed(file: Path, batch: int, targets: int, threads: int, runs: int, clock: str) -> float:
    """Milliseconds of a run by that clock, the median, in this process."""
    now = CLOCKS[clock]
    session = open_session(file, providers="cpu", threads=threads)
    feeds = {session.runtime.get_inputs()[0].name: pictures(file, batch)}
    if targets > 1:
        feeds[TARGET] = -1 - np.arange(targets)
    times = []
    for index in range(runs + 1):
        time.sleep(PAUSE)
        begun = now()
        session.run(None, feeds)
        if index:
            times.append(1000 * (now() - begun))
    return statistics.median(times)


def in_its_own_process(*words: object) -> float:
    """What `timed` says in a new process."""
    command = [sys.executable, "-m", "tools.benchmark.alone", TIMED, *map(str, words)]
    return float(
        subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", type=Path, help="an ONNX file")
    source.add_argument(
        "--network", help="of torchvision or timm, with seeded weights (needs torch)"
    )
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--forms", nargs="+", default=list(FORMS))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--memory", action="store_true", help="peak memory of a process, too")
    parser.add_argument("--rounds", type=int, default=3, help="processes for every row")
    parser.add_argument("--json", type=Path, help="write the results here too")
    given = parser.parse_args(arguments)
    given.device = "cpu"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = given.model or exported(given.network, given.size, folder, half=False)
        files = {FORWARD: (model, 1)}
        for form in given.forms:
            file = folder / f"{len(files)}.onnx"
            files[form] = file, compiled(form, model, file)
        costs = {
            key: sum(multiply_adds(onnx.load(file)).values()) for key, (file, _) in files.items()
        }
        best: dict[tuple[int, str], float] = {}
        for batch in given.batch:
            for _ in range(given.rounds):
                for form, (file, targets) in files.items():
                    if targets > 1 < batch:
                        continue
                    took = in_its_own_process(
                        file.absolute(), batch, targets, given.threads, given.runs, given.clock
                    )
                    best[batch, form] = min(took, best.get((batch, form), took))
        peaks = {
            (batch, form): child(files[form][0], batch, given)[1]
            for batch, form in best
            if given.memory and files[form][1] == 1
        }
    rows = [
        {
            "batch": batch,
            "method": form,
            "milliseconds": took,
            "multiple": took / best[batch, FORWARD],
            "arithmetic": costs[form] / costs[FORWARD] if files[form][1] == 1 else None,
            "peak_megabytes": peaks.get((batch, form)),
        }
        for (batch, form), took in best.items()
    ]
    words = sys.argv[1:] if arguments is None else arguments
    command = "python -m tools.benchmark.alone " + " ".join(words).partition(" --json")[0]
    found = {"command": command, **machine(given), "alone": rows}
    print(f"{said(found)}\n\n{alone_table(rows)}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == [TIMED]:
        path, batch, targets, threads, runs, clock = sys.argv[2:]
        print(timed(Path(path), int(batch), int(targets), int(threads), int(runs), clock))
    else:
        sys.exit(main())
