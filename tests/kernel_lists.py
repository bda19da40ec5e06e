"""The stored lists of kernels (tests/kernels), and what of a model's nodes is not in them.

A row ``11-21 T=float,float16`` is a kernel: versions of the operator, and the types of each type
constraint. A single version stands for that version only, as ONNX Runtime reads kernels that name
no last version. A constraint ``data`` (TensorRT) is the type of a node's data.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import defs, helper, numpy_helper

from lrp_onnx.contract import INTERNAL

FOLDER = Path(__file__).parent / "kernels"
LISTS = {"cuda": "cuda", "web": "webgpu", "tensorrt": "tensorrt"}
"""What `--optimize-for` calls a file → the list that its nodes have to be in."""


@dataclass(frozen=True)
class Kernel:
    """One row."""

    first: int
    last: int
    types: Mapping[str, frozenset[str]]

    def takes(self, version: int) -> bool:
        return self.first <= version <= self.last


@dataclass(frozen=True)
class Kernels:
    """One list."""

    name: str
    provider: str
    source: str
    date: str
    operators: Mapping[str, tuple[Kernel, ...]]

    def without(self, operator: str) -> Kernels:
        left = {op: rows for op, rows in self.operators.items() if op != operator}
        return Kernels(self.name, self.provider, self.source, self.date, left)


def read_kernel(text: str) -> Kernel:
    versions, *types = text.split(" ")
    first, _, last = versions.partition("-")
    pairs = (constraint.split("=") for constraint in types)
    allowed = {name: frozenset(kinds.split(",")) for name, kinds in pairs}
    return Kernel(int(first), int(last or first), allowed)


@cache
def kernels_of(name: str) -> Kernels:
    """The list called `name`: ``cuda``, ``webgpu`` or ``tensorrt``."""
    stored = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    operators = {op: tuple(map(read_kernel, rows)) for op, rows in stored["operators"].items()}
    return Kernels(name, stored["provider"], stored["source"], stored["date"], operators)


@dataclass(frozen=True)
class Excuse:
    """Nodes that are known not to be in a list, and why that is right."""

    list: str
    operator: str
    missing: str
    """As `Fault.missing` says it."""
    whose: str
    """``original``: the user's model has the node; ``file``: the compiler adds it."""
    then: str
    """``cpu``: ONNX Runtime runs the node on the CPU, which is right and slower; ``fails``: the
    runtime refuses the file, as it refuses the original.
    """
    reason: str
    seen: str
    """A file of the zoo that has the node, or ``resnet``."""


@cache
def excuses() -> tuple[Excuse, ...]:
    stored = json.loads((FOLDER / "exceptions.json").read_text(encoding="utf-8"))
    return tuple(Excuse(**entry) for entry in stored)


@dataclass(frozen=True)
class Fault:
    """A node that a list does not have."""

    list: str
    node: str
    operator: str
    missing: str
    message: str

    @property
    def whose(self) -> str:
        return "file" if self.node.startswith(INTERNAL) else "original"

    @property
    def excuse(self) -> Excuse | None:
        return next(
            (
                excuse
                for excuse in excuses()
                if (excuse.list, excuse.operator, excuse.missing, excuse.whose)
                == (self.list, self.operator, self.missing, self.whose)
            ),
            None,
        )


@dataclass(frozen=True)
class Use:
    """A node as a provider meets it."""

    node: onnx.NodeProto
    schema: defs.OpSchema
    types: Mapping[str, str]
    """Tensor → ``float16``."""
    constants: Mapping[str, NDArray[Any]]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    dequantized: Container[str] = ()
    """Outputs of DequantizeLinear."""

    def constant(self, index: int) -> bool:
        """Whether the input `index` is not there or stored."""
        names = self.node.input[index : index + 1]
        return not names or not names[0] or names[0] in self.constants

    def value(self, index: int) -> NDArray[Any] | None:
        names = self.node.input[index : index + 1]
        return self.constants.get(names[0]) if names else None

    def types_of(self, constraint: str) -> set[str]:
        """Types of the inputs and outputs that a type constraint is about."""
        found = set()
        for names, formal in (
            (self.node.input, self.schema.inputs),
            (self.node.output, self.schema.outputs),
        ):
            for i, name in enumerate(names):
                parameter = formal[min(i, len(formal) - 1)]
                if name and constraint in (parameter.type_str, parameter.name):
                    found.add(self.types[name])
        return found

    @property
    def data(self) -> set[str]:
        """The types that TensorRT's table is about."""
        operator = self.node.op_type
        if operator in ("Cast", "CastLike"):
            return {self.types[self.node.input[0]], self.types[self.node.output[0]]}
        if operator in ("Constant", "ConstantOfShape"):
            return {self.types[self.node.output[0]]}
        return {self.types[self.node.input[1 if operator == "Where" else 0]]}


