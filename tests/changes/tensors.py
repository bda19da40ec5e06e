"""Changes of stored tensors: values, types, forms of storage, quantisation."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from changes.drawing import HOSTILE, REAL, WHOLE, Change, Random, pick, some_tensor

TYPES = tuple(range(24))
PLACES = (
    "../secret", "link.bin", "hard.bin", "/etc/passwd", "missing.bin", "model.onnx", ".", "a/../b",
    HOSTILE, "",
)  # fmt: skip
"""Where the values of a tensor are said to lie; two of them are links to a file outside."""


def array_of(tensor: TensorProto) -> np.ndarray | None:
    try:
        return numpy_helper.to_array(tensor).copy()
    except (TypeError, ValueError, KeyError, AttributeError):
        return None


def values_changed(model: onnx.ModelProto, rng: Random) -> None:
    """Some or all of a tensor's values: zero, tiny, huge, NaN, infinite, of the other sign."""
    tensor = some_tensor(model, rng)
    values = None if tensor is None else array_of(tensor)
    if tensor is None or values is None or not values.size or values.dtype.kind not in "fiu":
        return
    if values.dtype.kind == "f":
        action = int(rng.integers(5))
        value = np.asarray(pick(rng, REAL))
        with np.errstate(all="ignore"):
            if action == 0:
                values[...] = value.astype(values.dtype)
            elif action == 1:
                values.flat[int(rng.integers(values.size))] = value.astype(values.dtype)
            elif action == 2:
                values = (values * rng.choice([1e20, 1e-20, -1, 0])).astype(values.dtype)
            else:
                values = values + rng.normal(size=values.shape).astype(values.dtype)
    else:
        limits = np.iinfo(values.dtype)
        value = min(max(int(pick(rng, WHOLE)), limits.min), limits.max)
        values.flat[int(rng.integers(values.size))] = value
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def of_another_type(model: onnx.ModelProto, rng: Random) -> None:
    """A tensor's values in another type: 4 to 64 bits, complex, text."""
    tensor = some_tensor(model, rng)
    values = None if tensor is None else array_of(tensor)
    if tensor is None or values is None or values.dtype.kind not in "fiu":
        return
    kinds = [
        np.float16, np.float64, np.int8, np.uint8, np.int64, np.int32, np.uint64, bool,
        np.complex64, object, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2,
        ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.float4_e2m1fn,
    ]  # fmt: skip
    kind = pick(rng, kinds)
    with np.errstate(all="ignore"):
        changed = values.astype(str).astype(object) if kind is object else values.astype(kind)
    tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))


def type_number(model: onnx.ModelProto, rng: Random) -> None:
    """The stated type alone."""
    tensor = some_tensor(model, rng)
    if tensor is not None:
        tensor.data_type = int(pick(rng, (*TYPES, 99, 2**30)))


def stored_otherwise(model: onnx.ModelProto, rng: Random) -> None:
    """Typed fields in the place of bytes: right, too few, too many, of another type, both."""
    tensor = some_tensor(model, rng)
    values = None if tensor is None else array_of(tensor)
    if tensor is None or values is None or values.dtype.kind not in "fiu":
        return
    action = int(rng.integers(8))
    numbers = values.astype(np.float64).reshape(-1).tolist()
    if action == 0 and values.dtype == np.float32:
        tensor.ClearField("raw_data")
        del tensor.float_data[:]
        tensor.float_data.extend(numbers)
    elif action == 1:
        tensor.ClearField("raw_data")
        tensor.double_data.extend(numbers)
    elif action == 2:
        tensor.float_data.extend(numbers[:3])
    elif action == 3:
        tensor.ClearField("raw_data")
        tensor.int32_data.extend([0] * values.size)
    elif action == 4:
        tensor.raw_data = tensor.raw_data[: int(rng.integers(len(tensor.raw_data) + 1))]
    elif action == 5:
        tensor.raw_data = tensor.raw_data + b"\0" * int(pick(rng, (1, 4, 1000)))
    elif action == 6:
        tensor.ClearField("raw_data")
        tensor.string_data.extend([b"1"] * values.size)
    else:
        tensor.segment.begin, tensor.segment.end = 0, int(pick(rng, (0, 1, 2**40)))


def dims_changed(model: onnx.ModelProto, rng: Random) -> None:
    """Another shape of as many elements, or a shape of none, too many, or very many axes."""
    tensor = some_tensor(model, rng)
    if tensor is None:
        return
    count = int(np.prod([max(one, 0) for one in tensor.dims], dtype=object) or 0)
    shapes = [
        [count], [1, count], [count, 1, 1, 1], [], [0], [count, 0], [1] * 9 + [count], [1] * 200,
        [-1], [-1, -count], [2**62, 4], [2**31, 2**31, 4], [2**63 - 1], [1, *tensor.dims],
        [*tensor.dims, 1], list(reversed(tensor.dims)),
    ]  # fmt: skip
    shape = pick(rng, shapes)
    del tensor.dims[:]
    tensor.dims.extend(shape)


