"""Random residual networks and transformers: the compiled gradient against finite differences of
the forward, and the ledger of every rule.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import run_onnx
from float64 import run_float64
from frozen import frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import Network, picture
from random_transformers import random_transformer

from lrp_onnx.compiled.verify import audit
from lrp_onnx.compiler import Options, compile_model
from lrp_onnx.relevance.composites.presets import COMPOSITES
from lrp_onnx.relevance.rules.linear import Epsilon, Gamma
from lrp_onnx.relevance.rules.rule import Rule, StabilizedRule

EXAMPLES = int(os.environ.get("LRP_ONNX_EXAMPLES", "300"))
"""Each network is compiled and run a few times: about 50
ms. By hand: LRP_ONNX_EXAMPLES=5000 pytest -n 2 -k random.
"""
ACTIVATIONS = ("Relu", "Relu", "Relu", "Clip", "LeakyRelu", "Silu", "Elu", "Tanh", "Gelu")


STEPS = (1e-6, 1e-8)
"""Of the central differences. Two, because between them a
unit may cross its kink; it will not do so twice.
"""


def random_network(seed: int, *, plain: bool = False) -> onnx.ModelProto:
    """A residual network of random depth, width, geometry, shortcuts,
    activations and normalisation, nodes shuffled, names gone; `plain`
    networks are piecewise linear: ReLU alone, no gates.
    """
    rng = np.random.default_rng(seed)
    net = Network(seed)
    opset = int(rng.choice([13, 17, 18, 20]))
    activation = "Relu" if plain else str(rng.choice(ACTIVATIONS))
    first = size = [int(v) for v in rng.integers(11, 24, 2)]
    width = int(rng.choice([2, 4, 6]))
    y, size = _conv(
        net,
        rng,
        "x",
        3,
        width,
        size,
        kernel=int(rng.choice([1, 3, 5, 7])),
        stride=int(rng.integers(1, 3)),
    )
    y = net.activate(activation, y)
    if rng.random() < 0.6 and min(size) > 4:
        pads = [int(p) for p in rng.integers(0, 2, 4)]
        ceil = int(rng.integers(2)) if rng.random() < 0.3 else 0
        y = net.node("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2], pads=pads, ceil_mode=ceil)
        size = [
            _pooled(size[i] + pads[i] + pads[i + 2], 3, 2, ceil, size[i] + pads[i]) for i in (0, 1)
        ]
    for _ in range(int(rng.integers(1, 4))):
        y, width, size = _block(net, rng, y, width, size, activation, gated=not plain)
        if not plain and opset >= 18 and rng.random() < 0.4:
            y = _mixed(net, rng, y, width, size)
        if rng.random() < 0.2:
            more, channels = net.activate(activation, net.conv(y, (width, 2), (1, 1))), width + 2
            y, width = (
                net.node("Concat", *((y, more) if rng.random() < 0.5 else (more, y)), axis=1),
                channels,
            )
    model = _head(net, rng, y, width, [int(rng.choice([0, 2])) or "N", 3, *first], opset)
    return _disguised(model, rng)


def _pooled(padded: int, kernel: int, stride: int, ceil: int, before: int) -> int:
    span = padded - kernel
    if not ceil:
        return span // stride + 1
    out = -(-span // stride) + 1
    return out - 1 if (out - 1) * stride >= before else out


def _conv(
    net: Network,
    rng: np.random.Generator,
    x: str,
    before: int,
    after: int,
    size: list[int],
    *,
    kernel: int,
    stride: int,
) -> tuple[str, list[int]]:
    """A convolution of random pads, dilation, groups, with or
    without bias or batch normalisation.
    """
    dilation = int(rng.choice([1, 1, 2])) if kernel > 1 else 1
    reach = dilation * (kernel - 1)
    pads = (
        [int(p) for p in rng.integers(0, reach + 1, 4)] if rng.random() < 0.4 else [reach // 2] * 4
    )
    if any(size[i] + pads[i] + pads[i + 2] <= reach for i in (0, 1)):
        pads = [reach // 2] * 4
    group = 2 if before % 2 == 0 and after % 2 == 0 and rng.random() < 0.3 else 1
    bias = bool(rng.random() < 0.5)
    y = net.conv(
        x,
        (before, after),
        (kernel, kernel),
        bias=bias,
        group=group,
        pads=pads,
        strides=[stride] * 2,
        dilations=[dilation] * 2,
    )
    out = [(size[i] + pads[i] + pads[i + 2] - reach - 1) // stride + 1 for i in (0, 1)]
    return (net.batch_norm(y, after) if rng.random() < 0.5 else y), out


def _block(
    net: Network,
    rng: np.random.Generator,
    x: str,
    width: int,
    size: list[int],
    activation: str,
    *,
    gated: bool,
) -> tuple[str, int, list[int]]:
    """Main branch of one to three convolutions; shortcut
    identity, projection, pooled projection or option A.
    """
    stride = int(rng.choice([1, 1, 2])) if min(size) > 3 else 1
    after = width * 2 if stride == 2 or rng.random() < 0.3 else width
    y, channels = x, width
    for index in range(int(rng.integers(1, 4))):
        if index:
            y = net.activate(activation, y)
        reach = 2 if rng.random() < 0.6 else 0
        y = net.conv(
            y,
            (channels, after),
            (reach + 1,) * 2,
            pads=[reach // 2] * 4,
            strides=[stride if index == 0 else 1] * 2,
        )
        y = net.batch_norm(y, after) if rng.random() < 0.5 else y
        channels = after
    if gated and rng.random() < 0.3:
        y = net.gate(
            y, after, str(rng.choice(["Sigmoid", "HardSigmoid"])), swap=bool(rng.random() < 0.5)
        )
    kind = str(rng.choice(["projection", "option-a", "pooled"]))
    if (after, stride) == (width, 1):
        skip = x
    elif kind == "option-a":
        skip = net.option_a(x, width, after, stride, str(rng.choice(["slice", "slices"])))
    elif kind == "pooled" and stride == 2 and not (size[0] % 2 or size[1] % 2):
        pooled = net.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
        skip = net.conv(pooled, (width, after), (1, 1))
    else:
        skip = net.conv(x, (width, after), (1, 1), strides=[stride] * 2)
    operands = (skip, y) if rng.random() < 0.5 else (y, skip)
    joined = net.node(str(rng.choice(["Add", "Sum"])), *operands)
    joined = net.batch_norm(joined, after) if rng.random() < 0.2 else joined
    joined = net.activate(activation, joined) if rng.random() < 0.8 else joined
    return joined, after, [(s - 1) // stride + 1 for s in size]


def _mixed(net: Network, rng: np.random.Generator, x: str, width: int, size: list[int]) -> str:
    """A layer of networks without convolutions, in the shape of its input."""

    def axes(*values: int) -> str:
        return net.constant(f"axes{len(net.weights)}", np.array(values))

    def vector(*shape: int) -> str:
        values = net.rng.normal(1, 0.3, shape).astype(np.float32)
        return net.constant(f"vector{len(net.weights)}", values)

    def mlp(y: str) -> str:
        last = net.node("Transpose", y, perm=[0, 2, 3, 1])
        last = net.node("LayerNormalization", last, vector(width), vector(width), axis=-1)
        last = net.linear(net.node("Tanh", net.linear(last, (width, 5))), (5, width))
        return net.node("Transpose", net.node("Mul", last, vector(width)), perm=[0, 3, 1, 2])

    def tokens(y: str) -> str:
        count = size[0] * size[1]
        flat = net.node("Reshape", y, axes(0, width, -1))
        return net.node("Reshape", net.linear(flat, (count, count)), axes(0, width, *size))

    def difference(y: str) -> str:
        pooled = net.node("AveragePool", y, kernel_shape=[3, 3], pads=[1] * 4)
        return net.node("Sub", pooled, y)

    def response(y: str) -> str:
        norm = net.node("ReduceL2", y, axes(2, 3))
        mean = net.node("Add", net.node("ReduceMean", norm, axes(1)), vector(1))
        return net.node("Mul", y, net.node("Div", norm, mean))

    def context(y: str) -> str:
        return net.conv(net.node("GlobalAveragePool", y), (width, width), (1, 1))

    def resized(y: str) -> str:
        up = net.deconv(y, (width, width), (2, 2), strides=[2, 2])
        half = net.constant(f"half{len(net.weights)}", np.array([1, 1, 0.5, 0.5], np.float32))
        return net.node("Resize", up, "", half, mode=str(rng.choice(["nearest", "linear"])))

    layers = (mlp, tokens, difference, response, context, resized)
    branch = layers[int(rng.integers(len(layers)))](x)
    return net.node("Add", *((x, branch) if rng.random() < 0.5 else (branch, x)))


def _head(
    net: Network, rng: np.random.Generator, y: str, width: int, shape: list[int | str], opset: int
) -> onnx.ModelProto:
    pooled = net.node("Flatten", net.node("GlobalAveragePool", y))
    logits = net.dense(pooled, (width, 5), form=str(rng.choice(["gemm", "gemm-scaled", "matmul"])))
    return net.model(logits, shape, classes=5, opset=opset)


def _disguised(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Nodes in any order and without names: recognition is by data flow."""
    nodes = list(model.graph.node)
    rng.shuffle(nodes)  # type: ignore[arg-type]
    for node in nodes:
        node.name = ""
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def tried(examples: int) -> settings:
    """The same seeds in every run, without limits of time."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("random")


@tried(EXAMPLES)
@given(seed=st.integers(0, 10**6))
def test_the_gradient_of_a_random_network(folder: Path, seed: int) -> None:
    check_gradient(random_network(seed), folder, seed)


@tried(EXAMPLES // 10)
@given(seed=st.integers(0, 10**6))
def test_the_gradient_of_a_random_transformer(folder: Path, seed: int) -> None:
    check_gradient(random_transformer(seed), folder, seed)


def check_gradient(model: onnx.ModelProto, folder: Path, seed: int) -> None:
    """⟨∇⟨s, logits⟩, v⟩ equals the central difference along
    v, in float64; and ONNX Runtime agrees in float32.
    """
    path = folder / "model.onnx"
    onnx.save(model, path)
    compiled = compile_model(path, Options(composite="gradient", outputs=("relevance",))).model
    rng = np.random.default_rng(seed)
    x, s = picture(model), rng.normal(size=(2, 5)).astype(np.float32)
    v = rng.normal(size=x.shape)
    gradient = run_float64(compiled, {"x": x, "start": s})["relevance"]
    logits = model.graph.output[0].name
    slopes = []
    for step in STEPS:
        ahead, behind = (
            run_float64(compiled, {"x": x + sign * step * v, "start": s})[logits]
            for sign in (1, -1)
        )
        slopes.append((s * (ahead - behind)).sum() / (2 * step))
    scale = np.abs(gradient * v).sum() + 1e-9
    assert min(abs((gradient * v).sum() - slope) for slope in slopes) < 1e-5 * scale
    found = run_onnx(compiled, {"x": x, "start": s})["relevance"]
    assert np.abs(found - gradient).max() <= 1e-3 * (np.abs(gradient).max() + 1e-9)


@tried(EXAMPLES // 3)
@given(seed=st.integers(0, 10**6))
def test_lrp_0_of_a_random_network_is_gradient_times_input(folder: Path, seed: int) -> None:
    """Where everything is piecewise linear, LRP-0 telescopes
    to Gradient × Input of the logit (Ancona et al. 2018).
    """
    onnx.save(random_network(seed, plain=True), folder / "model.onnx")
    x = picture(random_network(seed, plain=True)).astype(np.float64)
    maps = []
    for composite in ("lrp-z", "gradient-x-input"):
        compiled = compile_model(
            folder / "model.onnx", composite=composite, outputs=("relevance",)
        ).model
        maps.append(run_float64(compiled, {"x": x})["relevance"])
    assert np.abs(maps[0] - maps[1]).max() <= 1e-6 * (np.abs(maps[1]).max() + 1e-9)


@tried(EXAMPLES // 3)
@given(
    seed=st.integers(0, 10**6),
    composite=st.sampled_from(
        ["c3-lrp", "lrp-resnet", "epsilon-plus-flat", "preset-b", "epsilon-gamma-box"]
    ),
)
def test_the_ledger_of_a_random_network(folder: Path, seed: int, composite: str) -> None:
    check_ledger(random_network(seed), folder, composite)


@tried(EXAMPLES // 10)
@given(
    seed=st.integers(0, 10**6),
    composite=st.sampled_from(["attn-lrp", "cp-lrp-gamma", "residual-c3", "lrp-resnet"]),
)
def test_the_ledger_of_a_random_transformer(folder: Path, seed: int, composite: str) -> None:
    """Composites that bound what cancels; others multiply float32's rounding, as `verify` notes."""
    check_ledger(random_transformer(seed), folder, composite)


