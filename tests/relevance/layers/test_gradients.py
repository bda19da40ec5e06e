"""Layers without a rule of their own: their vjp against
central differences in float64; where LRP passes through.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import relative, run_onnx
from float64 import run_float64
from networks import Network, picture

from lrp_onnx.compiler import compile_model
from lrp_onnx.errors import RuleError
from lrp_onnx.plan.functions import FUNCTIONS
from lrp_onnx.relevance.layers.activations import DERIVATIVES

Save = Callable[[onnx.ModelProto], Path]
C, H, W = 6, 5, 4
"""Shape of the tensor that the layer under test reads."""


def _plain(op: str, **attributes: object) -> Callable[[Network, str], str]:
    return lambda net, y: net.node(op, y, **attributes)


def _number(net: Network, value: float) -> str:
    return net.constant(f"number{len(net.weights)}", np.float32(value))


def _written_gelu(net: Network, y: str) -> str:
    inner = net.node("Erf", net.node("Div", y, _number(net, np.sqrt(2))))
    return net.node(
        "Mul", net.node("Mul", y, net.node("Add", inner, _number(net, 1))), _number(net, 0.5)
    )


def _written_tanh_gelu(net: Network, y: str) -> str:
    cubed = net.node("Mul", net.node("Mul", y, net.node("Mul", y, y)), _number(net, 0.044715))
    inner = net.node(
        "Tanh", net.node("Mul", net.node("Add", y, cubed), _number(net, np.sqrt(2 / np.pi)))
    )
    return net.node(
        "Mul", net.node("Mul", y, _number(net, 0.5)), net.node("Add", inner, _number(net, 1))
    )


def _written_pow_gelu(net: Network, y: str) -> str:
    cubed = net.node("Mul", net.node("Pow", y, _number(net, 3)), _number(net, 0.044715))
    inner = net.node(
        "Tanh", net.node("Mul", net.node("Add", y, cubed), _number(net, np.sqrt(2 / np.pi)))
    )
    return net.node(
        "Mul", net.node("Mul", y, net.node("Add", _number(net, 1), inner)), _number(net, 0.5)
    )


def _written_hardswish(net: Network, y: str) -> str:
    bounds = _number(net, 0), _number(net, 6)
    gate = net.node("Clip", net.node("Add", y, _number(net, 3)), *bounds)
    return net.node("Div", net.node("Mul", y, gate), _number(net, 6))


def _prelu(net: Network, y: str) -> str:
    return net.node(
        "PRelu",
        y,
        net.constant("slope", np.linspace(-0.2, 0.4, C, dtype=np.float32).reshape(C, 1, 1)),
    )


def _instance_norm(net: Network, y: str) -> str:
    vectors = [net.constant(f"in{i}", net.rng.normal(size=C).astype(np.float32)) for i in range(2)]
    return net.node("InstanceNormalization", y, *vectors, epsilon=1e-3)


def _group_norm(net: Network, y: str) -> str:
    """As exporters write it: reshape to groups, normalise
    each, reshape back, scale and shift by channel.
    """
    grouped = net.node("Reshape", y, net.constant("groups", np.array([0, 2, -1])))
    ones, zeros = (net.constant(f"gn{v}", np.full(2, v, np.float32)) for v in (1, 0))
    back = net.node(
        "Reshape",
        net.node("InstanceNormalization", grouped, ones, zeros),
        net.constant("back", np.array([0, C, H, W])),
    )
    scale, shift = (
        net.constant(f"gn.{k}", net.rng.normal(size=(C, 1, 1)).astype(np.float32)) for k in "ab"
    )
    return net.node("Add", net.node("Mul", back, scale), shift)


def _layer_norm(net: Network, y: str) -> str:
    last = net.node("Transpose", y, perm=[0, 2, 3, 1])
    scale, shift = (
        net.constant(f"ln.{k}", net.rng.normal(size=C).astype(np.float32)) for k in "ab"
    )
    return net.node(
        "Transpose", net.node("LayerNormalization", last, scale, shift, axis=-1), perm=[0, 3, 1, 2]
    )


def _written_norm(square: str, root: str, axis: int) -> Callable[[Network, str], str]:
    """A layer norm in the nodes that exporters of old opsets write."""

    def normalized(net: Network, y: str) -> str:
        centred = net.node("Sub", y, net.node("ReduceMean", y, _axes(net, axis)))
        inputs = (centred, centred) if square == "Mul" else (centred, _number(net, 2))
        variance = net.node("ReduceMean", net.node(square, *inputs), _axes(net, axis))
        shifted = net.node("Add", variance, _number(net, 1e-3))
        deviation = net.node("Sqrt", shifted)
        if root == "Pow":
            deviation = net.node("Pow", shifted, _number(net, 0.5))
        if root == "Reciprocal":
            unit = net.node("Mul", centred, net.node("Reciprocal", deviation))
        else:
            unit = net.node("Div", centred, deviation)
        shape = (C, 1, 1) if axis == 1 else (W,)
        return net.node("Add", net.node("Mul", unit, _vector(net, *shape)), _vector(net, *shape))

    return normalized


def _concat(net: Network, y: str) -> str:
    return net.node("Concat", y, net.node("Relu", net.conv(y, (C, 3), (1, 1))), y, axis=1)


def _split(net: Network, y: str) -> str:
    first = net.node("Split", y, axis=1, num_outputs=2, outputs=2)
    second = first + "1"
    return net.node("Concat", net.node("Relu", second), first, axis=1)


def _mirrored(mode: str) -> Callable[[Network, str], str]:
    return lambda net, y: net.node(
        "Pad", y, net.constant("border", np.array([0, 0, 2, 1, 0, 0, 1, 3])), mode=mode
    )


def _eca(net: Network, y: str) -> str:
    """Efficient channel attention: a 1-D convolution over the channels' means."""
    means = net.node(
        "Reshape", net.node("GlobalAveragePool", y), net.constant("row", np.array([0, 1, C]))
    )
    gate = net.node("Sigmoid", net.conv(means, (1, 1), (3,), pads=[1, 1]))
    column = net.node("Reshape", gate, net.constant("column", np.array([0, C, 1, 1])))
    return net.node(
        "Mul", y, net.node("Expand", column, net.constant("whole", np.array([1, C, H, W])))
    )


