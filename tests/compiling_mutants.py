"""Damaged models, each compiled.

    python tests/compiling_mutants.py FIRST COUNT FOLDER [--every N] [--small] [--table]

A process of its own compiles them, and another takes its place where it dies. Prints one JSON line:
how many compiled, were refused in words, or failed the compiler's own check; of every N-th that
compiled, whether its outputs are what ONNX Runtime says of the mutant itself; what went wrong
(tracebacks, crashes, hangs, memory, files written, files read outside the folder), the slowest and
the most memory. With ``--table`` the counts of every kind of mutation follow.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import select
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2  # noqa: F401  imported once, here, and not in every child
import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).parent))
from mutations import BYTES, MUTATIONS, SECONDS, Mutant, mutant, peak_memory

from lrp_onnx.cli.verify import run_once
from lrp_onnx.compiled.runner import fixed_batch, in_batches
from lrp_onnx.compiled.unchanged import changed_outputs, rounding_of
from lrp_onnx.compiled.verify import random_picture
from lrp_onnx.compiler import Compiled, compile_model
from lrp_onnx.errors import LrpOnnxError, VerificationError
from lrp_onnx.files.compiled import read_compiled

EACH = 200
"""Mutants of one process, at most."""
MOST_PICTURES = 64
"""Of a fixed batch that is run."""
STUCK = 180
"""Seconds after which a process that says nothing is ended: it hangs in native code."""
COMPILED = "compiled"
"""Said of a mutant before the runtime sees it."""
MOST_WORDS = 30_000
"""Characters of a refusal, with long names in it."""
CODE = (
    sys.prefix,
    sys.base_prefix,
    str(Path(__file__).parents[1]),
    "/proc/",
    "/sys/",
    "/etc/os-release",
)
"""Where the program itself and Python's library read."""
CHANGING = ("os.remove", "os.rename", "os.mkdir", "os.link", "os.symlink", "subprocess.Popen")
"""Events of Python's audit that change files."""


