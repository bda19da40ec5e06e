"""The format of a file by its first bytes, for error messages about unexpected files."""

from __future__ import annotations

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
