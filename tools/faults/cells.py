"""Commands that are disturbed: how they run in a child process, and what they leave on disk."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile

import cv2
import numpy as np
import onnx

from lrp_onnx.deploy.rows import map_of, module

MODEL = Path(__file__).parents[2] / "models" / "shapes-resnet.onnx"
PICTURES, SIDE = 6, 64
TIMEOUT, HANGING = 300, 1000
"""Seconds after which a run counts as hanging, and its status then."""
TEMPORARY = re.compile(r"^\..+\.[a-z0-9_]{8}$")
"""Names of the files that `files.writing.write_bytes` writes into first."""
TIMES = re.compile(rb'"seconds": \{[^}]*\}|\d{4}-\d\d-\d\d \d\d:\d\d UTC')
"""What differs between two undisturbed runs: how long pictures took, and the page's date."""


@dataclass(frozen=True, slots=True)
class Job:
    """A command, given in a folder with ``model.onnx`` and ``photos``; it writes into ``out``."""

    name: str
    arguments: tuple[str, ...]
    kept: str | None = None
    """The file in ``out`` that a later run reads first."""
    tells: bool = True
    """Whether standard output is that of an undisturbed run after going on."""

    def begun(self, out: Path) -> bool:
        """Whether there is a result."""
        return _lines_in(out, self) > 0 if self.kept else any(out.glob("*.onnx"))


def _job(name: str, given: str, **others: Any) -> Job:
    return Job(name, (name, "model.onnx", *given.split()), **others)


