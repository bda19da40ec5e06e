"""The matrix of runtimes: python -m tools.runtimes run|table|speed."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from tools.runtimes.errors import UnavailableError
from tools.runtimes.measure import COMPOSITES, EMBEDDED, FULL_SIZE, measure
from tools.runtimes.registry import RUNTIMES

MODELS = ("embedded", "full")


def run(given: argparse.Namespace) -> int:
    """Measure and print cells."""
    assets = os.environ.get("LRP_ONNX_TEST_ASSETS")
    paths = [EMBEDDED] if "embedded" in given.model else []
    if "full" in given.model:
        if not assets:
            print("LRP_ONNX_TEST_ASSETS names no folder of models: the embedded one alone")
        else:
            paths.append(Path(assets) / "models" / FULL_SIZE)
    wanted = [r for r in RUNTIMES if not given.runtime or r.name in given.runtime]
    cells = []
    for path in paths:
        for composite in given.composite:
            with tempfile.TemporaryDirectory() as folder:
                for runtime in wanted:
                    if runtime.small and path != EMBEDDED:
                        continue
                    for form in runtime.forms:
                        try:
                            cell = measure(runtime, form, path, composite, Path(folder))
                        except UnavailableError as error:
                            print(f"{runtime.name}: {error}", flush=True)
                            continue
                        cells.append(cell)
                        said = cell.fault or f"outputs {cell.outputs:.1e} map {cell.map:.1e}"
                        mark = "right" if cell.right else "WRONG"
                        print(
                            f"{mark} {cell.runtime} {cell.version} {cell.form} {cell.model} "
                            f"{cell.composite}: {said} (itself {cell.itself:.1e}; {cell.seconds} s)",
                            flush=True,
                        )
    if given.json:
        given.json.write_text(json.dumps([cell.to_json() for cell in cells], indent=1) + "\n")
    return 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.runtimes", description=__doc__)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("run", help="measure and print cells")
    one.add_argument("--runtime", nargs="*", choices=[r.name for r in RUNTIMES])
    one.add_argument("--model", nargs="*", choices=MODELS, default=["embedded"])
    one.add_argument("--composite", nargs="*", default=list(COMPOSITES))
    one.add_argument("--json", type=Path)
    one.set_defaults(call=run)
    given = parser.parse_args(arguments)
    return int(given.call(given))


if __name__ == "__main__":
    sys.exit(main())