@dataclass(frozen=True)
class Restriction:
    """What a kernel does not do, although its row says nothing of it."""

    list: str
    operators: tuple[str, ...]
    name: str
    reason: str
    broken: Callable[[Use], bool]


def _uneven(pads: list[int]) -> bool:
    half = len(pads) // 2
    return pads[:half] != pads[half:]


def _dilated(use: Use) -> bool:
    return any(d != 1 for d in use.attributes.get("dilations", []))


def _zero_point(use: Use) -> bool:
    return not use.constant(2) or bool(np.any(use.value(2)))


_REDUCTIONS = tuple(
    f"Reduce{name}"
    for name in [
        "L1",
        "L2",
        "LogSum",
        "LogSumExp",
        "Max",
        "Mean",
        "Min",
        "Prod",
        "Sum",
        "SumSquare",
    ]
)
RESTRICTIONS = (
    Restriction(
        "cuda",
        ("ConvTranspose",),
        "uneven pads",
        "onnxruntime-gpu 1.31.1 leaves it to the CPU, auto_pad too",
        lambda use: (
            _uneven(use.attributes.get("pads", []))
            or use.attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
        ),
    ),
    Restriction(
        "cuda",
        ("ArgMax", "ArgMin"),
        "select_last_index",
        "onnxruntime-gpu 1.31.1 leaves it to the CPU",
        lambda use: bool(use.attributes.get("select_last_index")),
    ),
    Restriction(
        "cuda",
        ("BatchNormalization",),
        "training_mode",
        "onnxruntime-gpu 1.31.1 refuses the file unless its optimisations fold the node",
        lambda use: bool(use.attributes.get("training_mode")),
    ),
    Restriction(
        "webgpu",
        ("MaxPool",),
        "Indices",
        "onnxruntime-webgpu 1.27.0 fails at the first run",
        lambda use: len(use.node.output) > 1,
    ),
    Restriction(
        "webgpu",
        ("ConvTranspose",),
        "3D",
        "onnxruntime-webgpu 1.27.0 fails at the first run",
        lambda use: len(use.attributes.get("kernel_shape", [])) > 2,
    ),
    Restriction(
        "webgpu",
        ("Resize",),
        "antialias",
        "onnxruntime-webgpu 1.27.0 fails at the first run",
        lambda use: bool(use.attributes.get("antialias")),
    ),
    Restriction(
        "webgpu",
        ("Split",),
        "more than 7 outputs",
        "onnxruntime-webgpu 1.27.0 needs a storage buffer for each and one more: WebGPU promises 8",
        lambda use: len(use.node.output) > 7,
    ),
    Restriction(
        "tensorrt",
        ("MaxPool",),
        "Indices",
        "TensorRT 10.15's table",
        lambda use: len(use.node.output) > 1,
    ),
    Restriction(
        "tensorrt",
        ("MaxPool", "AveragePool", "LpPool"),
        "dilations",
        "TensorRT 10.15's table",
        _dilated,
    ),
    Restriction(
        "tensorrt",
        ("MaxPool", "AveragePool"),
        "not 2D or 3D",
        "TensorRT 10.15's table",
        lambda use: len(use.attributes["kernel_shape"]) not in (2, 3),
    ),
    Restriction(
        "tensorrt",
        ("Conv", "ConvTranspose"),
        "computed weights",
        "TensorRT 8.4's table",
        lambda use: not use.constant(1) and use.node.input[1] not in use.dequantized,
    ),
    Restriction(
        "tensorrt",
        _REDUCTIONS,
        "computed axes",
        "TensorRT 10.15's table",
        lambda use: not use.constant(1),
    ),
    Restriction(
        "tensorrt",
        ("Squeeze", "Unsqueeze", "CumSum"),
        "computed axes",
        "TensorRT 10.15's table",
        lambda use: not use.constant(1),
    ),
    Restriction(
        "tensorrt",
        ("QuantizeLinear", "DequantizeLinear"),
        "zero point",
        "TensorRT 10.15's table: it has to be 0",
        _zero_point,
    ),
    Restriction(
        "tensorrt",
        ("TopK",),
        "not sorted, or K of 3840 or more",
        "TensorRT 10.15's table",
        lambda use: (
            not use.attributes.get("sorted", 1)
            or not use.constant(1)
            or bool(np.any(np.asarray(use.value(1)) >= 3840))
        ),
    ),
    Restriction(
        "tensorrt",
        ("ScatterND",),
        "reduction",
        "TensorRT 10.15's table",
        lambda use: use.attributes.get("reduction", b"none") != b"none",
    ),
    Restriction(
        "tensorrt",
        ("Resize",),
        "mode",
        "TensorRT 10.15's table: nearest or linear, stretched, without antialiasing",
        lambda use: (
            use.attributes.get("mode", b"nearest") not in (b"nearest", b"linear")
            or bool(use.attributes.get("antialias"))
            or use.attributes.get("keep_aspect_ratio_policy", b"stretch") != b"stretch"
            or use.attributes.get("coordinate_transformation_mode", b"half_pixel")
            not in (
                b"half_pixel",
                b"pytorch_half_pixel",
                b"tf_half_pixel_for_nn",
                b"asymmetric",
                b"align_corners",
            )
        ),
    ),
)