def reset_peak() -> None:
    """Forget the most memory so far, where the system can."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")


class Watch:
    """What files are read and written beside a folder's own.

    An audit hook sees Python's own calls. On Linux, the system (inotify) says too whether anything,
    native code included, opened the `guarded` file.
    """

    def __init__(self, folder: Path, guarded: Path) -> None:
        self.folder, self.opened, self.watching = str(folder), list[str](), False
        self.system = -1
        if sys.platform.startswith("linux"):
            libc = ctypes.CDLL(None, use_errno=True)
            self.system = libc.inotify_init1(os.O_NONBLOCK)
            libc.inotify_add_watch(self.system, os.fsencode(guarded), 0x21)  # access, open
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.watching:
            return
        if event == "open" and not isinstance(arguments[0], int):
            path = Path(os.fsdecode(arguments[0])).absolute()
            writes = bool((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR))
            own = str(path.parent) == self.folder or str(path).startswith(CODE)
            if writes or not own:
                self.opened.append(f"{'wrote' if writes else 'read'} {path}")
        elif event in CHANGING:
            self.opened.append(f"{event} {arguments[:2]}")

    def _native(self) -> bool:
        """Whether the guarded file was opened since the last call."""
        try:
            return self.system >= 0 and len(os.read(self.system, 1 << 16)) > 0
        except BlockingIOError:
            return False

    def __enter__(self) -> None:
        self._native()
        self.opened, self.watching = [], True

    def __exit__(self, *_: object) -> None:
        self.watching = False

    def found(self) -> list[str]:
        return [*self.opened, *(["opened the guarded file"] if self._native() else [])]


@dataclass
class Result:
    """What became of one mutant."""

    seed: int
    outcome: str
    """``refused``, ``compiled``, ``failed its check`` or ``wrong``."""
    wrong: str = ""
    compared: str = ""
    """``equal``, ``rounding``, ``overflows``, ``refused by the runtime``, ``crashes the runtime``;
    empty where nothing was compared.
    """
    seconds: float = 0.0
    """Of a processor."""
    memory: int = 0
    said: str = ""


def equal_outputs(one: Mutant, compiled: Compiled) -> tuple[str, str]:
    """(how a compiled mutant's original outputs are the mutant's own, what is wrong)."""
    model, contract = compiled.model, compiled.contract
    own = onnx.load_from_string(one.data)
    batch = fixed_batch(own, contract.input) or fixed_batch(model, contract.input) or 2
    if batch > MOST_PICTURES:
        return "", ""
    pictures = random_picture(model, contract.input, batch=batch, seed=one.seed)
    runs: list[dict[str, Any]] = []
    for proto in (own, model):
        try:
            size = fixed_batch(proto, contract.input)
            data = proto.SerializeToString()
            runs.append(in_batches(run_once, data, contract.input, pictures, size, optimize=False))
        except LrpOnnxError as error:
            if proto is own:
                return "refused by the runtime", ""
            return "", f"the compiled file does not run: {error}"
    before, after = ({n: run[n] for n in contract.outputs} for run in runs)
    if not all(np.isfinite(values).all() for values in before.values()):
        return "overflows", ""  # in 16 bits the runtime's own casts decide where
    if not changed_outputs(before, after):
        return "equal", ""
    tolerance = max(rounding_of(model), 1e-4)
    faults = changed_outputs(before, after, tolerance=tolerance)
    return ("", f"other outputs than the mutant's: {faults}") if faults else ("rounding", "")


def compiles(one: Mutant, path: Path, compare: Callable[[], bool]) -> Result:
    """What the compiler does with a mutant that lies at `path`; `compare` is asked once it has
    compiled, before the runtime sees the mutant itself.
    """
    result = Result(one.seed, "refused")
    try:
        compiled = compile_model(path, runner=run_once, **one.options)
        result.outcome = "compiled"
        read_compiled(compiled.model.SerializeToString())
        if compare():
            result.compared, result.wrong = equal_outputs(one, compiled)
    except VerificationError as error:
        result.outcome, result.said = "failed its check", str(error)
    except LrpOnnxError as error:
        result.said = str(error)
        if result.outcome == "compiled":
            result.wrong = f"our own gate refuses what was compiled: {error}"
        elif not 0 < len(result.said) < MOST_WORDS:
            result.wrong = f"a refusal of {len(result.said):,} characters"
    except BaseException:
        result.wrong = traceback.format_exc(limit=-4)
    result.said = result.said[:300]
    return result


def listing(folder: Path) -> dict[str, int]:
    return {path.name: path.lstat().st_mtime_ns for path in folder.iterdir()}


def work(seeds: list[int], folder: Path, arguments: argparse.Namespace, pipe: Any) -> None:
    """Compile mutants; one line of JSON for the start of each, and one for its result."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} seconds of a processor")

    def compare() -> bool:
        print(json.dumps(COMPILED), file=pipe, flush=True)
        return seed % arguments.every == 0

    signal.signal(signal.SIGPROF, stop)
    watch = Watch(folder, folder.parent / "secret")
    for seed in seeds:
        one = mutant(seed, small=arguments.small)
        (folder / "model.onnx").write_bytes(one.data)
        there = listing(folder)
        print(json.dumps(seed), file=pipe, flush=True)
        reset_peak()
        begun = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        with watch:
            result = compiles(one, folder / "model.onnx", compare)
            signal.setitimer(signal.ITIMER_PROF, 0)
        result.seconds, result.memory = time.process_time() - begun, peak_memory()
        faults = [result.wrong, *watch.found()]
        if listing(folder) != there:
            faults.append(f"the folder holds {sorted(listing(folder))}")
        if result.memory > BYTES or result.seconds > SECONDS:
            faults.append(f"{result.seconds:.1f} s, {result.memory:,} bytes")
        result.wrong = "; ".join(filter(None, faults))
        result.outcome = "wrong" if result.wrong else result.outcome
        print(json.dumps(vars(result)), file=pipe, flush=True)


