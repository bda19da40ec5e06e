"""A small evaluator of ONNX graphs in float64, for oracles:
what a graph means, without float32's rounding.

ONNX Runtime has no double-precision convolutions on the CPU, so
the operators that compiled files use are written here in NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np
import onnx
from conftest import with_defaults
from numpy.typing import NDArray

Array = NDArray[Any]


def run_float64(
    model: onnx.ModelProto, feeds: Mapping[str, Array], outputs: list[str] | None = None
) -> dict[str, Array]:
    """Every output (or every tensor named in `outputs`) of
    `model`, all float tensors computed in float64.
    """
    values: dict[str, Array] = {"": None}  # type: ignore[dict-item]
    values |= {t.name: _double(onnx.numpy_helper.to_array(t)) for t in model.graph.initializer}
    inputs = {
        v.name: [d.dim_value or d.dim_param for d in v.type.tensor_type.shape.dim]
        for v in model.graph.input
        if v.name not in values
    }
    given = with_defaults(inputs, feeds)
    values |= {name: _double(np.asarray(value)) for name, value in given.items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        _run(model.graph, values)
    return {name: values[name] for name in outputs or [o.name for o in model.graph.output]}


def _run(graph: onnx.GraphProto, values: dict[str, Array]) -> None:
    """Compute every tensor of the graph into `values`."""
    for node in graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        results = OPERATORS[node.op_type](*(values[name] for name in node.input), **attributes)
        results = results if isinstance(results, tuple) else (results,)
        values |= dict(zip(node.output, results, strict=False))


def loop(most: Array, goes_on: Array, *states: Array, body: onnx.GraphProto) -> tuple[Array, ...]:
    """A Loop without outputs of single iterations, whose body reads its own inputs alone."""
    count = 0
    while count < most and goes_on:
        values: dict[str, Array] = {"": None}  # type: ignore[dict-item]
        values |= {t.name: _double(onnx.numpy_helper.to_array(t)) for t in body.initializer}
        inputs = (np.array(count), np.asarray(goes_on), *states)
        values |= dict(zip((v.name for v in body.input), inputs, strict=True))
        _run(body, values)
        goes_on, *states = (values[v.name] for v in body.output)  # type: ignore[assignment]
        count += 1
    return tuple(states)


def top_k(
    x: Array, k: Array, *, axis: int = -1, largest: int = 1, sorted: int = 1
) -> tuple[Array, Array]:
    """The k largest or smallest values along an axis, the first of equal ones first."""
    order = np.argsort(-x if largest else x, axis=axis, kind="stable")
    index = order.take(np.arange(int(k[0])), axis=axis)
    return np.take_along_axis(x, index, axis), index


def _double(array: Array) -> Array:
    return (
        array.astype(np.float64)
        if array.dtype.kind == "f" or array.dtype.name == "bfloat16"
        else array
    )


def _windows(
    x: Array,
    kernel: Any,
    strides: Any,
    pads: Any,
    dilations: Any,
    out: tuple[int, ...],
    fill: float,
) -> Any:
    """(kernel position, the pixels that it sees) for every
    kernel position; the pixels are (N, C, H', W'), or with one or three axes.
    """
    rank = len(kernel)
    around = [(pads[i], pads[i + rank] + kernel[i] * dilations[i]) for i in range(rank)]
    padded = np.pad(x, ((0, 0), (0, 0), *around), constant_values=fill)
    for place in product(*map(range, kernel)):
        yield place, padded[(..., *_steps(place, strides, dilations, out))]


def _steps(place: Any, strides: Any, dilations: Any, out: Any) -> tuple[slice, ...]:
    """What the kernel position `place` sees along every axis, of `out` windows."""
    firsts = [at * dilation for at, dilation in zip(place, dilations, strict=True)]
    return tuple(
        slice(first, first + (count - 1) * stride + 1, stride)
        for first, count, stride in zip(firsts, out, strides, strict=True)
    )


def _out_size(
    x: Array, kernel: Any, strides: Any, pads: Any, dilations: Any, ceil: bool = False
) -> tuple[int, ...]:
    rank = len(kernel)

    def along(i: int) -> int:
        span = x.shape[2 + i] + pads[i] + pads[i + rank] - dilations[i] * (kernel[i] - 1) - 1
        if not ceil:
            return span // strides[i] + 1
        size = -(-span // strides[i]) + 1
        return size - 1 if (size - 1) * strides[i] >= x.shape[2 + i] + pads[i] else size

    return tuple(map(along, range(rank)))


def _same_pads(x: Array, kernel: Any, strides: Any, dilations: Any, *, upper: bool) -> list[int]:
    """Pads of ``auto_pad`` SAME: as many outputs as steps in the input, the odd one at the end."""
    pads = [
        max((-(-size // step) - 1) * step + dilation * (k - 1) + 1 - size, 0)
        for size, k, step, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True)
    ]
    less, more = [pad // 2 for pad in pads], [-(-pad // 2) for pad in pads]
    return less + more if upper else more + less


def _channels(x: Array, w: Array) -> Array:
    """(N, C, …) times (O, C) → (N, O, …)."""
    return np.moveaxis(np.tensordot(x, w, axes=([1], [1])), -1, 1)


def _by_channel(b: Array, x: Array) -> Array:
    """A number for every channel, in a shape that broadcasts to `x`."""
    return b.reshape(1, -1, *(1 for _ in x.shape[2:]))


def conv(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    strides: Any = None,
    pads: Any = None,
    dilations: Any = None,
    group: int = 1,
    kernel_shape: Any = None,
    auto_pad: Any = b"NOTSET",
) -> Array:
    kernel = w.shape[2:]
    ones = (1,) * len(kernel)
    strides, dilations, pads = strides or ones, dilations or ones, pads or (0, 0) * len(kernel)
    if auto_pad in (b"SAME_UPPER", b"SAME_LOWER"):
        pads = _same_pads(x, kernel, strides, dilations, upper=auto_pad == b"SAME_UPPER")
    out = _out_size(x, kernel, strides, pads, dilations)
    parts = []
    for xs, ws in zip(np.split(x, group, 1), np.split(w, group, 0), strict=True):
        parts.append(
            sum(
                _channels(pixels, ws[(..., *place)])
                for place, pixels in _windows(xs, kernel, strides, pads, dilations, out, 0.0)
            )
        )
    y = np.concatenate(parts, 1)
    return y if b is None else y + _by_channel(b, y)


def conv_transpose(
    s: Array,
    w: Array,
    b: Array | None = None,
    *,
    strides: Any = None,
    pads: Any = None,
    dilations: Any = None,
    group: int = 1,
    output_padding: Any = None,
    kernel_shape: Any = None,
) -> Array:
    kernel, rank = w.shape[2:], w.ndim - 2
    ones, none = (1,) * rank, (0,) * rank
    strides, dilations, pads = strides or ones, dilations or ones, pads or none * 2
    more = output_padding or none
    full = [
        (s.shape[2 + i] - 1) * strides[i] + dilations[i] * (kernel[i] - 1) + 1 + more[i]
        for i in range(rank)
    ]
    parts = []
    for ss, ws in zip(np.split(s, group, 1), np.split(w, group, 0), strict=True):
        y = np.zeros((s.shape[0], w.shape[1], *full))
        for place in product(*map(range, kernel)):
            seen = _steps(place, strides, dilations, s.shape[2:])
            y[(..., *seen)] += _channels(ss, ws[(..., *place)].T)
        parts.append(y)
    cut = tuple(slice(pads[i], full[i] - pads[i + rank]) for i in range(rank))
    y = np.concatenate(parts, 1)[(..., *cut)]
    return y if b is None else y + _by_channel(b, y)


def max_pool(
    x: Array,
    *,
    kernel_shape: Any,
    strides: Any = None,
    pads: Any = None,
    dilations: Any = None,
    ceil_mode: int = 0,
    **_: Any,
) -> tuple[Array, Array]:
    ones = (1,) * len(kernel_shape)
    strides, dilations = strides or ones, dilations or ones
    pads = pads or (0, 0) * len(kernel_shape)
    out = _out_size(x, kernel_shape, strides, pads, dilations, bool(ceil_mode))
    index = np.arange(x.size).reshape(x.shape)
    best, where = np.full((*x.shape[:2], *out), -np.inf), np.zeros((*x.shape[:2], *out), np.int64)
    seen = zip(
        _windows(x, kernel_shape, strides, pads, dilations, out, -np.inf),
        _windows(index, kernel_shape, strides, pads, dilations, out, 0),
        strict=True,
    )
    for (_, pixels), (_, at) in seen:
        where = np.where(pixels > best, at, where)
        best = np.maximum(best, pixels)
    return best, where


def average_pool(
    x: Array,
    *,
    kernel_shape: Any,
    strides: Any = None,
    pads: Any = None,
    count_include_pad: int = 0,
    **_: Any,
) -> Array:
    ones = (1,) * len(kernel_shape)
    strides, pads = strides or ones, pads or (0, 0) * len(kernel_shape)
    out = _out_size(x, kernel_shape, strides, pads, ones)
    total = sum(p for _, p in _windows(x, kernel_shape, strides, pads, ones, out, 0.0))
    inside = np.ones_like(x)
    count = sum(p for _, p in _windows(inside, kernel_shape, strides, pads, ones, out, 0.0))
    return total / (np.prod(kernel_shape) if count_include_pad else count)


def batch_normalization(
    x: Array,
    gamma: Array,
    beta: Array,
    mean: Array,
    variance: Array,
    *,
    epsilon: float = 1e-5,
    **_: Any,
) -> Array:
    def shaped(v: Array) -> Array:
        return v.reshape(1, -1, *(1 for _ in x.shape[2:]))

    return (x - shaped(mean)) / np.sqrt(shaped(variance) + epsilon) * shaped(gamma) + shaped(beta)


def gemm(
    a: Array,
    b: Array,
    c: Array | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Array:
    y = alpha * (a.T if transA else a) @ (b.T if transB else b)
    return y if c is None else y + beta * c


def cast(x: Array, *, to: int) -> Array:
    """What is float32 or float64 in the graph is float64 here."""
    if to in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
        return x.astype(np.float64)
    return _double(x.astype(onnx.helper.tensor_dtype_to_np_dtype(to)))


def scatter_elements(
    data: Array, index: Array, update: Array, *, axis: int = 0, reduction: bytes = b"none"
) -> Array:
    assert reduction == b"add" and axis == 0 and data.ndim == 1
    result = data.astype(np.float64)
    np.add.at(result, index, update)
    return result


def slice_(
    x: Array, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None
) -> Array:
    cut: list[Any] = [slice(None)] * x.ndim
    for k, axis in enumerate(range(len(starts)) if axes is None else axes):
        step = 1 if steps is None else int(steps[k])
        end = int(ends[k])
        cut[int(axis)] = slice(
            int(starts[k]), None if step < 0 and end < -x.shape[int(axis)] else end, step
        )
    return x[tuple(cut)]


def pad(
    x: Array,
    pads: Array,
    value: Array | None = None,
    axes: Array | None = None,
    *,
    mode: bytes = b"constant",
) -> Array:
    half = len(pads) // 2
    widths = [(0, 0)] * x.ndim
    for i, axis in enumerate(range(half) if axes is None else axes):
        widths[int(axis)] = (int(pads[i]), int(pads[i + half]))
    if mode != b"constant":
        return np.pad(x, widths, mode.decode())
    return np.pad(x, widths, constant_values=0.0 if value is None else float(value))


def constant_of_shape(shape: Array, *, value: onnx.TensorProto | None = None) -> Array:
    number = np.zeros(1) if value is None else _double(onnx.numpy_helper.to_array(value))
    return np.full(tuple(int(size) for size in shape), number[0], number.dtype)


def reshape(x: Array, shape: Array, *, allowzero: int = 0) -> Array:
    return x.reshape(
        [x.shape[i] if size == 0 and not allowzero else int(size) for i, size in enumerate(shape)]
    )


def softmax(x: Array, *, axis: int = -1) -> Array:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def normalized(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


def instance_normalization(x: Array, scale: Array, bias: Array, *, epsilon: float = 1e-5) -> Array:
    shape = (1, -1, *(1 for _ in x.shape[2:]))
    return normalized(x, tuple(range(2, x.ndim)), epsilon) * scale.reshape(shape) + bias.reshape(
        shape
    )


def layer_normalization(
    x: Array,
    scale: Array,
    bias: Array | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    **_: Any,
) -> Array:
    y = normalized(x, tuple(range(axis % x.ndim, x.ndim)), epsilon) * scale
    return y if bias is None else y + bias


def local_response_normalization(
    x: Array, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Array:
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    padded = np.pad(x * x, ((0, 0), (before, after), (0, 0), (0, 0)))
    squares = sum(padded[:, i : i + x.shape[1]] for i in range(size))
    return x / (bias + alpha / size * squares) ** beta


def as_onnx_evaluates(op: str) -> Callable[..., Array]:
    """An operator by ONNX's own evaluator."""

    def evaluated(*inputs: Array, **attributes: Any) -> Array:
        names = ["" if value is None else f"x{i}" for i, value in enumerate(inputs)]
        given = {n: np.asarray(v) for n, v in zip(names, inputs, strict=True) if n}
        given |= {n: v.astype(np.float32) for n, v in given.items() if n != "x0"}
        node = onnx.helper.make_node(op, names, ["y"], **attributes)
        types = [
            onnx.helper.make_tensor_value_info(
                n, onnx.helper.np_dtype_to_tensor_dtype(v.dtype), v.shape
            )
            for n, v in given.items()
        ]
        graph = onnx.helper.make_graph([node], op, types, [onnx.ValueInfoProto(name="y")])
        opsets = [onnx.helper.make_opsetid("", 18)]
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
        (y,) = onnx.reference.ReferenceEvaluator(model).run(None, given)
        return np.asarray(y, np.float64)

    return evaluated


