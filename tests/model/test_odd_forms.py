"""Odd but legal ways of writing a layer: each reads, and
its gradient is that of central differences in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import relative, run_onnx
from float64 import run_float64
from networks import Network, picture

from lrp_onnx.cli.verify import run_once
from lrp_onnx.compiler import compile_model
from lrp_onnx.errors import RuleError

Save = Callable[[onnx.ModelProto], Path]
Form = Callable[[Network], tuple[str, int]]
FORMS: dict[str, Form] = {}
"""Name → what appends the layer: (its output, how many channels that has)."""


def case(form: Form) -> Form:
    FORMS[form.__name__] = form
    return form


def k(n: Network, values: Any, kind: Any = np.float32) -> str:
    return n.constant(f"k{len(n.weights)}", np.asarray(values, kind))


I = np.int64  # noqa: E741


@case
def neg_axis_mean(n: Network) -> tuple[str, int]:
    y = n.conv("x", (3, 6))
    return n.node("ReduceMean", y, k(n, [-1, -2], I), keepdims=1), 6


@case
def slice_neg(n: Network) -> tuple[str, int]:
    y = n.conv("x", (3, 6))
    return n.node("Slice", y, k(n, [-4, 0], I), k(n, [2**40, -1], I), k(n, [1, -1], I)), 4


@case
def split_uneven(n: Network) -> tuple[str, int]:
    y = n.conv("x", (3, 6))
    a = n.node("Split", y, k(n, [1, 2, 3], I), axis=-3, outputs=3)
    return n.node("Concat", a + "2", a + "1", axis=1), 5


@case
def concat_same(n: Network) -> tuple[str, int]:
    y = n.conv("x", (3, 4))
    return n.node("Concat", y, y, axis=-3), 8


@case
def sum3(n: Network) -> tuple[str, int]:
    y = n.conv("x", (3, 4))
    return n.node("Sum", y, n.node("Relu", y), n.conv(y, (4, 4), (1, 1))), 4


@case
def add_self(n: Network) -> tuple[str, int]:
    y = n.conv("x", (3, 4))
    return n.node("Relu", n.node("Add", y, y)), 4


@case
def sum3_same(n: Network) -> tuple[str, int]:
    y = n.node("Relu", n.conv("x", (3, 4)))
    return n.node("Sum", y, y, n.conv(y, (4, 4), (1, 1))), 4


@case
def shared_weight(n: Network) -> tuple[str, int]:
    y = n.conv("x", (3, 4))
    y = n.conv(y, (4, 4), (1, 1), name="sh")
    return n.node("Conv", n.node("Relu", y), "sh.weight", "sh.bias"), 4


@case
def w_transposed(n: Network) -> tuple[str, int]:
    w = n.node("Transpose", k(n, n.rng.normal(size=(3, 3, 4, 3))), perm=[2, 3, 0, 1])
    return n.node("Conv", "x", w), 4


@case
def w_cast(n: Network) -> tuple[str, int]:
    return n.node(
        "Conv", "x", n.node("Cast", k(n, n.rng.normal(size=(4, 3, 3, 3)), np.float16), to=1)
    ), 4


@case
def w_dq_channel(n: Network) -> tuple[str, int]:
    w = n.node(
        "DequantizeLinear",
        k(n, n.rng.integers(-9, 9, (4, 3, 3, 3)), np.int8),
        k(n, [0.1, 0.2, 0.05, 0.3]),
        k(n, [0, 0, 0, 0], np.int8),
        axis=0,
    )
    return n.node("Conv", "x", w), 4


@case
def clip_low(n: Network) -> tuple[str, int]:
    return n.node("Clip", n.conv("x", (3, 4)), k(n, -0.2)), 4


@case
def clip_high(n: Network) -> tuple[str, int]:
    return n.node("Clip", n.conv("x", (3, 4)), "", k(n, 0.2)), 4


@case
def prelu_scalar(n: Network) -> tuple[str, int]:
    return n.node("PRelu", n.conv("x", (3, 4)), k(n, [0.3])), 4


@case
def prelu_elem(n: Network) -> tuple[str, int]:
    return n.node("PRelu", n.conv("x", (3, 4)), k(n, np.full((4, 7, 6), 0.1))), 4


@case
def avg_asym(n: Network) -> tuple[str, int]:
    return n.node(
        "AveragePool",
        n.conv("x", (3, 4)),
        kernel_shape=[3, 2],
        strides=[2, 1],
        pads=[1, 0, 0, 1],
        count_include_pad=1,
    ), 4


@case
def avg_excl(n: Network) -> tuple[str, int]:
    return n.node(
        "AveragePool", n.conv("x", (3, 4)), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 0, 1]
    ), 4


@case
def max_ceil_dil(n: Network) -> tuple[str, int]:
    return n.node(
        "MaxPool",
        n.conv("x", (3, 4)),
        kernel_shape=[2, 2],
        strides=[2, 3],
        pads=[0, 1, 1, 0],
        ceil_mode=1,
        dilations=[2, 1],
    ), 4


@case
def nested_se(n: Network) -> tuple[str, int]:
    y = n.gate(n.gate(n.conv("x", (3, 4)), 4), 4)
    return y, 4


@case
def silu_used(n: Network) -> tuple[str, int]:
    y = n.conv("x", (3, 4))
    s = n.node("Mul", y, n.node("Sigmoid", y))
    return n.node("Add", s, y), 4


@case
def silu_sig_used(n: Network) -> tuple[str, int]:
    y = n.conv("x", (3, 4))
    g = n.node("Sigmoid", y)
    return n.node("Add", n.node("Mul", y, g), g), 4


@case
def shared_fork(n: Network) -> tuple[str, int]:
    y = n.node("Relu", n.conv("x", (3, 4)))
    a = n.node("Add", n.conv(y, (4, 4), (1, 1)), y)
    b = n.node("Add", n.conv(y, (4, 4), (1, 1)), y)
    return n.node("Add", n.node("Relu", a), n.node("Relu", b)), 4


@case
def nested_block(n: Network) -> tuple[str, int]:
    y = n.node("Relu", n.conv("x", (3, 4)))
    z = n.conv(y, (4, 4), (1, 1))
    z = n.node("Relu", n.node("Add", n.conv(z, (4, 4), (3, 3), pads=[1] * 4), z))
    return n.node("Relu", n.node("Add", n.conv(z, (4, 4), (1, 1)), y)), 4


@case
def product_of_convs_gate(n: Network) -> tuple[str, int]:
    y = n.conv("x", (3, 4))
    return n.node("Mul", n.node("Tanh", n.conv(y, (4, 4), (1, 1))), n.conv(y, (4, 4), (1, 1))), 4


@case
def mul_const_left(n: Network) -> tuple[str, int]:
    return n.node("Mul", k(n, n.rng.normal(size=(4, 1, 1))), n.conv("x", (3, 4))), 4


@case
def sub_const_left(n: Network) -> tuple[str, int]:
    return n.node("Sub", k(n, n.rng.normal(size=(1, 4, 1, 1))), n.conv("x", (3, 4))), 4


@case
def div_elem(n: Network) -> tuple[str, int]:
    return n.node("Div", n.conv("x", (3, 4)), k(n, 2 + n.rng.random((1, 4, 7, 6)))), 4


@case
def chan_last_mid(n: Network) -> tuple[str, int]:
    y = n.node("Transpose", n.conv("x", (3, 4)), perm=[0, 2, 3, 1])
    y = n.node("Add", n.node("Mul", y, k(n, [1.0, 2, 3, 4])), k(n, [0.1, 0.2, 0.3, 0.4]))
    return n.node("Transpose", n.node("Relu", y), perm=[0, 3, 1, 2]), 4


@case
def pad_transpose(n: Network) -> tuple[str, int]:
    y = n.node("Transpose", n.conv("x", (3, 4)), perm=[0, 2, 3, 1])
    y = n.node("Pad", y, k(n, [0, 1, 2, 0, 0, 0, 1, 0], I))
    y = n.node("Transpose", y, perm=[0, 3, 1, 2])
    return n.conv(y, (4, 4), strides=[2, 2]), 4


@case
def pad_maxpool_signed(n: Network) -> tuple[str, int]:
    y = n.node("Pad", n.conv("x", (3, 4)), k(n, [0, 0, 1, 1, 0, 0, 1, 1], I))
    return n.node("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2]), 4


@case
def depthwise_dil(n: Network) -> tuple[str, int]:
    return n.conv(
        n.conv("x", (3, 4)), (4, 8), (3, 3), group=4, dilations=[2, 2], pads=[2, 1, 0, 2]
    ), 8


@case
def grouped_stride(n: Network) -> tuple[str, int]:
    return n.conv(
        n.conv("x", (3, 4)), (4, 8), (3, 2), group=2, strides=[3, 2], pads=[1, 0, 2, 1]
    ), 8


@case
def sqz_unsqz(n: Network) -> tuple[str, int]:
    y = n.conv("x", (3, 4))
    return n.node("Squeeze", n.node("Unsqueeze", y, k(n, [2], I)), k(n, [2], I)), 4


@case
def reshape_shuffle(n: Network) -> tuple[str, int]:
    y = n.conv("x", (3, 4))
    y = n.node("Reshape", y, k(n, [0, 2, 2, 7, 6], I))
    y = n.node("Transpose", y, perm=[0, 2, 1, 3, 4])
    return n.node("Reshape", y, k(n, [0, 4, 7, 6], I)), 4


@case
def hard_sigmoid_gate(n: Network) -> tuple[str, int]:
    y = n.conv("x", (3, 4))
    return n.gate(y, 4, "HardSigmoid", swap=True), 4


@case
def dropout(n: Network) -> tuple[str, int]:
    return n.node("Dropout", n.conv("x", (3, 4))), 4


@case
def bn_then_relu6_join(n: Network) -> tuple[str, int]:
    y = n.batch_norm(n.conv("x", (3, 4)), 4)
    return n.node(
        "Clip", n.node("Add", n.node("LeakyRelu", y, alpha=0.2), y), k(n, 0.0), k(n, 6.0)
    ), 4


@case
def reduce_sum_noaxes_kd0(n: Network) -> tuple[str, int]:
    y = n.conv("x", (3, 4))
    y = n.node("ReduceSum", y, k(n, [3], I), keepdims=0)
    return n.node("Unsqueeze", y, k(n, [3], I)), 4


@case
def pow2(n: Network) -> tuple[str, int]:
    y = n.conv("x", (3, 4))
    return n.node("Pow", y, k(n, 2.0)), 4


@case
def square(n: Network) -> tuple[str, int]:
    y = n.conv("x", (3, 4))
    return n.node("Mul", y, y), 4


def row(n: Network) -> str:
    """A convolution's output as (N, C, L)."""
    return n.node("Reshape", n.conv("x", (3, 4)), k(n, [0, 4, 42], I))


