"""Whole networks and single layers against values computed
by running Zennit (tests/oracles/README.md says how).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import relative, run_onnx
from float64 import run_float64

from lrp_onnx.compiler import Options, compile_model

ORACLES = Path(__file__).parent.parent / "oracles"
CASES = ("basic", "bottleneck", "bottleneck-v1")
PARITY = 1e-4
"""Of the map's maximum, in float32."""
EXACT = 3e-6
"""In float64: the oracles are stored, and weights and stabilizers are kept, in float32."""

BOX = {"/conv1/Conv": "z-box(low=-3, high=3)"}
NAMED = {
    "epsilon_plus": "epsilon-plus",
    "epsilon_plus_flat": "epsilon-plus-flat",
    "epsilon_alpha2_beta1": "epsilon-alpha2-beta1",
    "epsilon_alpha2_beta1_flat": "epsilon-alpha2-beta1-flat",
    "epsilon_gamma_box": "epsilon-gamma-box",
    "excitation_backprop": "excitation-backprop",
    "guided_backprop": "guided-backprop",
    "deconvnet": "deconvnet",
    "gradient": "gradient",
    "gradient_x_input": "gradient-x-input",
    "preset_a": "preset-a",
    "preset_a_flat": "preset-a-flat",
    "preset_b": "preset-b",
    "preset_b_flat": "preset-b-flat",
    "lrp_z": "lrp-z",
    "lrp_epsilon": "lrp-epsilon",
}
PRESETS = {"*Add*": "signed", "*avgpool*": "norm"}
"""iNNvestigate guards divisions with 1e-7, the presets'
oracles were run with Zennit's 1e-6 everywhere: so are we here.
"""
BY_RULE = {
    "conv_epsilon_0.25": ("epsilon(epsilon=0.25)", None),
    "conv_gamma_0.25": ("gamma", None),
    "conv_gamma_1.0": ("gamma(gamma=1)", "z-box(low=-3, high=3)"),
    "conv_zplus": ("z-plus", "z-box(low=-3, high=3)"),
    "conv_alphabeta_2_1": ("alpha-beta", "w-square(bias=keep)"),
    "conv_alphabeta_3_2": ("alpha-beta(alpha=3, beta=2)", None),
    "conv_wsquare": ("w-square(bias=keep)", None),
    "conv_flat": ("flat", None),
}


def options_for(method: str) -> Options:
    name = method.removesuffix(".no_bias")
    if name in BY_RULE:
        rule, first = BY_RULE[name]
        return Options(
            composite="epsilon-plus",
            rules={"/conv1/Conv": first or rule, "*[cC]onv*": rule, "*downsample*Conv": rule},
        )
    rules = BOX if name == "epsilon_gamma_box" else {}
    if name.startswith("preset"):
        first = {"/conv1/Conv": "flat"} if name.endswith("_flat") else {}
        rules = (
            first
            | PRESETS
            | {"*[cC]onv*": "z-plus" if name.startswith("preset_a") else "alpha-beta"}
        )
    return Options(composite=NAMED[name], rules=rules, bias="drop" if name != method else None)


def methods_of(case: str) -> list[str]:
    return [str(name) for name in np.load(ORACLES / f"{case}.npz")["methods"]]


@pytest.mark.parametrize(
    ("case", "method"), [(case, method) for case in CASES for method in methods_of(case)]
)
def test_network_equals_zennit(case: str, method: str) -> None:
    oracle = np.load(ORACLES / f"{case}.npz")
    options = options_for(method)
    compiled = compile_model(
        ORACLES / f"{case}.folded.onnx",
        Options(
            composite=options.composite,
            rules=options.rules,
            bias=options.bias,
            outputs=("relevance",),
        ),
    ).model
    feeds = {"input": oracle["input"]}
    exact, found = run_float64(compiled, feeds)["relevance"], run_onnx(compiled, feeds)["relevance"]
    # Where signed shares or flat rules between joins magnify rounding,
    # Zennit's own float32 run misses its float64 run by `floor`.
    floor = float(oracle["float32_error"][methods_of(case).index(method)])
    assert floor < PARITY
    for sample, expected in enumerate(oracle[method].astype(np.float64)):
        assert relative(exact[sample], expected) < max(EXACT, floor)
        assert relative(found[sample], expected) < PARITY


@pytest.mark.parametrize("case", CASES)
def test_kept_batch_norm_gives_the_same_map(case: str) -> None:
    oracle = np.load(ORACLES / f"{case}.npz")
    for method in ("epsilon_plus_flat", "epsilon_alpha2_beta1", "gradient_x_input"):
        compiled = compile_model(
            ORACLES / f"{case}.bn.onnx", Options(composite=NAMED[method], outputs=("relevance",))
        )
        assert any("BatchNormalization nodes in the file" in note for note in compiled.plan.notes)
        exact = run_float64(compiled.model, {"input": oracle["input"]})["relevance"]
        expected = oracle[method].astype(np.float64)
        assert relative(exact[: len(expected)], expected) < EXACT


@pytest.mark.parametrize("case", CASES)
def test_logits_are_the_networks(case: str) -> None:
    oracle = np.load(ORACLES / f"{case}.npz")
    compiled = compile_model(ORACLES / f"{case}.folded.onnx").model
    assert (
        relative(run_onnx(compiled, {"input": oracle["input"]})["logits"], oracle["logits"]) < 1e-5
    )
