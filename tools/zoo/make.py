"""Make the model zoo of the tests: thin networks in the forms that real exporters write.

    python -m tools.zoo.make export --with torch --output /tmp/zoo       one run for each exporter,
    each in an python -m tools.zoo.make export --with keras --output /tmp/zoo       environment that
    has it python -m tools.zoo.make pack --input /tmp/zoo --output tests/zoo    compress, and write
    the manifest

`--with` is one of torch, keras, jax, paddle, and onnx; the last is ONNX
Runtime's optimiser and quantiser and the rewriting of other files of the
zoo, so it comes last. CONTRIBUTING.md lists what to install for each.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import lzma
import sys
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tools.zoo.recipe import Recipe

MODULES = ("torch", "keras", "jax", "paddle", "onnx")
LARGEST = 300_000
"""Bytes of a compressed file."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    exporting = commands.add_parser("export")
    exporting.add_argument("--with", dest="module", choices=MODULES, required=True)
    exporting.add_argument("--only", default="", help="part of the names to make")
    exporting.add_argument("--output", type=Path, required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("--input", type=Path, required=True)
    packing.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.command == "pack":
        return pack(arguments.input, arguments.output)
    return export(arguments.module, arguments.output, arguments.only)


def export(module: str, folder: Path, only: str) -> int:
    """Run a module's recipes; a recipe that fails is reported and the others go on."""
    folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    for recipe in importlib.import_module(f"tools.zoo.with_{module}").RECIPES:
        if only not in recipe.name:
            continue
        path = folder / f"{recipe.name}.onnx"
        try:
            recipe.write(path)
        except Exception:
            traceback.print_exc(limit=-3)
            print(f"FAILED {recipe.name}", file=sys.stderr)
            failed += 1
            continue
        path.with_suffix(".json").write_text(
            json.dumps(_description(recipe), indent=1) + "\n", encoding="utf-8"
        )
        print(f"{recipe.name}: {path.stat().st_size:,} bytes")
    return int(failed > 0)


def _description(recipe: Recipe) -> dict[str, object]:
    tools = {}
    for tool in recipe.tools:
        try:
            tools[tool] = version(tool)
        except PackageNotFoundError:
            continue
    return {
        "name": recipe.name,
        "family": recipe.family,
        "exporter": recipe.exporter,
        "architecture": recipe.architecture,
        "layout": recipe.layout,
        "tools": tools,
    }


def pack(source: Path, folder: Path) -> int:
    """Compress every exported file and write the manifest;
    files that are gone from the recipes are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.onnx.xz"):
        stale.unlink()
    entries = []
    for description in sorted(source.glob("*.json")):
        entry = json.loads(description.read_text(encoding="utf-8"))
        data = description.with_suffix(".onnx").read_bytes()
        packed = lzma.compress(data, preset=9)
        if len(packed) > LARGEST:
            print(
                f"{entry['name']} is {len(packed):,} bytes, {LARGEST:,} is the limit",
                file=sys.stderr,
            )
            return 1
        (folder / f"{entry['name']}.onnx.xz").write_bytes(packed)
        entries.append(entry | {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    (folder / "manifest.json").write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    print(f"{len(entries)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
