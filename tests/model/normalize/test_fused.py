"""Fused operators: what they are split into computes what ONNX Runtime computes for them."""

from __future__ import annotations

from collections.abc import Callable
from math import erf
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import relative, run_onnx
from networks import Network, picture
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lrp_onnx.compiled.unchanged import SPLIT_STANDARD
from lrp_onnx.errors import UnsupportedModelError
from lrp_onnx.model.canonicalize import READERS
from lrp_onnx.model.gate import SPLIT_OPERATORS, SPLIT_QUANTISED
from lrp_onnx.model.load import normalise
from lrp_onnx.model.normalize.parts import MICROSOFT, SPLITS, called

T, S, H, D = 5, 7, 4, 6
"""Positions of queries and of keys, heads, channels of a head."""
C = H * D
Array = NDArray[Any]
Case = tuple[str, dict[str, list[Any]], dict[int, Array], dict[str, Any]]
"""Operator, shapes of what depends on the picture, constants by slot, attributes."""
RNG = np.random.default_rng(0)


def normal(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def tokens(*widths: int, lengths: tuple[int, ...] = (T, S, S)) -> dict[str, list[Any]]:
    return {name: ["N", length, w] for name, length, w in zip("qkv", lengths, widths, strict=False)}


FLAT = tokens(C, C, C)
APART = {"q": ["N", H, T, D], "k": ["N", H, S, D], "v": ["N", H, S, D]}
SHARED = {"q": ["N", H, T, D], "k": ["N", 2, S, D], "v": ["N", 2, S, 3]}
SHARED_FLAT = tokens(C, 2 * D, 6)
EVERY, FEWER = {"q_num_heads": H, "kv_num_heads": H}, {"q_num_heads": H, "kv_num_heads": 2}
KEPT = RNG.random((H, T, S)) > 0.3
KEPT[:, :, 0] = True
ANGLES, POSITIONS = RNG.random((2, 9, D // 2)).astype(np.float32), np.arange(T)[None] + 2
TURNED = {1: ANGLES[0], 2: ANGLES[1], 3: POSITIONS}
ONE, PAIRS = {"x": [1, H, T, D]}, {"interleaved": 1}
TOKENS, PICTURES = tokens(C), {"x": ["N", 6, 5, 4]}

STANDARD: dict[str, Case] = {
    "attention": ("Attention", APART, {}, {}),
    "flat": ("Attention", FLAT, {}, EVERY),
    "scaled": ("Attention", APART, {}, {"scale": 0.3}),
    "causal": ("Attention", APART, {}, {"is_causal": 1}),
    "capped": ("Attention", APART, {}, {"softcap": 0.7}),
    "biased": ("Attention", FLAT, {3: normal(T, S)}, EVERY),
    "masked": ("Attention", APART, {3: KEPT[0]}, {}),
    "masked by heads": ("Attention", FLAT, {3: KEPT[None]}, EVERY),
    "masked, causal": ("Attention", APART, {3: KEPT[0]}, {"is_causal": 1}),
    "biased, capped": ("Attention", APART, {3: normal(T, S)}, {"softcap": 0.7}),
    "shared": ("Attention", SHARED, {}, {}),
    "shared, flat": ("Attention", SHARED_FLAT, {}, FEWER),
    "shared, masked": ("Attention", SHARED_FLAT, {3: KEPT[0]}, FEWER),
    "softmax in float": ("Attention", APART, {}, {"softmax_precision": TensorProto.FLOAT}),
    "rotary": ("RotaryEmbedding", ONE, TURNED, {}),
    "rotary, pairs": ("RotaryEmbedding", ONE, TURNED, PAIRS),
    "rotary, flat": ("RotaryEmbedding", {"x": [1, T, C]}, TURNED, {"num_heads": H}),
    "rotary, some channels": (
        "RotaryEmbedding",
        ONE,
        {slot: v[..., :2] if v.dtype.kind == "f" else v for slot, v in TURNED.items()},
        {"rotary_embedding_dim": 4},
    ),
    "rotary of all positions": (
        "RotaryEmbedding",
        ONE,
        {1: ANGLES[:1, :T], 2: ANGLES[1:, :T]},
        PAIRS,
    ),
    "rms": ("RMSNormalization", TOKENS, {1: normal(C)}, {"epsilon": 1e-3}),
    "rms over two axes": ("RMSNormalization", TOKENS, {1: normal(T, C)}, {"axis": 1}),
    "swish": ("Swish", TOKENS, {}, {"alpha": 1.3}),
    "group norm": (
        "GroupNormalization",
        PICTURES,
        {1: normal(6), 2: normal(6)},
        {"num_groups": 3},
    ),
}
WIDE, BIAS = normal(C, 3 * C) / 5, normal(3 * C)
NUMBERS = (RNG.random((2, S)) > 0.4).astype(np.int32)
NUMBERS[:, 0] = 1
OWN = {"num_heads": H}
ONES = {0: normal(C), 1: normal(C)}
GROUPS = {"num_heads": H, "kv_num_heads": 2}
LENGTHS = {5: np.full(1, T - 1, np.int32), 6: np.array(T, np.int32)}
ALONE = {n: [1, *shape[1:]] for n, shape in tokens(64, 32, 32, lengths=(T,) * 3).items()}
WINDOW = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 1]}
FUSED: dict[str, Case] = {
    "attention": ("Attention", TOKENS, {1: WIDE, 2: BIAS}, OWN),
    "attention, causal": ("Attention", TOKENS, {1: WIDE, 2: BIAS}, OWN | {"unidirectional": 1}),
    "attention, scaled": ("Attention", TOKENS, {1: WIDE, 2: BIAS}, OWN | {"scale": 0.2}),
    "attention, narrow values": (
        "Attention",
        TOKENS,
        {1: WIDE[:, : 2 * C + 8], 2: BIAS[: 2 * C + 8]},
        OWN | {"qkv_hidden_sizes": [C, C, 8]},
    ),
    "attention, masked": (
        "Attention",
        {"q": [2, S, C]},
        {1: WIDE, 2: BIAS, 3: NUMBERS},
        OWN | {"mask_filter_value": -3.0},
    ),
    "attention, biased": ("Attention", TOKENS, {1: WIDE, 2: BIAS, 5: normal(1, H, T, T)}, OWN),
    "heads": ("MultiHeadAttention", FLAT, {}, OWN),
    "heads, projected": ("MultiHeadAttention", FLAT, {3: BIAS}, OWN | {"scale": 0.4}),
    "heads, narrow values": (
        "MultiHeadAttention",
        tokens(C, C, 8),
        {3: BIAS[: 2 * C + 8]},
        OWN,
    ),
    "heads, apart": ("MultiHeadAttention", FLAT | {n: APART[n] for n in "kv"}, {}, OWN),
    "heads, masked": (
        "MultiHeadAttention",
        {name: [2, *shape[1:]] for name, shape in FLAT.items()},
        {4: NUMBERS},
        OWN,
    ),
    "heads, biased": ("MultiHeadAttention", FLAT, {5: normal(1, 1, T, S)}, OWN),
    "heads, causal": (
        "MultiHeadAttention",
        tokens(C, C, C, lengths=(T,) * 3),
        {},
        OWN | {"unidirectional": 1},
    ),
    "groups": ("GroupQueryAttention", ALONE, LENGTHS, GROUPS),
    "groups, turned": (
        "GroupQueryAttention",
        ALONE,
        LENGTHS | {7: normal(9, 8), 8: normal(9, 8)},
        GROUPS | {"do_rotary": 1, "softcap": 2.0},
    ),
    "rotary": (
        "RotaryEmbedding",
        {"x": [1, T, C]},
        {1: np.array([2]), 2: ANGLES[0], 3: ANGLES[1]},
        {},
    ),
    "rotary, pairs": (
        "RotaryEmbedding",
        ONE,
        {1: POSITIONS, 2: ANGLES[0], 3: ANGLES[1]},
        PAIRS,
    ),
    "gelu": ("Gelu", TOKENS, {}, {}),
    "bias gelu": ("BiasGelu", TOKENS, {1: normal(C)}, {}),
    "fast gelu": ("FastGelu", TOKENS, {}, {}),
    "fast gelu, biased": ("FastGelu", TOKENS, {1: normal(C)}, {}),
    "quick gelu": ("QuickGelu", TOKENS, {}, {}),
    "silu": ("QuickGelu", TOKENS, {}, {"alpha": 1.0}),
    "gemm": (
        "FusedGemm",
        {"x": ["N", C]},
        {1: normal(8, C), 2: normal(8)},
        {"transB": 1, "activation": "LeakyRelu", "activation_alpha": 0.2, "alpha": 0.5},
    ),
    "gemm, sigmoid": ("FusedGemm", {"x": ["N", C]}, {1: normal(C, 8)}, {"activation": "Sigmoid"}),
    "matmul": ("FusedMatMul", {"q": APART["q"], "k": APART["k"]}, {}, {"transB": 1, "alpha": 0.4}),
    "matmul, turned": ("FusedMatMul", {"q": ["N", D, T], "k": ["N", D, S]}, {}, {"transA": 1}),
    "matmul, turned batches": (
        "FusedMatMul",
        {"q": [T, "N", H, D], "k": [S, "N", H, D]},
        {},
        {"transBatchA": 1, "transBatchB": 1, "transB": 1},
    ),
    "skip": ("SkipLayerNormalization", tokens(C, C, lengths=(T, T)), {2: normal(C)}, {}),
    "skip, biased": (
        "SkipLayerNormalization",
        tokens(C, C, lengths=(T, T)),
        {2: normal(C), 3: normal(C), 4: normal(C)},
        {"epsilon": 1e-3},
    ),
    "skip, constant": (
        "SkipLayerNormalization",
        TOKENS,
        {1: normal(T, C), 2: normal(C), 3: normal(C)},
        {},
    ),
    "skip, rms": (
        "SkipSimplifiedLayerNormalization",
        tokens(C, C, lengths=(T, T)),
        {2: normal(C), 3: normal(C)},
        {},
    ),
}
RUNTIME: dict[str, Case] = {
    "layer norm": ("LayerNormalization", TOKENS, {1: normal(C), 2: normal(C)}, {"axis": -1}),
    "rms norm": ("SimplifiedLayerNormalization", TOKENS, {1: normal(C)}, {"axis": -1}),
}
"""What ONNX Runtime's optimiser writes into files of opset 13, as if ONNX had it."""


def single(case: Case, *, domain: str, opset: int, outputs: int = 1) -> onnx.ModelProto:
    """A model of one node."""
    operator, shapes, constants, attributes = case
    slots = [""] * max([*(slot + 1 for slot in constants), len(shapes) + len(constants)])
    for slot in constants:
        slots[slot] = f"c{slot}"
    free = [slot for slot in range(len(slots)) if slot not in constants]
    for name, slot in zip(shapes, free, strict=False):
        slots[slot] = name
    named = [f"y{index}" for index in range(outputs)]
    node = helper.make_node(operator, slots, named, "fused", domain=domain, **attributes)
    floats, rank = TensorProto.FLOAT, len(next(iter(shapes.values())))
    ranks = [rank] + [4 if operator == "Attention" else rank] * (outputs - 1)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(name, floats, shape) for name, shape in shapes.items()],
        [
            helper.make_tensor_value_info(name, floats, [f"{name}.{axis}" for axis in range(rank)])
            for name, rank in zip(named, ranks, strict=True)
        ],
        [numpy_helper.from_array(v, f"c{slot}") for slot, v in constants.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def compared(model: onnx.ModelProto) -> onnx.ModelProto:
    """The normalised model, which computes the same as `model`."""
    graph = normalise(model, "model")
    assert not any(called(node) in SPLITS and node.domain for node in graph.nodes)
    rng = np.random.default_rng(1)
    feeds = {
        value.name: rng.normal(
            size=[dim.dim_value or 2 for dim in value.type.tensor_type.shape.dim]
        ).astype(np.float32)
        for value in model.graph.input
    }
    split = ir.to_proto(graph.model)
    expected, found = (run_onnx(m, feeds, optimize=False) for m in (model, split))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert relative(found[name], value) < 2e-6, name
    assert any("fused operators were split" in note for note in graph.notes)
    assert [entry.domain for entry in split.opset_import] == [""]
    return split


@pytest.mark.parametrize("opset", [23, 24])
@pytest.mark.parametrize("name", STANDARD)
def test_operators_of_later_opsets(name: str, opset: int) -> None:
    if name == "swish":
        opset = 24
    split = compared(single(STANDARD[name], domain="", opset=opset))
    assert {node.op_type for node in split.graph.node} <= READERS.keys()


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("name", FUSED)
def test_operators_of_the_runtime(name: str, opset: int) -> None:
    split = compared(single(FUSED[name], domain=MICROSOFT, opset=opset))
    assert {node.op_type for node in split.graph.node} <= READERS.keys()


@pytest.mark.parametrize("name", RUNTIME)
def test_operators_that_the_runtime_writes_as_standard(name: str) -> None:
    compared(single(RUNTIME[name], domain="", opset=13))


@pytest.mark.parametrize("mode", range(4))
def test_the_scores_of_attention(mode: int) -> None:
    attributes = {"qk_matmul_output_mode": mode, "softcap": 0.8, **EVERY}
    case = ("Attention", FLAT, {3: normal(T, S)}, attributes)
    compared(single(case, domain="", opset=24, outputs=4))


def test_the_sum_before_a_norm() -> None:
    case = FUSED["skip, biased"]
    model = single(case, domain=MICROSOFT, opset=20, outputs=4)
    del model.graph.output[1:3]
    compared(model)


def error_gelu(x: Array) -> Array:
    return x / 2 * (1 + np.vectorize(erf)(x / np.sqrt(2)))


def tanh_gelu(x: Array) -> Array:
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def split_gelu(x: Array, bias: Array) -> Array:
    signal, gate = np.split(x + bias, 2, axis=-1)
    return np.asarray(signal * error_gelu(gate))


def nhwc_conv(x: Array, weight: Array, bias: Array) -> Array:
    """Without borders and strides."""
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[1:3], axis=(1, 2))
    return np.asarray(np.einsum("nhwcij,oijc->nhwo", windows, weight) + bias)


