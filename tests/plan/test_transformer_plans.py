"""Which networks are transformers, and where relevance stops in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import Network, resnet, transformer

from lrp_onnx.compiler import plan_model
from lrp_onnx.plan.plan import Plan
from lrp_onnx.relevance.outputs import feature_map

Save = Callable[[onnx.ModelProto], Path]


def plan_of(path: Path) -> Plan:
    return plan_model(path)[1]


@pytest.mark.parametrize("form", ["split", "merged", "windows"])
def test_more_attention_than_overlapping_convolutions(form: str, saved: Save) -> None:
    assert plan_of(saved(transformer(form))).is_transformer
    assert not plan_of(saved(resnet(size=(32, 32)))).is_transformer


def mixed(convolutions: int) -> onnx.ModelProto:
    """One attention over the places of a feature map, convolutions of 3×3 before and behind it."""
    net = Network(0)
    y = net.conv("x", (3, 4), (2, 2), strides=[2, 2])
    for _ in range(convolutions):
        y = net.activate("Relu", net.conv(y, (4, 4), (3, 3), pads=[1, 1, 1, 1]))
    shape = net.constant("tokens", np.array([0, 4, 16]))
    tokens = net.node("Reshape", y, shape)
    turned = net.node("Transpose", tokens, perm=[0, 2, 1])
    weights = net.node("Softmax", net.node("MatMul", turned, tokens), axis=-1)
    y = net.node("MatMul", weights, turned)
    return net.model(net.node("Flatten", y), ["N", 3, 8, 8], classes=64)


@pytest.mark.parametrize(("convolutions", "transformers"), [(0, True), (1, False), (2, False)])
def test_attention_in_a_cnn_makes_no_transformer(
    convolutions: int, transformers: bool, saved: Save
) -> None:
    assert plan_of(saved(mixed(convolutions))).is_transformer == transformers


@pytest.mark.parametrize("form", ["split", "windows"])
def test_a_fraction_stops_at_the_patches_of_a_transformer(form: str, saved: Save) -> None:
    """Tokens behind attention have the size of the patches, and are not taken for them."""
    plan = plan_of(saved(transformer(form)))
    stop = feature_map(plan, "1/2")
    ahead = [item.output for item in plan.before_attention]
    assert stop in ahead and plan.cut_points[stop] == (3, 2)
    assert plan.layouts[stop].tokens and not any(
        plan.layouts[name].tokens for name in ahead[: ahead.index(stop)]
    )


def test_heads_are_no_feature_maps(saved: Save) -> None:
    """Behind a class token no tensor is a map: heads (N, heads, tokens, d) were taken for one."""
    plan = plan_of(saved(transformer("split")))
    assert set(plan.map_sizes.values()) == {(3, 2)}
