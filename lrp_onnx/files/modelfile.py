"""What a model file says of itself, read without a runtime."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from lrp_onnx.errors import ModelFileError
from lrp_onnx.files.first_bytes import looks_like


def metadata_of(model: Path | bytes) -> dict[str, str]:
    """A model's metadata properties, key → value; its external data is not read.

    Raises:
        ModelFileError: the file is missing or unreadable, or holds no ONNX model.
    """
    data = model if isinstance(model, bytes) else _bytes_of(model)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
        readable = len(proto.graph.node) > 0
    except DecodeError:
        readable = False
    if not readable:
        found = looks_like(data) or "it is truncated, damaged, or of another format"
        raise ModelFileError(f"{name_of(model)} is not an ONNX model: {found}; export or download it again")
    return {entry.key: entry.value for entry in proto.metadata_props}


def _bytes_of(path: Path) -> bytes:
    if path.is_dir():
        raise ModelFileError(f"{path} is a folder; name the .onnx file in it")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelFileError(f"there is no file {path}") from None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}") from error


def name_of(model: Path | bytes) -> str:
    """How errors call a model."""
    return "the model" if isinstance(model, bytes) else str(model)
