"""How wrong commands are answered: what was found, what is supported, what to write instead."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import click

from lrp_onnx.cli.isolation import ENDING, PROGRAM, Stopped, apart
from lrp_onnx.errors import LrpOnnxError, UnsupportedModelError, first_line, shown, shown_message
from lrp_onnx.notation import suggestion

WITHOUT_COMPILING = (
    "Methods that only run a model explain most that cannot be compiled, in hundreds of runs a "
    "picture: lrp-onnx explain MODEL PHOTO --method occlusion, or --method 'rise(500)'"
)


EXAMPLES = {
    "compile": "lrp-onnx compile model.onnx -o model.lrp.onnx",
    "plan": "lrp-onnx plan model.onnx",
    "explain": "lrp-onnx explain model.onnx photo.jpg",
    "evaluate": "lrp-onnx evaluate model.onnx photos/ --method grad-cam",
    "compare": "lrp-onnx compare model.onnx photo.jpg -o grid.png",
    "composites": "lrp-onnx composites; for the rules of one: lrp-onnx plan model.onnx --composite "
    "c3-lrp",
    "verify": "lrp-onnx verify model.lrp.onnx --original model.onnx --image photo.jpg",
    "doctor": "lrp-onnx doctor model.onnx photos/ --labels labels.csv",
    "web": "lrp-onnx web model.onnx -o site",
    "export": "lrp-onnx export explained --to coco -o regions.json",
    "bulk": "lrp-onnx bulk model.onnx photos -o explained",
    "triton": "lrp-onnx triton model.onnx -o repository",
    "guide": "lrp-onnx guide explaining",
    "demo": "lrp-onnx demo; for your own model and pictures: lrp-onnx explain model.onnx photo.jpg",
}
"""Command → how it is written, for who has written it otherwise."""


class Command(click.Command):
    """A command whose refusals of its arguments show how it is written."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments."""
        try:
            return super().parse_args(ctx, args)
        except click.BadOptionUsage:
            raise
        except click.MissingParameter as error:
            text = " ".join(error.format_message().split())  # choices stand on lines of their own
        except click.BadParameter:
            raise
        except click.NoSuchOption as error:
            elsewhere = self._elsewhere(ctx, error.option_name)
            text = f"{error.message} {elsewhere}" if elsewhere else error.format_message()
        except click.UsageError as error:
            text = error.format_message()
        raise click.UsageError(f"{text.rstrip('.')}. Write: {EXAMPLES[self.name or '']}", ctx)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, in a process of its own where it has --isolate."""
        if "isolate" in ctx.params:
            status = apart(ctx, ctx.params.pop("isolate"))
            if status is not None:
                ctx.exit(status)
        return super().invoke(ctx)

    def _elsewhere(self, ctx: click.Context, option: str) -> str:
        """Which other commands have an option, as a sentence."""
        group = ctx.parent.command if ctx.parent else None
        others = group.commands if isinstance(group, click.Group) else {}
        having = [name for name, it in others.items() if any(option in p.opts for p in it.params)]
        return f"{option} is an option of {', '.join(sorted(having))}." if having else ""


class Commands(click.Group):
    """Prints our errors as one paragraph and exits with 1."""

    command_class = Command

    def main(self, *args: Any, **settings: Any) -> Any:
        """Run the command line."""
        if not args and settings.get("args") is None and settings.get("standalone_mode", True):
            settings["obj"] = PROGRAM
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
                    stream.reconfigure(errors="backslashreplace")  # not all terminals have "×"
        return super().main(*args, **settings)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first of `args` names."""
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            ctx.fail(_no_command(args, self.list_commands(ctx)))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            with ended_by_signals():
                _check_memory()
                return super().invoke(ctx)
        except LrpOnnxError as error:
            _tell(error, f"Error: {shown_message(error)}")
            if isinstance(error, UnsupportedModelError) and error.by_running:
                click.echo(WITHOUT_COMPILING, err=True)
        except KeyboardInterrupt as error:
            _tell(error, "Stopped")
            ctx.exit(128 + (error.number if isinstance(error, Stopped) else signal.SIGINT))
        except BrokenPipeError:  # who reads the output has enough: click ends quietly
            raise
        except OSError as error:
            full = error.errno in FULL  # `files.writing` names the files that it writes
            where = error.filename or ("standard output" if full else "")
            place = f"{shown(str(where))}: " if where else ""
            _tell(error, f"Error: {place}{shown(error.strerror or error)}")
            _give_up_stdout()
        except MemoryError as error:
            reason = shown(first_line(error)) if str(error) else ""
            _tell(error, f"Error: out of memory{f' ({reason})' if reason else ''}: {_less(ctx)}")
        except ImportError as error:
            _tell(error, f"Error: {_not_loaded(error)}")
        return ctx.exit(1)


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Errors of writing where nothing more can be written."""
LEAST_MEMORY = 700_000_000
"""Bytes of address space below which OpenBLAS, OpenCV and ONNX Runtime crash while they are loaded,
without a word: measured on two cores.
"""


def _check_memory() -> None:
    """Raise LrpOnnxError where the process may have too little memory for the libraries."""
    if sys.platform == "win32":
        return
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < LEAST_MEMORY:
        raise LrpOnnxError(
            f"this process may have {limit // 10**6} MB (ulimit -v), and the libraries that it "
            f"loads need {LEAST_MEMORY // 10**6} MB at least: give more memory"
        )


def _not_loaded(error: ImportError) -> str:
    """Why a library is not loaded: in the last line, where numpy tells the cause of its own."""
    causes = [line for line in str(error).splitlines() if "Original error was: " in line]
    reason = shown(causes[-1].split(": ", 1)[1] if causes else first_line(error))
    if "failed to map segment" in reason or "annot allocate memory" in reason:
        return f"out of memory ({reason}): give more memory"
    return f"a library cannot be loaded ({reason}): install lrp-onnx anew"


def _less(ctx: click.Context) -> str:
    """What to do where the command that runs lacks memory."""
    command, name = ctx.command, ctx.invoked_subcommand
    found = command.get_command(ctx, name) if isinstance(command, click.Group) and name else None
    names = {parameter.name for parameter in found.params} if found else set()
    if "batch" in names:
        return "give a smaller --batch, or more memory"
    return "run it where more memory is free"


def _tell(error: BaseException, text: str) -> None:
    """Print an error, and what `going_on` has noted of it, as one paragraph."""
    notes = [shown(note) for note in getattr(error, "__notes__", ())]
    click.echo(". ".join([text.rstrip("."), *notes]) if notes else text, err=True)


PATIENCE = 3.0
"""Seconds after a signal in which further ones are taken for the same wish."""


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end what runs inside as Ctrl-C does, so that files are closed and results
    counted. Signals that are ignored (``nohup``) stay so.

    A further signal does not disturb the end, unless it comes much later: the first may be lost
    where Python drops exceptions, as in ``__del__``.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    last = -PATIENCE

    def end(number: int, frame: object) -> None:
        nonlocal last
        if time.monotonic() - last >= PATIENCE:
            last = time.monotonic()
            raise Stopped(number)

    before = {}
    for number in ENDING:
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            before[number] = signal.signal(number, end)
    try:
        yield
    except Stopped:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        before.clear()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _give_up_stdout() -> None:
    """Write nothing more to standard output if it is what failed: Python would try at its end."""
    if sys.stdout is None:  # it is closed
        return
    try:
        sys.stdout.flush()
    except OSError:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _no_command(args: list[str], known: list[str]) -> str:
    """What to say where the first of `args` is no command: it is perhaps a model's name."""
    name, *others = args
    if Path(name).exists() or Path(name).suffix in (".onnx", ".ort"):
        arguments = shlex.join(args) if others else f"{shlex.quote(name)} PHOTOS"
        return f"{shown(name)!r} is no command: did you mean lrp-onnx explain {shown(arguments)}?"
    if name == "help":
        known_text = "lrp-onnx --help lists them, lrp-onnx COMMAND --help says what one does"
        return f"'help' is no command: {known_text}"
    return f"{shown(name)!r} is no command: {suggestion(name, known)}"
