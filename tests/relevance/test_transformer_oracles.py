"""Transformers, and networks without convolutions, against values computed by running LXT and
Zennit (tests/oracles/README.md says how).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from conftest import relative, run_onnx
from float64 import run_float64
from test_oracles import EXACT, ORACLES, PARITY

from lrp_onnx.compiler import Options, compile_model

LRP_0 = "epsilon(epsilon=0)"
GRADIENT_TIMES_INPUT = {
    "@convolution": LRP_0,
    "@dense": LRP_0,
    "@affine": LRP_0,
    "@join": "signed(epsilon=0)",
    "@normalization": "layer-norm(epsilon=0)",
}
"""What LXT's efficient form is where nothing is patched."""
NOT_GAMMA = ("@join", "@normalization", "@affine")
EXPLICIT = {
    "@join": "signed(epsilon=1e-8, signed=false)",
    "@affine": "epsilon(epsilon=1e-8, signed=false)",
    "@normalization": "layer-norm(signed=false)",
}
"""The stabilizers of LXT's explicit form."""
HALVES = "halves(epsilon=5e-9, signed=false)"
PRODUCTS = {"@attention": HALVES, "@matrix product": HALVES}
VALUES = {"@attention": "values(epsilon=1e-8, signed=false)"}
EPSILON = {"@convolution": "epsilon", "@dense": "epsilon"}

LETTER: dict[tuple[str, str], tuple[str, Mapping[str, str]]] = {
    ("vit", "attn_lrp"): ("attn-lrp", EXPLICIT | PRODUCTS | EPSILON),
    ("vit", "attn_lrp_gamma"): ("attn-lrp", EXPLICIT | PRODUCTS),
    ("vit", "cp_lrp"): ("cp-lrp-gamma", EXPLICIT | VALUES | EPSILON),
    ("vit", "cp_lrp_gamma"): ("cp-lrp-gamma", EXPLICIT | VALUES),
    ("vit", "efficient_cp_lrp"): (
        "cp-lrp-gamma",
        GRADIENT_TIMES_INPUT | {"@attention": "values(epsilon=0)"},
    ),
    ("vit", "efficient_cp_lrp_gamma"): (
        "cp-lrp-gamma",
        {which: GRADIENT_TIMES_INPUT[which] for which in NOT_GAMMA}
        | {"@attention": "values(epsilon=0)"}
        | {"*self_attention*Gemm*": LRP_0, "*self_attention/MatMul": LRP_0},
    ),
    ("vit-hugging-face", "efficient_attn_lrp"): (
        "attn-lrp",
        GRADIENT_TIMES_INPUT
        | {"@attention": "halves(epsilon=0)", "@matrix product": "halves(epsilon=0)"},
    ),
}
"""Network and map → the composite, and what makes it the other package's to the letter."""
AS_THEY_ARE = {"attn_lrp_gamma": "attn-lrp", "cp_lrp_gamma": "cp-lrp-gamma"}
"""Map → the composite that has its rules and gammas, with stabilizers of its own."""
MIXING = {
    "epsilon": ("epsilon", "epsilon"),
    "gamma": ("gamma(gamma=0.25)", "gamma(gamma=0.05)"),
    "zplus": ("z-plus", "z-plus"),
    "alphabeta": ("alpha-beta", "epsilon"),
}
"""Map → the rules of convolutions and of linear layers."""


def worst(network: str, name: str, options: Options, bound: float) -> None:
    """Compare in float64 to `bound`, and in ONNX Runtime's float32 to 1e-4."""
    oracle = np.load(ORACLES / f"{network}.npz")
    compiled = compile_model(ORACLES / f"{network}.onnx", options).model
    feeds = {"input": oracle["input"]}
    exact, found = run_float64(compiled, feeds)["relevance"], run_onnx(compiled, feeds)["relevance"]
    for sample, expected in enumerate(oracle[name].astype(np.float64)):
        assert relative(exact[sample], expected) < bound
        assert relative(found[sample], expected) < PARITY


@pytest.mark.parametrize(("network", "name"), LETTER)
def test_a_transformer_equals_lxt(network: str, name: str) -> None:
    composite, rules = LETTER[network, name]
    options = Options(composite=composite, rules=rules, outputs=("relevance",))
    worst(network, name, options, EXACT)


@pytest.mark.parametrize("name", AS_THEY_ARE)
def test_the_composites_are_their_papers(name: str) -> None:
    options = Options(composite=AS_THEY_ARE[name], outputs=("relevance",))
    worst("vit", name, options, PARITY)


@pytest.mark.parametrize("name", MIXING)
def test_a_network_of_mixed_layers_equals_zennit(name: str) -> None:
    convolution, linear = MIXING[name]
    rules = {
        "*stem*Conv*": convolution,
        "*depthwise*Conv*": convolution,
        "@convolution": linear,
        "@dense": linear,
    }
    options = Options(composite="epsilon-plus", rules=rules, outputs=("relevance",))
    worst("mixing", name, options, EXACT)


@pytest.mark.parametrize("network", ["vit", "vit-hugging-face", "mixing"])
def test_logits_are_those_of_the_original(network: str) -> None:
    oracle = np.load(ORACLES / f"{network}.npz")
    compiled = compile_model(ORACLES / f"{network}.onnx", composite="gradient").model
    logits = run_onnx(compiled, {"input": oracle["input"]})["logits"]
    assert relative(logits, oracle["logits"]) < 1e-5
