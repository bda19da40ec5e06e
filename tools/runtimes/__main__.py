"""The matrix of runtimes.

    python -m tools.runtimes run      measure and print cells
    python -m tools.runtimes table    all cells, stored in models/runtimes; the guides
    python -m tools.runtimes speed    multiples of forward passes on OpenVINO and ONNX Runtime
    python -m tools.runtimes write    the guides from what is stored

The full-size model is looked for in the folder that LRP_ONNX_TEST_ASSETS names.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.runtimes.browser import run_in_browser
from tools.runtimes.environments import node_of
from tools.runtimes.errors import UnavailableError
from tools.runtimes.execute import request_of
from tools.runtimes.measure import COMPOSITES, EMBEDDED, FULL_SIZE, Cell, case, measure
from tools.runtimes.registry import RUNTIMES, WEB, Form, Runtime
from tools.runtimes.report import RESULTS, write
from tools.runtimes.speed import speed

MODELS = ("embedded", "full")


def paths(names: Sequence[str]) -> list[Path]:
    """The files of the models called `names`; what is not there is said."""
    found = [EMBEDDED] if "embedded" in names else []
    if "full" in names:
        assets = os.environ.get("LRP_ONNX_TEST_ASSETS")
        if assets:
            found.append(Path(assets) / "models" / FULL_SIZE)
        else:
            print("LRP_ONNX_TEST_ASSETS names no folder of models: no full-size model")
    return found


def cells(
    wanted: Sequence[Runtime], models: Sequence[str], composites: Sequence[str]
) -> Iterator[Cell]:
    """Every cell, printed when it is measured."""
    for path in paths(models):
        for composite in composites:
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
                        print(cell.said, flush=True)
                        yield cell


def run(given: argparse.Namespace) -> None:
    wanted = [r for r in RUNTIMES if not given.runtime or r.name in given.runtime]
    found = []
    for cell in cells(wanted, given.model, given.composite):
        found.append(cell.to_json())
        if given.json:  # after every cell: the matrix takes half an hour
            given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def table(given: argparse.Namespace) -> None:
    found = [cell.to_json() for cell in cells(RUNTIMES, MODELS, COMPOSITES)]
    _store("matrix", {"command": "python -m tools.runtimes table", "cells": found})
    write()


def measure_speed(given: argparse.Namespace) -> None:
    found = speed(paths(["full"])[0])
    for row in found["rows"]:
        print(row)
    _store("speed", found)


def _store(name: str, found: object) -> None:
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(found, indent=1) + "\n"
    (RESULTS / f"{name}.json").write_text(text, encoding="utf-8")


def screenshot(given: argparse.Namespace) -> None:
    """A picture of what Chromium draws of the embedded model."""
    with tempfile.TemporaryDirectory() as folder:
        made = case(EMBEDDED, COMPOSITES[0], Form("web"), Path(folder))
        request = request_of(made.path.with_suffix(".ask"), made.runs)
        _, packages = node_of(WEB)
        run_in_browser(packages, made.path, request, screenshot=given.output)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.runtimes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("run")
    one.add_argument("--runtime", nargs="*", choices=[r.name for r in RUNTIMES])
    one.add_argument("--model", nargs="*", choices=MODELS, default=["embedded"])
    one.add_argument("--composite", nargs="*", default=list(COMPOSITES))
    one.add_argument("--json", type=Path)
    one.set_defaults(call=run)
    commands.add_parser("table").set_defaults(call=table)
    commands.add_parser("speed").set_defaults(call=measure_speed)
    commands.add_parser("write").set_defaults(call=lambda given: write())
    picture = commands.add_parser("screenshot")
    picture.add_argument("output", type=Path)
    picture.set_defaults(call=screenshot)
    given = parser.parse_args(arguments)
    given.call(given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
