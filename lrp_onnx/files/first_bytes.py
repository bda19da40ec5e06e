"""The format of a file by its first bytes, for error messages about unexpected files."""

from __future__ import annotations

FORMATS = {
    b"version https://git-lfs": "it is a Git LFS pointer (run `git lfs pull` in its repository)",
    b"%PDF": "it is a PDF",
    b"PK\x03\x04": "it begins like a zip file, as PyTorch checkpoints and .keras files do",
    b"\x80\x02": "it begins like a pickle, as old PyTorch checkpoints do",
    b"\x89HDF": "it begins like an HDF5 file, as Keras models do",
}
"""First bytes of a file → a clause for an error message."""
_HTML = (b"<!doctype html", b"<html")


_TFLITE = b"TFL3"
_TORCH = "export it from PyTorch: torch.onnx.export(model, example_input, 'model.onnx')"
_TENSORFLOW = "convert it: pip install tf2onnx, then python -m tf2onnx.convert"


def way_to_onnx(data: bytes, name: str) -> str:
    """How a file that is no ONNX model becomes one, as a clause; empty where that is not known.

    Args:
        data: the file's bytes.
        name: the file's name: a zip file may be of PyTorch or of Keras.
    """
    if data.startswith(b"\x89HDF") or name.endswith(".keras"):
        return "export it from Keras: model.export('model.onnx', format='onnx')"
    if data[4:8] == _TFLITE:
        return f"{_TENSORFLOW} --tflite {name} --output model.onnx"
    if data.startswith((b"PK\x03\x04", b"\x80\x02")) or name.endswith(".safetensors"):
        return _TORCH
    return ""


def looks_like(data: bytes) -> str:
    """A clause such as ``it is a PDF``; empty if the format of `data` is not known."""
    if not data:
        return "it is empty"
    for prefix, clause in FORMATS.items():
        if data.startswith(prefix):
            return clause
    if data[4:8] == _TFLITE:
        return "it is a TFLite model"
    if data[4:8] == b"ftyp":
        return "it is an HEIC, AVIF or video file"
    head = data[:64]
    if head.lstrip().lower().startswith(_HTML):
        return "it is a web page, perhaps an error page saved under this name"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        return f"it is text that begins {head[:30].decode()!r}"
    return ""
