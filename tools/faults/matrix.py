"""The fault matrix: fault × command → what is left, and whether the same command goes on.

``python -m tools.faults.matrix -o DIR`` runs every cell in child processes, prints the table,
writes ``faults.json`` and ``faults.md`` into DIR and exits with 1 where a cell is wrong.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any
from zlib import crc32

from lrp_onnx.files.writing import write_bytes
from tools.faults.cells import JOBS, Cell, Ended, Job, Undisturbed, differing, is_rounded
from tools.faults.faults import FAULTS, Fault, limits_of

UGLY = re.compile(
    r"Traceback|Exception ignored|terminate called|Segmentation|core dumped|Fatal Python|"
    r"object address|lost sys.stderr"
)
"""What no user should read."""
COUNTED = re.compile(r"(\d+) of (\d+) \w+ are (?:done|scored)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one trial of a fault on a command."""

    fault: str
    command: str
    trial: int
    """Its place among the values that are tried."""
    value: str
    """What was tried: seconds, bytes, a share …"""
    status: int
    said: str
    """The last line on standard error."""
    done: int
    """Results that were kept."""
    temporary: int
    """Temporary files that were left."""
    continued: int | None
    """Exit status of the same command, given again; None where nothing was left to go on with."""
    differs: tuple[str, ...]
    """Files that are not those of the undisturbed run after that; of ``bulk``, whose pictures are
    in other batches then, rows may differ by rounding.
    """
    wrong: tuple[str, ...]
    """What should not be; empty where all is right."""
    seconds: float


def try_fault(
    fault: Fault, value: Any, job: Job, undisturbed: Undisturbed, folder: Path, trial: int = 0
) -> Outcome:
    """Run a command in `folder` while a fault disturbs it, and again when that is mended."""
    cell = Cell(job, folder, undisturbed)
    with fault.around(cell, value) as how:
        running = cell.start(limits=limits_of(fault, value), **how)
        fault.during(cell, running, value)
        ended = cell.last = running.end()
        wrong = list(_wrong(fault, cell, ended))
        if extra := fault.check(cell, value):
            wrong.append(extra)
        done, temporary = cell.done(), cell.temporary()
        fault.mend(cell, value)
        left = any(cell.out.iterdir())  # else the folder is as before the first run
        again = cell.start(more=cell.remedy).end() if left else Ended(0, "", "", 0.0)
        found = cell.contents() if left else undisturbed.contents
        differs = differing(found, undisturbed.contents)
        rounded = differs == ["parts"] and is_rounded(cell.out, undisturbed.folder)
        temporary_after = cell.temporary()
    exists = job.name == "compile" and " exists: " in again.said
    if again.status and not exists:
        wrong.append(f"the same command ends with {again.status}: {_last(again)}")
    if temporary_after:
        wrong.append(f"temporary files are there after going on: {', '.join(temporary_after)}")
    if differs and not rounded:
        wrong.append(f"not as undisturbed: {', '.join(differs[:5])}")
    elif not differs and left and job.tells and not exists and again.printed != undisturbed.printed:
        wrong.append("standard output is not as undisturbed")
    if ugly := UGLY.search(again.said):
        wrong.append(f"{ugly[0]} from the same command")
    return Outcome(
        fault.name,
        job.name,
        trial,
        fault.text(value),
        ended.status,
        _last(ended).replace(str(folder), "…"),
        done,
        len(temporary),
        again.status if left else None,
        tuple(differs),
        tuple(wrong),
        round(ended.seconds + again.seconds, 1),
    )


def _wrong(fault: Fault, cell: Cell, ended: Ended) -> Iterator[str]:
    """What is wrong with how a disturbed run ended, and with what it left."""
    if not fault.allows(ended.status, cell.job):
        yield f"exit status {ended.status}: {ended.said[-300:]}"
    if ugly := UGLY.search(ended.said):
        yield f"on standard error: {ended.said[ugly.start() : ugly.start() + 1500]}"
    faults = [line for line in ended.said.splitlines() if line.startswith(("Error:", "Stopped"))]
    if len(faults) > 1:
        yield f"{len(faults)} lines of errors"
    if ended.status == 1 and not fault.quiet and not _ends_well(_last(ended)):
        yield f"the last line is no error: {_last(ended)!r}"
    if (counted := COUNTED.search(_last(ended))) and int(counted[1]) != cell.done():
        yield f"it says {counted[1]} are done, and {cell.done()} are there"
    if not fault.leaves and (left := cell.temporary()):
        yield f"temporary files are left: {', '.join(left)}"
    if fault.name != "kept results damaged" and (damaged := cell.damaged()):
        yield f"written in part: {', '.join(damaged)}"


def _ends_well(line: str) -> bool:
    """Whether a last line says what stopped a run, or that it goes on."""
    return line.startswith(("Error: ", "Stopped")) or bool(COUNTED.search(line))


