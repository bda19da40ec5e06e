"""What writing replaces: regular files on request, and nothing else, whatever stands there."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lrp_onnx.errors import OutputError, OutputExistsError
from lrp_onnx.files.writing import append_line, leftovers, remove_leftovers, write_bytes

NULL = os.makedev(1, 3)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, NULL)
    except PermissionError:
        pytest.skip("only root makes devices")


def folder(path: Path) -> None:
    path.mkdir()


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, in_folder(path.parent):
        server.bind(path.name)  # its file stays


@contextmanager
def in_folder(path: Path) -> Iterator[None]:
    """The paths of sockets are short."""
    before = Path.cwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


SPECIAL = {"pipe": pipe, "device": device, "folder": folder, "socket": listening}


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_regular_file_stays(
    kind: str, force: bool, linked: bool, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    SPECIAL[kind](there)
    path = tmp_path / "link" if linked else there
    if linked:
        path.symlink_to(there)
    before = there.lstat()
    for write in (lambda: write_bytes(path, b"new", force=force), lambda: append_line(path, "new")):
        with pytest.raises(OutputError, match=f"is a {kind}: name a file to write"):
            write()
    after = there.lstat()
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)
    assert path.is_symlink() is linked
    assert {p.name for p in tmp_path.iterdir()} == {"there", "link"} & {"there", path.name}


@pytest.mark.parametrize("old", [b"old", None])
def test_a_link_stays_and_its_file_is_replaced(old: bytes | None, tmp_path: Path) -> None:
    file, link = tmp_path / "folder" / "file", tmp_path / "link"
    file.parent.mkdir()
    if old is not None:
        file.write_bytes(old)
    link.symlink_to(Path("folder") / "file")
    assert write_bytes(link, b"new", force=old is not None) == link
    assert link.is_symlink() and file.read_bytes() == b"new"
    assert [p.name for p in file.parent.iterdir()] == ["file"]


def test_a_link_to_a_file_is_no_free_name(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"old")
    link.symlink_to(file)
    with pytest.raises(OutputExistsError, match="--force"):
        write_bytes(link, b"new")
    assert file.read_bytes() == b"old"


def around(path: Path) -> None:
    path.symlink_to(path)


def under_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_bytes(b"")


@pytest.mark.parametrize("make", [around, under_a_file])
def test_paths_that_cannot_be(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    make(path)
    with pytest.raises(OutputError, match="cannot be written"):
        write_bytes(path, b"new", force=True)


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="too long"):
        write_bytes(tmp_path / ("n" * 300), b"new")


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (OSError(28, "No space left on device"), OutputError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (MemoryError(), MemoryError),
    ],
)
def test_a_failed_write_leaves_nothing(
    fault: BaseException, seen: type[BaseException], tmp_path: Path
) -> None:
    def parts() -> Iterator[bytes]:
        yield b"half"
        raise fault

    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(seen, match="No space left" if seen is OutputError else None):
        write_bytes(tmp_path / "file", parts(), force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_the_mask_of_permissions_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one for all threads: who sets it to read it may leave another thread's behind."""
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(os, "umask", None)
            write_bytes(tmp_path / "file", b"some")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_files_of_similar_names_are_no_leftovers(tmp_path: Path) -> None:
    own = tmp_path / ".mm.lrp.onnx.0a1b2c3d"
    others = {".mm.lrp.onnx.original", ".mm.lrp.onnx.copy_001", ".mm.lrp.onnx.0A1B2C3D"}
    for name in (own.name, *others):
        (tmp_path / name).write_bytes(b"")
    assert leftovers(tmp_path, {"mm.lrp.onnx"}) == [own]
    remove_leftovers(tmp_path / "mm.lrp.onnx")
    assert {p.name for p in tmp_path.iterdir()} - {own.name} == others
    assert own.exists() is (os.name == "nt")