def picture_again(n: Network, y: str) -> tuple[str, int]:
    return n.node("Reshape", y, k(n, [0, 4, 1, -1], I)), 4


@case
def pad_1d(n: Network) -> tuple[str, int]:
    return picture_again(n, n.node("Pad", row(n), k(n, [0, 0, 2, 0, 0, 3], I)))


@case
def pad_conv_1d(n: Network) -> tuple[str, int]:
    y = n.node("Pad", row(n), k(n, [0, 0, 2, 0, 0, 3], I))
    return picture_again(n, n.node("Conv", y, k(n, n.rng.normal(size=(4, 4, 3)))))


def network(name: str) -> onnx.ModelProto:
    net = Network(3)
    y, channels = FORMS[name](net)
    y = net.node("Relu", net.conv(y, (channels, 5), (1, 1)))
    logits = net.dense(net.node("Flatten", net.node("GlobalAveragePool", y)), (5, 3))
    return net.model(logits, ["N", 3, 9, 8], opset=20)


@pytest.mark.parametrize("name", FORMS)
def test_the_gradient_of_an_odd_form(name: str, saved: Save) -> None:
    model = network(name)
    compiled = compile_model(
        saved(model), composite="gradient", outputs=("relevance",), runner=run_once
    ).model
    x = picture(model).astype(np.float64)
    found = run_float64(compiled, {"x": x})["relevance"]
    target = next(iter(run_float64(model, {"x": x}).values())).argmax(1)
    rng, step = np.random.default_rng(0), 1e-6
    for _ in range(5):
        v = rng.normal(size=x.shape)
        ahead, behind = (
            next(iter(run_float64(model, {"x": x + s * step * v}).values())) for s in (1, -1)
        )
        slope = ((ahead - behind) / (2 * step))[np.arange(len(x)), target]
        assert np.allclose((found * v).reshape(len(x), -1).sum(1), slope, rtol=1e-5, atol=1e-7)
    assert relative(run_onnx(compiled, {"x": x.astype(np.float32)})["relevance"], found) < 1e-4


