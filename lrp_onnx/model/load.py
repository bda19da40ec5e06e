"""From a file that nobody vouches for to a normalised graph: gate, external data, opset, normalisation passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx_ir.passes import Sequential, common

from lrp_onnx.errors import ModelFileError, UnsupportedModelError
from lrp_onnx.model.batch import free_batch
from lrp_onnx.model.fold import fold_constants
from lrp_onnx.model.graph import Graph

OLDEST_OPSET = 7
"""Before it, Add and Mul broadcast by attributes and BatchNormalization has modes: nobody exports that any more."""
WORKING_OPSET = 18
"""Older models are converted up to it: the first opset with ScatterElements' max and min and ReduceMean's axes as an
input.
"""
NEWEST_OPSET = 20
"""Newer models are relabelled to it where no operator changed its meaning since."""
IR_VERSION = 10
SIZE_LIMIT = 2_000_000_000
"""Bytes; a protobuf message ends at 2 GiB."""
TYPES_ONLY_SINCE_20 = frozenset(
    [
        "AveragePool",
        "BatchNormalization",
        "Cast",
        "Constant",
        "ConstantOfShape",
        "Conv",
        "ConvTranspose",
        "Dropout",
        "Flatten",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Identity",
        "MaxPool",
        "Pad",
        "Relu",
        "Reshape",
        "Shape",
        "Size",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    ]
)
"""Operators whose versions 21 to 25 accept more element types and compute the same."""


def load_model(path: Path | str) -> Graph:
    """Read, check and normalise the model at `path`.

    Raises:
        ModelFileError: the file is missing, damaged, or not ONNX, or its external data is not there.
        UnsupportedModelError: it is ONNX, but of an opset or with operators that cannot be read here.
    """
    return normalise(load_proto(path), str(path))


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
    if not proto.HasField("graph") or not proto.graph.node:
        raise ModelFileError(f"{source} is not an ONNX model: it holds no graph{_looks_like(data)}")
    return proto


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
    faults = []
    locations = Counter({e.key: e.value for e in t.external_data}.get("location", "") for t in external)
    for location, count in locations.items():
        inside = location and Path(location).name == location and not (path.parent / location).is_symlink()
        if not inside:
            faults.append(f"{count} weights lie in {location!r}: only a plain file in the model's own folder is read")
        elif not (path.parent / location).is_file():
            faults.append(
                f"{count} weights lie in {location!r}, which is not in {path.parent}: put it beside the model"
            )
    if faults:
        raise ModelFileError(f"{path} keeps weights in other files. " + "; ".join(faults))
    try:
        onnx.load_external_data_for_model(proto, str(path.parent))
    except (onnx.checker.ValidationError, ValueError, OSError) as error:
        raise ModelFileError(f"the external data of {path} cannot be read: {error}") from error


def normalise(proto: onnx.ModelProto, source: str) -> Graph:
    """Bring a model of any opset from 7 to 25 to one shape: opset 18 to 20, constants as initializers, sorted, named,
    shapes known.
    """
    faults = [*_foreign(proto), *_non_finite(proto)]
    if faults:
        raise UnsupportedModelError(f"{source} cannot be compiled:", faults)
    proto = _to_working_opset(proto, source)
    proto.ir_version = IR_VERSION
    passes = Sequential(
        common.InlinePass(),
        common.TopologicalSortPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.RemoveInitializersFromInputsPass(),
        common.IdentityEliminationPass(),
        common.NameFixPass(),
        common.RemoveUnusedNodesPass(),
    )
    try:
        model = ir.from_proto(proto)
        passes(model)
        checked = ir.to_proto(model)
        onnx.checker.check_model(checked)
        common.ShapeInferencePass()(model)
        while fold_constants(model):
            common.RemoveUnusedNodesPass()(model)
            common.ShapeInferencePass()(model)
    except Exception as error:  # any of three libraries may find the file broken, each with its own error type
        raise ModelFileError(f"{source} is not a valid ONNX model: {_first_line(error)}") from error
    freed = free_batch(model)
    return Graph(
        freed, notes=() if freed is model else ("the file's batch has a fixed size; the compiled file takes any",)
    )


def _first_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _foreign(proto: onnx.ModelProto) -> Iterator[str]:
    """Operators of other domains and control flow."""
    functions = {(f.domain, f.name) for f in proto.functions}
    for node in proto.graph.node:
        if (node.domain, node.op_type) in functions:
            continue
        where = f"{node.op_type} '{node.name or node.output[0]}'"
        if node.domain == "com.microsoft.nchwc":
            yield (
                f"{where} is of {node.domain}: the file was optimised for one processor; compile the file "
                f"from before that"
            )
        elif node.domain not in ("", "ai.onnx"):
            yield (
                f"{where} is of the domain {node.domain!r}: only standard operators can be explained; export without it"
            )
        elif any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
            yield f"{where} is control flow: export the model with it resolved"


def _non_finite(proto: onnx.ModelProto) -> Iterator[str]:
    for tensor in proto.graph.initializer:
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16):
            try:
                values = onnx.numpy_helper.to_array(tensor)
            except (ValueError, TypeError) as error:
                yield f"the weight {tensor.name!r} is damaged: {error}"
                continue
            if not np.isfinite(values).all():
                yield f"the weight {tensor.name!r} holds NaN or infinity: no relevance can be computed through it"


def _to_working_opset(proto: onnx.ModelProto, source: str) -> onnx.ModelProto:
    versions = [o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")]
    if len(versions) != 1:
        raise ModelFileError(f"{source} does not say which version of the ONNX operators it uses")
    opset = versions[0]
    if opset < OLDEST_OPSET:
        raise UnsupportedModelError(
            f"{source} cannot be compiled:", [f"opset {opset} is older than {OLDEST_OPSET}: export it again"]
        )
    if opset > NEWEST_OPSET:
        return _relabel(proto, opset, source)
    if opset >= WORKING_OPSET:
        return proto
    _drop_weights_from_inputs(proto)
    try:
        converted = onnx.version_converter.convert_version(proto, WORKING_OPSET)
    except Exception as error:  # the converter raises whatever its C++ half throws
        raise UnsupportedModelError(
            f"{source} cannot be compiled:",
            [f"opset {opset} could not be converted to {WORKING_OPSET}: {_first_line(error)}; export it at opset 18"],
        ) from error
    converted.metadata_props.extend(
        p for p in proto.metadata_props if p.key not in {q.key for q in converted.metadata_props}
    )
    return converted


def _relabel(proto: onnx.ModelProto, opset: int, source: str) -> onnx.ModelProto:
    faults = []
    for op in sorted({n.op_type for n in proto.graph.node}):
        try:
            since = onnx.defs.get_schema(op, opset, "").since_version
        except onnx.defs.SchemaError:
            raise ModelFileError(f"{source} uses {op}, which opset {opset} does not have") from None
        if since > NEWEST_OPSET and op not in TYPES_ONLY_SINCE_20:
            faults.append(
                f"{op} has changed its meaning in opset {since}: export the model at opset {NEWEST_OPSET} or lower"
            )
    if faults:
        raise UnsupportedModelError(f"{source} cannot be compiled:", faults)
    relabelled = onnx.ModelProto()
    relabelled.CopyFrom(proto)
    for entry in relabelled.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = NEWEST_OPSET
    return relabelled


def _drop_weights_from_inputs(proto: onnx.ModelProto) -> None:
    """Weights listed as inputs are a habit of IR 3; the version converter handles them badly."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    kept = [value for value in proto.graph.input if value.name not in weights]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    proto.ir_version = max(proto.ir_version, 4)