def _last(ended: Ended) -> str:
    lines = ended.said.strip().splitlines()
    return lines[-1] if lines else ""


def trials(
    fault: Fault, job: Job, undisturbed: Undisturbed, seed: int, few: bool
) -> list[tuple[int, Any]]:
    """What of a fault is tried on a command: (place, value)."""
    rng = Random(crc32(f"{seed} {fault.name} {job.name}".encode()))
    values = list(enumerate(fault.values(job, undisturbed, rng)))
    return values[:: -(-len(values) // 2)] if few else values


def table(outcomes: Sequence[Outcome], skipped: dict[str, str]) -> str:
    """The matrix in markdown: a fault a row, a command a column."""
    names = list(dict.fromkeys(outcome.command for outcome in outcomes))
    rows = [["fault", *names], ["---"] * (len(names) + 1)]
    for fault in FAULTS:
        cells = [[o for o in outcomes if (o.fault, o.command) == (fault.name, n)] for n in names]
        if any(cells):
            rows.append([fault.name, *map(_cell, cells)])
        elif fault.name in skipped:
            rows.append([fault.name, f"not tried: {skipped[fault.name]}", *[""] * (len(names) - 1)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _cell(outcomes: Sequence[Outcome]) -> str:
    """How many trials, their exit statuses, and how many results were kept before going on."""
    if not outcomes:
        return "–"
    statuses = "/".join(str(status) for status in sorted({o.status for o in outcomes}))
    counts = sorted({outcome.done for outcome in outcomes})
    kept = f"{counts[0]}–{counts[-1]}" if len(counts) > 1 else str(counts[0])
    wrong = sum(bool(outcome.wrong) for outcome in outcomes)
    text = f"{len(outcomes)}: exit {statuses}, {kept} kept"
    return f"{text}, {wrong} WRONG" if wrong else text


def main() -> int:
    """Run the matrix."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the result")
    parser.add_argument("--command", nargs="*", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--fault", nargs="*", default=[], help="words of the faults to try")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--few", action="store_true", help="two trials a cell")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # unmount, remove
    page = Page.read(options.output, options.seed)
    work = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        for name in options.command:
            _try_command(JOBS[name], page, options, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(table(page.outcomes, page.skipped))
    return any(outcome.wrong for outcome in page.outcomes)


def _try_command(job: Job, page: Page, options: argparse.Namespace, work: Path) -> None:
    """Try all faults on a command, but for what the page has already."""
    undisturbed = Undisturbed.of(job, work)
    print(f"{job.name}: {undisturbed.seconds:.1f} s undisturbed", file=sys.stderr)
    done = {(outcome.fault, outcome.command, outcome.trial) for outcome in page.outcomes}
    for number, fault in enumerate(FAULTS):
        wanted = not options.fault or any(word in fault.name for word in options.fault)
        if not wanted or job.name not in fault.jobs:
            continue
        if reason := fault.needs():
            page.skipped[fault.name] = reason
            continue
        for trial, value in trials(fault, job, undisturbed, options.seed, options.few):
            if (fault.name, job.name, trial) in done:
                continue
            folder = work / f"{job.name}-{number}-{trial}"
            outcome = try_fault(fault, value, job, undisturbed, folder, trial)
            print(_told(outcome), file=sys.stderr, flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            page.outcomes.append(outcome)
            page.write()


@dataclass(slots=True)
class Page:
    """The outcomes in a folder, which grow trial by trial."""

    folder: Path
    seed: int
    outcomes: list[Outcome]
    skipped: dict[str, str]
    """Fault → why it is not tried."""

    @classmethod
    def read(cls, folder: Path, seed: int) -> Page:
        """What is there of this seed; trials that went wrong are made again."""
        path = folder / "faults.json"
        said = json.loads(path.read_text()) if path.exists() else {}
        if said.get("seed") != seed:
            return cls(folder, seed, [], {})
        outcomes = [Outcome(**one) for one in said["trials"] if not one["wrong"]]
        return cls(folder, seed, outcomes, said["skipped"])

    def write(self) -> None:
        """Write ``faults.json`` and ``faults.md``."""
        trials = [asdict(outcome) for outcome in self.outcomes]
        said = {"seed": self.seed, "skipped": self.skipped, "trials": trials}
        data = json.dumps(said, indent=1, ensure_ascii=False) + "\n"
        write_bytes(self.folder / "faults.json", data.encode(), force=True)
        text = table(self.outcomes, self.skipped)
        write_bytes(self.folder / "faults.md", text.encode(), force=True)


def _told(outcome: Outcome) -> str:
    text = f"{outcome.command} | {outcome.fault} {outcome.value} | exit {outcome.status} | "
    text += f"{outcome.done} kept | {outcome.said[:160]}"
    return text + "".join(f"\n    WRONG: {problem}" for problem in outcome.wrong)


if __name__ == "__main__":
    sys.exit(main())