def _attention(net: Network, y: str) -> str:
    one = net.node("Sigmoid", net.conv(y, (C, 1), (1, 1)))
    return net.node("Add", net.node("Mul", y, one), y)


def _softmax_gate(net: Network, y: str) -> str:
    """Selective kernels: two branches weighed by gates that compete."""
    branches = [net.node("Relu", net.conv(y, (C, C), (1, 1))) for _ in (0, 1)]
    branches = [net.node("Unsqueeze", b, net.constant(f"one{b}", np.array([1]))) for b in branches]
    both = net.node("Concat", *branches, axis=1)
    means = net.node("GlobalAveragePool", net.conv(y, (C, 2 * C), (1, 1)))
    gates = net.node(
        "Softmax",
        net.node("Reshape", means, net.constant("gates", np.array([0, 2, C, 1, 1]))),
        axis=1,
    )
    return net.node(
        "ReduceSum", net.node("Mul", both, gates), net.constant("axis", np.array([1])), keepdims=0
    )


def _reduce_sum(net: Network, y: str) -> str:
    total = net.node("ReduceSum", y, net.constant("axes", np.array([2, 3])), keepdims=1)
    return net.node("Div", total, _number(net, H * W))


def _channel_mean(net: Network, y: str) -> str:
    return net.node("ReduceMean", y, net.constant("axes", np.array([1])), keepdims=1)


def _elementwise(net: Network, y: str) -> str:
    return net.node(
        "Mul", y, net.constant("mask", net.rng.normal(size=(1, C, H, W)).astype(np.float32))
    )


def _vector(net: Network, *shape: int) -> str:
    return net.constant(f"vector{len(net.weights)}", net.rng.normal(size=shape).astype(np.float32))


def _positive(net: Network, y: str) -> str:
    """Numbers that are far from zero."""
    return net.node("Add", net.node("Mul", y, y), _number(net, 0.3))


def _axes(net: Network, *axes: int) -> str:
    return net.constant(f"axes{len(net.weights)}", np.array(axes))


def _tokens(net: Network, y: str) -> str:
    """(N, H·W, C)"""
    flat = net.node("Reshape", y, net.constant("flat", np.array([0, C, H * W])))
    return net.node("Transpose", flat, perm=[0, 2, 1])


def _from_tokens(net: Network, y: str) -> str:
    back = net.node("Transpose", y, perm=[0, 2, 1])
    return net.node("Reshape", back, net.constant("grid", np.array([0, C, H, W])))


