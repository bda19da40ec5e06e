"""Writes tests/kernels/cuda.json or tests/kernels/webgpu.json: which operators, versions and types
an execution provider of the installed ONNX Runtime has.

    python -m tools.kernels.read cuda    with onnxruntime-gpu (its libraries have to load)
    python -m tools.kernels.read webgpu  with onnxruntime-webgpu (any adapter, a software one too)

The CUDA provider names its kernels. The WebGPU provider does not, so that a node of every operator,
version and combination of types is offered to it, and its log says which it does not take.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, defs, helper, numpy_helper

FOLDER = Path(__file__).parents[2] / "tests" / "kernels"
OPSETS = range(13, 26)
"""Opsets that are offered."""
OPEN = 2**31 - 1
"""Last version of a kernel that names none: it takes its first version only."""
TYPES = ("float", "float16", "bfloat16", "int64", "int32", "int8", "uint8", "bool")
"""Types that are offered."""
Row = tuple[tuple[int, int], dict[str, frozenset[str]]]
"""((first version, last version), name of a type constraint → its types)."""

GRID = (1, 4, 4, 4)
UNARY = [
    "Abs",
    "Ceil",
    "Cos",
    "Elu",
    "Erf",
    "Exp",
    "Flatten",
    "Floor",
    "Gelu",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "Neg",
    "Not",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shape",
    "Sigmoid",
    "Sign",
    "Sin",
    "Softmax",
    "Softplus",
    "Sqrt",
    "Tanh",
    "Transpose",
    "Trilu",
    "ArgMax",
    "ArgMin",
    "IsNaN",
    "IsInf",
    "Size",
]
BINARY = [
    "Add",
    "And",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "MatMul",
    "Max",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "PRelu",
    "Pow",
    "Sub",
    "Sum",
    "Xor",
    "Concat",
]
REDUCTIONS = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]


@dataclass(frozen=True)
class Offer:
    """A node that is offered: shapes or constants as inputs, and attributes."""

    op: str
    inputs: tuple[Any, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1


def integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def offers(version: int) -> Iterator[Offer]:
    """A node of every operator, as it is written at the opset `version`."""
    for op in UNARY:
        yield Offer(op, (GRID,))
    for op in BINARY:
        yield Offer(op, (GRID, GRID), {"axis": 1} if op == "Concat" else {})
    for name in REDUCTIONS:
        late = version >= (13 if name == "Sum" else 18)
        axes: dict[str, Any] = {} if late else {"axes": [1]}
        yield Offer(f"Reduce{name}", (GRID, integers(1)) if late else (GRID,), axes)
    window = {"kernel_shape": [2, 2]}
    yield Offer("AveragePool", (GRID,), window)
    yield Offer("MaxPool", (GRID,), window)
    yield Offer("BatchNormalization", (GRID, (4,), (4,), (4,), (4,)))
    yield Offer("Cast", (GRID,))
    yield Offer("Clip", (GRID, (), ()))
    yield Offer("ConstantOfShape", (integers(2, 2),))
    yield Offer("Conv", (GRID, (4, 4, 3, 3)))
    yield Offer("ConvTranspose", (GRID, (4, 4, 3, 3)))
    yield Offer("CumSum", (GRID, integers(1).reshape(())))
    yield Offer("DepthToSpace", (GRID,), {"blocksize": 2})
    yield Offer("SpaceToDepth", (GRID,), {"blocksize": 2})
    yield Offer("DequantizeLinear", (GRID, (), ()))
    yield Offer("QuantizeLinear", (GRID, (), ()))
    yield Offer("Einsum", (GRID, GRID), {"equation": "abcd,abcd->abcd"})
    yield Offer("Expand", (GRID, integers(2, 4, 4, 4)))
    yield Offer("EyeLike", ((4, 4),))
    yield Offer("Gather", (GRID, integers(0)))
    yield Offer("GatherElements", (GRID, np.zeros(GRID, np.int64)))
    yield Offer("GatherND", (GRID, integers(0).reshape(1, 1)))
    yield Offer("Gemm", ((4, 4), (4, 4), (4,)))
    yield Offer("InstanceNormalization", (GRID, (4,), (4,)))
    yield Offer("GroupNormalization", (GRID, (4,), (4,)), {"num_groups": 2})
    yield Offer("LayerNormalization", (GRID, (4,), (4,)))
    yield Offer("OneHot", (GRID, integers(4), (2,)))
    yield Offer("Pad", (GRID, integers(0, 0, 1, 1, 0, 0, 1, 1)))
    yield Offer("Range", ((), (), ()))
    yield Offer("Reshape", (GRID, integers(1, -1)))
    scales = np.array([1, 1, 2, 2], np.float32)
    yield Offer("Resize", (GRID, None, scales), {"mode": "linear"})
    yield Offer("ScatterElements", (GRID, np.zeros(GRID, np.int64), GRID), {"axis": 1})
    yield Offer("ScatterND", (GRID, integers(0).reshape(1, 1), GRID))
    yield Offer("Slice", (GRID, integers(0), integers(2), integers(1), integers(1)))
    many = {"num_outputs": 2} if version >= 18 else {}
    yield Offer("Split", (GRID,), {"axis": 1, **many}, outputs=2)
    yield Offer("Squeeze", (GRID, integers(0)))
    yield Offer("Unsqueeze", (GRID, integers(0)))
    yield Offer("Tile", (GRID, integers(1, 1, 2, 2)))
    yield Offer("TopK", (GRID, integers(2)), outputs=2)
    yield Offer("Where", (GRID, GRID, GRID))


def type_names(schema: defs.OpSchema, names: Iterable[str]) -> dict[str, list[str]]:
    """Name of a type constraint → the types offered for it."""
    found: dict[str, list[str]] = {}
    for constraint in schema.type_constraints:
        if constraint.type_param_str in names:
            allowed = [t for t in TYPES if f"tensor({t})" in constraint.allowed_type_strs]
            found[constraint.type_param_str] = allowed
    return found


def element(name: str) -> int:
    """`float16` → its number in ONNX."""
    return (
        int(helper.np_dtype_to_tensor_dtype(np.dtype("float32")))
        if name == "float"
        else int(TensorProto.DataType.Value(name.upper()))
    )


def offered(offer: Offer, version: int) -> tuple[list[dict[str, str]], onnx.ModelProto]:
    """Combinations of types, and the model whose node `n` has the nth of them."""
    schema = defs.get_schema(offer.op, version, "")
    last = len(schema.inputs) - 1
    formal = [schema.inputs[min(i, last)].type_str for i in range(len(offer.inputs))]
    outputs = [
        schema.outputs[min(i, len(schema.outputs) - 1)].type_str for i in range(offer.outputs)
    ]
    variable = type_names(schema, [*formal, *outputs])
    for name, value in zip(formal, offer.inputs, strict=True):
        if isinstance(value, np.ndarray) and name in variable:
            variable[name] = [str(value.dtype).replace("float32", "float")]
    combinations = [
        dict(zip(variable, types, strict=True)) for types in product(*variable.values())
    ]
    nodes, inputs, stored = [], [], []
    for n, types in enumerate(combinations):
        names = []
        for i, (name, value) in enumerate(zip(formal, offer.inputs, strict=True)):
            if value is None:
                names.append("")
                continue
            names.append(f"x{n}.{i}")
            if isinstance(value, np.ndarray):
                stored.append(numpy_helper.from_array(value, names[-1]))
            else:
                kind = types.get(name) or name[len("tensor(") : -1]
                inputs.append(helper.make_tensor_value_info(names[-1], element(kind), value))
        attributes = dict(offer.attributes)
        if offer.op == "Cast":
            attributes["to"] = element(types[outputs[0]])
        if offer.op == "ConstantOfShape":
            made_of = element(types[outputs[0]])
            attributes["value"] = helper.make_tensor("value", made_of, [1], [1])
        made = [f"y{n}.{i}" for i in range(offer.outputs)]
        nodes.append(helper.make_node(offer.op, names, made, name=f"n{n}", **attributes))
    results = [onnx.ValueInfoProto(name=name) for node in nodes for name in node.output]
    graph = helper.make_graph(nodes, "offers", inputs, results, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
    model.ir_version = 10
    return combinations, model


def not_taken(model: onnx.ModelProto, provider: str) -> set[str] | None:
    """Names of the nodes that the provider has no kernel for; None if it was not asked: the
    model is not valid.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 0
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=[provider, "CPUExecutionProvider"]
            )
        except Exception as error:
            print(error, file=sys.stderr, flush=True)
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        file.seek(0)
        log = file.read().decode(errors="replace")
    if "Initializing session" not in log:
        return None
    marker = "kernel not found in registries for Op type: "
    return {line.split("node name: ")[1].strip() for line in log.splitlines() if marker in line}


