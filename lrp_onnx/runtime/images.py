"""Finding and reading pictures, and the small text files that come with them."""

from __future__ import annotations

import csv
import io
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lrp_onnx.errors import ImageError, first_line, shown
from lrp_onnx.files.missing import advice
from lrp_onnx.files.pictures import AGAIN, REMEDY, picture_fault, picture_format, picture_size
from lrp_onnx.files.reading import ENCODING, regular_bytes, regular_text
from lrp_onnx.runtime.arrays import ARRAYS

SUFFIXES = frozenset(
    {
        ".avif",
        ".bmp",
        ".gif",
        ".jp2",
        ".jpeg",
        ".jpg",
        ".pgm",
        ".png",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    }
)
_ENDINGS = ", ".join(sorted(SUFFIXES))
OTHER_SUFFIXES = frozenset(
    {".heic", ".heif", ".svg", ".pdf", ".jxl", ".psd", ".exr", ".dng", ".nef", ".cr2", ".arw"}
)
"""Endings of pictures that are not read."""
MOST_PIXELS = 100_000_000
"""Larger pictures are refused: they would need gigabytes of memory."""
MOST_BYTES = 1 << 30
"""Larger files are refused."""

LABEL_COLUMNS = ("file", "label")

Picture = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB."""


def find_images(patterns: Sequence[str | Path], *, recursive: bool = False) -> list[Path]:
    """The pictures that `patterns` name, each once, in that order.

    A pattern is a file, a folder (its pictures sorted; hidden ones are left out) or a glob. Where a
    folder or a glob has no pictures, it is the arrays, signals and volumes, that it has.

    Args:
        patterns: files, folders and globs.
        recursive: whether the subfolders of folders are searched too, hidden ones excepted. A
            folder that links lead to several times is searched once.

    Raises:
        ImageError: patterns without a picture; the message lists all of them.
    """
    paths: dict[Path, None] = {}
    faults = []
    for pattern in map(str, patterns):
        if not pattern:
            faults.append("an empty text names no picture")
            continue
        try:
            matched = _matching(pattern, recursive=recursive)
        except OSError as error:
            faults.append(f"{shown(pattern)} cannot be read: {error.strerror}")
            continue
        if not matched:
            faults.append(f"{shown(pattern)} {_nothing_in(Path(pattern))}")
        paths |= dict.fromkeys(matched)
    if faults:
        raise ImageError("; ".join(faults))
    return list(paths)


def _matching(pattern: str, *, recursive: bool) -> list[Path]:
    """The pictures that one pattern names."""
    path = Path(pattern)
    if not path.is_dir() and (path.exists() or path.is_symlink()):
        return [path]
    found = list(_in_folder(path, recursive=recursive)) if path.is_dir() else _glob(pattern)
    pictures = [one for one in found if one.suffix.lower() in SUFFIXES]
    return sorted(pictures or found)


def _nothing_in(path: Path) -> str:
    """Why a pattern names no picture, as a clause."""
    if not path.is_dir() and any(letter in str(path) for letter in "*?["):
        return f"matches nothing; pictures end in {_ENDINGS}"
    if not path.is_dir():
        return f"is not a file or a folder{advice(path)}"
    others = sorted({p.suffix.lower() for p in path.iterdir()} & OTHER_SUFFIXES)
    if others:
        return f"holds no picture that can be read, but {', '.join(others)}: {REMEDY}"
    if any(entry.is_dir() for entry in path.iterdir()):
        return (
            f"holds no picture itself: name its subfolders, as in '{shown(path)}/*/*.jpg', or give "
            "explain --recursive"
        )
    return f"holds no picture; pictures end in {_ENDINGS}"


def _in_folder(folder: Path, *, recursive: bool) -> Iterator[Path]:
    """The pictures and arrays in a folder, and with `recursive` in its subfolders, each folder
    once.
    """
    waiting, known = [folder], {folder.resolve()}
    while waiting:
        for path in sorted(p for p in waiting.pop(0).iterdir() if not p.name.startswith(".")):
            if not path.is_dir():
                if path.suffix.lower() in SUFFIXES | ARRAYS:
                    yield path
            elif recursive and path.resolve() not in known:
                known.add(path.resolve())
                waiting.append(path)


def _glob(pattern: str) -> list[Path]:
    anchor = Path(pattern).anchor
    try:
        matched = list(Path(anchor).glob(pattern[len(anchor) :]))
    except ValueError:  # ** within a name, or an empty pattern
        return []
    return [p for p in matched if p.suffix.lower() in SUFFIXES | ARRAYS]


def read_image(path: Path) -> Picture:
    """The picture as (H, W, 3) uint8 RGB.

    It is rotated as its EXIF data says. Transparent pixels are mixed with white. Of an animation it
    is the first picture.

    Raises:
        ImageError: the file is missing, no file but a folder or a device, damaged, not a picture,
            or larger than `MOST_BYTES` or `MOST_PIXELS`.
    """
    return decoded_image(picture_bytes(path), str(path))


def picture_bytes(path: Path) -> bytes:
    """The bytes of a picture's file.

    Raises:
        ImageError: the file is missing, no file but a folder or a device, an array, or larger than
            `MOST_BYTES`.
    """
    if path.suffix.lower() in ARRAYS:
        raise ImageError(
            f"{shown(path)} is an array, and a picture is needed here: name a photo; arrays are "
            "for explain, with a model of signals or volumes"
        )
    return bytes_of(path)


def bytes_of(path: Path) -> bytes:
    """The bytes of a file of at most `MOST_BYTES`.

    Raises:
        ImageError: it cannot be read.
    """
    try:
        if path.is_dir():
            raise ImageError(f"{shown(path)} is a folder: name the pictures in it")
        return regular_bytes(path, MOST_BYTES)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ImageError(f"the picture {shown(path)} cannot be read: {reason}") from error


def decoded_image(data: bytes, name: str) -> Picture:
    """The picture in the bytes of a picture file, as `read_image` has it.

    Args:
        data: the file's bytes.
        name: its name in errors.

    Raises:
        ImageError: as `read_image`.
    """
    check_size(name, *(picture_size(data) or (0, 0)))
    fault = picture_fault(data)
    if not fault:
        kind = picture_format(data)
        color = _decoded(data, cv2.IMREAD_COLOR)
        # A JPEG has no transparency.
        whole = color if kind == "JPEG" else _decoded(data, cv2.IMREAD_UNCHANGED)
        rarity = _rarity(kind, color, whole)
        if color is not None and whole is not None and not rarity:
            check_size(name, color.shape[1], color.shape[0])
            return np.asarray(cv2.cvtColor(on_white(color, whole), cv2.COLOR_BGR2RGB), np.uint8)
        fault = f"it is a {kind} file {rarity}"
    raise ImageError(f"{shown(name)} cannot be read as a picture: {fault}")


def _rarity(kind: str, color: NDArray[Any] | None, whole: NDArray[Any] | None) -> str:
    """Why a picture with a sound header is not read, and what to do; empty where it is."""
    if whole is not None and whole.dtype not in (np.uint8, np.uint16):
        return f"with values of the type {whole.dtype}, not of 8 or 16 bits: {REMEDY}"
    deep = whole is not None and whole.dtype == np.uint16
    if kind == "AVIF" and deep and whole is not None and whole.shape[2:] == (4,):
        return f"with transparency and more than 8 bits: {REMEDY}"
    if color is None or whole is None:
        return f"that is damaged, or of a rare kind: {AGAIN}, or {REMEDY}"
    return ""


def check_size(name: str, width: int, height: int) -> None:
    """Raise ImageError for a picture of no pixels, or of more than `MOST_PIXELS`."""
    if width * height > MOST_PIXELS:
        raise ImageError(
            f"{shown(name)} has {width}×{height} pixels; at most {MOST_PIXELS:,} can be read: "
            "make the picture smaller"
        )


def _decoded(data: bytes, flags: int) -> NDArray[Any] | None:
    """The picture in BGR or BGRA; None where OpenCV cannot decode it."""
    with _quiet:
        try:
            decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error:
            return None
    return None if decoded is None else np.asarray(decoded)


_log: Any = getattr(cv2.utils, "logging", cv2)
"""Where OpenCV 5, and before that OpenCV 4, has the level of its log."""
SILENT = 0


class _Quiet:
    """OpenCV prints nothing while a thread is in such a block: faults of pictures are ours to tell.

    The level of its log is the process's. It comes back when the last thread leaves.
    """

    def __init__(self) -> None:
        self._inside, self._before = 0, 0
        self._lock = threading.Lock()

    def free(self) -> None:
        """Be nobody's, in a process that was forked while other threads were inside."""
        self._lock = threading.Lock()
        if self._inside:
            self._inside = 0
            _log.setLogLevel(self._before)

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = _log.setLogLevel(SILENT)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                _log.setLogLevel(self._before)


