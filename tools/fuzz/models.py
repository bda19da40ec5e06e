"""Fuzz the compiler with model files.

    python -m tools.fuzz.models --seconds 3600 -o DIR

Inputs are files of the zoo under the mutations of the tests; those that reach new edges are mutated
further. Every second input is planned, the others are compiled, and what is compiled must pass our
own gate. Errors of ours are what is expected.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import warnings
import zlib
from pathlib import Path
from typing import Any

from tools.fuzz.campaign import ROOT, supervise, work

sys.path.insert(0, str(ROOT / "tests"))
LARGEST = 45_000
"""Bytes of the files that inputs begin with."""


def main() -> int:
    if "--worker" in sys.argv:
        fuzz(Path(sys.argv[2]), sys.argv[3:])
    zoo: Any = importlib.import_module("zoo_files")
    seeds = (file.data for file in zoo.manifest() if file.bytes <= LARGEST)
    return supervise("tools.fuzz.models", __doc__ or "", seeds)


def fuzz(folder: Path, arguments: list[str]) -> None:
    import atheris

    with atheris.instrument_imports(include=["lrp_onnx"]):
        from lrp_onnx.cli.verify import run_once
        from lrp_onnx.compiler import Options, compile_model, plan_model
        from lrp_onnx.errors import LrpOnnxError
        from lrp_onnx.files.compiled import read_compiled
    import numpy as np

    mutations: Any = importlib.import_module("mutations")
    kinds = list(mutations.MUTATIONS.values())
    warnings.simplefilter("ignore")
    path = Path(tempfile.mkdtemp()) / "model.onnx"

    def target(data: bytes) -> None:
        chosen = zlib.crc32(data)
        path.write_bytes(data)
        try:
            choices = mutations.CHOICES[chosen // 10 % len(mutations.CHOICES)]
            if chosen % 2:
                plan_model(path, Options(**choices))
                return
            runner = run_once if chosen % 10 == 0 else None
            compiled = compile_model(path, runner=runner, **choices)
        except LrpOnnxError:
            return
        if runner is not None:  # unchecked files need not pass
            read_compiled(compiled.model.SerializeToString())

    def mutator(data: bytes, most: int, seed: int) -> bytes:
        rng = np.random.default_rng(seed)
        if rng.random() < 0.1:
            return bytes(atheris.Mutate(data, most))
        try:
            changed: bytes = kinds[int(rng.integers(len(kinds)))](data, rng)
        except Exception:  # the input is no model any more
            return bytes(atheris.Mutate(data, most))
        return changed if len(changed) <= most else data

    work(target, folder, arguments, mutator)


if __name__ == "__main__":
    sys.exit(main())
