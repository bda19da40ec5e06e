"""Finding and reading pictures, and the small text files that come with them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lrp_onnx.errors import ImageError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
MOST_PIXELS = 100_000_000
"""Larger pictures are refused: decoded they would take gigabytes."""

Picture = NDArray[np.uint8]


def find_images(patterns: Sequence[str | Path]) -> list[Path]:
    """Files, every picture of a folder (sorted, not of its subfolders), and what globs match, each once, in this order.

    Raises:
        ImageError: for everything that names no picture, all at once.
    """
    found: dict[Path, None] = {}
    faults = []
    for pattern in map(str, patterns):
        path = Path(pattern)
        if path.is_dir():
            matched = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        elif path.exists():
            matched = [path]
        else:
            anchor = Path(path.anchor) if path.is_absolute() else Path()
            matched = sorted(p for p in anchor.glob(pattern[len(path.anchor) :]) if p.suffix.lower() in SUFFIXES)
        if not matched:
            kind = "holds no picture" if path.is_dir() else "is no file, no folder, and matches nothing"
            faults.append(f"{pattern} {kind}")
        found |= dict.fromkeys(matched)
    if faults:
        raise ImageError("; ".join(faults) + f" (pictures end in {', '.join(sorted(SUFFIXES))})")
    return list(found)


def read_image(path: Path) -> Picture:
    """The picture as (H, W, 3) uint8 RGB, turned as its EXIF data says; transparency is laid on white.

    Raises:
        ImageError: `path` is missing, no picture, damaged, or larger than 100 megapixels.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"the picture {path} cannot be read: {error.strerror}") from error
    decoded = _decode(data, path)
    if decoded.shape[0] * decoded.shape[1] > MOST_PIXELS:
        raise ImageError(f"{path} has {decoded.shape[1]}×{decoded.shape[0]} pixels; at most {MOST_PIXELS:,} are read")
    return _to_rgb(decoded)


def _decode(data: bytes, path: Path) -> NDArray[Any]:
    buffer = np.frombuffer(data, np.uint8)
    decoded = None
    if data:
        try:
            with_alpha = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
            # IMREAD_UNCHANGED keeps an alpha channel but ignores EXIF; the other flags do the reverse.
            transparent = with_alpha is not None and with_alpha.ndim == 3 and with_alpha.shape[2] == 4
            colour = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
            decoded = with_alpha if transparent else cv2.imdecode(buffer, colour)
        except cv2.error:
            decoded = None
    if decoded is None:
        raise ImageError(f"{path} is not a picture that can be read{_looks_like(data)}; PNG and JPEG are")
    return np.asarray(decoded)


def _looks_like(data: bytes) -> str:
    if not data:
        return ": it is empty"
    if data.startswith(b"version https://git-lfs"):
        return ": it is a Git LFS pointer (run `git lfs pull`)"
    head = data[:64]
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        return f": it is text that begins {head[:30].decode()!r}"
    return " (it is damaged, or of another format)"


def _to_rgb(decoded: NDArray[Any]) -> Picture:
    scaled = decoded
    if decoded.dtype == np.uint16:
        scaled = (decoded / 257.0).round().astype(np.uint8)
    elif decoded.dtype != np.uint8:
        scaled = (np.clip(decoded, 0.0, 1.0) * 255.0).round().astype(np.uint8)
    if scaled.shape[2] == 4:
        alpha = scaled[:, :, 3:].astype(np.float32) / 255.0
        scaled = (scaled[:, :, :3] * alpha + 255.0 * (1.0 - alpha)).round().astype(np.uint8)
    return np.ascontiguousarray(scaled[:, :, ::-1])


def read_labels(path: Path) -> dict[str, int]:
    """File name → class index, from a CSV with the columns ``file`` and ``label``."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {Path(row["file"]).name: int(row["label"]) for row in rows}
    except (OSError, UnicodeDecodeError, KeyError, ValueError, TypeError) as error:
        raise ImageError(f"{path} is no table of the columns file,label with class indices: {error!r}") from error


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names, one a line, in the order of the logits."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ImageError(f"the class names in {path} cannot be read: {error}") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise ImageError(f"{path} holds no class names: one a line is expected")
    return names
