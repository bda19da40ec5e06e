"""Vision transformers whose attention is one operator, in every form: the gradient against central
differences, and that all relevance is accounted for.
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

from lrp_onnx.compiled.verify import audit
from lrp_onnx.compiler import compile_model
from lrp_onnx.model.normalize.parts import MICROSOFT

Save = Callable[[onnx.ModelProto], Path]
HEADS, DEPTH, TOKENS = 4, 4, 6
WIDTH = HEADS * DEPTH
Attend = Callable[[Network, str], str]


def model_with(attend: Attend, opset: int) -> onnx.ModelProto:
    """A transformer of one block on 6×4 pixels; `attend` is its attention of (N, T, C)."""
    net = Network(0)
    y = net.conv("x", (3, WIDTH), (2, 2), strides=[2, 2])
    shape = net.constant("tokens", np.array([0, WIDTH, TOKENS]))
    y = net.node("Transpose", net.node("Reshape", y, shape), perm=[0, 2, 1])
    y = net.node("Add", net.dense(attend(net, y), (WIDTH, WIDTH), form="matmul"), y)
    y = net.node("ReduceMean", y, net.constant("mean", np.array([1])), keepdims=0)
    model = net.model(net.dense(y, (WIDTH, 3)), ["N", 3, 6, 4], classes=3)
    for entry in model.opset_import:
        entry.version = opset
    model.opset_import.append(onnx.helper.make_opsetid(MICROSOFT, 1))
    return model


def projected(net: Network, y: str, *widths: int) -> list[str]:
    return [net.dense(y, (WIDTH, width), form="matmul") for width in widths]


def standard(kv_heads: int = HEADS, *, mask: str = "", **attributes: float) -> Attend:
    """The operator of ONNX on (N, T, heads · d)."""

    def attend(net: Network, y: str) -> str:
        kv = kv_heads * DEPTH
        inputs = projected(net, y, WIDTH, kv, kv)
        if mask == "numbers":
            inputs.append(net.constant("mask", net.rng.normal(size=(TOKENS, TOKENS)).astype("f4")))
        elif mask:
            kept = net.rng.random((HEADS, TOKENS, TOKENS)) > 0.4
            inputs.append(net.constant("mask", kept | np.eye(TOKENS, dtype=bool)))
        own = {"q_num_heads": HEADS, "kv_num_heads": kv_heads} | attributes
        return net.node("Attention", *inputs, **own)

    return attend


def turned(net: Network, y: str) -> str:
    """Queries and keys after a rotary embedding."""
    angles = net.rng.random((TOKENS + 2, DEPTH // 2))
    tables = [net.constant(f.__name__, f(angles).astype("f4")) for f in (np.cos, np.sin)]
    first = net.constant("first position", np.array([1]))
    query, key, value = projected(net, y, WIDTH, WIDTH, WIDTH)
    query, key = (
        net.node("RotaryEmbedding", x, first, *tables, interleaved=pairs, domain=MICROSOFT)
        for x, pairs in ((query, 0), (key, 1))
    )
    return net.node("Attention", query, key, value, q_num_heads=HEADS, kv_num_heads=HEADS)


def normed(net: Network, y: str) -> str:
    """Queries after an RMS norm, values through a Swish."""
    query, key, value = projected(net, y, WIDTH, WIDTH, WIDTH)
    gain = net.constant("gain", net.rng.normal(1, 0.3, WIDTH).astype("f4"))
    query, value = net.node("RMSNormalization", query, gain), net.node("Swish", value, alpha=1.3)
    return net.node("Attention", query, key, value, q_num_heads=HEADS, kv_num_heads=HEADS)


def packed(net: Network, y: str) -> str:
    weight = net.constant("qkv", net.rng.normal(size=(WIDTH, 3 * WIDTH)).astype("f4") / 4)
    bias = net.constant("qkv bias", net.rng.normal(size=3 * WIDTH).astype("f4"))
    own = {"num_heads": HEADS, "unidirectional": 1, "domain": MICROSOFT}
    return net.node("Attention", y, weight, bias, **own)


def several_heads(net: Network, y: str) -> str:
    query, key, value = projected(net, y, WIDTH, WIDTH, WIDTH)
    bias = net.constant("bias", net.rng.normal(size=(1, HEADS, TOKENS, TOKENS)).astype("f4"))
    own = {"num_heads": HEADS, "domain": MICROSOFT}
    return net.node("MultiHeadAttention", query, key, value, "", "", bias, **own)


FORMS: dict[str, tuple[Attend, int]] = {
    "plain": (standard(), 23),
    "causal": (standard(is_causal=1), 24),
    "capped": (standard(softcap=0.6), 24),
    "masked": (standard(mask="truth"), 23),
    "biased": (standard(mask="numbers", scale=0.3), 24),
    "shared": (standard(2), 23),
    "shared by all, masked": (standard(1, mask="truth"), 24),
    "turned": (turned, 23),
    "normed": (normed, 24),
    "packed, causal": (packed, 18),
    "several heads": (several_heads, 20),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_is_that_of_central_differences(form: str, saved: Save) -> None:
    model = model_with(*FORMS[form])
    x = picture(model)
    made = compile_model(saved(model), composite="gradient", outputs=("relevance",)).model
    logits = model.graph.output[0].name
    assert relative(run_onnx(made, {"x": x})[logits], run_onnx(model, {"x": x})[logits]) < 1e-5
    exact = x.astype(np.float64)
    found = run_float64(made, {"x": exact})
    target = found[logits].argmax(1)
    rng, step = np.random.default_rng(0), 1e-6
    for _ in range(4):
        direction = rng.normal(size=x.shape)
        up, down = (
            run_float64(made, {"x": exact + sign * step * direction})[logits] for sign in (1, -1)
        )
        slope = ((up - down) / (2 * step))[np.arange(len(x)), target]
        expected = (found["relevance"] * direction).reshape(len(x), -1).sum(1)
        assert np.allclose(expected, slope, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("composite", ["attn-lrp", "cp-lrp-gamma", "residual-c3"])
def test_all_relevance_is_accounted_for(composite: str, form: str, saved: Save) -> None:
    model = model_with(*FORMS[form])
    made = compile_model(saved(model), composite=composite)
    found = audit(made.model, made.contract, run_onnx, pictures=picture(model), original=model)
    assert found.passed, [check for check in found.checks if check[1]]
