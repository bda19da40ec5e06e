"""Damaged models: files of the zoo, mutated at random.

`compiling_mutants.py` compiles them.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

sys.path.insert(0, str(Path(__file__).parent))
from changes import FILE, NODES, TENSORS, Change, Random, pick
from zoo_files import ZooFile, manifest

SMALL = 48_000
"""Bytes of the files of the zoo that the tests mutate."""
SECONDS, BYTES = 10, 2 << 30
CHOICES: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"composite": "c3-lrp"},
    {"composite": "gradient", "outputs": ("relevance",)},
    {"composite": "epsilon-plus", "many_targets": True},
    {"optimize_for": "portable"},
    {"static": True, "composite": "epsilon-plus"},
    {"input_size": (32, 32)},
)
"""Options that mutants are compiled with."""


def flipped(data: bytes, rng: Random) -> bytes:
    broken = bytearray(data)
    for position in rng.integers(0, len(data), int(rng.integers(1, 12))):
        broken[position] = int(rng.integers(0, 256))
    return bytes(broken)


def truncated(data: bytes, rng: Random) -> bytes:
    return data[: int(len(data) * rng.random())]


def doubled(data: bytes, rng: Random) -> bytes:
    start, end = sorted(rng.integers(0, len(data), 2))
    return data[:end] + data[start:]


def on_model(change: Change) -> Callable[[bytes, Random], bytes]:
    """The change, once to three times, of a file; as often as it can be made."""

    def mutate(data: bytes, rng: Random) -> bytes:
        model = onnx.load_from_string(data)
        for _ in range(int(rng.integers(1, 4))):
            try:
                change(model, rng)
            except (ValueError, TypeError, IndexError, StopIteration):  # nothing is left to change
                break
        return model.SerializeToString()

    return mutate


def swapped_dims(model: onnx.ModelProto, rng: Random) -> None:
    tensor = pick(rng, model.graph.initializer)
    if len(tensor.dims) > 1:
        i, j = rng.integers(0, len(tensor.dims), 2)
        tensor.dims[i], tensor.dims[j] = tensor.dims[j], tensor.dims[i]


def odd_dims(model: onnx.ModelProto, rng: Random) -> None:
    tensor = pick(rng, model.graph.initializer)
    if tensor.dims:
        tensor.dims[int(rng.integers(len(tensor.dims)))] = int(rng.choice([0, -1, 1, 2**31, 2**62]))


def odd_input(model: onnx.ModelProto, rng: Random) -> None:
    shape = pick(rng, model.graph.input).type.tensor_type.shape
    if shape.dim:
        pick(rng, shape.dim).dim_value = int(rng.choice([0, -1, 1, 3, 2**20, 2**40]))


def renamed_operator(model: onnx.ModelProto, rng: Random) -> None:
    names = [
        "If",
        "Loop",
        "Conv",
        "Gemm",
        "Relu",
        "Softmax",
        "MaxPool",
        "NoSuchOp",
        "",
        "Reshape",
        "ConstantOfShape",
    ]
    pick(rng, model.graph.node).op_type = str(rng.choice(names))


def odd_attribute(model: onnx.ModelProto, rng: Random) -> None:
    node = pick(rng, model.graph.node)
    if not node.attribute:
        return
    attribute, value = pick(rng, node.attribute), int(rng.choice([0, -1, 2, 7, 10**6, 2**40]))
    if attribute.ints:
        attribute.ints[int(rng.integers(len(attribute.ints)))] = value
    elif attribute.type == onnx.AttributeProto.INT:
        attribute.i = value
    elif attribute.type == onnx.AttributeProto.FLOAT:
        attribute.f = float(rng.choice([np.nan, np.inf, -1.0, 0.0]))


def rewired(model: onnx.ModelProto, rng: Random) -> None:
    """An edge to anywhere, backwards included: cycles."""
    nodes = [node for node in model.graph.node if node.input]
    target, source = pick(rng, nodes), pick(rng, model.graph.node)
    target.input[int(rng.integers(len(target.input)))] = (
        str(pick(rng, source.output)) if source.output else ""
    )


def dropped(model: onnx.ModelProto, rng: Random) -> None:
    where = pick(rng, [model.graph.node, model.graph.initializer, model.graph.output])
    if len(where):
        del where[int(rng.integers(len(where)))]


def odd_type(model: onnx.ModelProto, rng: Random) -> None:
    pick(rng, model.graph.initializer).data_type = int(rng.choice([0, 2, 7, 8, 10, 11, 16, 99]))


def odd_shape_constant(model: onnx.ModelProto, rng: Random) -> None:
    whole = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT64]
    if whole:
        tensor = pick(rng, whole)
        values = onnx.numpy_helper.to_array(tensor).copy()
        if values.size:
            values.flat[int(rng.integers(values.size))] = int(
                rng.choice([-1, 0, 5, 2**33, -(2**40)])
            )
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


CHANGES: tuple[Change, ...] = (
    swapped_dims,
    odd_dims,
    odd_input,
    renamed_operator,
    odd_attribute,
    rewired,
    dropped,
    odd_type,
    odd_shape_constant,
    *NODES,
    *TENSORS,
    *FILE,
)
MUTATIONS: dict[str, Callable[[bytes, Random], bytes]] = {
    "flipped": flipped,
    "truncated": truncated,
    "doubled": doubled,
    **{change.__name__: on_model(change) for change in CHANGES},
}


@cache
def sources(*, small: bool) -> tuple[ZooFile, ...]:
    """The files that are mutated, in an order that mixes families."""
    files = [file for file in manifest() if not small or file.bytes <= SMALL]
    return tuple(files[int(i)] for i in np.random.default_rng(0).permutation(len(files)))


@cache
def original(name: str) -> bytes:
    return next(file for file in manifest() if file.name == name).data


@dataclass(frozen=True)
class Mutant:
    """A damaged file."""

    seed: int
    source: str
    kinds: tuple[str, ...]
    data: bytes
    options: dict[str, Any]


def mutant(seed: int, *, small: bool = True) -> Mutant:
    """The damaged file number `seed`: of one mutation, or of two."""
    rng = np.random.default_rng(seed)
    files = sources(small=small)
    source = files[seed % len(files)].name
    data, kinds = original(source), []
    for _ in range(1 if rng.random() < 0.75 else 2):
        kind = str(rng.choice(list(MUTATIONS)))
        try:
            data = MUTATIONS[kind](data, rng)
        except (ValueError, TypeError, DecodeError):  # the first mutation left no model
            break
        kinds.append(kind)
    return Mutant(seed, source, tuple(kinds), data, pick(rng, CHOICES))


def mutated(seed: int) -> bytes:
    """The bytes of the damaged file number `seed`."""
    return mutant(seed).data


def peak_memory() -> int:
    """Bytes that this program has held at most. What ``ru_maxrss`` says on Linux may be the peak of
    the process that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (one for one in status.read_text().splitlines() if one.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