ELSEWHERE: dict[str, tuple[Case, Callable[..., Array]]] = {
    "bias add": (
        ("BiasAdd", {"x": ["N", T, C], "skip": ["N", T, C]}, {1: normal(C)}, {}),
        lambda x, bias, skip: x + bias + skip,
    ),
    "bias split gelu": (("BiasSplitGelu", TOKENS, {1: normal(C)}, {}), split_gelu),
    "gemm, fast gelu": (
        ("GemmFastGelu", TOKENS, {1: normal(C, 8), 2: normal(8)}, {}),
        lambda x, weight, bias: tanh_gelu(x @ weight + bias),
    ),
    "matmul, activated": (
        ("FusedMatMulActivation", TOKENS, {1: normal(C, 8)}, {"activation": "Tanh", "alpha": 0.3}),
        lambda x, weight: np.tanh(0.3 * (x @ weight)),
    ),
    "channels last": (
        (
            "NhwcConv",
            {"x": ["N", 6, 5, 4]},
            {1: normal(3, 3, 3, 4), 2: normal(3)},
            {"kernel_shape": [3, 3]},
        ),
        nhwc_conv,
    ),
    "packed": (
        ("MultiHeadAttention", {"x": ["N", T, H, 3, D]}, {}, OWN),
        lambda x: attended(*x.transpose(3, 0, 2, 1, 4)),
    ),
    "packed keys and values": (
        ("MultiHeadAttention", {"q": ["N", T, C], "kv": ["N", S, H, 2, D]}, {}, OWN),
        lambda q, kv: attended(
            q.reshape(-1, T, H, D).transpose(0, 2, 1, 3), *kv.transpose(3, 0, 2, 1, 4)
        ),
    ),
}
"""Operators, or forms of them, that ONNX Runtime has for graphics cards alone, and formulas."""