def sparse(model: onnx.ModelProto, rng: Random) -> None:
    """An initializer stored sparsely: rightly, or with indices that lie."""
    dense = [t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and t.dims]
    if not dense:
        return
    tensor = pick(rng, dense)
    values = array_of(tensor)
    if values is None:
        return
    flat = values.reshape(-1)
    places = np.flatnonzero(flat)[: int(rng.integers(1, 50))].astype(np.int64)
    indices = places + int(rng.choice([0, 0, 10**6, -(10**6)]))
    one = helper.make_sparse_tensor(
        numpy_helper.from_array(flat[places], tensor.name),
        numpy_helper.from_array(indices, ""),
        [int(size) for size in (tensor.dims if rng.random() < 0.7 else [2**40])],
    )
    if rng.random() < 0.8:
        model.graph.initializer.remove(tensor)
    model.graph.sparse_initializer.append(one)


def external(model: onnx.ModelProto, rng: Random) -> None:
    """A tensor in another file, outside the folder too, with entries that lie."""
    tensor = some_tensor(model, rng)
    if tensor is None:
        return
    if rng.random() < 0.8:
        tensor.ClearField("raw_data")
    if rng.random() < 0.9:
        tensor.data_location = TensorProto.EXTERNAL
    if rng.random() < 0.9:
        tensor.external_data.add(key="location", value=str(rng.choice(PLACES)))
    for key in ("offset", "length", "checksum", "basepath", "location", HOSTILE):
        if rng.random() < 0.3:
            value = str(rng.choice(["0", "-1", "x", "", str(2**70), "1e3", "../secret", "²"]))
            tensor.external_data.add(key=key, value=value)


def quantised_wrongly(model: onnx.ModelProto, rng: Random) -> None:
    """Scales and zero points: zero, negative, not finite, of other lengths, types or axes."""
    nodes = [n for n in model.graph.node if "Linear" in n.op_type and len(n.input) > 1]
    if not nodes:
        quantised_and_back(model, rng)
        return
    node, action = pick(rng, nodes), int(rng.integers(5))
    wanted = set(node.input[1:])
    tensors = [t for t in model.graph.initializer if t.name in wanted]
    if action == 0:
        name = str(rng.choice(["axis", "block_size", "saturate", "output_dtype", "precision"]))
        kept = [one for one in node.attribute if one.name != name]
        del node.attribute[:]
        value = int(rng.choice([-9, -1, 0, 1, 2, 9, 32, 2**40]))
        node.attribute.extend([*kept, helper.make_attribute(name, value)])
    elif action == 1 and len(node.input) > 2:
        del node.input[-1]
    elif tensors:
        tensor = pick(rng, tensors)
        values = array_of(tensor)
        if values is None or not values.size:
            return
        if action == 2:
            values = np.repeat(values.reshape(-1)[:1], int(rng.choice([0, 1, 2, 3, 16, 1000])))
        elif values.dtype.kind == "f":
            values = np.full_like(values, pick(rng, REAL))
        elif rng.random() < 0.5:
            values = values.astype(rng.choice([np.int8, np.uint8, np.int16, np.int32, np.float32]))
        else:
            values = np.full_like(values, np.iinfo(values.dtype).max)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def quantised_and_back(model: onnx.ModelProto, rng: Random) -> None:
    """A pair of QuantizeLinear and DequantizeLinear on a weight's or activation's way."""
    nodes = [node for node in model.graph.node if node.input]
    node = pick(rng, nodes)
    index = int(rng.integers(len(node.input)))
    source = node.input[index]
    if not source:
        return
    scale = np.float32(pick(rng, (0.05, 0.05, 0.05, 0.0, -0.1, 1e-45, 1e30, np.nan)))
    zero = np.zeros((), pick(rng, (np.int8, np.uint8, np.int16, np.int32)))
    fresh = f"quantised_{int(rng.integers(10**9))}"
    for name, value in (("scale", scale), ("zero", zero)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value), f"{fresh}_{name}"))
    axis = {"axis": int(rng.integers(-2, 5))} if rng.random() < 0.3 else {}
    rest = [f"{fresh}_scale", f"{fresh}_zero"]
    pair = [
        helper.make_node("QuantizeLinear", [source, *rest], [f"{fresh}_q"], **axis),
        helper.make_node("DequantizeLinear", [f"{fresh}_q", *rest], [fresh], **axis),
    ]
    place = next(i for i, one in enumerate(model.graph.node) if one is node)
    node.input[index] = fresh
    for one in reversed(pair):
        model.graph.node.insert(place, one)


def tensor_names(model: onnx.ModelProto, rng: Random) -> None:
    """Two initializers of one name, or of none."""
    if len(model.graph.initializer) < 2:
        return
    one, other = pick(rng, model.graph.initializer), pick(rng, model.graph.initializer)
    one.name = str(rng.choice([other.name, other.name, "", HOSTILE]))


def shared(model: onnx.ModelProto, rng: Random) -> None:
    """A tensor of one node read by another in the place of its own."""
    kept = {tensor.name for tensor in model.graph.initializer}
    edges = [(n, i) for n in model.graph.node for i, name in enumerate(n.input) if name in kept]
    if edges:
        (node, index), (other, place) = pick(rng, edges), pick(rng, edges)
        node.input[index] = other.input[place]


TENSORS: tuple[Change, ...] = (
    values_changed,
    of_another_type,
    type_number,
    stored_otherwise,
    dims_changed,
    sparse,
    external,
    quantised_wrongly,
    quantised_and_back,
    tensor_names,
    shared,
)
