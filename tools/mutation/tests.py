"""Which tests can find a fault: those that run the faulty lines, the likeliest first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import coverage

from tools.mutation.operators import Mutant

NEAR, FAR = 80, 8
"""How many cases of a parametrised test run: of tests of single layers, rules and functions, and of
tests of whole networks.
"""
TESTS: Mapping[str, int] = {
    "tests/maps": NEAR,
    "tests/evaluation/metrics": NEAR,
    "tests/relevance/layers": NEAR,
    "tests/relevance/rules": NEAR,
    "tests/relevance/post": NEAR,
    "tests/relevance": FAR,
    "tests/test_starts.py": FAR,
    "tests/test_heads.py": FAR,
    "tests/test_compiler.py": FAR,
}
"""Folder or file of the tests that are meant to find the faults → how many cases."""


def measure(folder: Path, tests: Sequence[str] = tuple(TESTS)) -> None:
    """Run the undisturbed tests once and write what each runs, and for how long, to `folder`, with
    what was measured there before.
    """
    settings = folder / "coverage.ini"
    settings.write_text(f"[run]\nsource = lrp_onnx\ndata_file = {(folder / 'lines').absolute()}\n")
    plugins = ["-p", "tools.mutation.measuring", "--cov", "--cov-context=test", "--cov-report="]
    if (folder / "durations.json").exists():
        plugins.append("--cov-append")
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", *plugins]
    environment = os.environ | {
        "MUTATION_DURATIONS": str((folder / "durations.json").absolute()),
        "MUTATION_CASES": json.dumps(TESTS),
        "OMP_NUM_THREADS": "1",
    }
    subprocess.run([*command, f"--cov-config={settings}", *tests], env=environment, check=False)


class Tests:
    """What was measured by `measure`."""

    def __init__(self, folder: Path) -> None:
        self.seconds: dict[str, float] = json.loads((folder / "durations.json").read_text())
        self._data = coverage.CoverageData(basename=str(folder / "lines"))
        self._data.read()
        self._files: dict[str, list[str]] = defaultdict(list)
        for name in self._data.measured_files():  # of every clone where tests were measured
            self._files[Path(name).as_posix().rpartition("/lrp_onnx/")[2]].append(name)
        self._lines: dict[str, dict[int, set[str]]] = {}

    def of(self, mutant: Mutant, *, seconds: float) -> list[str]:
        """The tests that run a line of `mutant`, the likeliest to fail first; a line that runs only
        at import counts as run by every test of the module, and of its folder.

        They take at most `seconds` in sum, undisturbed, but for the first.
        """
        lines = self._of_file(mutant.path)
        spanned = range(mutant.line, mutant.last_line + 1)
        tests = set().union(*(lines.get(line, set()) for line in spanned))
        if not tests:
            room = f"{Path(mutant.path).parent.as_posix().replace('lrp_onnx', 'tests', 1)}/"
            tests = set().union(*lines.values())
            tests |= {test for test in self.seconds if test.startswith(room)}
        return _within(
            self._ordered(tests & self.seconds.keys(), mutant.path), self.seconds, seconds
        )

    def _of_file(self, path: str) -> dict[int, set[str]]:
        """Line → the ids of the tests that run it."""
        if path not in self._lines:
            found: dict[int, set[str]] = defaultdict(set)
            for name in self._files[path.removeprefix("lrp_onnx/")]:
                for line, contexts in self._data.contexts_by_lineno(name).items():
                    found[line] |= {context.partition("|")[0] for context in contexts} - {""}
            self._lines[path] = found
        return self._lines[path]

    def _ordered(self, tests: Iterable[str], path: str) -> list[str]:
        """Tests of the module's name, of its room, others; in each the shortest of every function
        first, then the second of every function, and so on.
        """
        module = Path(path)
        room = module.parent.as_posix().removeprefix("lrp_onnx/")
        turns: Counter[str] = Counter()
        keys: dict[str, tuple[int, int, float, str]] = {}
        for test in sorted(tests, key=lambda test: (self.seconds[test], test)):
            function = test.partition("[")[0]
            file = Path(test.partition("::")[0])
            near = 2 - (file.parent.as_posix() == f"tests/{room}")
            near -= file.stem.removeprefix("test_").startswith(module.stem)
            keys[test] = (near, turns[function], self.seconds[test], test)
            turns[function] += 1
        return sorted(keys, key=keys.__getitem__)


def _within(tests: list[str], seconds: Mapping[str, float], limit: float) -> list[str]:
    """The first of `tests` that take `limit` in sum, and always the first one."""
    kept: list[str] = []
    spent = 0.0
    for test in tests:
        spent += seconds[test]
        if spent <= limit or not kept:
            kept.append(test)
    return kept