def _linear(net: Network, y: str, sizes: tuple[int, int]) -> str:
    product = net.node("MatMul", y, _vector(net, *sizes))
    return net.node("Add", _vector(net, sizes[1]), product)


def _mlp(net: Network, y: str) -> str:
    """A dense layer over the channels of tokens, and one over the tokens of channels, each with a
    scale of every channel, as a mixer has them.
    """
    tokens = _tokens(net, y)
    inner = _linear(net, net.node("Gelu", _linear(net, tokens, (C, 9))), (9, C))
    tokens = net.node("Add", tokens, net.node("Mul", inner, _vector(net, C)))
    mixed = _linear(net, net.node("Transpose", tokens, perm=[0, 2, 1]), (H * W, H * W))
    mixed = net.node("Transpose", mixed, perm=[0, 2, 1])
    return _from_tokens(net, net.node("Add", tokens, mixed))


def _channels_last(net: Network, y: str) -> str:
    last = net.node("Transpose", y, perm=[0, 2, 3, 1])
    return net.node("Transpose", _linear(net, last, (C, C)), perm=[0, 3, 1, 2])


def _pooled_difference(net: Network, y: str) -> str:
    """PoolFormer's mixer: the mean of the neighbours without the pixel itself."""
    pooled = net.node("AveragePool", y, kernel_shape=[3, 3], pads=[1] * 4)
    return net.node("Add", net.node("Mul", net.node("Sub", pooled, y), _vector(net, C, 1, 1)), y)


def _response_norm(net: Network, y: str) -> str:
    """ConvNeXt V2: every channel by its norm, relative to the mean norm."""
    norm = net.node("ReduceL2", y, _axes(net, 2, 3))
    mean = net.node("Add", net.node("ReduceMean", norm, _axes(net, 1)), _number(net, 1e-6))
    scaled = net.node("Mul", net.node("Mul", y, net.node("Div", norm, mean)), _vector(net, C, 1, 1))
    return net.node("Add", net.node("Add", scaled, _vector(net, C, 1, 1)), y)


def _frn(net: Network, y: str) -> str:
    mean = net.node("ReduceMean", net.node("Pow", y, _number(net, 2)), _axes(net, 2, 3))
    root = net.node("Sqrt", net.node("Add", mean, _number(net, 1e-3)))
    unit = net.node("Mul", y, net.node("Div", _number(net, 1), root))
    return net.node("Max", net.node("Mul", unit, _vector(net, C, 1, 1)), _vector(net, C, 1, 1))


def _gem(net: Network, y: str) -> str:
    powers = net.node("Pow", net.node("Clip", y, _number(net, 1e-2)), _number(net, 3))
    mean = net.node("ReduceMean", powers, _axes(net, 2, 3))
    return net.node("Mul", net.node("Pow", mean, _number(net, 1 / 3)), y)


def _unit(net: Network, y: str) -> str:
    norm = net.node("Clip", net.node("ReduceL2", y, _axes(net, 1)), _number(net, 1e-12))
    return net.node("Div", y, net.node("Expand", norm, _sizes(net)))


def _sizes(net: Network) -> str:
    return net.constant(f"sizes{len(net.weights)}", np.array([1, C, H, W]))


def _context(net: Network, y: str) -> str:
    """A global context that is added to every pixel."""
    return net.node("Add", net.conv(net.node("GlobalAveragePool", y), (C, C), (1, 1)), y)


def _cbam(net: Network, y: str) -> str:
    mean, largest = (net.node(op, y, _axes(net, 1)) for op in ("ReduceMean", "ReduceMax"))
    both = net.node("Concat", mean, largest, axis=1)
    gate = net.node("Sigmoid", net.conv(both, (2, 1), (3, 3), pads=[1] * 4))
    return net.node("Mul", y, gate)


def _resize(**attributes: object) -> Callable[[Network, str], str]:
    def resized(net: Network, y: str) -> str:
        scales = net.constant("scales", np.array([1, 1, 2.4, 1.5], np.float32))
        return net.node("Resize", y, "", scales, **attributes)

    return resized


def _resized_gate(net: Network, y: str) -> str:
    """GhostNet V2: a gate that is computed on fewer pixels."""
    gate = net.node("Sigmoid", net.conv(_shrunk(net, y), (C, C), (1, 1)))
    scales = net.constant("whole", np.array([1, 1, 1.7, 2], np.float32))
    return net.node("Mul", y, net.node("Resize", gate, "", scales, mode="nearest"))


