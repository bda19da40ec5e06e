"""From a path to the message in the file, its external data in memory: what is no model is said to be what it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message

from lrp_onnx.errors import ModelFileError

SIZE_LIMIT = 2_000_000_000
"""Bytes; a protobuf message ends at 2 GiB."""


def load_proto(path: Path | str) -> onnx.ModelProto:
    """The model at `path` as it is, external data in memory; raises ModelFileError where it cannot be read."""
    path = Path(path)
    proto = parse(read_bytes(path), str(path))
    _load_external_data(proto, path)
    return proto


def read_bytes(path: Path) -> bytes:
    """The file's bytes, or a ModelFileError that says what it is instead of a model."""
    if not path.exists():
        raise ModelFileError(f"there is no file {path}")
    if path.is_dir():
        raise ModelFileError(f"{path} is a folder; name the .onnx file in it")
    try:
        size = path.stat().st_size
        if size > SIZE_LIMIT:
            raise ModelFileError(
                f"{path} is {size:,} bytes; files up to {SIZE_LIMIT:,} are read: keep the weights as external data"
            )
        data = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}") from error
    if not data:
        raise ModelFileError(f"{path} is empty: export or download the model again")
    if data.startswith(b"version https://git-lfs"):
        raise ModelFileError(f"{path} is a Git LFS pointer, not the model: run `git lfs pull` in its repository")
    return data


def parse(data: bytes, source: str) -> onnx.ModelProto:
    """The protobuf message in `data`; `source` names it in errors."""
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        raise ModelFileError(
            f"{source} is not an ONNX model, or is truncated or damaged{_looks_like(data)}: export or download it again"
        ) from None
    if (damaged := next(_undecodable(proto), None)) is not None:
        raise ModelFileError(f"{source} is damaged: it holds the name {damaged!r}, which is no text: export it again")
    if not proto.HasField("graph") or not proto.graph.node:
        raise ModelFileError(f"{source} is not an ONNX model: it holds no graph{_looks_like(data)}")
    return proto


def _undecodable(message: Message) -> Iterator[bytes]:
    """Texts that are not UTF-8: protobuf hands them out as bytes."""
    for field, value in message.ListFields():
        if field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
            continue
        for item in value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]:
            if isinstance(item, Message):
                yield from _undecodable(item)
            elif isinstance(item, bytes):
                yield item


def _looks_like(data: bytes) -> str:
    known = {
        b"PK\x03\x04": " (it begins like a zip file: a PyTorch checkpoint, perhaps)",
        b"\x80\x02": " (it begins like a pickle)",
        b"\x89HDF": " (it begins like an HDF5 file: a Keras model, perhaps)",
        b"TFL3": " (it is a TFLite model)",
    }
    for prefix, words in known.items():
        if data.startswith(prefix) or (prefix == b"TFL3" and data[4:8] == prefix):
            return words
    head = data[:256]
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        return f" (it is text that begins {head[:40].decode()!r})"
    return ""


def _load_external_data(proto: onnx.ModelProto, path: Path) -> None:
    """Bring weights that lie in files beside the model into memory; nothing outside the model's folder is read."""
    external = [t for t in proto.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    if not external:
        return
    wanted: dict[str, list[tuple[str, int, int | None]]] = {}
    faults = []
    for tensor in external:
        entries = {e.key: e.value for e in tensor.external_data}
        try:
            offset, length = int(entries.get("offset", "0")), entries.get("length")
            span = (tensor.name, offset, None if length is None else int(length))
        except ValueError:
            faults.append(f"the weight '{tensor.name}' has an offset or a length that is no number")
            continue
        wanted.setdefault(entries.get("location", ""), []).append(span)
    for location, spans in wanted.items():
        faults += _external_faults(path.parent, location, spans)
    if faults:
        raise ModelFileError(f"{path} keeps weights in other files. " + "; ".join(faults))
    try:
        onnx.load_external_data_for_model(proto, str(path.parent))
    except (onnx.checker.ValidationError, ValueError, OSError) as error:
        raise ModelFileError(f"the external data of {path} cannot be read: {error}") from error


def _external_faults(folder: Path, location: str, spans: list[tuple[str, int, int | None]]) -> Iterator[str]:
    """Why the file at `location` is not read: (weight, offset, length) are what is wanted of it."""
    file = folder / location
    if not location or Path(location).name != location or file.is_symlink():
        yield f"{len(spans)} weights lie in {location!r}: only a plain file in the model's own folder is read"
        return
    if not file.is_file():
        yield f"{len(spans)} weights lie in {location!r}, which is not in {folder}: put it beside the model"
        return
    facts = file.stat()
    if facts.st_nlink != 1:
        yield f"{location!r} has {facts.st_nlink} names (hard links), so it may be a file from elsewhere: copy it"
    if facts.st_size > SIZE_LIMIT:
        yield f"{location!r} is {facts.st_size:,} bytes: up to {SIZE_LIMIT:,} are read"
    for name, offset, length in spans:
        end = offset if length is None else offset + length
        if offset < 0 or end < offset or end > facts.st_size:
            yield f"the weight '{name}' lies at bytes {offset} to {end} of {location!r}, which has {facts.st_size}"
