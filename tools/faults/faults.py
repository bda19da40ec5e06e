"""The faults: what is done to a run, what may come of it, and how it is mended."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from tools.faults.cells import Cell, Ended, Job, Running, Undisturbed

OK, REFUSED = 0, 1
MIB = 1 << 20


@contextmanager
def _nothing() -> Iterator[dict[str, Any]]:
    yield {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way to disturb a run."""

    name: str
    statuses: frozenset[int]
    """Exit statuses that are right."""
    values: Callable[[Job, Undisturbed, Random], Sequence[Any]] = lambda job, was, rng: (None,)
    """What is tried: sizes, seconds …"""
    around: Callable[[Cell, Any], Any] = lambda cell, value: _nothing()
    """A context in which the disturbed run lies."""
    during: Callable[[Cell, Running, Any], None] = lambda cell, running, value: None
    """What happens while it runs."""
    mend: Callable[[Cell, Any], None] = lambda cell, value: None
    """Take the fault away, for the run that goes on."""
    limit: str = ""
    """The ``RLIMIT_…`` that the value sets."""
    jobs: frozenset[str] = frozenset({"compile", "explain", "evaluate", "bulk"})
    needs: Callable[[], str] = lambda: ""
    """Why it cannot be tried here; empty where it can."""
    quiet: bool = False
    """Whether it may end without a word."""
    leaves: bool = False
    """Whether temporary files may be left until the command goes on: after kill -9."""
    check: Callable[[Cell, Any], str] = lambda cell, value: ""
    """What else is wrong; empty for nothing."""

    def allows(self, status: int, job: Job) -> bool:
        """Whether an exit status is right. While Ray starts, SIGTERM meets its own handler, which
        aborts the process.
        """
        rays = job.name == "bulk" and self.name == "SIGTERM" and status == 128 + signal.SIGABRT
        return rays or status in self.statuses

    def text(self, value: Any) -> str:
        """A value, for a reader."""
        if self.limit in ("RLIMIT_AS", "RLIMIT_FSIZE"):
            return f"{value / 1e6:.3g} MB"
        if isinstance(value, float):
            return f"{value:.2f}"
        return "" if value is None else str(value)