_quiet = _Quiet()
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_quiet.free)


def on_white(color: NDArray[Any], whole: NDArray[Any]) -> NDArray[Any]:
    """`color` (H, W, 3) uint8 mixed with white where `whole` is transparent.

    Args:
        color: the picture as EXIF data turns it.
        whole: the same with all of its channels, perhaps (H, W, 4), and not turned; uint8 or uint16
            in the same order of colours.
    """
    if whole.ndim != 3 or whole.shape[2] != 4:
        return color
    alike = cv2.convertScaleAbs(whole, alpha=255 / np.iinfo(whole.dtype).max)
    alpha = _turned(np.asarray(alike), color)[:, :, 3:].astype(np.uint16)
    return ((color * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _turned(whole: NDArray[Any], color: NDArray[Any]) -> NDArray[Any]:
    """`whole` (H, W, 4), turned so that its colours lie where those of `color` lie.

    OpenCV turns a picture as its EXIF data says only where it drops the transparency.
    """
    turns = [np.rot90(side, times) for side in (whole, whole[:, ::-1]) for times in range(4)]
    fitting = [turned for turned in turns if turned.shape[:2] == color.shape[:2]]
    step = max(1, min(color.shape[:2]) // 256)
    few = color[::step, ::step].astype(np.int16)
    return min(fitting, key=lambda turned: np.abs(turned[::step, ::step, :3] - few).sum())


def read_labels(path: Path) -> dict[str, int]:
    """File name → class index, from a CSV file with the columns ``file`` and ``label``.

    Raises:
        ImageError: the file cannot be read, a column is missing, or a label is not a number.
    """
    rows = table_rows(path, LABEL_COLUMNS)
    for row in rows:
        if not row["label"].strip().removeprefix("-").isdecimal():
            raise ImageError(
                f"{shown(path)} gives {shown(row['file'])} the label {shown(row['label'])!r}: a "
                "label is the index of a class, counted from 0"
            )
    return {Path(row["file"]).name: int(row["label"]) for row in rows}


def table_rows(path: Path, columns: Sequence[str] = ()) -> list[dict[str, str]]:
    """The rows of a CSV file that has these columns at least, column → text.

    Raises:
        ImageError: the file cannot be read, a column is missing, or a row is too short.
    """
    wanted = f"a CSV file with the columns {','.join(columns or LABEL_COLUMNS)} is needed"
    try:
        table = csv.DictReader(io.StringIO(regular_text(path), newline=""))
        rows = list(table)
    except FileNotFoundError:
        raise ImageError(f"there is no file {shown(path)}{advice(path)}; {wanted}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ImageError(f"{shown(path)} cannot be read ({first_line(error)}): {wanted}") from error
    found = table.fieldnames or ()
    if not set(columns) <= set(found):
        named = ", ".join(found) or "none"
        raise ImageError(f"{shown(path)} has the columns {shown(named)}: {wanted}")
    short = [number for number, row in enumerate(rows, 2) if None in map(row.get, columns)]
    if short:
        raise ImageError(f"line {short[0]} of {shown(path)} is too short: {wanted}")
    return rows


def labels_beside(pictures: Sequence[Path]) -> Path | None:
    """``labels.csv`` in the folder of all pictures, if it has the columns ``file,label``."""
    folders = {picture.parent for picture in pictures}
    table = next(iter(folders)) / "labels.csv" if len(folders) == 1 else None
    if table is None or not table.is_file():
        return None
    with table.open(encoding=ENCODING, errors="replace") as lines:
        columns = {name.strip().strip('"') for name in lines.readline().split(",")}
    return table if {"file", "label"} <= columns else None


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names from a text file, one per line, in the order of the logits.

    Raises:
        ImageError: the file cannot be read, or holds no names.
    """
    try:
        lines = regular_text(path).splitlines()
    except FileNotFoundError:
        raise ImageError(
            f"there is no file {shown(path)}{advice(path)}; class names are a text file, one a "
            "line, or names with commas between: no,yes"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = first_line(error)
        raise ImageError(f"the class names in {shown(path)} cannot be read: {reason}") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise ImageError(f"{shown(path)} holds no class names: write one per line")
    return names


def thinned(paths: Sequence[Path], most: int | None) -> list[Path]:
    """At most so many, evenly spread."""
    if most is None or len(paths) <= most:
        return list(paths)
    return [paths[index * len(paths) // most] for index in range(most)]
