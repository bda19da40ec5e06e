"""What every choice of emission buys.

    python -m tools.benchmark.passes --network resnet50 --composite c3-lrp lrp-resnet

Each choice of `lrp_onnx.relevance.graph.emission.Emission` is turned
round alone, and what then runs is timed interleaved with what is
right for the CPU; peak memory is that of a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import fields, replace
from pathlib import Path

from lrp_onnx import compile_model
from lrp_onnx.relevance.composites.presets import COMPOSITES
from lrp_onnx.relevance.graph.emission import EMISSIONS, Emission
from lrp_onnx.runtime.bound import Bound
from lrp_onnx.runtime.session import open_session
from tools.benchmark.report import passes_table
from tools.benchmark.run import PAUSE, child, exported, machine, pictures

ALL = "as compiled for the CPU"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", type=Path, help="an ONNX file")
    source.add_argument("--network", help="a network with seeded weights; needs torch")
    parser.add_argument(
        "--composite", nargs="+", default=["c3-lrp", "lrp-resnet"], choices=list(COMPOSITES)
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the results here too")
    given = parser.parse_args(arguments)
    given.device = "cpu"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = given.model or exported(given.network, 224, Path(folder), half=False)
        for composite in given.composite:
            rows += measure(path, composite, given, Path(folder))
    print(passes_table(rows))
    if given.json:
        command = (
            "python -m tools.benchmark.passes --network "
            f"{given.network} --composite {' '.join(given.composite)}"
        )
        given.json.write_text(
            json.dumps({"command": command, **machine(given), "passes": rows}, indent=1) + "\n"
        )
    return 0


def measure(
    path: Path, composite: str, given: argparse.Namespace, folder: Path
) -> list[dict[str, object]]:
    """A row for every choice and batch size."""
    best = EMISSIONS["cpu"]
    emissions = {ALL: best} | {
        f.name: replace(best, **{f.name: not getattr(best, f.name)})
        for f in fields(Emission)
        if isinstance(getattr(best, f.name), bool)
    }
    whole = compile_model(path, composite=composite, post="none").model.graph
    files: dict[str, Path] = {}
    for name, emission in emissions.items():
        compiled = compile_model(path, composite=composite, optimize_for=emission, post="none")
        if (
            name == ALL or compiled.model.graph != whole
        ):  # not every composite is touched by every choice
            files[name] = compiled.save(folder / f"{composite}-{len(files)}.onnx")
    sessions = {
        name: open_session(file, providers="cpu", threads=given.threads)
        for name, file in files.items()
    }
    rows = []
    for batch in given.batch:
        feeds = {sessions[ALL].runtime.get_inputs()[0].name: pictures(path, batch)}
        runs = {name: Bound(session, feeds) for name, session in sessions.items()}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for index in range(given.runs + 1):
            for name, run in runs.items():
                time.sleep(PAUSE)
                begun = time.perf_counter()
                run.run(feeds)
                if index:
                    times[name].append(1000 * (time.perf_counter() - begun))
        base = statistics.median(times[ALL])
        for name, found in times.items():
            median = statistics.median(found)
            rows.append(
                {
                    "composite": composite,
                    "batch": batch,
                    "without": name,
                    "milliseconds": median,
                    "ratio": median / base,
                    "peak_megabytes": child(files[name], batch, given)[1],
                }
            )
    return rows


if __name__ == "__main__":
    sys.exit(main())