def asked(provider: str) -> dict[str, list[Row]]:
    """Operator → what the provider takes, by offering it nodes."""
    found: dict[str, list[Row]] = {}
    seen: set[tuple[str, int]] = set()
    for version in OPSETS:
        for offer in offers(version):
            if not defs.has(offer.op, ""):
                continue
            try:
                since = defs.get_schema(offer.op, version, "").since_version
            except defs.SchemaError:
                continue
            if (offer.op, since) in seen:
                continue
            combinations, model = offered(offer, version)
            refused = not_taken(model, provider)
            if refused is None:
                print(f"{offer.op} at opset {version} could not be asked", file=sys.stderr)
                continue
            seen.add((offer.op, since))
            found.setdefault(offer.op, [])
            for n, types in enumerate(combinations):
                if f"n{n}" not in refused:
                    row = {name: frozenset({kind}) for name, kind in types.items()}
                    found[offer.op].append(((since, OPEN), row))
    return {op: rows for op, rows in found.items() if rows}


def named(provider: str) -> dict[str, list[Row]]:
    """Operator → what the provider says that it has."""
    from onnxruntime.capi import _pybind_state

    found: dict[str, list[Row]] = {}
    for kernel in _pybind_state.get_all_opkernel_def():
        if kernel.provider == provider and kernel.domain in ("", "ai.onnx"):
            types = {
                name: frozenset(k[len("tensor(") : -1] for k in kinds if k.startswith("tensor("))
                for name, kinds in kernel.type_constraints.items()
            }
            found.setdefault(kernel.op_name, []).append((kernel.version_range, types))
    return found


