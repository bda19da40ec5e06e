"""A command in a process of its own: where native code crashes, one line says so.

What reads a model is native code, and a file that nobody vouches for may end its process or eat the
machine's memory. So the command forks once its arguments are read and before a library is loaded,
which takes milliseconds: the child is the command, and the parent waits, passes signals on, and
says how the child died.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from lrp_onnx.cli.options import compiled_path
from lrp_onnx.errors import LrpOnnxError, shown
from lrp_onnx.files.writing import STDOUT, remove_leftovers

if sys.platform != "win32":
    import resource

GRACE = 3.0
"""Seconds for a command to end that was told to, before it is killed: native code does not hear."""
MOST_HEARD = 1 << 16
"""Bytes of what native code writes to standard error that are kept."""
NATIVE = {
    "onnxruntime": "ONNX Runtime",
    "onnx": "ONNX",
    "onnx_ir": "onnx-ir",
    "onnx_graphsurgeon": "ONNX GraphSurgeon",
    "google": "protobuf",
    "numpy": "NumPy",
    "cv2": "OpenCV",
}
"""Package → its name."""
STAGES = {
    "files": "the file was read",
    "model": "its layers were recognised",
    "relevance": "relevance was added",
    "compiled": "the compiled file was checked",
    "runtime": "ONNX Runtime loaded or ran it",
}
"""Room of the package → what is done there."""
ANOTHER_FILE = (
    "The file is damaged where the library does not look: make it again with its exporter"
)
MORE_MEMORY = "Run it where more memory is free"
ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Signals that ask a command to end."""


PROGRAM = object()
"""What the context of a command holds that is the whole of its process."""


class Stopped(KeyboardInterrupt):
    """The process was asked to end: by Ctrl-C, a terminal that closes, or SIGTERM."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__()


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended.

    Attributes:
        status: its exit status, below 0 for a signal.
        asked: the signals that were passed on to it.
        heard: what native code wrote to standard error.
    """

    status: int
    asked: tuple[int, ...]
    heard: str


def apart(ctx: click.Context, wanted: bool | None) -> int | None:
    """Run a command in a process of its own.

    Args:
        ctx: the command's, with its parameters.
        wanted: None for where it is possible.

    Returns:
        None where the command is yet to run, in this process; else its exit status.

    Raises:
        click.UsageError: it is wanted and not possible.
        LrpOnnxError: a crash ended the command, or the system gives no process that is wanted.
    """
    why = _obstacle(ctx)
    if wanted and why is not None:
        raise click.UsageError(f"--isolate is not possible here: {why}", ctx)
    if wanted is False or why is not None:
        return None
    values = ctx.params
    (model,) = (values[name] for name in ("model", "compiled") if name in values)
    written = compiled_path(model, values["output"]) if ctx.command.name == "compile" else None
    written = None if written == STDOUT else written
    before, missing = _identity(written), _missing(values.get("output"))
    on_cpu = values.get("provider", "cpu") == "cpu"
    ended = isolate(limited=on_cpu, wanted=bool(wanted))
    if ended is None:
        return None
    if ended.status >= 0:
        click.echo(shown(ended.heard, lines=True), err=True, nl=False)
        return ended.status
    if written is not None:
        remove_leftovers(written)
    for folder in missing:
        with suppress(OSError):  # a file, or not empty
            folder.rmdir()
    if ended.asked:
        return 128 + ended.asked[-1]
    left = "nothing was written" if before == _identity(written) else f"{written} was written"
    if ctx.command.name not in ("plan", "compile", "verify", "doctor"):
        left = "what it had written stays"
    remedy = MORE_MEMORY if -ended.status == signal.SIGKILL else ANOTHER_FILE
    raise LrpOnnxError(
        f"{model or ctx.command.name}: {_death(-ended.status, ended.heard)}; {left}. {remedy}"
    )


def _obstacle(ctx: click.Context) -> str | None:
    """Why a command cannot have a process of its own; None where it can."""
    if sys.platform == "win32":
        return "Windows has no fork"
    if ctx.find_root().obj is not PROGRAM:
        return "it was called from Python"
    return "ONNX Runtime is loaded already" if "onnxruntime" in sys.modules else None


