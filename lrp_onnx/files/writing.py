"""Writing files so that nothing is lost: atomically, and over another file only if told to."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from lrp_onnx.errors import OutputError, OutputExistsError


def check_writable(path: Path, *, force: bool) -> None:
    """Look whether a file can be written, before the work that it is for.

    Raises:
        OutputExistsError: the file exists and `force` is not set.
        OutputError: it is a folder, or its folder is missing or a file.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder: name a file to write")
    if path.exists() and not force:
        raise OutputExistsError(f"{path} exists: give another -o/--output, or --force to overwrite it")
    if path.parent.exists() and not path.parent.is_dir():
        raise OutputError(f"{path} cannot be written: {path.parent} is a file, not a folder")
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} does not exist: create it, or give another -o/--output")


def make_folder(path: Path) -> None:
    """Create a folder and those above it.

    Raises:
        OutputError: it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {path} cannot be created: {error.strerror or error}") from error


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


def write_bytes(path: Path, data: bytes, *, force: bool = False) -> Path:
    """Write a file through a temporary one beside it: readers see the old file or the whole new
    one.

    Raises:
        OutputExistsError: the file exists and `force` is not set.
        OutputError: it cannot be written; nothing is left behind.
    """
    check_writable(path, force=force)
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
        raise
    return path