def apart(seeds: list[int], folder: Path, arguments: argparse.Namespace) -> Iterator[Result]:
    """The results of mutants, from a process that may die: then another goes on."""
    while seeds:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            with os.fdopen(writing, "w", encoding="utf-8") as pipe:
                work(seeds[:EACH], folder, arguments, pipe)
            os._exit(0)
        os.close(writing)
        current, done, compiled = None, 0, False
        with os.fdopen(reading, encoding="utf-8") as pipe:
            while select.select([pipe], [], [], STUCK)[0] and (line := pipe.readline()):
                found = json.loads(line)
                if found == COMPILED or isinstance(found, int):
                    compiled = found == COMPILED
                    current = current if compiled else found
                    continue
                current, done = None, done + 1
                yield Result(**found)
        if current is not None:
            os.kill(child, signal.SIGKILL)  # where it hangs in native code
        _, status = os.waitpid(child, 0)
        if current is not None:
            killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            if compiled and not killed:
                yield Result(current, "compiled", compared="crashes the runtime")
            else:
                yield Result(current, "wrong", "hung" if killed else f"crashed: status {status}")
            done += 1
        elif done == 0:
            raise SystemExit("the process that compiles ended before it began")
        seeds = seeds[done:]


@dataclass
class Report:
    """Counts over all mutants."""

    outcomes: Counter[str] = field(default_factory=Counter)
    compared: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, Counter[str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    slowest: float = 0.0
    memory: int = 0

    def add(self, one: Mutant, result: Result) -> None:
        outcomes = [result.outcome, *filter(None, [result.compared])]
        self.outcomes[result.outcome] += 1
        self.compared.update(outcomes[1:])
        for kind in one.kinds:
            self.kinds.setdefault(kind, Counter()).update(outcomes)
        named = f"{one.seed} {one.source} {' '.join(one.kinds)} {one.options}: "
        if result.outcome == "wrong":
            self.wrong.append(named + result.wrong)
        if result.outcome == "failed its check":
            self.failed.append(named + result.said)
        self.slowest = max(self.slowest, result.seconds)
        self.memory = max(self.memory, result.memory)

    def table(self) -> str:
        """The counts of every kind of mutation, as Markdown."""
        heads = ["refused", "compiled", "failed its check", "wrong"]
        heads += ["equal", "rounding", "overflows", "refused by the runtime", "crashes the runtime"]
        lines = [f"| mutation | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
        rows = {kind: self.kinds.get(kind, Counter()) for kind in MUTATIONS}
        for name, counts in (rows | {"**mutants**": self.outcomes + self.compared}).items():
            lines.append(f"| {name} | {' | '.join(str(counts[head]) for head in heads)} |")
        return "\n".join(lines)


def main(arguments: argparse.Namespace) -> None:
    folder = arguments.folder.resolve()
    folder.mkdir(exist_ok=True)
    secret = folder.parent / "secret"
    secret.write_bytes(bytes(1 << 16))
    (folder / "link.bin").unlink(missing_ok=True)
    (folder / "link.bin").symlink_to(secret)
    (folder / "hard.bin").unlink(missing_ok=True)
    (folder / "hard.bin").hardlink_to(secret)
    seeds = list(range(arguments.first, arguments.first + arguments.count))
    report = Report()
    for result in apart(seeds, folder, arguments):
        report.add(mutant(result.seed, small=arguments.small), result)
    print(json.dumps(vars(report)))
    if arguments.table:
        print(report.table())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1, help="compare every N-th that compiled")
    parser.add_argument("--small", action="store_true", help="of the small files of the zoo alone")
    parser.add_argument("--table", action="store_true", help="print the counts of every kind")
    main(parser.parse_args())
