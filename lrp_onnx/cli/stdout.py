"""Files on standard output: what ``-o -`` asks for."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import click

from lrp_onnx.errors import OutputError


def check_no_terminal(what: str) -> None:
    """Check that standard output is open and no terminal, before the work that produces something
    binary; `what` is its name.

    Raises:
        OutputError: it is closed, or a terminal.
    """
    check_open()
    if sys.stdout.isatty():
        raise OutputError(
            f"standard output is a terminal, and {what} is binary: name a file with -o/--output, "
            "or write > FILE behind -o -"
        )


def check_open() -> None:
    """Check that there is a standard output.

    Raises:
        OutputError: it is closed.
    """
    if sys.stdout is None:
        raise OutputError("standard output is closed: name a file with -o/--output")


def write_stdout(parts: Iterable[bytes]) -> None:
    """Write bytes to standard output, part by part.

    Raises:
        OutputError: it is closed.
    """
    check_open()
    with click.open_file("-", "wb") as stream:
        stream.writelines(parts)
        stream.flush()
