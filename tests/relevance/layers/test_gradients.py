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


FUNCTION_CASES: dict[str, Callable[[Network, str], str]] = {
    "Clip": lambda net, y: net.node("Clip", y, _number(net, -0.4), _number(net, 0.9)),
    "Elu": _plain("Elu", alpha=0.7),
    "Erf": _plain("Erf"),
    "Exp": _plain("Exp"),
    "Gelu": _plain("Gelu"),
    "GeluTanh": _plain("Gelu", approximate="tanh"),
    "HardSigmoid": _plain("HardSigmoid", alpha=0.3, beta=0.4),
    "HardSwish": _plain("HardSwish"),
    "LeakyRelu": _plain("LeakyRelu", alpha=0.2),
    "Mish": _plain("Mish"),
    "PRelu": _prelu,
    "Pow": lambda net, y: net.node("Pow", y, _number(net, 3)),
    "Relu": _plain("Relu"),
    "Sigmoid": _plain("Sigmoid"),
    "Softplus": _plain("Softplus"),
    "Softsign": _plain("Softsign"),
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
}
ACTIVATIONS = [*FUNCTION_CASES, *(name for name in CASES if "written" in name), "silu", "square"]


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


def test_every_function_has_a_derivative_and_is_tested() -> None:
    assert set(FUNCTIONS) == set(DERIVATIVES) == set(FUNCTION_CASES)


def test_a_softmax_that_is_no_gate_has_no_rule(saved: Save) -> None:
    with pytest.raises(RuleError, match=r"Softmax .*has no rule in this composite"):
        compile_model(saved(network("softmax")), composite="lrp-resnet")


@pytest.mark.parametrize(
    "case",
    ["concat", "split", "reflect", "edge", "eca", "attention", "softmax gate", "sum and division"],
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