@pytest.mark.parametrize(
    "composite", ["c3-lrp", "lrp-resnet", "epsilon-gamma-box", "preset-b", "lrp-z"]
)
@pytest.mark.parametrize("name", FORMS)
def test_relevance_through_an_odd_form(name: str, composite: str, saved: Save) -> None:
    """float32 on ONNX Runtime as in float64, and nothing that is not a number."""
    model = network(name)
    compiled = compile_model(saved(model), composite=composite).model
    x = picture(model)
    found = run_onnx(compiled, {"x": x})["heatmap"]
    assert np.isfinite(found).all() and found.any()
    assert relative(found, run_float64(compiled, {"x": x.astype(np.float64)})["heatmap"]) < 1e-3


def test_a_picture_that_is_weighted_pixel_by_pixel(
    saved: Callable[[onnx.ModelProto], Path],
) -> None:
    """A constant mask on the input: no one value a channel bounds what the first layer sees."""
    net = Network(0)
    mask = net.constant("mask", np.linspace(0, 1, 3 * 8 * 8).reshape(1, 3, 8, 8).astype(np.float32))
    y = net.node("Relu", net.conv(net.node("Mul", "x", mask), (3, 8), pads=[1] * 4))
    path = saved(
        net.model(
            net.dense(net.node("Flatten", net.node("GlobalAveragePool", y)), (8, 5)), ["N", 3, 8, 8]
        )
    )
    for composite in ("gradient", "lrp-resnet", "c3-lrp"):
        assert compile_model(path, composite=composite).contract.composite == composite
    with pytest.raises(RuleError):
        compile_model(path, composite="epsilon-gamma-box")
