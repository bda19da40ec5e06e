"""Files on standard output: what ``-o -`` asks for."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import click

from lrp_onnx.errors import OutputError


def check_no_terminal(what: str) -> None:
    """Check that standard output is no terminal, before the work that produces something binary;
    `what` is its name.

    Raises:
        OutputError: it is a terminal.
    """
    if sys.stdout.isatty():
        raise OutputError(
            f"standard output is a terminal, and {what} is binary: name a file with -o/--output, "
            "or write > FILE behind -o -"
        )


def write_stdout(parts: Iterable[bytes]) -> None:
    """Write bytes to standard output, part by part."""
    with click.open_file("-", "wb") as stream:
        stream.writelines(parts)
        stream.flush()
