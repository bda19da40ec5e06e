"""Finding and reading pictures, and the small text files that come with them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lrp_onnx.errors import ImageError
from lrp_onnx.files.first_bytes import looks_like, picture_size

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
MOST_PIXELS = 100_000_000
"""Larger pictures are refused: they would need gigabytes of memory."""
ENCODING = "utf-8-sig"
"""UTF-8, with or without the byte order mark that spreadsheets write."""

Picture = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB."""


def find_images(patterns: Sequence[str | Path], *, recursive: bool = False) -> list[Path]:
    """The pictures that `patterns` name, each once, in that order.

    A pattern is a file, a folder (its pictures sorted; hidden ones are left out) or a glob.

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
        path = Path(pattern)
        if path.is_dir():
            matched = sorted(_in_folder(path, recursive=recursive))
        elif path.exists():
            matched = [path]
        else:
            matched = _glob(pattern)
        if not matched:
            fault = "is not a file or a folder, and matches nothing"
            if path.is_dir():
                fault = "holds no picture"
            faults.append(f"{pattern} {fault}")
        paths |= dict.fromkeys(matched)
    if faults:
        raise ImageError("; ".join(faults) + f" (pictures end in {', '.join(sorted(SUFFIXES))})")
    return list(paths)


def _in_folder(folder: Path, *, recursive: bool) -> Iterator[Path]:
    """The pictures in a folder, and with `recursive` in its subfolders, each folder once."""
    waiting, known = [folder], {folder.resolve()}
    while waiting:
        for path in sorted(p for p in waiting.pop(0).iterdir() if not p.name.startswith(".")):
            if not path.is_dir():
                if path.suffix.lower() in SUFFIXES:
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
    return sorted(p for p in matched if p.suffix.lower() in SUFFIXES)


def read_image(path: Path) -> Picture:
    """The picture as (H, W, 3) uint8 RGB.

    It is rotated as its EXIF data says. Transparent pixels are mixed with white.

    Raises:
        ImageError: the file is missing, damaged, not a picture, or larger than `MOST_PIXELS`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"the picture {path} cannot be read: {error.strerror}") from error
    _check_size(path, *(picture_size(data) or (0, 0)))
    decoded = _decode(data, path)
    _check_size(path, decoded.shape[1], decoded.shape[0])
    return _to_rgb(decoded)


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise ImageError(
            f"{path} has {width}×{height} pixels; at most {MOST_PIXELS:,} can be read: "
            "make the picture smaller"
        )


def _decode(data: bytes, path: Path) -> NDArray[Any]:
    buffer = np.frombuffer(data, np.uint8)
    decoded = None
    if data:
        try:
            # IMREAD_UNCHANGED keeps an alpha channel but ignores EXIF; the other flags do the
            # reverse. A JPEG has no alpha channel.
            is_jpeg = data.startswith(b"\xff\xd8")
            unchanged = None if is_jpeg else cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
            if unchanged is not None and unchanged.ndim == 3 and unchanged.shape[2] == 4:
                decoded = unchanged
            else:
                decoded = cv2.imdecode(buffer, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        except cv2.error:
            decoded = None
    if decoded is None:
        content = looks_like(data) or "it is damaged, or of another format"
        raise ImageError(f"{path} cannot be read as a picture: {content}; use PNG or JPEG")
    return np.asarray(decoded)


def _to_rgb(decoded: NDArray[Any]) -> Picture:
    scaled = decoded
    if decoded.dtype == np.uint16:
        scaled = (decoded / 257.0).round().astype(np.uint8)
    elif decoded.dtype != np.uint8:
        scaled = (np.clip(decoded, 0.0, 1.0) * 255.0).round().astype(np.uint8)
    if scaled.shape[2] == 4:
        alpha = scaled[:, :, 3:].astype(np.float32) / 255.0
        scaled = (scaled[:, :, :3] * alpha + 255.0 * (1.0 - alpha)).round().astype(np.uint8)
    return np.asarray(cv2.cvtColor(scaled, cv2.COLOR_BGR2RGB), np.uint8)


def read_labels(path: Path) -> dict[str, int]:
    """File name → class index, from a CSV file with the columns ``file`` and ``label``.

    Raises:
        ImageError: the file cannot be read, a column is missing, or a label is not a number.
    """
    try:
        with path.open(newline="", encoding=ENCODING) as file:
            rows = list(csv.DictReader(file))
        return {Path(row["file"]).name: int(row["label"]) for row in rows}
    except (OSError, UnicodeDecodeError, KeyError, ValueError, TypeError) as error:
        raise ImageError(
            f"{path} cannot be read as a CSV file with the columns file,label (a class index): "
            f"{error!r}"
        ) from error


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
        lines = path.read_text(encoding=ENCODING).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ImageError(f"the class names in {path} cannot be read: {error}") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise ImageError(f"{path} holds no class names: write one per line")
    return names


def thinned(paths: Sequence[Path], most: int | None) -> list[Path]:
    """At most so many, evenly spread."""
    if most is None or len(paths) <= most:
        return list(paths)
    return [paths[index * len(paths) // most] for index in range(most)]
