"""Progress of a long run on standard error: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

import click
from rich.console import Console
from rich.file_proxy import FileProxy
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from lrp_onnx.errors import shown_message

WARNING = "WARNING: "
"""What a warning begins with."""
EVERY = 5.0
"""Seconds between two lines, at least."""


class Progress(AbstractContextManager["Progress"]):
    """How many pictures are done, at which rate, and the time left.

    Args:
        total: pictures of the run.
        done: those that an earlier run has done.
        report: writes a line to standard error.
        clock: seconds.
    """

    def __init__(
        self,
        total: int,
        *,
        done: int,
        report: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._done, self._report, self._clock = total, done, report, clock
        self._first, self._began = done, clock()
        self._last = self._began
        console = Console(stderr=True)
        # What is printed while the bar is shown goes above it, but results stay on standard output
        # where that is not the same terminal.
        self._bar = Bar(
            TextColumn("explaining"),
            BarColumn(),
            TextColumn("{task.fields[pace]}"),
            console=console,
            disable=not console.is_terminal,
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        )
        self._task = self._bar.add_task("", total=total, completed=done, pace=self.pace)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    @property
    def pace(self) -> str:
        """For example ``120 of 500, 3.1 a second, 2:03 left``."""
        text = f"{self._done} of {self._total}"
        seconds = self._clock() - self._began
        fresh = self._done - self._first
        if not fresh or seconds <= 0:
            return text
        left = round((self._total - self._done) * seconds / fresh)
        return f"{text}, {_rate(fresh / seconds)}, {_duration(left)} left"

    def step(self) -> None:
        """One more picture is done."""
        self._done += 1
        now = self._clock()
        self._bar.update(self._task, completed=self._done, pace=self.pace)
        if self._bar.disable and now - self._last >= EVERY and self._done < self._total:
            self._last = now
            self._report(f"explained {self.pace}")


def echo(text: str, *, err: bool = False) -> None:
    """Print a line; on a terminal where a bar is shown, above the bar.

    What it holds has no power over the terminal; warnings are coloured so that nobody misses them.
    """
    text = shown_message(text)
    if text.startswith(WARNING):
        text = click.style(text, fg="yellow", bold=True)
    stream = sys.stderr if err else sys.stdout
    if isinstance(stream, FileProxy):  # click writes past it
        stream.write(f"{text}\n")
    else:
        click.echo(text, err=err)


def _rate(per_second: float) -> str:
    if per_second >= 1:
        return f"{per_second:.1f} a second"
    return f"{60 * per_second:.1f} a minute"


def _duration(seconds: int) -> str:
    """``2:03`` or ``1:02:03``."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
