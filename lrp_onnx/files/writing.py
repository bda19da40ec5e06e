"""Writing files: atomically, over an existing file only on request, never over a device."""

from __future__ import annotations

import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lrp_onnx.errors import OutputError, OutputExistsError

if sys.platform != "win32":
    import fcntl


STDOUT = Path("-")
"""What stands for standard output in the place of a file."""


def check_writable(path: Path, *, force: bool) -> None:
    """Check that a file can be written, before the work that produces it.

    Raises:
        OutputExistsError: the file exists and `force` is not set.
        OutputError: `path` is a folder, a device, a pipe, a socket, or a link to one; or its folder
            is missing or is a file; or it is `STDOUT`.
    """
    if path == STDOUT:
        raise OutputError("- is standard output, where this cannot be written: name a file")
    check_regular(path)
    if path.exists() and not force:
        raise OutputExistsError(
            f"{path} exists: give another -o/--output, or --force to overwrite it"
        )
    if path.parent.exists() and not path.parent.is_dir():
        raise OutputError(f"{path} cannot be written: {path.parent} is a file, not a folder")
    if not path.parent.is_dir():
        raise OutputError(
            f"the folder {path.parent} does not exist: create it, or give another -o/--output"
        )


def check_regular(path: Path) -> None:
    """Check that nothing is at `path`, or a regular file; links are followed.

    Raises:
        OutputError: a folder, a device, a pipe or a socket is there.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:  # a name that is too long, a link to itself
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    if not stat.S_ISREG(mode):
        found = next((name for is_one, name in SPECIAL if is_one(mode)), "no file")
        raise OutputError(f"{path} is {found}: name a file to write")


SPECIAL: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)
"""What can be at a path besides a regular file: test of the mode, and its name."""


FILE_ENDINGS = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".html", ".csv", ".json", ".jsonl", ".npz", ".onnx", ".pdf"}
)
"""Names of folders for results do not end so: who writes one means a file."""


def check_folder(path: Path) -> None:
    """Check that a path can be a folder for results.

    Raises:
        OutputError: it is a file, or a name of one, or `STDOUT`.
    """
    if path == STDOUT:
        raise OutputError(
            "- is standard output, and there are several results: name a folder with -o/--output"
        )
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file: name a folder with -o/--output")
    if path.suffix.lower() in FILE_ENDINGS and not path.is_dir():
        raise OutputError(
            f"{path} is the name of a file, and there are several results: name a folder with "
            f"-o/--output, as in -o {path.with_suffix('')}"
        )


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents.

    Raises:
        OutputError: the folder cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the folder {path} cannot be created: {error.strerror or error}"
        ) from error


@contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    """Hold a folder for one run at a time, until the end of the block or of the process.

    It is created if it is missing, and removed in the end if nothing was written into it. On
    Windows it is not held: there are no such locks on folders.

    Raises:
        OutputError: another run holds it, or it cannot be created.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    make_folder(folder)
    handle = _lock(folder)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)
        with suppress(OSError):  # not empty
            for path in created:
                path.rmdir()


def _lock(folder: Path) -> int | None:
    """The handle of a folder that is locked, None where folders cannot be.

    The system releases it with the last process that has the handle, however that ends.
    """
    if sys.platform == "win32":
        return None
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise OutputError(
            f"another run writes into {folder}: wait until it has ended, or name another folder "
            "with -o/--output"
        ) from None
    except OSError:  # a file system without locks
        os.close(handle)
        return None
    return handle


def append_line(path: Path, line: str) -> None:
    """Append a line, or several with line feeds between them, to a text file: whole or not at all.

    Raises:
        OutputError: the file cannot be written, or no regular file is at `path`.
    """
    check_regular(path)
    data = f"{line}\n".encode()
    try:
        with path.open("ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            try:
                written = 0
                while written < len(data):
                    written += file.write(data[written:])
            except BaseException:  # a full disk takes a part
                file.truncate(end)
                raise
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


def write_bytes(path: Path, data: bytes | Iterable[bytes], *, force: bool = False) -> Path:
    """Write a file atomically, at once or part by part, and return its path.

    The data goes to a temporary file in the same folder, which then replaces `path`: readers see
    the old file or the complete new one. Where `path` is a link, the file that it leads to is
    replaced and the link stays.

    Raises:
        OutputExistsError: the file exists and `force` is not set.
        OutputError: the file cannot be written, or no regular file is at `path`; the temporary file
            is removed.
    """
    check_writable(path, force=force)
    target = Path(os.path.realpath(path))
    # Not by `tempfile`: the system applies the process's mask to these permissions, which cannot be
    # read without setting it, for all threads.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(temporary, flags, 0o666)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            _mark(handle)
            file.writelines([data] if isinstance(data, bytes) else data)
        temporary.replace(target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
        raise
    return path


def _mark(handle: int) -> None:
    """Hold a temporary file as long as this process writes it, see `remove_leftovers`."""
    if sys.platform != "win32":
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files of `write_bytes` for `path` whose processes were killed."""
    if sys.platform == "win32":
        return
    for temporary in leftovers(path.parent, {path.name}):
        with suppress(OSError), temporary.open("rb") as file:  # another process writes it, or has
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary.unlink()


def leftovers(folder: Path, names: Collection[str]) -> list[Path]:
    """The temporary files of `write_bytes` for the files `names` in a folder, which a process
    leaves that is killed.
    """
    found = [(path, re.fullmatch(r"\.(.+)\.[0-9a-f]{8}", path.name)) for path in folder.glob(".*")]
    return [path for path, match in found if match and match[1] in names]
