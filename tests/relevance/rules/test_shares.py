"""Rules of one product keep their shares in factors: as multiples of the layer's input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from networks import single_layer, transformer

from lrp_onnx.compiler import plan_model
from lrp_onnx.plan.kinds import MatrixProduct, Role
from lrp_onnx.relevance.graph.builder import Builder, Value
from lrp_onnx.relevance.graph.relevance import Relevance
from lrp_onnx.relevance.layers.table import layer_of
from lrp_onnx.relevance.rules.table import parse_rule

Save = Callable[[onnx.ModelProto], Path]


@pytest.mark.parametrize("rule", ["epsilon", "epsilon(epsilon=0)", "norm", "gamma(gamma=0)"])
@pytest.mark.parametrize("layer", ["conv", "average", "global", "linear"])
def test_a_share_is_a_multiple_of_the_input(layer: str, rule: str, saved: Save) -> None:
    """So that the next quotient may cancel it, and is 0 where the input is."""
    attributes = {"kernel_shape": [2, 2]} if layer == "average" else {}
    model = single_layer(layer, (2, 4, 6, 5), rectified=True, **attributes)
    _, plan, _ = plan_model(saved(model))
    step = next(step for step in plan.steps if step.name == "layer" or layer in step.name)
    builder = Builder()
    made = layer_of(builder, step)
    (share,) = parse_rule(rule)(made, Relevance(Value(builder, "r")))
    assert share is not None and share.is_of(made.input)


@pytest.mark.parametrize("rule", ["values", "halves"])
def test_shares_of_products_are_multiples_of_their_factors(rule: str, saved: Save) -> None:
    _, plan, _ = plan_model(saved(transformer()))
    steps = [step for step in plan.steps if isinstance(step.kind, MatrixProduct)]
    tried = 0
    for step in steps:
        if parse_rule(rule).fits(step) is not None:
            continue
        builder = Builder()
        layer = layer_of(builder, step)
        shares = parse_rule(rule)(layer, Relevance(Value(builder, "r")))
        for share, factor, role in zip(shares, layer.inputs, layer.roles, strict=True):
            if rule == "values" and role is Role.GATE:
                assert share is None
            else:
                assert share is not None and share.is_of(factor)
                tried += 1
    assert tried
