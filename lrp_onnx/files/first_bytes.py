"""What a file is, by its first bytes: for errors about files that are not what was expected."""

from __future__ import annotations

import struct

FORMATS = {
    b"version https://git-lfs": "it is a Git LFS pointer (run `git lfs pull` in its repository)",
    b"%PDF": "it is a PDF",
    b"PK\x03\x04": "it begins like a zip file, as PyTorch checkpoints do",
    b"\x80\x02": "it begins like a pickle, as old PyTorch checkpoints do",
    b"\x89HDF": "it begins like an HDF5 file, as Keras models do",
}
_PAGES = (b"<!doctype html", b"<html")


def looks_like(data: bytes) -> str:
    """A clause that says what `data` is instead of what was
    expected; empty where that cannot be seen.
    """
    if not data:
        return "it is empty"
    for prefix, words in FORMATS.items():
        if data.startswith(prefix):
            return words
    if data[4:8] == b"TFL3":
        return "it is a TFLite model"
    if data[4:8] == b"ftyp":
        return "it is an HEIC, AVIF or video file"
    head = data[:64]
    if head.lstrip().lower().startswith(_PAGES):
        return "it is a web page, perhaps an error page saved under this name"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        return f"it is text that begins {head[:30].decode()!r}"
    return ""


def picture_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) that a PNG, JPEG, WebP or BMP states in
    its header; None for other formats and damaged headers.

    It is read before decoding: a few kilobytes can state a picture of gigabytes.
    """
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height = struct.unpack_from(">II", data, 16)
        elif data.startswith(b"\xff\xd8"):
            return _jpeg_size(data)
        elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp_size(data)
        elif data.startswith(b"BM"):
            old = data[14] == 12  # OS/2's header, with 16-bit sides
            width, height = struct.unpack_from("<HH" if old else "<ii", data, 18)
        else:
            return None
    except (struct.error, IndexError):
        return None
    return abs(width), abs(height)


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Walks the segments up to the frame header (SOF0 to SOF15 without DHT, JPG and DAC)."""
    at = 2
    while at < len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """The three kinds of first chunk: extended, lossless, lossy."""
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None
