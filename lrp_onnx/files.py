"""Writing files so that nothing is lost: atomically, and never over what is there unless told to."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from lrp_onnx.errors import OutputExistsError


def check_writable(path: Path, *, force: bool) -> None:
    """Raise OutputExistsError where `path` cannot be written."""
    if path.is_dir():
        raise OutputExistsError(f"{path} is a folder: name a file to write")
    if path.exists() and not force:
        raise OutputExistsError(f"{path} exists: give another -o/--output, or --force to overwrite it")
    if not path.parent.is_dir():
        raise OutputExistsError(f"the folder {path.parent} does not exist: create it, or give another -o/--output")


def write_bytes(path: Path, data: bytes, *, force: bool = False) -> Path:
    """Write `data` to a temporary file beside `path`, then rename it: readers see the old file or the whole new one."""
    check_writable(path, force=force)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path
