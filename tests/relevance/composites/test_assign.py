"""Composites against values that other people's released code
computed, and against each other where theory says they are equal.
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
from networks import Network, picture, resnet

from lrp_onnx.compiler import Options, compile_model
from lrp_onnx.relevance.composites.presets import COMPOSITES

Save = Callable[[onnx.ModelProto], Path]
PARITY = 1e-4
"""Of the map's maximum."""

GOLDEN = {
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
    "lrp_resnet.ratio": "lrp-resnet-reference",
    "lrp_resnet.symmetric": "lrp-resnet-reference-symmetric",
    "lrp_resnet.main_only_identity.ratio": "lrp-resnet-reference-main-only",
    "lrp_resnet.main_only_identity.symmetric": "lrp-resnet-reference-main-only-symmetric",
}
FILES = {
    "tin10-resnet18w16": "tin10-resnet18w16.torchscript-op13-bn.onnx",
    "tin20-resnet50": "tin20-resnet50.torchscript-op17-folded.onnx",
}
ZENNIT_ARRAYS = {name for name in GOLDEN if not name.startswith(("lrp_resnet", "gradient"))}


def zennit_merged(path: Path, folder: Path) -> Path:
    """The folded model as Zennit's canonizer leaves it.

    It sets a merged BatchNorm to mean 0, variance 1, scale 1, but keeps its ε = 1e-5, so that each
    of 53 of them still multiplies by 1/√(1 + 1e-5): 5e-6 a layer, which guided backpropagation
    turns into 6e-3 of the map's maximum on one of the photos.
    """
    model = onnx.load(path)
    parameters = {
        name for node in model.graph.node if node.op_type == "Conv" for name in node.input[1:]
    }
    for tensor in model.graph.initializer:
        if tensor.name in parameters:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float64) / np.sqrt(1 + 1e-5)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), tensor.name))
    onnx.save(model, folder / "merged.onnx")
    return folder / "merged.onnx"


@pytest.mark.parametrize("network", FILES)
@pytest.mark.parametrize(
    "method",
    [
        *GOLDEN,
        *(
            f"{m}.no_bias"
            for m in (
                "epsilon_plus",
                "epsilon_plus_flat",
                "epsilon_alpha2_beta1",
                "epsilon_alpha2_beta1_flat",
            )
        ),
    ],
)
def test_golden_values(network: str, method: str, assets: Path, tmp_path: Path) -> None:
    golden = np.load(assets / "golden" / f"{network}.npz")
    path = assets / "models" / FILES[network]
    name = method.removesuffix(".no_bias")
    if network == "tin20-resnet50" and name in ZENNIT_ARRAYS:
        path = zennit_merged(path, tmp_path)
    options = Options(
        composite=GOLDEN[name],
        outputs=("heatmap", "relevance"),
        bias="drop" if method != name else None,
    )
    found = run_onnx(compile_model(path, options, post="none").model, {"input": golden["input"]})
    expected = golden[method]
    for sample in range(len(expected)):
        ours = found["relevance" if expected.ndim == 4 else "heatmap"][sample]
        assert relative(ours, expected[sample].astype(np.float64)) < PARITY


def test_no_golden_array_is_forgotten(assets: Path) -> None:
    arrays = {
        name.removesuffix(".no_bias")
        for name in np.load(assets / "golden" / "tin20-resnet50.npz").files
    }
    assert arrays - {"input", "files", "label", "logits"} == set(GOLDEN)


