"""Model files: their bytes, the message in them, their external data, their metadata.

What is no model is said to be what it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message

from lrp_onnx.errors import ModelFileError
from lrp_onnx.files.first_bytes import looks_like

SIZE_LIMIT = 2_000_000_000
"""Bytes; a protobuf message ends at 2 GiB."""


def load_proto(path: Path | str) -> onnx.ModelProto:
    """The model at `path` as it is, external data in memory.

    Raises:
        ModelFileError: the file or its external data cannot be read, or it holds no ONNX model.
    """
    path = Path(path)
    proto = parse(read_bytes(path), str(path))
    _load_external_data(proto, path)
    return proto


def metadata_of(model: Path | bytes) -> dict[str, str]:
    """A model's metadata properties, key → value; its external data is not read.

    Raises:
        ModelFileError: the file is missing or unreadable, or holds no ONNX model.
    """
    data = model if isinstance(model, bytes) else read_bytes(model)
    return {entry.key: entry.value for entry in _decode(data, name_of(model)).metadata_props}


def name_of(model: Path | bytes) -> str:
    """How errors call a model."""
    return "the model" if isinstance(model, bytes) else str(model)


def read_bytes(path: Path) -> bytes:
    """The file's bytes.

    Raises:
        ModelFileError: it is missing, no file, too large or unreadable.
    """
    if path.is_dir():
        raise ModelFileError(f"{path} is a folder; name the .onnx file in it")
    try:
        size = path.stat().st_size
        if size > SIZE_LIMIT:
            raise ModelFileError(
                f"{path} is {size:,} bytes; files up to {SIZE_LIMIT:,} are read: "
                "keep the weights as external data"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelFileError(f"there is no file {path}") from None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}") from error


def parse(data: bytes, source: str) -> onnx.ModelProto:
    """The model in `data`, every name in it readable; `source` is its name in errors.

    Raises:
        ModelFileError: `data` holds no ONNX model, or is damaged.
    """
    proto = _decode(data, source)
    if (damaged := next(_undecodable(proto), None)) is not None:
        raise ModelFileError(
            f"{source} is damaged: it holds the name {damaged!r}, which is no text: export it again"
        )
    return proto


def _decode(data: bytes, source: str) -> onnx.ModelProto:
    """The message in `data`, if it has a graph with nodes."""
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
        is_model = len(proto.graph.node) > 0
    except DecodeError:
        is_model = False
    if not is_model:
        reason = looks_like(data) or "it is truncated, damaged, or of another format"
        raise ModelFileError(
            f"{source} is not an ONNX model: {reason}; export or download it again"
        )
    return proto


def _undecodable(message: Message) -> Iterator[bytes]:
    """Texts that are not UTF-8: protobuf hands them out as bytes."""
    for field, value in message.ListFields():
        if field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
            continue
        for item in (
            value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
        ):
            if isinstance(item, Message):
                yield from _undecodable(item)
            elif isinstance(item, bytes):
                yield item


def _load_external_data(proto: onnx.ModelProto, path: Path) -> None:
    """Bring weights that lie in files beside the model into
    memory; nothing outside the model's folder is read.
    """
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


def _external_faults(
    folder: Path, location: str, spans: list[tuple[str, int, int | None]]
) -> Iterator[str]:
    """Why the file at `location` is not read: (weight, offset, length) are what is wanted of it."""
    file = folder / location
    if not location or Path(location).name != location or file.is_symlink():
        yield (
            f"{len(spans)} weights lie in {location!r}: "
            "only a plain file in the model's own folder is read"
        )
        return
    if not file.is_file():
        yield (
            f"{len(spans)} weights lie in {location!r}, which is not in {folder}: "
            "put it beside the model"
        )
        return
    facts = file.stat()
    if facts.st_nlink != 1:
        yield (
            f"{location!r} has {facts.st_nlink} names (hard links), "
            "so it may be a file from elsewhere: copy it"
        )
    if facts.st_size > SIZE_LIMIT:
        yield f"{location!r} is {facts.st_size:,} bytes: up to {SIZE_LIMIT:,} are read"
    for name, offset, length in spans:
        end = offset if length is None else offset + length
        if offset < 0 or end < offset or end > facts.st_size:
            yield (
                f"the weight '{name}' lies at bytes {offset} to {end} of {location!r}, "
                f"which has {facts.st_size}"
            )
