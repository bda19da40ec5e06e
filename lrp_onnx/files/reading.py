"""Reading files that others name: regular files alone, up to a size."""

from __future__ import annotations

import stat
from pathlib import Path

MOST_TEXT = 100_000_000
"""Largest text file in bytes: labels, class names, rules."""


ENCODING = "utf-8-sig"
"""UTF-8, with or without the byte order mark that spreadsheets write."""


def check_readable(path: Path, most: int) -> None:
    """Check that a path is a regular file or a folder: a pipe or a device might never end.

    Raises:
        OSError: nothing is there, something else, or a file of more than `most` bytes; its text
            says so without the path.
    """
    status = path.stat()
    if not stat.S_ISDIR(status.st_mode) and not stat.S_ISREG(status.st_mode):
        raise OSError("it is a pipe or a device: save it as a file")
    if status.st_size > most:
        raise OSError(f"it has {status.st_size:,} bytes, and at most {most:,} are read")


def regular_bytes(path: Path, most: int) -> bytes:
    """The bytes of a regular file.

    Raises:
        OSError: as `check_readable`, or a file that cannot be read.
    """
    check_readable(path, most)
    return path.read_bytes()


def regular_text(path: Path) -> str:
    """The text of a regular file.

    Raises:
        OSError: as `regular_bytes` with `MOST_TEXT`.
        UnicodeDecodeError: it is not UTF-8.
    """
    return regular_bytes(path, MOST_TEXT).decode(ENCODING)