def attended(q: Array, k: Array, v: Array) -> Array:
    """Attention of (N, heads, T, d), as (N, T, heads · d)."""
    scores = np.exp(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]))
    mixed = scores / scores.sum(-1, keepdims=True) @ v
    return np.asarray(mixed.transpose(0, 2, 1, 3).reshape(len(q), q.shape[2], -1))


@pytest.mark.parametrize("name", ELSEWHERE)
def test_operators_of_graphics_cards(name: str) -> None:
    case, formula = ELSEWHERE[name]
    model = single(case, domain=MICROSOFT, opset=20)
    if "packed" in name:
        del model.graph.output[0].type.tensor_type.shape.dim[3:]
    rng = np.random.default_rng(1)
    feeds = {
        value.name: rng.normal(
            size=[dim.dim_value or 2 for dim in value.type.tensor_type.shape.dim]
        )
        for value in model.graph.input
    }
    given = {f"c{slot}": value for slot, value in case[2].items()} | feeds
    slots = [given[slot] for slot in model.graph.node[0].input]
    split = ir.to_proto(normalise(model, "model").model)
    (found,) = run_onnx(split, {k: v.astype(np.float32) for k, v in feeds.items()}).values()
    assert relative(found, formula(*slots)) < 2e-6


def guarded(asked: str) -> onnx.ModelProto:
    """A softmax with a guard that asks whether `asked` is NaN."""
    net = Network(0)
    y = net.node("Softmax", net.conv("x", (3, 4)), axis=1, name="p")
    zero = net.constant("zero", np.float32(0))
    y = net.node("Where", net.node("IsNaN", asked.format(p=y)), zero, y)
    pooled = net.node("Flatten", net.node("GlobalAveragePool", y))
    return net.model(net.dense(pooled, (4, 3)), [2, 3, 6, 6], classes=3)


