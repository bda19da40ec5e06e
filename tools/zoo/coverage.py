"""Write the table of what compiles into models/README.md:
exporter × architecture, from the zoo of the tests.

    python -m tools.zoo.coverage            print it
    python -m tools.zoo.coverage --write    put it between its markers in models/README.md

A test compares the page with what this prints.
"""

from __future__ import annotations

import argparse
import json
import lzma
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lrp_onnx import compile_model
from lrp_onnx.errors import UnsupportedModelError

ROOT = Path(__file__).parents[2]
ZOO, PAGE = ROOT / "tests" / "zoo", ROOT / "models" / "README.md"
BEGIN, END = "<!-- coverage: begin -->", "<!-- coverage: end -->"
WRITERS = {
    "torchscript": ("torch (TorchScript)", "torch"),
    "dynamo": ("torch (dynamo)", "torch"),
    "tf2onnx-tflite": ("tf2onnx from TFLite", "tf2onnx"),
    "tf2onnx": ("tf2onnx from Keras", "tf2onnx"),
    "keras3": ("Keras 3 export", "keras"),
    "jax2onnx": ("jax2onnx from flax", "jax2onnx"),
    "paddle2onnx": ("Paddle2ONNX", "paddle2onnx"),
    "onnxruntime": ("ONNX Runtime's optimiser and quantiser", "onnxruntime"),
    "onnxslim": ("onnxslim", "onnxslim"),
    "onnxconverter": ("onnxconverter-common (float16)", "onnxconverter_common"),
    "caffe2": ("Caffe2 zoo style (rewritten)", ""),
    "mxnet": ("MXNet zoo style (rewritten)", ""),
    "constant-nodes": ("weights as Constant nodes (rewritten)", ""),
    "shuffled": ("names and order shuffled (rewritten)", ""),
}
"""Beginning of a file's exporter → what people call it, and the distribution whose version counts.
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write models/README.md")
    table = coverage()
    if parser.parse_args().write:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(replaced(page, table), encoding="utf-8")
    else:
        print(table)
    return 0


def replaced(page: str, table: str) -> str:
    """`page` with `table` between the markers."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def coverage() -> str:
    """The table and the list of exporters as Markdown."""
    entries = read_manifest()
    results = [(entry, result_of(entry)) for entry in entries]
    refused = sum(result != "compiles" for _, result in results)
    head = (
        f"{len(entries)} files, {len({e['architecture'] for e in entries})} architectures and "
        f"variants, {len({writer_of(e)[0] for e in entries})} ways of writing them; "
        f"{len(entries) - refused} compile, {refused} are refused."
    )
    lines = ["| architecture | written by | |", "|---|---|---|", *_rows(results)]
    return "\n".join([head, "", *lines, "", "Versions: " + "; ".join(_versions(entries)) + "."])


def _rows(results: Iterable[tuple[dict[str, Any], str]]) -> Iterator[str]:
    cells: dict[tuple[str, str], list[str]] = {}
    for entry, result in results:
        writers = cells.setdefault((entry["architecture"], result), [])
        if (name := writer_of(entry)[0]) not in writers:
            writers.append(name)
    for (architecture, result), writers in sorted(cells.items()):
        yield f"| {architecture} | {', '.join(sorted(writers))} | {result} |"


def _versions(entries: Iterable[dict[str, Any]]) -> list[str]:
    found = set()
    for entry in entries:
        _, tool = writer_of(entry)
        if tool in entry["tools"]:
            found.add(f"{tool.replace('_', '-')} {entry['tools'][tool]}")
    return sorted(found)


def writer_of(entry: dict[str, Any]) -> tuple[str, str]:
    """(what people call the exporter, the distribution whose version counts)."""
    return next(named for prefix, named in WRITERS.items() if entry["exporter"].startswith(prefix))


def read_manifest() -> list[dict[str, Any]]:
    """What is known of every file of the zoo."""
    return list(json.loads((ZOO / "manifest.json").read_text(encoding="utf-8")))


def unpacked(entry: Mapping[str, Any], folder: Path) -> Path:
    """A file of the zoo, written to the folder."""
    path = folder / f"{entry['name']}.onnx"
    path.write_bytes(lzma.decompress((ZOO / f"{path.name}.xz").read_bytes()))
    return path


def options_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Options without which a file of the zoo cannot be compiled."""
    found: dict[str, Any] = {"explain": "logits"} if entry["family"] == "abn" else {}
    return found | ({"input_size": (32, 32)} if "any-size" in entry["exporter"] else {})


def result_of(entry: dict[str, Any]) -> str:
    """``compiles``, or why not: the first fault, and how many more there are."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            compile_model(unpacked(entry, Path(folder)), **options_of(entry))
        except UnsupportedModelError as error:
            return "refused: " + "; ".join(_reasons(error.faults))
    return "compiles"


def _reasons(faults: Iterable[str]) -> list[str]:
    """Faults without nodes' names and sizes: what kind of thing is
    in the way of which operators.
    """
    found: dict[str, set[str]] = {}
    for fault in faults:
        operator, _, why = fault.partition(" '")
        found.setdefault(REASONS[next(key for key in REASONS if key in why)], set()).add(operator)
    return [
        f"{reason} ({', '.join(sorted(operators))})" for reason, operators in sorted(found.items())
    ]


REASONS = {
    "one processor": "optimised for one processor",
    "computes in integers": "computes in integers; quantise in the QDQ format",
    "training_mode": "exported in training mode",
    "cannot be explained yet": "no rule for this operator",
    "only (N, in)": "products of several axes",
    "batch": "the batch is moved",
    "constants (a class token": "a class token",
    "none of its inputs": "a class token",
    "depend on the input": "products of two computed tensors",
    "must be known": "sizes behind these are not known",
    "reshapes": "the batch is moved",
    "different shapes": "adds tensors of different shapes",
    "": "not of a form that can be read",
}
"""Part of a fault's text → a few words."""


if __name__ == "__main__":
    sys.exit(main())
