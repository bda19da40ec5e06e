"""Reading model files: bytes, protobuf message, external data, metadata.

For a file that is not a model, the error names the format that the file seems to have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message

from lrp_onnx.errors import ModelFileError, shown
from lrp_onnx.files.budget import check_weights
from lrp_onnx.files.first_bytes import looks_like, way_to_onnx
from lrp_onnx.files.missing import advice
from lrp_onnx.files.pictures import picture_format
from lrp_onnx.files.reading import regular_bytes

SIZE_LIMIT = 2_000_000_000
"""Largest file in bytes; a protobuf message can have up to 2 GiB."""
PLACE = ("location", "offset", "length")
"""Keys that say where a weight lies; others are not read."""
MOST_SHOWN = 100
"""Bytes of a damaged name in a message."""


def load_proto(path: Path | str, *, max_memory: float | None = None) -> onnx.ModelProto:
    """The unchanged model at `path`, with its external data in memory: `max_memory` bytes at most,
    None for half of the machine's.

    Raises:
        ModelFileError: the file or its external data cannot be read, or is not an ONNX model.
    """
    path = Path(path)
    proto = parse(read_bytes(path), str(path))
    _load_external_data(proto, path, max_memory)
    return proto


def metadata_of(model: Path | bytes) -> dict[str, str]:
    """A model's metadata properties, key → value; external data is not read.

    Raises:
        ModelFileError: the file is missing or unreadable, or is not an ONNX model.
    """
    data = model if isinstance(model, bytes) else read_bytes(model)
    return {entry.key: entry.value for entry in _decode(data, source_name(model)).metadata_props}


def read_proto(model: Path | bytes) -> onnx.ModelProto:
    """A model with its texts valid, its external data left where it is.

    Raises:
        ModelFileError: the file is missing or unreadable, or is not an ONNX model.
    """
    data = model if isinstance(model, bytes) else read_bytes(model)
    return parse(data, source_name(model))


def checksum_of(path: Path) -> str:
    """SHA-256, in hexadecimal, of a model's file and of the files that hold its weights.

    Raises:
        ModelFileError: the file is missing or unreadable, or is not an ONNX model.
    """
    data = read_bytes(path)
    digest = hashlib.sha256(data)
    entries = (e for t in _decode(data, str(path)).graph.initializer for e in t.external_data)
    for name in sorted({entry.value for entry in entries if entry.key == "location"}):
        file = path.parent / name
        if Path(name).name == name and file.is_file():  # others are refused when they are loaded
            with file.open("rb") as weights:
                digest.update(hashlib.file_digest(weights, "sha256").digest())
    return digest.hexdigest()


def source_name(model: Path | bytes) -> str:
    """The name of a model in errors: its path, or ``the model``."""
    return "the model" if isinstance(model, bytes) else str(model)


def read_bytes(path: Path) -> bytes:
    """The file's bytes.

    Raises:
        ModelFileError: the file is missing, a folder, a pipe, a device, too large or unreadable.
    """
    if path.is_dir():
        raise ModelFileError(_folder_fault(path))
    try:
        size = path.stat().st_size
        if size > SIZE_LIMIT:
            raise ModelFileError(
                f"{path} is {size:,} bytes; files up to {SIZE_LIMIT:,} are read: "
                "keep the weights as external data"
            )
        return regular_bytes(path, SIZE_LIMIT)
    except FileNotFoundError:
        raise ModelFileError(f"there is no file {shown(path)}{advice(path)}") from None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror or error}") from error


def _folder_fault(path: Path) -> str:
    """What to say of a folder in the place of a model."""
    models = sorted(path.glob("*.onnx"))[:5]
    if not models:
        return (
            f"{path} is a folder, and no .onnx file is in it: the model is named "
            "first, then the pictures, as in lrp-onnx explain model.onnx photos/"
        )
    return f"{path} is a folder: name the .onnx file in it ({', '.join(map(str, models))})"


def parse(data: bytes, source: str) -> onnx.ModelProto:
    """The model in `data`, with all text valid UTF-8; `source` is its name in errors.

    Raises:
        ModelFileError: `data` is not an ONNX model, or is damaged.
    """
    proto = _decode(data, source)
    damaged = next(_undecodable(proto), None)
    if damaged is not None:
        raise ModelFileError(
            f"{source} is damaged: the name {damaged[:MOST_SHOWN]!r} is not UTF-8 text; "
            "export the model again"
        )
    return proto


def _decode(data: bytes, source: str) -> onnx.ModelProto:
    """The message in `data`, which must have a graph with nodes."""
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
        is_model = len(proto.graph.node) > 0
        unknown = "it has no nodes" if proto.graph.output else ""
    except DecodeError:
        is_model, unknown = False, ""
    if not is_model:
        kind = picture_format(data)
        if kind:
            raise ModelFileError(
                f"{source} is a {kind} picture, not an ONNX model: the model is named first, then "
                "the pictures, as in lrp-onnx explain model.onnx photo.jpg"
            )
        reason = looks_like(data) or unknown or "it is truncated, damaged, or of another format"
        remedy = way_to_onnx(data, source) or "export or download it again"
        raise ModelFileError(f"{source} is not an ONNX model: {reason}; {remedy}")
    return proto


def _undecodable(message: Message) -> Iterator[bytes]:
    """Texts that are not UTF-8; protobuf returns them as bytes."""
    for field, value in message.ListFields():
        if field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
            continue
        repeated = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        for item in value if repeated else [value]:
            if isinstance(item, Message):
                yield from _undecodable(item)
            elif isinstance(item, bytes):
                yield item


def _load_external_data(proto: onnx.ModelProto, path: Path, max_memory: float | None) -> None:
    """Load weights from other files in the model's folder into `proto`.

    No file outside the model's folder is read, and nothing if the weights take more than
    `max_memory`.
    """
    external = checked_external(proto, path, max_memory)
    if not external:
        return
    for tensor in external:  # onnx warns of keys that it does not know
        entries = [entry for entry in tensor.external_data if entry.key in PLACE]
        del tensor.external_data[:]
        tensor.external_data.extend(entries)
    try:
        onnx.load_external_data_for_model(proto, str(path.parent))
    except (onnx.checker.ValidationError, ValueError, OSError) as error:
        raise ModelFileError(f"the external data of {path} cannot be read: {error}") from error


def external_weights(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """The weights of a graph that lie in other files."""
    return [t for t in graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]


def checked_external(
    proto: onnx.ModelProto, path: Path, max_memory: float | None
) -> list[onnx.TensorProto]:
    """The weights of the model at `path` that lie in other files, none of which is read.

    Raises:
        ModelFileError: one cannot be read, or they take more than `max_memory` bytes.
    """
    external = external_weights(proto.graph)
    if faults := list(external_faults(external, path.parent)):
        raise ModelFileError(f"{path} keeps weights in other files. " + "; ".join(faults))
    check_weights(map(partial(_bytes_to_read, folder=path.parent), external), str(path), max_memory)
    return external


def _bytes_to_read(tensor: onnx.TensorProto, folder: Path) -> int:
    """Bytes that a weight takes in another file, which fits (see `external_faults`): without a
    stated length those to its end.
    """
    entries = {e.key: e.value for e in tensor.external_data}
    whole = (folder / entries["location"]).stat().st_size - int(entries.get("offset", "0"))
    return int(entries.get("length", whole))


def external_faults(tensors: Sequence[onnx.TensorProto], folder: Path) -> Iterator[str]:
    """Reasons why the external data of `tensors`, of a model in `folder`, cannot be read: it must
    lie in plain files of that folder.
    """
    spans_by_file: dict[str, list[tuple[str, int, int | None]]] = {}
    for tensor in tensors:
        entries = {e.key: e.value for e in tensor.external_data}
        try:
            offset, length = int(entries.get("offset", "0")), entries.get("length")
            span = (tensor.name, offset, None if length is None else int(length))
        except ValueError:
            yield f"the offset or length of the weight '{tensor.name}' is not a number"
            continue
        spans_by_file.setdefault(entries.get("location", ""), []).append(span)
    for location, spans in spans_by_file.items():
        yield from _external_faults(folder, location, spans)


def _external_faults(
    folder: Path, location: str, spans: list[tuple[str, int, int | None]]
) -> Iterator[str]:
    """Reasons why the file `location` cannot be read; `spans` lists (weight, offset, length)."""
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
    status = file.stat()
    if status.st_nlink != 1:
        yield (
            f"{location!r} has {status.st_nlink} names (hard links), "
            "so it may be a file of another folder: replace it by a copy"
        )
    if status.st_size > SIZE_LIMIT:
        yield f"{location!r} is {status.st_size:,} bytes: up to {SIZE_LIMIT:,} are read"
    for name, offset, length in spans:
        end = offset if length is None else offset + length
        if offset < 0 or end < offset or end > status.st_size:
            yield (
                f"the weight '{name}' lies at bytes {offset} to {end} of {location!r}, "
                f"which has {status.st_size}"
            )
