"""Rules of the residual Add, and of layers without weights, against their formulas in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import relative, run_onnx
from float64 import run_float64
from networks import Network
from numpy.typing import NDArray

from lrp_onnx.compiler import Options, compile_model
from lrp_onnx.errors import RuleError
from lrp_onnx.relevance.rules.table import RULES, parse_rule

Array = NDArray[np.float64]
Save = Callable[[onnx.ModelProto], Path]
SHAPE = (2, 3, 5, 4)


def joined() -> onnx.ModelProto:
    """``x → conv → fork; fork → conv → main; main + fork → Flatten``:
    both operands are signed tensors that can be asked for.
    """
    net = Network(3)
    fork = net.conv("x", (3, 3), (1, 1), name="fork")
    main = net.conv(fork, (3, 3), (3, 3), pads=[1, 1, 1, 1], name="main")
    return net.model(
        net.node("Flatten", net.node("Add", main, fork, name="join")), ["N", *SHAPE[1:]]
    )


def stabilized(z: Array, epsilon: float = 1e-6) -> Array:
    return z + epsilon * np.where(z < 0, -1.0, 1.0)


def plus(a: Array) -> Array:
    return np.maximum(a, 0)


def ratio(h: Array, other: Array, r: Array) -> Array:
    return r * np.abs(h) / (np.abs(h) + np.abs(other))


def positive_share(h: Array, other: Array, r: Array, negative: float = 1e-9) -> Array:
    weights = [np.where(one > 0, one, -negative * one) for one in (h, other)]
    total = weights[0] + weights[1]
    return np.where(total > 0, r * weights[0] / np.where(total > 0, total, 1), 0)


TWINS: dict[str, Callable[[Array, Array, Array], tuple[Array, Array]]] = {
    "ratio": lambda m, s, r: (ratio(m, s, r), ratio(s, m, r)),
    "symmetric": lambda m, s, r: (r / 2, r / 2),
    "main-only": lambda m, s, r: (r, 0 * r),
    "skip-only": lambda m, s, r: (0 * r, r),
    "signed": lambda m, s, r: (m * r / stabilized(m + s), s * r / stabilized(m + s)),
    "signed(epsilon=0.5)": lambda m, s, r: (
        m * r / stabilized(m + s, 0.5),
        s * r / stabilized(m + s, 0.5),
    ),
    "z-plus-join": lambda m, s, r: (positive_share(m, s, r), positive_share(s, m, r)),
    "z-plus-join(negative=0)": lambda m, s, r: (
        positive_share(m, s, r, 0),
        positive_share(s, m, r, 0),
    ),
    "z-plus-join(negative=0.5)": lambda m, s, r: (
        positive_share(m, s, r, 0.5),
        positive_share(s, m, r, 0.5),
    ),
    "gradient-join": lambda m, s, r: (r, r),
}


@pytest.mark.parametrize("rule", TWINS)
def test_join_rule_equals_its_formula(rule: str, saved: Save) -> None:
    """With gradient rules at the convolutions, what reaches `fork`
    is the main share through the main branch plus the skip share.
    """
    model = joined()
    rng = np.random.default_rng(0)
    x, r = rng.normal(size=SHAPE).astype(np.float32), rng.normal(size=SHAPE).astype(np.float32)
    options = Options(composite="gradient", rules={"join": rule}, outputs=("fork.out",))
    compiled = compile_model(saved(model), options).model
    inner = run_float64(model, {"x": x}, ["main.out", "fork.out"])
    to_main, to_skip = TWINS[rule](inner["main.out"], inner["fork.out"], r.astype(np.float64))
    weight = next(
        onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "main.weight"
    )
    expected = to_skip + _conv_transpose(to_main, weight.astype(np.float64))
    feeds = {"x": x, "start": r.reshape(2, -1)}
    assert relative(run_float64(compiled, feeds)["relevance/fork.out"], expected) < 1e-6
    assert relative(run_onnx(compiled, feeds)["relevance/fork.out"], expected) < 1e-4


def _conv_transpose(r: Array, w: Array) -> Array:
    padded = np.pad(r, ((0, 0), (0, 0), (1, 1), (1, 1)))
    result = np.zeros_like(r)
    for i in range(3):
        for j in range(3):
            result += np.einsum(
                "nohw,oc->nchw",
                padded[:, :, 2 - i : 2 - i + r.shape[2], 2 - j : 2 - j + r.shape[3]],
                w[:, :, i, j],
            )
    return result


def test_every_join_rule_has_a_formula() -> None:
    tested = {text.partition("(")[0] for text in TWINS}
    elsewhere = {"gate", "gradient-product", "parts"}
    elsewhere |= {"halves", "values"}  # test_attention.py
    assert tested | elsewhere == {name for name, rule in RULES.items() if rule.serves}


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("rule", ["gate", "gradient-product"])
def test_product_rule_equals_its_formula(rule: str, swap: bool, saved: Save) -> None:
    """``z · sigmoid(mean(z))``: the signal takes all; or
    the product rule of calculus, through the gate as well.
    """
    net = Network(7)
    z = net.conv("x", (3, 3), (1, 1), name="z")
    g = net.node("Sigmoid", net.node("GlobalAveragePool", z))
    y = net.node("Mul", *((g, z) if swap else (z, g)), name="layer")
    model = net.model(net.node("Flatten", y), ["N", *SHAPE[1:]])
    rng = np.random.default_rng(0)
    x, r = rng.normal(size=SHAPE).astype(np.float32), rng.normal(size=SHAPE).astype(np.float32)
    compiled = compile_model(
        saved(model), composite="gradient", rules={"layer": rule}, outputs=("z.out",)
    ).model
    values = run_float64(model, {"x": x}, ["z.out", g])
    expected = r.astype(np.float64)
    if rule == "gradient-product":
        share = (r * values["z.out"]).sum((2, 3), keepdims=True) / (SHAPE[2] * SHAPE[3])
        expected = r * values[g] + values[g] * (1 - values[g]) * share
    feeds = {"x": x, "start": r.reshape(2, -1)}
    assert relative(run_float64(compiled, feeds)["relevance/z.out"], expected) < 1e-7
    assert relative(run_onnx(compiled, feeds)["relevance/z.out"], expected) < 1e-5


def test_ratio_of_nothing_is_nothing(saved: Save) -> None:
    """Where both operands are 0 the share is 0, not NaN."""
    compiled = compile_model(
        saved(joined()),
        Options(composite="gradient", rules={"join": "ratio"}, outputs=("fork.out",)),
    ).model
    for tensor in compiled.graph.initializer:
        if tensor.name.endswith(".bias"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros(3, np.float32), tensor.name))
    r = np.ones((2, int(np.prod(SHAPE[1:]))), np.float32)
    found = run_onnx(compiled, {"x": np.zeros(SHAPE, np.float32), "start": r})["relevance/fork.out"]
    assert np.array_equal(found, np.zeros(SHAPE))


def activated(op: str, **attributes: Any) -> onnx.ModelProto:
    net = Network(5)
    z = net.conv("x", (3, 3), (1, 1), name="z")
    bounds = [net.constant(f"bound{v}", np.float32(v)) for v in attributes.pop("bounds", ())]
    return net.model(
        net.node("Flatten", net.node(op, z, *bounds, name="layer", **attributes)), ["N", *SHAPE[1:]]
    )


ACTIVATIONS: dict[str, tuple[dict[str, Any], Callable[[Array], Array]]] = {
    "Relu": ({}, lambda z: (z > 0).astype(float)),
    "Clip": ({"bounds": (0.0, 0.8)}, lambda z: ((z > 0) & (z < 0.8)).astype(float)),
    "LeakyRelu": ({"alpha": 0.2}, lambda z: np.where(z > 0, 1.0, 0.2)),
}
"""Activation → its attributes and its derivative."""
ACTIVATION_TWINS: dict[str, Callable[[Array, Array], Array]] = {
    "pass": lambda slope, r: r,
    "gradient": lambda slope, r: r * slope,
    "guided-relu": lambda slope, r: plus(r) * slope,
    "deconv-relu": lambda slope, r: plus(r),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("rule", ACTIVATION_TWINS)
def test_activation_rule_equals_its_formula(rule: str, activation: str, saved: Save) -> None:
    attributes, slope = ACTIVATIONS[activation]
    model = activated(activation, **attributes)
    rng = np.random.default_rng(0)
    x, r = rng.normal(size=SHAPE).astype(np.float32), rng.normal(size=SHAPE).astype(np.float32)
    compiled = compile_model(
        saved(model), Options(composite="gradient", rules={"layer": rule}, outputs=("z.out",))
    ).model
    z = run_float64(model, {"x": x}, ["z.out"])["z.out"]
    feeds = {"x": x, "start": r.reshape(2, -1)}
    expected = ACTIVATION_TWINS[rule](slope(z), r.astype(np.float64))
    assert relative(run_float64(compiled, feeds)["relevance/z.out"], expected) < 1e-7
    assert relative(run_onnx(compiled, feeds)["relevance/z.out"], expected) < 1e-6


POOL = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}


def windows(size: int) -> list[range]:
    """Rows (or columns) that each 3/2/1 window sees."""
    return [range(max(0, 2 * i - 1), min(size, 2 * i + 2)) for i in range((size + 2 - 3) // 2 + 1)]


@pytest.mark.parametrize("rule", ["winner-take-all", "average(epsilon=0.25)"])
def test_max_pooling_rule_equals_its_formula(rule: str, saved: Save) -> None:
    model = activated("MaxPool", **POOL)
    rng = np.random.default_rng(0)
    x = rng.normal(size=SHAPE).astype(np.float32)
    z = run_float64(model, {"x": x}, ["z.out"])["z.out"]
    rows, columns = windows(SHAPE[2]), windows(SHAPE[3])
    r = rng.normal(size=(2, 3, len(rows), len(columns))).astype(np.float32)
    expected = np.zeros_like(z)
    for n, c, i, j in np.ndindex(r.shape):
        cells = [(n, c, a, b) for a in rows[i] for b in columns[j]]
        values = np.array([z[cell] for cell in cells])
        if rule == "winner-take-all":
            expected[cells[int(values.argmax())]] += r[n, c, i, j]
        else:
            for cell, value in zip(cells, values, strict=True):
                expected[cell] += (
                    value / len(cells) * r[n, c, i, j] / stabilized(values.mean(), 0.25)
                )
    compiled = compile_model(
        saved(model), Options(composite="gradient", rules={"layer": rule}, outputs=("z.out",))
    ).model
    feeds = {"x": x, "start": r.reshape(2, -1)}
    assert relative(run_float64(compiled, feeds)["relevance/z.out"], expected) < 1e-6
    assert relative(run_onnx(compiled, feeds)["relevance/z.out"], expected) < 1e-5


def test_max_pooling_gives_a_tie_to_the_first(saved: Save) -> None:
    compiled = compile_model(
        saved(activated("MaxPool", kernel_shape=[5, 4])),
        Options(composite="gradient", outputs=("z.out",)),
    ).model
    feeds = {"x": np.zeros(SHAPE, np.float32), "start": np.ones((2, 3), np.float32)}
    found = run_onnx(compiled, feeds)["relevance/z.out"]
    assert (found[:, :, 0, 0] == 1).all() and found.sum() == 6


@pytest.mark.parametrize("rectified", [False, True])
def test_a_positive_share_hands_on_everything(rectified: bool, saved: Save) -> None:
    """Where every operand is negative, magnitudes decide; a ReLU behind the sum lets no relevance
    come there, and the share needs no negative part.
    """
    net = Network(3)
    fork = net.conv("x", (3, 3), (1, 1), name="fork")
    main = net.conv(fork, (3, 3), (1, 1), name="main")
    total = net.node("Add", main, fork, name="join")
    after = net.node("Relu", total) if rectified else total
    last = net.conv(after, (3, 3), (1, 1), bias=False, name="last")
    model = net.model(net.node("Flatten", last), ["N", *SHAPE[1:]])
    rng = np.random.default_rng(0)
    x, r = rng.normal(size=SHAPE).astype(np.float32), rng.normal(size=(2, 60)).astype(np.float32)
    values = run_float64(model, {"x": x}, ["main.out", "fork.out"])
    assert ((values["main.out"] < 0) & (values["fork.out"] < 0)).mean() > 0.1
    rules = {"join": "z-plus-join", "last": "epsilon(epsilon=0)"}
    rules |= {"@activation": "pass"} if rectified else {}
    outputs = ("main.out", "fork.out", after)
    options = Options(composite="gradient", rules=rules, outputs=outputs)
    compiled = compile_model(saved(model), options).model
    assert any(node.op_type == "LeakyRelu" for node in compiled.graph.node) != rectified
    found = run_float64(compiled, {"x": x, "start": r})
    to_main, arriving = found["relevance/main.out"], found[f"relevance/{after}"]
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    by_main = np.einsum("nohw,oc->nchw", to_main, weights["main.weight"][:, :, 0, 0])
    to_skip = found["relevance/fork.out"] - by_main
    assert np.abs(arriving).max() > 0.1
    np.testing.assert_allclose(to_main + to_skip, arriving, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("negative", [-0.1, 1.0, 2.0])
def test_a_share_of_the_negative_is_small(negative: float) -> None:
    with pytest.raises(RuleError, match="from 0 to below 1"):
        parse_rule(f"z-plus-join(negative={negative})")
