"""Damaged models: files mutated at random, compiled one after another in a process of their own.

    python tests/mutations.py FIRST COUNT FOLDER

Prints one JSON line: how many compiled, how many were
refused, what went wrong, the slowest, and the most memory.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).parent))
from zoo_files import manifest

from lrp_onnx.cli.verify import run_once
from lrp_onnx.compiler import compile_model
from lrp_onnx.errors import LrpOnnxError

SOURCES = (
    "core.torchscript-op20",
    "core.torchscript-op7",
    "core.dynamo-unoptimised",
    "core.tf2onnx-nhwc",
    "core.onnxruntime-extended",
    "core.torchscript-uint8-nhwc",
    "core-qdq.onnxruntime",
    "core-fp16.torchscript",
    "option-a.torchscript",
    "se.dynamo",
    "densenet.dynamo",
    "group-norm.torchscript",
)
SECONDS, BYTES = 10, 2 << 30
Random = np.random.Generator


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


def on_model(change: Callable[[onnx.ModelProto, Random], None]) -> Callable[[bytes, Random], bytes]:
    def mutate(data: bytes, rng: Random) -> bytes:
        model = onnx.load_from_string(data)
        for _ in range(int(rng.integers(1, 4))):
            change(model, rng)
        return model.SerializeToString()

    return mutate


def pick(rng: Random, items: object) -> object:
    return items[int(rng.integers(len(items)))]  # type: ignore[index, arg-type]


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


MUTATIONS: tuple[Callable[[bytes, Random], bytes], ...] = (
    flipped,
    truncated,
    doubled,
    *map(
        on_model,
        (
            swapped_dims,
            odd_dims,
            odd_input,
            renamed_operator,
            odd_attribute,
            rewired,
            dropped,
            odd_type,
            odd_shape_constant,
        ),
    ),
)


def mutated(seed: int) -> bytes:
    """The damaged file number `seed`."""
    rng = np.random.default_rng(seed)
    files = {file.name: file for file in manifest()}
    data = files[SOURCES[seed % len(SOURCES)]].data
    return MUTATIONS[int(rng.integers(len(MUTATIONS)))](data, rng)


def peak_memory() -> int:
    """Bytes that this program has held at most. What ``ru_maxrss`` says on Linux may be the peak of
    the process that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (one for one in status.read_text().splitlines() if one.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(first: int, count: int, folder: Path) -> None:
    path, compiled, refused, wrong, slowest = folder / "model.onnx", 0, 0, [], 0.0
    folder.mkdir(exist_ok=True)

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} seconds")

    signal.signal(signal.SIGALRM, stop)
    for seed in range(first, first + count):
        path.write_bytes(mutated(seed))
        begun = time.monotonic()
        signal.alarm(SECONDS)
        try:
            compile_model(path, composite="c3-lrp", runner=run_once)
            compiled += 1
        except LrpOnnxError:
            refused += 1
        except BaseException:
            wrong.append(f"{seed}: {traceback.format_exc(limit=-3)}")
        finally:
            signal.alarm(0)
        slowest = max(slowest, time.monotonic() - begun)
        if [p.name for p in folder.iterdir()] != [path.name]:
            wrong.append(f"{seed}: wrote {sorted(p.name for p in folder.iterdir())}")
    memory = peak_memory()
    print(
        json.dumps(
            {
                "compiled": compiled,
                "refused": refused,
                "wrong": wrong,
                "slowest": slowest,
                "memory": memory,
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