def _shrunk(net: Network, y: str) -> str:
    scales = net.constant("scales", np.array([1, 1, 0.6, 0.5], np.float32))
    return net.node("Resize", y, "", scales, mode="nearest")


def _deconvolution(net: Network, y: str) -> str:
    weight = _vector(net, C, C // 2, 3, 2)
    up = net.node(
        "ConvTranspose", y, weight, _vector(net, C), group=2, strides=[2, 2], pads=[1, 0, 0, 1],
        output_padding=[1, 0], dilations=[1, 2],
    )  # fmt: skip
    return net.batch_norm(up, C)


def _shuffle(mode: str) -> Callable[[Network, str], str]:
    return lambda net, y: net.node(
        "DepthToSpace", net.conv(y, (C, 4 * C), (1, 1)), blocksize=2, mode=mode
    )


def _two_signals(net: Network, y: str) -> str:
    return net.node("Mul", net.conv(y, (C, C), (1, 1)), y)


def _matrices(net: Network, y: str) -> str:
    """Constant matrices from both sides, others for every channel or the same for all."""
    left = net.node("MatMul", _vector(net, 1, C, H, H), y)
    return net.node("MatMul", net.node("MatMul", left, _vector(net, C, W, W)), _vector(net, W, W))


def _windows(net: Network, y: str) -> str:
    """Windows that overlap, along both axes."""
    for axis, size in ((2, H), (4, W)):
        index = np.array([[0, 1, 2], [1, 2, 3], [-1, -2, -3]]) % size
        y = net.node("Gather", y, net.constant(f"index{axis}", index), axis=axis)
    return net.node("ReduceMean", y, _axes(net, 2, 4), keepdims=0)


def _one_behind(net: Network, y: str) -> str:
    """A row of ones: with it, a product of matrices also sums."""
    pads = net.constant("row", np.array([0, 0, 0, 0, 0, 0, 1, 0]))
    return net.node("Pad", y, pads, _number(net, 1))


def _padded_heads(net: Network, y: str) -> str:
    """Relative positions: the batch is merged with heads, and every head is padded."""
    heads = net.node("Reshape", y, net.constant("heads", np.array([-1, C // 2, H, W])))
    pads = net.constant("around", np.array([0, 0, 1, 0, 0, 0, 1, 2]))
    padded = net.node("Pad", heads, pads)
    cut = net.node(
        "Pad",
        padded,
        net.constant("behind", np.array([2, 1])),
        "",
        net.constant("rows", np.array([-2])),
    )
    return net.node("Reshape", cut, net.constant("whole", np.array([-1, C, H + 5, W + 2])))


def _positions(net: Network, y: str) -> str:
    """Positions that the file computes from the sizes of a tensor, its batch included."""
    sizes = net.node("Shape", y)
    batch, rows, columns = (
        net.node(
            "Slice",
            sizes,
            *(
                net.constant(f"{name}{i}", np.array([i + k]))
                for k, name in enumerate(("from", "to"))
            ),
        )
        for i in (0, 2, 3)
    )
    one = net.constant("one", np.array([1]))
    ones = net.node(
        "Expand", _number(net, 1), net.node("Concat", batch, one, rows, columns, axis=0)
    )
    places = net.node("CumSum", ones, net.constant("along", np.array(2)))
    first, second = _split_constant(net)
    wave = net.node("Mul", net.node("Sin", net.node("Div", places, _number(net, H))), first)
    return net.node("Add", net.node("Mul", y, second), wave)


def _split_constant(net: Network) -> tuple[str, str]:
    """Two constants, (C, 1, 1) each, that the file computes."""
    row = net.node("Gemm", _vector(net, 1, 4), _vector(net, 4, 2 * C), _vector(net, 2 * C))
    whole = net.node("Reshape", row, net.constant("halves", np.array([2 * C, 1, 1])))
    lengths = net.constant("lengths", np.array([C, C]))
    first = net.node("Split", whole, lengths, outputs=2, axis=0)
    return first, f"{first}1"


FUNCTION_CASES: dict[str, Callable[[Network, str], str]] = {
    "Abs": _plain("Abs"),
    "Celu": _plain("Celu", alpha=0.7),
    "Clip": lambda net, y: net.node("Clip", y, _number(net, -0.4), _number(net, 0.9)),
    "Elu": _plain("Elu", alpha=0.7),
    "Erf": _plain("Erf"),
    "Exp": _plain("Exp"),
    "Gelu": _plain("Gelu"),
    "GeluTanh": _plain("Gelu", approximate="tanh"),
    "HardSigmoid": _plain("HardSigmoid", alpha=0.3, beta=0.4),
    "HardSwish": _plain("HardSwish"),
    "LeakyRelu": _plain("LeakyRelu", alpha=0.2),
    "Max": lambda net, y: net.node("Max", y, _vector(net, C, 1, 1)),
    "Mish": _plain("Mish"),
    "PRelu": _prelu,
    "Pow": lambda net, y: net.node("Pow", y, _number(net, 3)),
    "Reciprocal": lambda net, y: net.node("Div", _number(net, 0.7), y),
    "Relu": _plain("Relu"),
    "Selu": _plain("Selu"),
    "Sigmoid": _plain("Sigmoid"),
    "Softplus": _plain("Softplus"),
    "Softsign": _plain("Softsign"),
    "Sqrt": lambda net, y: net.node("Sqrt", _positive(net, y)),
    "Tanh": _plain("Tanh"),
}
"""Every function of the table by its name."""
CASES: dict[str, Callable[[Network, str], str]] = FUNCTION_CASES | {
    "square": lambda net, y: net.node("Pow", y, _number(net, 2)),
    "silu": lambda net, y: net.node("Mul", y, net.node("Sigmoid", y)),
    "gelu, written out": _written_gelu,
    "gelu-tanh, written out": _written_tanh_gelu,
    "gelu-tanh with pow, written out": _written_pow_gelu,
    "hardswish, written out": _written_hardswish,
    "instance norm": _instance_norm,
    "group norm": _group_norm,
    "layer norm": _layer_norm,
    "layer norm, written out": _written_norm("Pow", "Sqrt", 1),
    "layer norm, written out with Mul": _written_norm("Mul", "Pow", -1),
    "layer norm, written out with Reciprocal": _written_norm("Mul", "Reciprocal", 1),
    "concat": _concat,
    "split": _split,
    "reflect": _mirrored("reflect"),
    "edge": _mirrored("edge"),
    "eca": _eca,
    "attention": _attention,
    "softmax gate": _softmax_gate,
    "softmax": _plain("Softmax", axis=1),
    "sum and division": _reduce_sum,
    "mean over channels": _channel_mean,
    "element-wise constant": _elementwise,
    "dense over tokens": _mlp,
    "dense over channels last": _channels_last,
    "difference": _pooled_difference,
    "difference of sizes": lambda net, y: net.node("Sub", y, _channel_mean(net, y)),
    "global response norm": _response_norm,
    "filter response norm": _frn,
    "generalized mean": _gem,
    "root": lambda net, y: net.node("Pow", _positive(net, y), _number(net, 0.3)),
    "unit length": _unit,
    "norms without their axes": lambda net, y: net.node(
        "Div",
        y,
        net.node(
            "Reshape",
            net.node("ReduceL2", y, _axes(net, 2, 3), keepdims=0),
            net.constant("column", np.array([-1, C, 1, 1])),
        ),
    ),
    "broadcast sum": _context,
    "max over channels": _cbam,
    "max over pixels": lambda net, y: net.node("Mul", net.node("GlobalMaxPool", y), y),
    "reciprocal": lambda net, y: net.node("Reciprocal", _positive(net, y)),
    "smaller": lambda net, y: net.node("Min", _number(net, 0.2), y),
    "local response norm": _plain("LRN", size=3, alpha=0.3, beta=0.6, bias=1.5),
    "local response norm of five channels": _plain("LRN", size=5, alpha=0.8, beta=0.7, bias=1.2),
    "nearest": _resize(mode="nearest", coordinate_transformation_mode="asymmetric"),
    "linear": _resize(mode="linear"),
    "linear, corners": _resize(mode="linear", coordinate_transformation_mode="align_corners"),
    "cubic": _resize(mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1),
    "shrunk": _shrunk,
    "resized gate": _resized_gate,
    "transposed convolution": _deconvolution,
    "pixel shuffle": _shuffle("CRD"),
    "depth to space": _shuffle("DCR"),
    "two signals": _two_signals,
    "constant matrices": _matrices,
    "windows that overlap": _windows,
    "a row of ones": _one_behind,
    "padded heads": _padded_heads,
    "positions from sizes": _positions,
    "space to depth": lambda net, y: net.conv(
        net.node("SpaceToDepth", _shuffle("DCR")(net, y), blocksize=2), (4 * C, C), (1, 1)
    ),
    "sum of squares": lambda net, y: net.node(
        "Mul",
        y,
        net.node(
            "Reciprocal",
            net.node(
                "Sqrt",
                net.node("Add", net.node("ReduceSumSquare", y, _axes(net, 1)), _number(net, 0.1)),
            ),
        ),
    ),
    "mirrored": lambda net, y: net.node(
        "Slice",
        y,
        *(net.constant(f"b{n}", np.array([n])) for n in (-1, -(2**62), 3)),
        net.constant("back", np.array([-1])),
    ),
}
ACTIVATIONS = [
    *(name for name in FUNCTION_CASES if name != "Sqrt"),  # its input must be made positive
    *(name for name in CASES if "written" in name and "norm" not in name),
    "silu",
    "square",
]


def network(case: str) -> onnx.ModelProto:
    """Convolution, the layer under test, convolution to four channels, mean, dense."""
    net = Network(4)
    y = CASES[case](net, net.conv("x", (3, C), (3, 3)))
    channels = {"concat": 2 * C + 3, "mean over channels": 1}.get(case, C)
    y = net.node("Relu", net.conv(y, (channels, 4), (1, 1)))
    return net.model(
        net.dense(net.node("Flatten", net.node("GlobalAveragePool", y)), (4, 3)),
        ["N", 3, H + 2, W + 2],
        opset=20,
    )


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_that_of_central_differences(case: str, saved: Save) -> None:
    model = network(case)
    x = picture(model).astype(np.float64)
    compiled = compile_model(saved(model), composite="gradient", outputs=("relevance",)).model
    found = run_float64(compiled, {"x": x})["relevance"]
    (logits,) = run_float64(model, {"x": x}).values()
    target = logits.argmax(1)
    rng, step = np.random.default_rng(0), 1e-6
    for _ in range(12):
        direction = rng.normal(size=x.shape)
        ends = [
            next(iter(run_float64(model, {"x": x + s * step * direction}).values()))
            for s in (1, -1)
        ]
        slope = ((ends[0] - ends[1]) / (2 * step))[np.arange(len(x)), target]
        expected = (found * direction).reshape(len(x), -1).sum(1)
        assert np.allclose(expected, slope, rtol=1e-5, atol=1e-7), case
    assert relative(run_onnx(compiled, {"x": x.astype(np.float32)})["relevance"], found) < 1e-4


@pytest.mark.parametrize("case", ACTIVATIONS)
def test_relevance_passes_through_activations_unchanged(case: str, saved: Save) -> None:
    """However it is written, an activation is one step of the plan, and R leaves it as it came."""
    of = compile_model(saved(network(case)), composite="epsilon-plus").plan
    steps = [type(step.kind) for step in of.steps]
    assert len(steps) == 7, steps
    assert list(of.steps)[1].kind.category == "activation"


@pytest.mark.parametrize("case", [case for case in CASES if "layer norm, written" in case])
def test_a_written_out_normalisation_is_one_step(case: str, saved: Save) -> None:
    of = compile_model(saved(network(case)), composite="epsilon-plus").plan
    kinds = [type(step.kind).__name__ for step in of.steps]
    assert kinds[:3] == ["Convolution", "Normalization", "Convolution"], kinds


def test_every_function_has_a_derivative_and_is_tested() -> None:
    assert set(FUNCTIONS) == set(DERIVATIVES) == set(FUNCTION_CASES)


def test_a_softmax_that_is_no_gate_has_no_rule(saved: Save) -> None:
    with pytest.raises(RuleError, match=r"Softmax .*has no rule in this composite"):
        compile_model(saved(network("softmax")), composite="lrp-resnet")


@pytest.mark.parametrize(
    "case",
    [
        *("concat", "split", "reflect", "edge", "eca", "attention", "softmax gate"),
        *("sum and division", "difference", "unit length", "broadcast sum", "max over channels"),
        *("nearest", "linear", "cubic", "windows that overlap", "padded heads"),
    ],
)
def test_relevance_is_conserved(case: str, saved: Save) -> None:
    """With lrp-resnet and no biases in denominators, all relevance arrives at the picture."""
    model = network(case)
    x = {"x": picture(model)}
    compiled = compile_model(saved(model), composite="lrp-resnet").model
    found = run_float64(compiled, {"x": x["x"].astype(np.float64)})
    assert np.allclose(
        found["heatmap"].sum((1, 2)), found[model.graph.output[0].name].max(1), rtol=1e-5
    )