JOBS = {
    job.name: job
    for job in (
        _job("compile", "-o out/model.lrp.onnx --threads 1"),
        _job("explain", "photos -o out --batch 2 --threads 1", kept="explanations.jsonl"),
        _job(
            "evaluate",
            "photos -o out --method grad-cam --metrics exact --steps 6 --threads 1",
            kept="results.jsonl",
        ),
        _job(
            "bulk",
            "photos -o out --actors 1 --cpus 1 --batch 2 --block 2",
            kept="run.json",
            tells=False,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended."""

    status: int
    """As a shell tells it: 128 and the signal's number where that ended it."""
    said: str
    """Standard error."""
    printed: str
    seconds: float


@dataclass(slots=True)
class Running:
    """A run in a child process."""

    process: subprocess.Popen[bytes]
    begun: float
    printed: Path | None
    said: Path

    def kill(self) -> None:
        """End it, and what it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self) -> Ended:
        """Wait until it has ended; one that takes too long is killed."""
        try:
            status = self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            status = HANGING
        except BaseException:  # the matrix is stopped
            self.kill()
            raise
        return Ended(
            status if status >= 0 else 128 - status,
            self.said.read_text(errors="replace"),
            self.printed.read_text(errors="replace") if self.printed else "",
            time.monotonic() - self.begun,
        )


@dataclass(slots=True)
class Cell:
    """A folder in which one command is disturbed, and goes on."""

    job: Job
    folder: Path
    undisturbed: Undisturbed | None = None
    remedy: tuple[str, ...] = ()
    """Arguments that a message asks for, for the run that goes on."""
    last: Ended | None = None
    """The disturbed run."""
    second: Ended | None = None
    """Another run at the same time."""
    reader: int = -1
    """The end of a pipe that reads standard output."""

    def __post_init__(self) -> None:
        for name in ("photos", "out"):
            (self.folder / name).mkdir(parents=True)
        shutil.copy(MODEL, self.folder / "model.onnx")
        for number in range(PICTURES):
            draw(self.photo(number), number)

    @property
    def out(self) -> Path:
        """Where the results go."""
        return self.folder / "out"

    def photo(self, number: int) -> Path:
        """A picture, from 0."""
        return self.folder / "photos" / f"{number:02}.png"

    def start(
        self,
        *,
        limits: Mapping[int, int] | None = None,
        stdout: IO[bytes] | int | None = None,
        first: Callable[[], None] | None = None,
        more: Sequence[str] = (),
    ) -> Running:
        """Start the command, in a process group of its own."""
        number = time.monotonic_ns()
        printed = self.folder / f"stdout.{number}" if stdout is None else None
        said = self.folder / f"stderr.{number}"

        def before() -> None:
            for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(one, signal.SIG_DFL)  # a shell ignores some for what it runs aside
            for limit, value in (limits or {}).items():
                resource.setrlimit(limit, (value, value))
            if first is not None:
                first()

        environment = {
            **os.environ,
            "PYTHONPATH": str(MODEL.parents[1]),
            "RAY_TMPDIR": str(self.folder.parent / "ray"),
            "COLUMNS": "200",
            "OPENBLAS_NUM_THREADS": "1",
        }
        with said.open("wb") as errors:
            stream = printed.open("wb") if printed else stdout
            process = subprocess.Popen(
                [sys.executable, "-m", "lrp_onnx", *self.job.arguments, *more],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=errors,
                start_new_session=True,
                preexec_fn=before,
            )
            if printed:
                stream.close()  # type: ignore[union-attr]
        return Running(process, time.monotonic(), printed, said)

    def has_begun(self, running: Running) -> bool:
        """Wait for the first result; False where the run ends without one."""
        while running.process.poll() is None:
            if self.job.begun(self.out):
                return True
            time.sleep(0.02)
        return False

    def contents(self) -> dict[str, bytes]:
        """Name → content of every file in ``out``, without the `TIMES`."""
        return dict(_contents(self.out, self.folder))

    def done(self) -> int:
        """The results that are kept."""
        return _lines_in(self.out, self.job) if self.job.kept else len([*self.out.glob("*.onnx")])

    def temporary(self) -> list[str]:
        """Temporary files that were left."""
        return [path.name for path in _files(self.out) if TEMPORARY.match(path.name)]

    def damaged(self) -> list[str]:
        """Files that are written in part."""
        return [
            path.name
            for path in _files(self.out)
            if not TEMPORARY.match(path.name) and not _is_whole(path)
        ]


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """A run that nothing disturbed."""

    contents: Mapping[str, bytes]
    printed: str
    seconds: float
    size: int
    """Bytes of all files."""
    largest: int
    folder: Path

    @classmethod
    def of(cls, job: Job, folder: Path, *, runs: int = 2) -> Undisturbed:
        """Run a command once or several times.

        Raises:
            RuntimeError: it fails, or they do not give the same.
        """
        cells = [Cell(job, folder / f"{job.name}-undisturbed-{number}") for number in range(runs)]
        ended = [cell.start().end() for cell in cells]
        for one in ended:
            if one.status:
                raise RuntimeError(f"{job.name} fails undisturbed: {one.said}")
        first, *others = (cell.contents() for cell in cells)
        for second in others:
            if first != second:
                raise RuntimeError(f"{job.name} differs undisturbed: {differing(first, second)}")
        sizes = [path.stat().st_size for path in _files(cells[0].out)]
        return cls(
            first,
            ended[0].printed,
            min(one.seconds for one in ended),
            sum(sizes),
            max(sizes),
            cells[0].out,
        )


def differing(found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> list[str]:
    """The names of files that are not the same, or there once only."""
    names = sorted({*found, *expected})
    return [name for name in names if found.get(name) != expected.get(name)]


def is_rounded(found: Path, expected: Path) -> bool:
    """Whether the rows of two folders of ``bulk`` differ by rounding alone: pictures that are
    explained later are in other batches.
    """
    rows = [
        sorted(
            (row | {"path": Path(row["path"]).name} for part in parts for row in _rows(part)),
            key=lambda row: str(row["path"]),
        )
        for parts in (found.glob("parts/*.parquet"), expected.glob("parts/*.parquet"))
    ]
    return _is_close(*rows)


def _is_close(one: Any, other: Any) -> bool:
    if isinstance(one, bytes) and isinstance(other, bytes):
        first, second = map_of(one), map_of(other)
        same = first.shape == second.shape
        return same and bool(np.allclose(first, second, atol=1e-4 * abs(second).max()))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_close(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_close, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6)
    return bool(one == other)


def draw(path: Path, seed: int) -> None:
    """Write a picture of a disc and a square on noise."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(90, 160, (SIDE, SIDE, 3)).astype(np.uint8)
    color = [int(value) for value in rng.integers(0, 256, 3)]
    place = [int(value) for value in rng.integers(20, 40, 2)]
    cv2.circle(picture, place, 14, color, -1)
    cv2.rectangle(picture, place, (SIDE - 5, SIDE - 5), color[::-1], -1)
    cv2.imwrite(str(path), picture)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _contents(out: Path, folder: Path) -> Iterator[tuple[str, bytes]]:
    parts = []
    for path in _files(out):
        data = path.read_bytes().replace(str(folder).encode(), b"CELL")
        if path.suffix == ".parquet":
            parts.append(path)
        else:
            yield str(path.relative_to(out)), TIMES.sub(b"", data)
    if parts:
        rows = [row for path in parts for row in _rows(path)]
        rows.sort(key=lambda row: str(row["path"]))
        yield "parts", repr(rows).replace(str(folder), "CELL").encode()


def _rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (
        module("pyarrow.parquet").read_table(io.BytesIO(path.read_bytes())).to_pylist()
    )
    return rows


def _lines_in(out: Path, job: Job) -> int:
    """Results that are kept of a job: lines, or rows."""
    if job.name == "bulk":
        parts = [path for path in out.glob("parts/part-*.parquet") if _is_whole(path)]
        return sum(len(_rows(path)) for path in parts)
    path = out / (job.kept or "")
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError:
        return 0
    return sum(b'"image": ' in line for line in lines)


def _is_whole(path: Path) -> bool:
    """Whether a file can be read to its end."""
    try:
        read = _READERS.get(path.suffix)
        return read is None or read(path.read_bytes()) is not False
    except (ValueError, BadZipFile, OSError, KeyError, csv.Error):
        return False
    except Exception as error:  # what onnx and pyarrow raise of files that are cut
        return "Decode" not in type(error).__name__ and "Arrow" not in type(error).__name__


def _read_lines(data: bytes) -> bool:
    return data.endswith(b"\n") and all(json.loads(line) for line in data.splitlines())


def _read_npz(data: bytes) -> None:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        sum(file[name].size for name in file.files)


def _read_parquet(data: bytes) -> None:
    module("pyarrow.parquet").read_table(io.BytesIO(data))


_READERS: Mapping[str, Callable[[bytes], object]] = {
    ".png": lambda data: data.endswith(b"IEND\xaeB`\x82"),
    ".html": lambda data: data.rstrip().endswith(b"</html>"),
    ".json": lambda data: json.loads(data) is not None,
    ".jsonl": _read_lines,
    ".npz": _read_npz,
    ".npy": lambda data: len(np.load(io.BytesIO(data))) > 0,
    ".csv": lambda data: data.endswith(b"\n"),
    ".md": lambda data: data.endswith(b"\n"),
    ".onnx": lambda data: bool(onnx.load_from_string(data).graph.node),
    ".parquet": _read_parquet,
}
"""Ending → what fails, or is False, where a file is cut."""