@cache
def without_mounting() -> str:
    """Why no small file system can be mounted; empty where it can."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        try:
            _mount(Path(folder), "64k")
        except (OSError, subprocess.CalledProcessError):
            return "mounting a small tmpfs is not permitted"
        _unmount(Path(folder))
    return ""


def _mount(folder: Path, size: str, *, options: str = "") -> None:
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}{options}", "tmpfs", str(folder)]
    subprocess.run(command, check=True, capture_output=True)


def _remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def _mounted(folder: Path, size: str, options: str = "") -> Iterator[None]:
    """A folder is a file system of its own."""
    _mount(folder, size, options=options)
    try:
        yield
    finally:
        _unmount(folder)


@contextmanager
def _small_disk(cell: Cell, value: float) -> Iterator[dict[str, Any]]:
    """The output is a file system with a part of the room that it needs."""
    assert cell.undisturbed is not None
    with _mounted(cell.out, f"{max(4, int(cell.undisturbed.size * value / 1024))}k"):
        yield {}


def _enlarge(cell: Cell, value: Any) -> None:
    _remount(cell.out, "size=64m")


@contextmanager
def _read_only(cell: Cell, value: Any) -> Iterator[dict[str, Any]]:
    """The output can be read only."""
    with _mounted(cell.out, "64m", ",ro"):
        yield {}


def _writable(cell: Cell, value: Any) -> None:
    _remount(cell.out, "rw")


@contextmanager
def _full_stdout(cell: Cell, value: Any) -> Iterator[dict[str, Any]]:
    """Standard output is a file on a file system that is full."""
    disk = cell.folder / "disk"
    disk.mkdir()
    with _mounted(disk, "4k"):
        (disk / "full").write_bytes(bytes(4096))
        with (disk / "full").open("ab") as file:
            yield {"stdout": file}


def _closed(handle: int) -> Callable[[Cell, Any], Any]:
    """Standard output (1) or standard error (2) is closed."""

    @contextmanager
    def around(cell: Cell, value: Any) -> Iterator[dict[str, Any]]:
        yield {"first": lambda: os.close(handle)}

    return around


@contextmanager
def _reader(cell: Cell, value: Any) -> Iterator[dict[str, Any]]:
    """Who reads standard output goes away, at once or after a line."""
    read, write = os.pipe()
    if value == "at once":
        os.close(read)
        read = -1
    with os.fdopen(write, "wb") as file:
        cell.reader = read
        yield {"stdout": file}


def _after_a_line(cell: Cell, running: Running, value: Any) -> None:
    if cell.reader >= 0:
        cell.has_begun(running)
        with os.fdopen(cell.reader, "rb", buffering=0) as file:
            file.read(1)


def _later(
    act: Callable[[Cell, Running, Any], None],
) -> Callable[[Cell, Running, Any], None]:
    """Act after so many seconds, unless the run has ended."""

    def during(cell: Cell, running: Running, value: float) -> None:
        with suppress(subprocess.TimeoutExpired):
            running.process.wait(max(0.0, running.begun + value - time.monotonic()))
        if running.process.poll() is None:
            act(cell, running, value)

    return during


def _sends(
    number: signal.Signals, *, group: bool = False, twice: bool = False
) -> Callable[[Cell, Running, Any], None]:
    def send(cell: Cell, running: Running, value: Any) -> None:
        for again in range(2 if twice else 1):
            with suppress(ProcessLookupError):
                if group:
                    os.killpg(running.process.pid, number)
                else:
                    running.process.send_signal(number)
            if twice and not again:
                time.sleep(0.05)

    return _later(send)


def _times(count: int) -> Callable[[Job, Undisturbed, Random], Sequence[float]]:
    """Random times over the length of a run, in seconds."""

    def values(job: Job, was: Undisturbed, rng: Random) -> list[float]:
        return sorted(rng.uniform(0, was.seconds) for _ in range(count))

    return values


def _remove_output(cell: Cell, running: Running, value: Any) -> None:
    shutil.rmtree(cell.out, ignore_errors=True)


def _make_output(cell: Cell, value: Any) -> None:
    cell.out.mkdir(exist_ok=True)


def _remove_photo(cell: Cell, running: Running, value: Any) -> None:
    cell.photo(4).rename(cell.folder / "gone.png")


def _return_photo(cell: Cell, value: Any) -> None:
    with suppress(FileNotFoundError):
        (cell.folder / "gone.png").rename(cell.photo(4))


@contextmanager
def _damaged_photo(cell: Cell, value: str) -> Iterator[dict[str, Any]]:
    photo = cell.photo(3)
    data = photo.read_bytes()
    (cell.folder / "gone.png").write_bytes(data)
    photo.write_bytes({"cut": data[: len(data) // 2], "zeros": bytes(len(data)), "": b""}[value])
    yield {}


def _mend_photo(cell: Cell, value: Any) -> None:
    (cell.folder / "gone.png").replace(cell.photo(3))


def _line(number: int, change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    def changed(data: bytes) -> bytes:
        lines = data.splitlines(keepends=True)
        lines[number] = change(lines[number])
        return b"".join(lines)

    return changed


DAMAGE: Mapping[str, Callable[[bytes], bytes]] = {
    "a line cut": _line(3, lambda line: line[: len(line) // 2] + b"\n"),
    "zeros at the end": lambda data: data + bytes(700),
    "zeros for the last line": _line(-1, lambda line: bytes(len(line))),
    "a key missing": _line(5, lambda line: line.replace(b'"image": ', b'"picture": ', 1)),
    "another key missing": _line(5, lambda line: line.replace(b'"target": ', b'"goal": ', 1)),
    "a line null": _line(2, lambda line: b"null\n"),
    "a line not UTF-8": _line(4, lambda line: b"\xff\xfe" + line),
    "the last line cut": lambda data: data[:-40],
    "empty": lambda data: b"",
    "all zeros": lambda data: bytes(len(data)),
}
"""What happens to a file that a run keeps."""
OTHERS = ("values cut", "values zeros", "settings zeros", "settings missing")


def _damages(job: Job, was: Undisturbed, rng: Random) -> Sequence[str]:
    own = () if job.name == "bulk" else tuple(DAMAGE)
    return own + (() if job.name == "evaluate" else OTHERS)


@contextmanager
def _damaged_results(cell: Cell, value: str) -> Iterator[dict[str, Any]]:
    """A finished folder with one file damaged."""
    assert cell.undisturbed is not None and cell.job.kept is not None
    if cell.job.name == "bulk":  # its rows name pictures by whole paths
        cell.start().end()
    else:
        shutil.copytree(cell.undisturbed.folder, cell.out, dirs_exist_ok=True)
    if value in DAMAGE:
        path = cell.out / cell.job.kept
        path.write_bytes(DAMAGE[value](path.read_bytes()))
    elif value.startswith("values"):
        path = sorted([*cell.out.glob("*.npz"), *cell.out.glob("parts/*.parquet")])[1]
        data = path.read_bytes()
        path.write_bytes(data[:-100] if value.endswith("cut") else bytes(len(data)))
    elif value == "settings zeros":
        (cell.out / "run.json").write_bytes(bytes(500))
    else:
        (cell.out / "run.json").unlink()
    yield {}


def _remedy(cell: Cell, value: Any) -> None:
    """What the message asks for, where it refuses to go on."""
    said = cell.last.said if cell.last else ""
    if "--force" in said:
        cell.remedy = ("--force",)
    elif "remove it" in said:
        name = said.removeprefix("Error: ").split(" cannot be ")[0].split(" holds ")[0]
        (cell.folder / name).unlink()


def _second_run(cell: Cell, running: Running, value: Any) -> None:
    """Another run with the same command, once the first has a result and waits."""
    if cell.has_begun(running):
        running.process.send_signal(signal.SIGSTOP)
        cell.second = cell.start().end()
        running.process.send_signal(signal.SIGCONT)


def _only_one_wrote(cell: Cell, value: Any) -> str:
    second: Ended | None = cell.second
    if second is None:
        return "" if cell.job.name == "compile" else "there was no second run"
    if cell.job.name == "compile":
        return "" if second.status == REFUSED and " exists: " in second.said else second.said
    last = second.said.strip().splitlines()[-1:]
    if second.status == REFUSED and "Error: another run writes into out" in "".join(last):
        return ""
    return f"the second run: {second.status} {second.said}"


def _sizes(*megabytes: int) -> Callable[[Job, Undisturbed, Random], Sequence[int]]:
    return lambda job, was, rng: [size * MIB for size in megabytes]


def _parts_of_largest(job: Job, was: Undisturbed, rng: Random) -> Sequence[int]:
    return [int(was.largest * share) for share in (0.01, 0.3, 0.95)]


def _root() -> str:
    return "limits on processes do not hold for root" if os.geteuid() == 0 else ""


FAULTS = (
    Fault(
        name="disk full",
        statuses=frozenset({REFUSED}),
        values=lambda job, was, rng: (0.0, 0.1, 0.5, 0.9, 0.97),
        around=_small_disk,
        mend=_enlarge,
        needs=without_mounting,
    ),
    Fault(
        name="files limited (RLIMIT_FSIZE)",
        statuses=frozenset({REFUSED}),
        values=_parts_of_largest,
        limit="RLIMIT_FSIZE",
    ),
    Fault(
        name="standard output on a full disk",
        statuses=frozenset({REFUSED}),
        around=_full_stdout,
        needs=without_mounting,
    ),
    Fault(name="standard error closed", statuses=frozenset({OK}), around=_closed(2)),
    Fault(name="standard output closed", statuses=frozenset({OK}), around=_closed(1)),
    Fault(
        name="reader gone (head -1)",
        statuses=frozenset({OK, REFUSED}),
        values=lambda job, was, rng: ("at once", "after a line"),
        around=_reader,
        during=_after_a_line,
        quiet=True,
    ),
    Fault(
        name="memory limited (RLIMIT_AS)",
        statuses=frozenset({OK, REFUSED}),
        values=_sizes(60, 300, 660, 680, 700, 750, 900),
        limit="RLIMIT_AS",
    ),
    Fault(
        name="open files limited (RLIMIT_NOFILE)",
        statuses=frozenset({OK, REFUSED}),
        values=lambda job, was, rng: (5, 6, 8, 16),
        limit="RLIMIT_NOFILE",
    ),
    Fault(
        name="processes limited (RLIMIT_NPROC)",
        statuses=frozenset({OK, REFUSED}),
        values=lambda job, was, rng: (1, 4, 16),
        limit="RLIMIT_NPROC",
        needs=_root,
    ),
    Fault(
        name="kill -9",
        statuses=frozenset({OK, 128 + signal.SIGKILL}),
        values=_times(5),
        during=_sends(signal.SIGKILL),
        leaves=True,
    ),
    *(
        Fault(
            name=name,
            statuses=frozenset({OK, 128 + number}),
            values=_times(count),
            during=_sends(number, group=group, twice=twice),
        )
        for name, number, count, group, twice in (
            ("SIGINT", signal.SIGINT, 10, False, False),
            ("SIGINT to the group (Ctrl-C)", signal.SIGINT, 4, True, False),
            ("SIGINT twice", signal.SIGINT, 4, True, True),
            ("SIGTERM", signal.SIGTERM, 6, False, False),
            ("SIGHUP", signal.SIGHUP, 4, False, False),
        )
    ),
    Fault(
        name="output removed",
        statuses=frozenset({OK, REFUSED}),
        values=_times(5),
        during=_later(_remove_output),
        mend=_make_output,
    ),
    Fault(
        name="output read only",
        statuses=frozenset({REFUSED}),
        around=_read_only,
        mend=_writable,
        needs=without_mounting,
    ),
    Fault(
        name="picture gone",
        statuses=frozenset({OK, REFUSED}),
        values=_times(4),
        during=_later(_remove_photo),
        mend=_return_photo,
        jobs=frozenset({"explain", "evaluate", "bulk"}),
    ),
    Fault(
        name="picture damaged",
        statuses=frozenset({REFUSED}),
        values=lambda job, was, rng: ("cut", "zeros", ""),
        around=_damaged_photo,
        mend=_mend_photo,
        jobs=frozenset({"explain", "evaluate", "bulk"}),
    ),
    Fault(
        name="kept results damaged",
        statuses=frozenset({OK, REFUSED}),
        values=_damages,
        around=_damaged_results,
        mend=_remedy,
        jobs=frozenset({"explain", "evaluate", "bulk"}),
    ),
    Fault(
        name="two at once",
        statuses=frozenset({OK}),
        during=_second_run,
        check=_only_one_wrote,
    ),
)
"""All of them, in the order of the table."""


def limits_of(fault: Fault, value: Any) -> dict[int, int]:
    """The limits of the disturbed run's process."""
    return {getattr(resource, fault.limit): int(value)} if fault.limit else {}