def space_to_depth(x: Array, *, blocksize: int) -> Array:
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // blocksize, blocksize, w // blocksize, blocksize)
    return blocks.transpose(0, 3, 5, 1, 2, 4).reshape(n, -1, h // blocksize, w // blocksize)


def depth_to_space(x: Array, *, blocksize: int, mode: bytes = b"DCR") -> Array:
    n, c, h, w = x.shape
    b, out = blocksize, c // blocksize**2
    if mode == b"DCR":
        y = x.reshape(n, b, b, out, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        y = x.reshape(n, out, b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return y.reshape(n, out, h * b, w * b)


def running_sum(x: Array, axis: Array, *, reverse: int = 0) -> Array:
    """CumSum, from the end where `reverse` is set."""
    turned = np.flip(x, int(axis)) if reverse else x
    total = np.asarray(turned.cumsum(int(axis)))
    return np.flip(total, int(axis)) if reverse else total


def split(
    x: Array, sizes: Array | None = None, *, axis: int = 0, num_outputs: int = 0
) -> tuple[Array, ...]:
    parts = num_outputs if sizes is None else list(np.cumsum(sizes)[:-1])
    return tuple(np.array_split(x, parts, axis))


def quantize(x: Array, scale: Array, zero: Array, **_: Any) -> Array:
    limits = np.iinfo(zero.dtype)
    return np.clip(np.rint(x / scale) + zero, limits.min, limits.max).astype(zero.dtype)


def dequantize(x: Array, scale: Array, zero: Array, *, axis: int = 1, **_: Any) -> Array:
    shape = (
        [-1 if i == axis % max(x.ndim, 1) else 1 for i in range(x.ndim)]
        if np.size(scale) > 1
        else []
    )
    return (x.astype(np.float64) - np.reshape(zero, shape)) * np.reshape(scale, shape)


def _gelu(x: Array, *, approximate: bytes = b"none") -> Array:
    if approximate == b"tanh":
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + ERF(x / np.sqrt(2)))


ERF = np.vectorize(math.erf, otypes=[np.float64])


def _reduce(function: Callable[..., Array]) -> Callable[..., Array]:
    def reduced(x: Array, axes: Array | None = None, *, keepdims: int = 1, **_: Any) -> Array:
        along = None if axes is None else tuple(int(a) for a in axes)
        return function(x, axis=along, keepdims=bool(keepdims))

    return reduced


def scatter_nd(x: Array, index: Array, updates: Array, *, reduction: Any = b"none") -> Array:
    assert reduction == b"none"
    y = x.copy()
    y[tuple(np.moveaxis(index, -1, 0))] = updates
    return y


OPERATORS: dict[str, Callable[..., Any]] = {
    "Cast": cast,
    "Celu": lambda x, *, alpha=1.0: np.where(x > 0, x, alpha * np.expm1(x / alpha)),
    "Concat": lambda *xs, axis: np.concatenate(xs, axis),
    "DepthToSpace": depth_to_space,
    "DequantizeLinear": dequantize,
    "Elu": lambda x, *, alpha=1.0: np.where(x > 0, x, alpha * np.expm1(x)),
    "Erf": lambda x: ERF(x),
    "Exp": np.exp,
    "Floor": np.floor,
    "Gather": lambda x, index, *, axis=0: x.take(index, axis),
    "Gelu": _gelu,
    "HardSwish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "InstanceNormalization": instance_normalization,
    "Loop": loop,
    "LayerNormalization": layer_normalization,
    "LRN": local_response_normalization,
    "Mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "PRelu": lambda x, slope: np.where(x > 0, x, slope * x),
    "Pow": np.power,
    "QuantizeLinear": quantize,
    "Reciprocal": np.reciprocal,
    "Resize": as_onnx_evaluates("Resize"),
    "Selu": lambda x, *, alpha=1.67326319217681884765625, gamma=1.05070102214813232421875: (
        gamma * np.where(x > 0, x, alpha * np.expm1(x))
    ),
    "Softplus": lambda x: np.log1p(np.exp(x)),
    "Cos": np.cos,
    "CumSum": running_sum,
    "GatherND": lambda x, index, **_: x[tuple(np.moveaxis(index, -1, 0))],
    "Mod": lambda x, y, **_: np.mod(x, y),
    "Not": np.logical_not,
    "Range": lambda start, end, step: np.arange(start, end, step),
    "ReduceSumSquare": _reduce(lambda x, axis, keepdims: (x * x).sum(axis, keepdims=keepdims)),
    "Sin": np.sin,
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Tile": lambda x, repeats: np.tile(x, [int(n) for n in repeats]),
    "Sqrt": np.sqrt,
    "Tanh": np.tanh,
    "TopK": top_k,
    "Unsqueeze": lambda x, axes: np.expand_dims(x, tuple(int(a) for a in axes)),
    "Abs": np.abs,
    "Add": np.add,
    "Div": np.divide,
    "Equal": np.equal,
    "Greater": np.greater,
    "Less": np.less,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Pad": pad,
    "Sub": np.subtract,
    "Where": np.where,
    "Identity": lambda x: x,
    "Sum": lambda *xs: sum(xs),
    "Relu": lambda x: np.maximum(x, 0),
    "MatMul": np.matmul,
    "Clip": lambda x, low=None, high=None: np.clip(x, low, high),
    "LeakyRelu": lambda x, *, alpha=0.01: np.where(x > 0, x, alpha * x),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "HardSigmoid": lambda x, *, alpha=0.2, beta=0.5: np.clip(alpha * x + beta, 0, 1),
    "Dropout": lambda x, *_: x,
    "ArgMax": lambda x, *, axis, keepdims=1, **_: (
        np.expand_dims(x.argmax(axis), axis) if keepdims else x.argmax(axis)
    ),
    "AveragePool": average_pool,
    "BatchNormalization": batch_normalization,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "ConstantOfShape": constant_of_shape,
    "Expand": lambda x, shape: x * np.ones(tuple(int(s) for s in shape)),
    "Flatten": lambda x, *, axis=1: x.reshape(x.shape[0], -1),
    "Gemm": gemm,
    "GlobalAveragePool": lambda x: x.mean(tuple(range(2, x.ndim)), keepdims=True),
    "GlobalLpPool": lambda x, p=2: (
        (np.abs(x) ** p).sum(tuple(range(2, x.ndim)), keepdims=True) ** (1 / p)
    ),
    "GlobalMaxPool": lambda x: x.max(tuple(range(2, x.ndim)), keepdims=True),
    "MaxPool": max_pool,
    "ReduceL2": _reduce(lambda x, axis, keepdims: np.sqrt((x * x).sum(axis, keepdims=keepdims))),
    "ReduceMax": _reduce(np.max),
    "ReduceMean": _reduce(np.mean),
    "ReduceMin": _reduce(np.min),
    "ReduceSum": _reduce(np.sum),
    "Reshape": reshape,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "Shape": lambda x, *, start=0, end=None: np.asarray(x.shape, np.int64)[start:end],
    "Squeeze": lambda x, axes=(): x.squeeze(tuple(int(a) for a in axes) or None),
    "Slice": slice_,
    "Softmax": softmax,
    "Transpose": lambda x, *, perm: x.transpose(perm),
}