def test_a_guard_of_a_softmax_is_dropped() -> None:
    model = guarded("{p}")
    graph = normalise(model, "model")
    assert not {"Where", "IsNaN"} & {node.op_type for node in graph.nodes}
    x = {"x": picture(model)}
    before, after = (run_onnx(m, x, optimize=False) for m in (model, ir.to_proto(graph.model)))
    for expected, found in zip(before.values(), after.values(), strict=True):
        assert np.array_equal(expected, found)


def test_a_question_about_something_else_stays() -> None:
    operators = {node.op_type for node in normalise(guarded("x"), "model").nodes}
    assert {"Where", "IsNaN"} <= operators


REFUSED: dict[str, tuple[Case, str]] = {
    "past": (("Attention", FLAT, {4: normal(2, H, 3, D), 5: normal(2, H, 3, D)}, EVERY), "past"),
    "short mask": (("Attention", APART, {3: normal(T, 3)}, {}), "mask is for 3 of 7 keys"),
    "no heads": (("Attention", FLAT, {}, {}), "q_num_heads is 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_form_that_cannot_be_split_is_said(name: str) -> None:
    case, words = REFUSED[name]
    with pytest.raises(UnsupportedModelError, match=f"Attention 'fused': .*{words}"):
        normalise(single(case, domain="", opset=23), "model")


def test_an_attribute_of_another_type_is_said() -> None:
    case = ("QuickGelu", TOKENS, {}, {"alpha": 3})
    with pytest.raises(UnsupportedModelError, match="alpha is of the type int"):
        normalise(single(case, domain=MICROSOFT, opset=20), "model")


def test_a_statistic_that_is_used_is_said() -> None:
    model = single(FUSED["skip"], domain=MICROSOFT, opset=20, outputs=2)
    with pytest.raises(UnsupportedModelError, match="output 1 is used"):
        normalise(model, "model")


def test_what_is_split_is_said_in_one_place_of_every_room() -> None:
    own = {name.removeprefix(f"{MICROSOFT}.") for name in SPLITS if name.startswith(MICROSOFT)}
    assert own | {"FusedConv"} == SPLIT_OPERATORS
    standard = {name: since for name, (_, since) in SPLITS.items() if "." not in name}
    assert standard == SPLIT_STANDARD
    assert set(SPLIT_QUANTISED) == {name for name, since in standard.items() if not since}