def isolate(*, limited: bool, wanted: bool) -> Ended | None:
    """Fork.

    Args:
        limited: whether memory is: where CUDA may run, it reserves more than there is.
        wanted: whether it is an error that the system gives no process.

    Returns:
        None in the child, or where there is none; in the parent, once it has ended, how it did.

    Raises:
        LrpOnnxError: there is none, and it is wanted.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    parent = os.getpid()
    read, write = os.pipe()
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        child = os.fork()
    except OSError as error:  # too many processes, too little memory
        os.close(read)
        os.close(write)
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        if not wanted:
            return None
        reason = error.strerror or error
        raise LrpOnnxError(
            f"the system gives no process of its own ({reason}): leave --isolate out"
        ) from error
    if child == 0:
        os.close(read)
        _confine(write, parent)
        if limited:
            _limit_memory()
        return None
    os.close(write)
    with _passed_on(child) as asked:
        heard = _heard(read)
        _, status = os.waitpid(child, 0)
    return Ended(os.waitstatus_to_exitcode(status), tuple(asked), heard)


def _identity(path: Path | None) -> tuple[int, int] | None:
    """What changes where a file is replaced."""
    with suppress(OSError):
        if path is not None:
            status = path.stat()
            return status.st_ino, status.st_mtime_ns
    return None


def _missing(output: Path | None) -> list[Path]:
    """A path and the folders above it, as far as they do not exist."""
    return [] if output is None else [one for one in (output, *output.parents) if not one.exists()]


def _confine(write: int, parent: int) -> None:
    """Make this process, the child, the command.

    What native code writes to standard error, and where Python was when it crashed, goes to `write`
    for the parent to read; Python's own goes on to where it went.
    """
    import faulthandler

    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    _end_with(parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.stderr is not None:
        own = sys.stderr
        sys.stderr = os.fdopen(
            os.dup(2), "w", encoding=own.encoding, errors=own.errors, buffering=1
        )
        sys.__stderr__ = sys.stderr  # type: ignore[misc]  # where a terminal's width is asked for
    if write != 2:  # else it was closed, and the pipe has taken its place
        os.dup2(write, 2)
        os.close(write)
    faulthandler.enable(2)


def _end_with(parent: int) -> None:
    """End with the parent, however that ends, where the system can do so (Linux)."""
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


PR_SET_PDEATHSIG = 1
"""Linux: which signal a process gets when its parent ends."""


def _limit_memory() -> None:
    """Limit what this process may allocate to the machine's memory.

    Never to `--max-memory`: that bounds the graph, and weights, their copies and libraries, of
    which nobody knows how much they take, come on top.
    """
    from lrp_onnx.files.budget import machine_memory

    limits = (*resource.getrlimit(resource.RLIMIT_DATA), int(machine_memory()))
    known = [limit for limit in limits if limit != resource.RLIM_INFINITY]
    with suppress(OSError, ValueError):  # a system without this limit
        resource.setrlimit(resource.RLIMIT_DATA, (min(known), min(known)))


@contextmanager
def _passed_on(child: int) -> Iterator[list[int]]:
    """Pass signals that ask to end on to the child, and kill it if it does not; gives those."""
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        if not asked:  # a further signal gives no further time
            signal.setitimer(signal.ITIMER_REAL, GRACE)
        asked.append(number)
        with suppress(ProcessLookupError):
            os.kill(child, number)

    def kill(number: int, frame: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)

    before: dict[signal.Signals, Any] = {signal.SIGALRM: signal.signal(signal.SIGALRM, kill)}
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, ask)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    try:
        yield asked
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _heard(read: int) -> str:
    """What comes through a pipe until nobody writes to it any more, `MOST_HEARD` bytes of it."""
    kept = b""
    with os.fdopen(read, "rb", buffering=0) as pipe:
        while part := pipe.read(MOST_HEARD):
            kept += part[: MOST_HEARD - len(kept)]
    return kept.decode(errors="backslashreplace")


def _death(number: int, heard: str) -> str:
    """How the child died, of the signal and of what `faulthandler` wrote."""
    name = signal.Signals(number).name
    if number == signal.SIGKILL:
        return f"the system ended the command ({name}), mostly for lack of memory"
    reason = heard.partition("Fatal Python error")[0].strip().partition("\n")[0]
    who, where, stage = "native code", "", ""
    frames = re.findall(r'^  File "(.+)", line \d+ in (\S+)$', heard, re.MULTILINE)
    for index, (file, function) in enumerate(frames):
        if room := re.search(r"[/\\]lrp_onnx[/\\](\w+)", file):
            stage = f" while {STAGES[room[1]]}" if room[1] in STAGES else ""
            break
        if index == 0:
            package = re.search(r"-packages[/\\](\w+)", file)
            who = NATIVE.get(package[1], who) if package else who
            where = f" in {function}"
    because = f": {reason}" if reason else ""
    return f"{who} crashed ({name}{because}){where}{stage}"
