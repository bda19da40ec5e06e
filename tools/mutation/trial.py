"""One mutant against its tests, in a child process that has everything but the package loaded."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType

import hypothesis
import pytest

from tools.mutation.operators import Mutant

MEMORY = 3 * 1024**3
"""Bytes that a child may allocate."""
LIBRARIES = ("numpy", "onnx", "onnx_ir", "onnx_graphsurgeon", "onnxruntime", "cv2", "click", "rich")
SLACK = 30.0
"""Seconds that a trial may take beside its tests."""
PATIENCE = 4.0
"""How many times longer than undisturbed the tests may take."""
NOT_TRIED = (3, 4, 5)
"""What pytest returns after an error of its own or of the command line, and with no test left."""


@dataclass(slots=True)
class Trial:
    """A running child."""

    mutant: Mutant | None
    """None for the undisturbed package."""
    tests: Sequence[str]
    process: int
    started: float
    limit: float
    """Seconds after which the child is ended."""
    report: Path
    """What pytest printed."""

    def finished(self) -> str | None:
        """``killed``, ``survived``, ``error`` (no test ran), or None while it runs."""
        process, status = os.waitpid(self.process, os.WNOHANG)
        if process:
            code = os.waitstatus_to_exitcode(status)
            return "survived" if code == 0 else "error" if code in NOT_TRIED else "killed"
        if time.monotonic() - self.started < self.limit:
            return None
        os.killpg(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        return "killed"


def failed(report: Path) -> str | None:
    """The test that failed, of what pytest printed; None where none did, as in a crash."""
    found = re.search(r"^FAILED (.+?)(?: - .*)?$", report.read_text(errors="replace"), re.MULTILINE)
    return found[1] if found else None


def preload() -> None:
    """Import what every trial needs, and nothing of the package."""
    for name in LIBRARIES:
        importlib.import_module(name)
    assert not any(name.partition(".")[0] == "lrp_onnx" for name in sys.modules)


def start(mutant: Mutant | None, tests: Sequence[str], seconds: float, report: Path) -> Trial:
    """Start `tests`, which take `seconds` undisturbed, on `mutant`."""
    process = os.fork()
    if process == 0:
        code = 3
        try:
            code = _run(mutant, tests, report)
        finally:
            os._exit(code)
    limit = SLACK + PATIENCE * seconds
    return Trial(mutant, tests, process, time.monotonic(), limit, report)


def _run(mutant: Mutant | None, tests: Sequence[str], report: Path) -> int:
    os.setsid()
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    output = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.dont_write_bytecode = mutant is not None
    if mutant is not None:
        sys.meta_path.insert(0, _Mutated(mutant))
    hypothesis.settings.register_profile(
        "mutation",
        database=None,
        derandomize=True,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    hypothesis.settings.load_profile("mutation")
    files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
    plugins = ["-p", "no:xdist", "-p", "no:cov", "-p", "no:cacheprovider"]
    loaded = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # hypothesis, by `preload`
    command = ["-x", "-q", "--tb=line", *plugins, *loaded, *files]
    return int(pytest.main(command, plugins=[_Chosen(tests)]))


class _Chosen:
    """A plugin that runs `tests` alone, in their order."""

    def __init__(self, tests: Sequence[str]) -> None:
        self.places = {test: place for place, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self.places),
            key=lambda item: self.places[item.nodeid],
        )


class _Mutated(importlib.abc.MetaPathFinder):
    """Finds the one module that has the fault in it."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant
        self.module = mutant.path.removesuffix(".py").replace("/", ".")

    def find_spec(
        self, fullname: str, path: object = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.module:
            return None
        file = str(Path(self.mutant.path).absolute())
        return importlib.util.spec_from_file_location(
            fullname, file, loader=_Loader(fullname, file, self.mutant)
        )


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, fullname: str, path: str, mutant: Mutant) -> None:
        super().__init__(fullname, path)
        self.mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        source = self.mutant.applied(Path(self.path).read_bytes())
        return compile(source, self.path, "exec", dont_inherit=True)
