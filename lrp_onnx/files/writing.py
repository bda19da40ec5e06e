"""Writing files so that nothing is lost: atomically, and never
over what is there unless told to.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from lrp_onnx.errors import OutputError, OutputExistsError


def check_writable(path: Path, *, force: bool) -> None:
    """Raise OutputExistsError where `path` cannot be written."""
    if path.is_dir():
        raise OutputExistsError(f"{path} is a folder: name a file to write")
    if path.exists() and not force:
        raise OutputExistsError(
            f"{path} exists: give another -o/--output, or --force to overwrite it"
        )
    if not path.parent.is_dir():
        raise OutputExistsError(
            f"the folder {path.parent} does not exist: create it, or give another -o/--output"
        )


def make_folder(path: Path) -> None:
    """Create a folder and those above it; raises OutputError where that cannot be done."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the folder {path} cannot be created: {error.strerror or error}"
        ) from error


def write_bytes(path: Path, data: bytes, *, force: bool = False) -> Path:
    """Write `data` to a temporary file beside `path`, then
    rename it: readers see the old file or the whole new one.
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
