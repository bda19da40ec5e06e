"""A campaign: one target, fed by atheris for so many seconds, restarted where it dies."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MEMORY = 2 << 30
"""Bytes that the process of the target may hold."""
SECONDS = 10
"""Processor seconds that one input may take."""
STUCK = 120
"""Seconds after which libFuzzer ends a process that is stuck in native code."""
_STATUS = re.compile(r"#(\d+)\s+\S+ +cov: (\d+) ft: (\d+) corp: (\d+)")
"""libFuzzer's lines of status: executions, edges, features, inputs kept."""

Target = Callable[[bytes], None]
Mutator = Callable[[bytes, int, int], bytes]


class Findings:
    """What a target must never do: one file for every place in the code where it did."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "findings"
        self.folder.mkdir(parents=True, exist_ok=True)

    def keep(self, data: bytes, text: str, place: str) -> None:
        """The input that led to `place`, unless a smaller one is kept already."""
        name = hashlib.sha256(place.encode()).hexdigest()[:12]
        file = self.folder / name
        with (self.folder / "log").open("a", encoding="utf-8") as log:
            log.write(f"{name} {place}\n")
        if not file.exists() or file.stat().st_size > len(data):
            file.write_bytes(data)
            file.with_suffix(".txt").write_text(text, encoding="utf-8", errors="replace")

    def places(self) -> dict[str, int]:
        """Place in the code → how often it was met."""
        counts: dict[str, int] = {}
        log = self.folder / "log"
        for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else []:
            counts[line] = counts.get(line, 0) + 1
        return counts


def place_of(error: BaseException) -> str:
    """The type of an error, and the innermost lines that raised it, ours and the last."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/lrp_onnx/" in frame.filename]
    names = [f"{Path(f.filename).name}:{f.name}:{f.lineno}" for f in (*own[-1:], *frames[-1:])]
    return " ".join([type(error).__name__, *dict.fromkeys(names)])


def guarded(target: Target, findings: Findings) -> Target:
    """The target with every exception, hang and hunger for memory kept as a finding."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} seconds")

    def run(data: bytes) -> None:
        signal.signal(signal.SIGPROF, stop)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            target(data)
        except Exception as error:
            signal.setitimer(signal.ITIMER_PROF, 0)
            findings.keep(data, traceback.format_exc(), place_of(error))
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if after - before > MEMORY // 4096:  # a quarter of what may be held, for one input
            findings.keep(data, f"{after:,} KiB", "memory")

    return run


def work(target: Target, folder: Path, arguments: Sequence[str], mutator: Mutator | None) -> None:
    """Fuzz `target` in this process, until libFuzzer ends it."""
    import atheris

    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    custom = {"custom_mutator": mutator} if mutator else {}
    atheris.Setup([sys.argv[0], *arguments], guarded(target, Findings(folder)), **custom)
    atheris.Fuzz()


def watched(command: Sequence[str], log: Path) -> list[int]:
    """Executions, edges, features and inputs kept of a run, and its exit status."""
    last = [0, 0, 0, 0]
    with (
        log.open("a", encoding="utf-8") as copy,
        subprocess.Popen(
            command, cwd=ROOT, stderr=subprocess.PIPE, text=True, errors="replace"
        ) as run,
    ):
        assert run.stderr is not None
        for line in run.stderr:
            copy.write(line)
            if found := _STATUS.search(line):
                last = [int(number) for number in found.groups()]
    return [*last, run.returncode]


def supervise(
    module: str, description: str, seeds: Iterable[bytes], *, words: Iterable[str] = ()
) -> int:
    """The command line of a target: run it, restart it where it dies, say what was found.

    Args:
        module: the target's module, which is run with ``--worker FOLDER`` and libFuzzer's options.
        description: of the command line.
        seeds: inputs to begin with.
        words: parts of texts that inputs are made of.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    given = parser.parse_args()
    corpus = given.output / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for data in seeds:
        (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    dictionary = given.output / "words"
    quoted = (word.replace("\\", "\\\\").replace('"', '\\"') for word in dict.fromkeys(words))
    dictionary.write_text("".join(f'"{word}"\n' for word in quoted if word), encoding="utf-8")
    report: dict[str, Any] = {"executions": 0, "edges": 0, "features": 0, "kept": 0, "deaths": 0}
    end = time.monotonic() + given.seconds
    while (left := int(end - time.monotonic())) > 0:
        options = [
            f"-max_total_time={left}",
            f"-artifact_prefix={given.output}/died-",
            f"-timeout={STUCK}",
            f"-rss_limit_mb={MEMORY >> 20}",
            "-max_len=300000",
            "-len_control=0",
            "-reload=0",
            *([f"-dict={dictionary}"] if dictionary.stat().st_size else []),
            str(corpus),
        ]
        command = [sys.executable, "-m", module, "--worker", str(given.output), *options]
        executions, *others, status = watched(command, given.output / "log")
        report["executions"] += executions
        for name, value in zip(("edges", "features", "kept"), others, strict=True):
            report[name] = max(report[name], value)
        report["deaths"] += status != 0
    report["findings"] = Findings(given.output).places()
    print(json.dumps(report, indent=1))
    return int(bool(report["findings"] or report["deaths"]))