def cosine(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


NO_BIAS_AT_TOP = {"fc*": "epsilon(epsilon=0, signed=false)"}
"""C3-LRP drops the last layer's bias (Eq. 2), which scales the
whole map: kept here, so that values and not only directions agree.
"""


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_c3_lrp_without_epsilon_is_gradient_times_input(kind: str, saved: Save) -> None:
    """Eq. 1 telescopes: as ε → 0 the rule is Gradient × Input, times the logit's share of 1."""
    model = resnet(kind, size=(32, 32), batch_norm=True)
    x = picture(model)
    path = saved(model)
    expected = _float64(path, Options(composite="gradient-x-input", outputs=("relevance",)), x)
    rules = {
        "add*": "block(epsilon=0)",
        "conv*": "epsilon(epsilon=0)",
        "globalaveragepool*": "norm(epsilon=0)",
        **NO_BIAS_AT_TOP,
    }
    exact = _float64(path, Options(composite="c3-lrp", rules=rules, outputs=("relevance",)), x)
    assert relative(exact, expected) < 1e-6
    literal = _float64(path, Options(composite="c3-lrp", outputs=("relevance",)), x)
    assert cosine(literal, expected) > 0.999 and cosine(literal, expected) < 1.0


def test_lrp_0_is_gradient_times_input_without_biases(saved: Save) -> None:
    model = resnet("basic", size=(32, 32), bias=False)
    for tensor in model.graph.initializer:
        if tensor.name.startswith("fc") and tensor.name.endswith("bias"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros(10, np.float32), tensor.name))
    x = picture(model)
    path = saved(model)
    expected = _float64(path, Options(composite="gradient-x-input", outputs=("relevance",)), x)
    found = _float64(path, Options(composite="lrp-z", start="logit", outputs=("relevance",)), x)
    assert relative(found, expected) < 1e-6


def _float64(path: Path, options: Options, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return run_float64(compile_model(path, options).model, {"x": x})["relevance"]


@pytest.mark.parametrize("composite", COMPOSITES)
def test_float32_is_float64_rounded(composite: str, assets: Path) -> None:
    """On a trained network and real photos the same graph, evaluated
    in float64, gives the same map: no rule hides a rounding error.
    """
    golden = np.load(assets / "golden" / "tin10-resnet18w16.npz")
    compiled = compile_model(
        assets / "models" / FILES["tin10-resnet18w16"], composite=composite, post="none"
    ).model
    feeds = {"input": golden["input"]}
    assert (
        relative(run_onnx(compiled, feeds)["heatmap"], run_float64(compiled, feeds)["heatmap"])
        < PARITY
    )


def test_folded_and_kept_batch_norm_give_the_same_map(assets: Path) -> None:
    x = {"input": np.load(assets / "golden" / "tin10-resnet18w16.npz")["input"]}
    forms = [
        "tin10-resnet18w16.torchscript-op13-bn.onnx",
        "tin10-resnet18w16.torchscript-op13-folded.onnx",
    ]
    for composite in ("c3-lrp", "lrp-resnet", "epsilon-plus-flat", "gradient"):
        kept, folded = (
            run_onnx(
                compile_model(assets / "models" / f, composite=composite, post="none").model, x
            )["heatmap"]
            for f in forms
        )
        assert relative(kept, folded) < PARITY


@pytest.mark.parametrize("composite", ["epsilon-gamma-plus", "residual-c3"])
def test_rules_do_not_follow_the_exporter_s_order(composite: str, saved: Save) -> None:
    """Two files of one network, their nodes and operands in other orders; half of the
    convolutions is between two that are parallel.
    """

    def rules(swapped: bool) -> dict[str, str]:
        net = Network(0)
        fork = net.node("Relu", net.conv("x", (3, 3), (1, 1), name="first"))

        def large() -> str:
            return net.conv(fork, (3, 3), (3, 3), pads=[1, 1, 1, 1], name="large")

        def small() -> str:
            return net.conv(fork, (3, 3), (1, 1), name="small")

        branches = [make() for make in ((small, large) if swapped else (large, small))]
        last = net.conv(net.node("Relu", net.node("Add", *branches)), (3, 3), (1, 1), name="last")
        logits = net.dense(net.node("Flatten", net.node("GlobalAveragePool", last)), (3, 2))
        model = net.model(logits, ["N", 3, 8, 8])
        found = compile_model(saved(model), composite=composite, resolution="full").contract.rules
        return {name: found[name] for name in ("first", "large", "small", "last")}

    assert rules(swapped=False) == rules(swapped=True)
    assert rules(swapped=False)["large"] != rules(swapped=False)["small"]
