"""Conversion of opsets 7 to 25 to 18 to 20 (22 for bfloat16 models)."""

from __future__ import annotations

import onnx
from google.protobuf.message import Error as MessageError

from lrp_onnx.errors import NATIVE_ERRORS, ModelFileError, UnsupportedModelError, first_line
from lrp_onnx.model.gate import LARGEST_OPSET
from lrp_onnx.model.normalize import fused  # noqa: F401 (it registers what is split)
from lrp_onnx.model.normalize.parts import MICROSOFT, SPLITS

OLDEST_OPSET = 7
"""In older opsets, Add and Mul broadcast by attributes and BatchNormalization has modes; no current
exporter writes them.
"""
WORKING_OPSET = 18
"""Older models are converted to this opset, the first with ScatterElements' max and min and with
ReduceMean's axes as an input.
"""
NEWEST_OPSET = 20
"""Newer models are relabelled to it if no operator has changed its meaning since."""
LAYER_NORMALIZATION_OPSET = 17
"""The first with LayerNormalization."""
BFLOAT16_OPSET = 22
"""bfloat16 models are relabelled to it: the first opset whose convolutions and pools take bfloat16.
"""
# fmt: off
TYPES_ONLY_SINCE_20 = frozenset((
    "AveragePool", "BatchNormalization", "Cast", "CastLike", "Constant", "ConstantOfShape",
    "Conv", "ConvTranspose", "Cos", "Dropout", "Elu", "Flatten", "GlobalAveragePool",
    "GlobalMaxPool", "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization",
    "LpNormalization", "LpPool", "MaxPool", "Mish", "Pad", "QLinearMatMul",
    "Relu", "Reshape", "Round", "Selu",
    "Shape", "Sin", "Size", "Softplus", "Softsign", "Squeeze", "Transpose", "Unsqueeze",
))
# fmt: on
"""Operators whose versions 21 to 25 accept more element types and compute the same."""
SPLIT_SINCE_20 = frozenset(operator for operator, (_, since) in SPLITS.items() if since)
"""Operators of opsets above 20 that are split before anything reads them."""

CONVERTER_ERRORS = (
    onnx.version_converter.ConvertError,
    onnx.shape_inference.InferenceError,
    onnx.checker.ValidationError,
    onnx.defs.SchemaError,
    MessageError,
    *NATIVE_ERRORS,
)
"""What the version converter raises: errors of ONNX, of protobuf and of its C++ code. It infers
shapes and checks the model, too.
"""


def to_working_opset(proto: onnx.ModelProto, source: str) -> onnx.ModelProto:
    """`proto` at opset 18, 19 or 20; at 22 if it has bfloat16 weights.

    Raises:
        ModelFileError: the model states no opset, or its opset lacks one of its operators.
        UnsupportedModelError: the opset is too old, or cannot be converted.
    """
    versions = [o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")]
    if len(versions) != 1:
        raise ModelFileError(f"{source} does not say which version of the ONNX operators it uses")
    opset = versions[0]
    if opset > LARGEST_OPSET:
        raise ModelFileError(f"{source} states opset {opset}, which ONNX does not have")
    if opset < OLDEST_OPSET:
        raise UnsupportedModelError(
            f"{source} cannot be compiled:",
            [f"opset {opset} is older than {OLDEST_OPSET}: export it again"],
        )
    _name_the_runtime_s(proto, opset)
    if _has_bfloat16(proto) and opset >= WORKING_OPSET:
        return _relabel(proto, opset, source, BFLOAT16_OPSET)
    if opset > NEWEST_OPSET:
        return _relabel(proto, opset, source, NEWEST_OPSET)
    if opset >= WORKING_OPSET:
        return proto
    _drop_weights_from_inputs(proto)
    try:
        converted = onnx.version_converter.convert_version(proto, WORKING_OPSET)
    except CONVERTER_ERRORS as error:
        raise UnsupportedModelError(
            f"{source} cannot be compiled:",
            [
                f"opset {opset} could not be converted to {WORKING_OPSET}: {first_line(error)}; "
                "export it at opset 18"
            ],
        ) from error
    keys = {entry.key for entry in converted.metadata_props}
    converted.metadata_props.extend(p for p in proto.metadata_props if p.key not in keys)
    return converted


def _has_bfloat16(proto: onnx.ModelProto) -> bool:
    return any(tensor.data_type == onnx.TensorProto.BFLOAT16 for tensor in proto.graph.initializer)


def _relabel(proto: onnx.ModelProto, opset: int, source: str, target: int) -> onnx.ModelProto:
    """A copy of `proto` with the opset `target`, in which all its operators mean the same."""
    faults = []
    for op in sorted({n.op_type for n in proto.graph.node if n.domain in ("", "ai.onnx")}):
        try:
            since = onnx.defs.get_schema(op, opset, "").since_version
        except onnx.defs.SchemaError:
            raise ModelFileError(f"{source} uses {op}, which opset {opset} does not have") from None
        if since > NEWEST_OPSET and op not in TYPES_ONLY_SINCE_20 | SPLIT_SINCE_20:
            faults.append(
                f"{op} has changed its meaning in opset {since}: "
                f"export the model at opset {NEWEST_OPSET} or lower"
            )
    if faults:
        raise UnsupportedModelError(f"{source} cannot be compiled:", faults)
    relabelled = onnx.ModelProto()
    relabelled.CopyFrom(proto)
    for entry in relabelled.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = target
    return relabelled


def _name_the_runtime_s(proto: onnx.ModelProto, opset: int) -> None:
    """Give operators the domain com.microsoft, in place, that ONNX Runtime's optimiser writes as if
    ONNX had them: not every opset does.
    """
    own = {"SimplifiedLayerNormalization"}
    if opset < LAYER_NORMALIZATION_OPSET:
        own.add("LayerNormalization")
    nodes = [n for n in proto.graph.node if n.op_type in own and n.domain in ("", "ai.onnx")]
    for node in nodes:
        node.domain = MICROSOFT
    if nodes and all(entry.domain != MICROSOFT for entry in proto.opset_import):
        proto.opset_import.append(onnx.helper.make_opsetid(MICROSOFT, 1))


def _drop_weights_from_inputs(proto: onnx.ModelProto) -> None:
    """Remove weights from the graph's inputs, in place.

    IR 3 lists them there, and the version converter does not handle that well.
    """
    weights = {tensor.name for tensor in proto.graph.initializer}
    kept = [value for value in proto.graph.input if value.name not in weights]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    proto.ir_version = max(proto.ir_version, 4)