def merged(rows: list[Row]) -> list[Row]:
    """Fewer rows that say the same: those that differ in one constraint become one."""
    left: list[Row] = []
    for row in rows:
        if row not in left:
            left.append(row)
    while pair := next(
        ((a, b) for i, a in enumerate(left) for b in left[:i] if _differ(a, b) is not None), None
    ):
        (versions, one), (_, other) = pair
        name = _differ(*pair) or ""
        left = [row for row in left if row not in pair]
        left.append((versions, {**one, name: one[name] | other[name]}))
    return left


def _differ(a: Row, b: Row) -> str | None:
    """The one constraint that two kernels of the same versions differ in."""
    if a[0] != b[0] or a[1].keys() != b[1].keys():
        return None
    names = [name for name in a[1] if a[1][name] != b[1][name]]
    return names[0] if len(names) == 1 else None


def text(row: Row) -> str:
    """``11-21 T=float,float16``; a kernel without a last version takes its first version only."""
    (first, last), types = row
    versions = str(first) if last in (first, OPEN) else f"{first}-{last}"
    return " ".join([versions, *(f"{k}={','.join(sorted(v))}" for k, v in sorted(types.items()))])


def main() -> None:
    import onnxruntime

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("provider", choices=["cuda", "webgpu"])
    name = parser.parse_args().provider
    provider, package, read = {
        "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu", named),
        "webgpu": ("WebGpuExecutionProvider", "onnxruntime-webgpu", asked),
    }[name]
    operators = {
        op: sorted(
            map(text, merged(rows)), key=lambda row: (int(row.split("-")[0].split()[0]), row)
        )
        for op, rows in sorted(read(provider).items())
    }
    listed = {
        "provider": provider,
        "source": f"{package} {onnxruntime.__version__}, read with tools/kernels/read.py",
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "operators": operators,
    }
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