def uses(model: onnx.ModelProto) -> Iterator[Use]:
    """Every node, those of the bodies of Loop and If too."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    versions = {opset.domain: opset.version for opset in model.opset_import}
    yield from _uses(inferred.graph, versions, {}, {})


def _uses(
    graph: onnx.GraphProto,
    versions: Mapping[str, int],
    types: Mapping[str, str],
    constants: Mapping[str, NDArray[Any]],
) -> Iterator[Use]:
    values = (*graph.value_info, *graph.input, *graph.output)
    types = {
        **types,
        **{value.name: _name(value.type.tensor_type.elem_type) for value in values},
        **{tensor.name: _name(tensor.data_type) for tensor in graph.initializer},
    }
    given = {value.name for value in graph.input}
    constants = {
        **constants,
        **{t.name: numpy_helper.to_array(t) for t in graph.initializer if t.name not in given},
    }
    dequantized: set[str] = set()
    for node in graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        for value in attributes.values():
            if isinstance(value, onnx.GraphProto):
                yield from _uses(value, versions, types, constants)
        if node.op_type == "Constant" and "value" in attributes:
            constants[node.output[0]] = numpy_helper.to_array(attributes["value"])
            types[node.output[0]] = _name(attributes["value"].data_type)
        schema = defs.get_schema(node.op_type, versions.get(node.domain, 1), node.domain)
        if node.op_type == "DequantizeLinear":
            dequantized.add(node.output[0])
        yield Use(node, schema, types, constants, attributes, dequantized)


def _name(element: int) -> str:
    return str(onnx.TensorProto.DataType.Name(element)).lower()


def faults(model: onnx.ModelProto, kernels: Kernels) -> list[Fault]:
    """What of a model's nodes a list does not have, restrictions included."""
    found = []
    for use in uses(model):
        for missing, detail in _missing(use, kernels):
            version = use.schema.since_version
            message = (
                f"{use.node.name}: {kernels.provider} has no {use.node.op_type} (version "
                f"{version}) as it stands here: {missing}; {detail} ({kernels.source}, "
                f"{kernels.date}). Emit other operators, or say in tests/kernels/exceptions.json "
                f"why this one is right"
            )
            found.append(Fault(kernels.name, use.node.name, use.node.op_type, missing, message))
    return found


def _missing(use: Use, kernels: Kernels) -> Iterator[tuple[str, str]]:
    operator, version = use.node.op_type, use.schema.since_version
    rows = kernels.operators.get(operator, ()) if use.node.domain in ("", "ai.onnx") else ()
    taking = [row for row in rows if row.takes(version)]
    if not rows:
        yield "no kernel", "it has none of that name"
    elif not taking:
        known = ", ".join(f"{row.first} to {row.last}" for row in rows)
        yield f"version {version}", f"it has the versions {known}"
    else:
        refused = [_refused(use, row) for row in taking]
        if all(refused):
            least = min(refused, key=len)
            missing = " ".join(f"{name}={kind}" for name, kind in sorted(least.items()))
            yield (
                missing,
                f"it has {[{k: sorted(v) for k, v in row.types.items()} for row in taking]}",
            )
    for restriction in RESTRICTIONS if rows else ():
        about = restriction.list == kernels.name and operator in restriction.operators
        if about and restriction.broken(use):
            yield restriction.name, restriction.reason


def _refused(use: Use, row: Kernel) -> dict[str, str]:
    """Type constraint → the types that this kernel does not take."""
    found = {}
    for name, allowed in row.types.items():
        others = (use.data if name == "data" else use.types_of(name)) - allowed
        if others:
            found[name] = ",".join(sorted(others))
    return found