@pytest.fixture(scope="module")
def lrp_0() -> Iterator[None]:
    """The composites of transformers without gamma and stabilizers, as ``attn-lrp-0`` and so on."""

    def plain(rule: Rule) -> Rule:
        if isinstance(rule, Gamma):
            return Epsilon(epsilon=0.0)
        return replace(rule, epsilon=0.0) if isinstance(rule, StabilizedRule) else rule

    with pytest.MonkeyPatch.context() as patch:
        for name in ("attn-lrp", "cp-lrp-gamma"):
            known = COMPOSITES[name]
            entries = tuple((which, plain(rule)) for which, rule in known.entries)
            patch.setitem(COMPOSITES, f"{name}-0", replace(known, entries=entries))
        yield


@tried(EXAMPLES // 10)
@given(seed=st.integers(0, 10**6), composite=st.sampled_from(["attn-lrp-0", "cp-lrp-gamma-0"]))
def test_the_rules_of_a_random_transformer(
    folder: Path, lrp_0: None, seed: int, composite: str
) -> None:
    """Without stabilizers, ⟨relevance, d⟩ is the slope along x ⊙ d of the network in which all is
    constant that the rules take for constant.
    """
    check_rules(random_transformer(seed), folder, seed, composite)


def check_rules(model: onnx.ModelProto, folder: Path, seed: int, composite: str) -> None:
    onnx.save(model, folder / "model.onnx")
    compiled = compile_model(
        folder / "model.onnx", composite=composite, outputs=("relevance",)
    ).model
    x = picture(model).astype(np.float64)
    relevance = run_float64(compiled, {"x": x})["relevance"]
    twin = frozen(model, x, attention=composite == "attn-lrp-0")
    (logits,) = run_float64(twin, {"x": x}).values()
    start = np.where(logits == logits.max(1, keepdims=True), 1.0, 0.0)
    d = np.random.default_rng(seed).normal(size=x.shape)
    slopes = []
    for step in (1e-4, 1e-6):
        ahead, behind = (
            next(iter(run_float64(twin, {"x": x + sign * step * x * d}).values()))
            for sign in (1, -1)
        )
        slopes.append((start * (ahead - behind)).sum() / (2 * step))
    scale = np.abs(relevance * d).sum() + 1e-9
    assert min(abs((relevance * d).sum() - slope) for slope in slopes) < 1e-5 * scale


def check_ledger(model: onnx.ModelProto, folder: Path, composite: str) -> None:
    """Outputs unchanged, all relevance accounted for, the same alone and in a batch, no NaN, for
    every family of rules.
    """
    onnx.save(model, folder / "model.onnx")
    compiled = compile_model(folder / "model.onnx", composite=composite)
    found = audit(
        compiled.model, compiled.contract, run_onnx, pictures=picture(model), original=None
    )
    assert found.passed, [check for check in found.checks if check[1]]
