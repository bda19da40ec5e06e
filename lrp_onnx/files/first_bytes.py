"""The format of a file by its first bytes, for error messages about unexpected files."""

from __future__ import annotations

import struct

FORMATS = {
    b"version https://git-lfs": "it is a Git LFS pointer (run `git lfs pull` in its repository)",
    b"%PDF": "it is a PDF",
    b"PK\x03\x04": "it begins like a zip file, as PyTorch checkpoints do",
    b"\x80\x02": "it begins like a pickle, as old PyTorch checkpoints do",
    b"\x89HDF": "it begins like an HDF5 file, as Keras models do",
}
"""First bytes of a file → a clause for an error message."""
_HTML = (b"<!doctype html", b"<html")


def looks_like(data: bytes) -> str:
    """A clause such as ``it is a PDF``; empty if the format of `data` is not known."""
    if not data:
        return "it is empty"
    for prefix, clause in FORMATS.items():
        if data.startswith(prefix):
            return clause
    if data[4:8] == b"TFL3":
        return "it is a TFLite model"
    if data[4:8] == b"ftyp":
        return "it is an HEIC, AVIF or video file"
    head = data[:64]
    if head.lstrip().lower().startswith(_HTML):
        return "it is a web page, perhaps an error page saved under this name"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        return f"it is text that begins {head[:30].decode()!r}"
    return ""


def picture_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) in pixels from the header of a PNG, JPEG, WebP or BMP.

    None for other formats and damaged headers. Callers check the size before decoding, because a
    file of a few kilobytes can decode to gigabytes.
    """
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height = struct.unpack_from(">II", data, 16)
        elif data.startswith(b"\xff\xd8"):
            return _jpeg_size(data)
        elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp_size(data)
        elif data.startswith(b"BM"):
            is_os2 = data[14] == 12  # OS/2's header has 16-bit sizes
            width, height = struct.unpack_from("<HH" if is_os2 else "<ii", data, 18)
        else:
            return None
    except (struct.error, IndexError):
        return None
    return abs(width), abs(height)


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """The size in the frame header (SOF0 to SOF15 without DHT, JPG and DAC), found by walking the
    segments.
    """
    offset = 2
    while offset < len(data):
        if data[offset] != 0xFF:
            return None
        marker = data[offset + 1]
        if marker == 0xFF:  # fill byte
            offset += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, offset + 5)
            return width, height
        else:
            offset += 2 + struct.unpack_from(">H", data, offset + 2)[0]
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """The size in the first chunk, which is extended, lossless or lossy."""
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
