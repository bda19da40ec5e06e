"""Norms, maxima and quotients: what each element takes, against the formula in other words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import run_onnx
from networks import Network, picture
from numpy.typing import NDArray

from lrp_onnx.compiler import Options, compile_model
from lrp_onnx.relevance.composites.presets import COMPOSITES

Save = Callable[[onnx.ModelProto], Path]
SIZE = (4, 3, 5)
"""(C, H, W) of the picture."""


def relevance(
    build: Callable[[Network], str], saved: Save, **choices: object
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """A picture, the start and the relevance of ``x → layer → Flatten``."""
    net = Network(2)
    y = build(net)
    model = net.model(net.node("Flatten", y), ["N", *SIZE])
    options = Options(composite="lrp-z", outputs=("relevance",), **choices)  # type: ignore[arg-type]
    compiled = compile_model(saved(model), options).model
    x = picture(model)
    logits = next(o for o in compiled.graph.output if o.name != "relevance").name
    classes = run_onnx(compiled, {"x": x})[logits].shape[1]
    start = np.random.default_rng(3).normal(size=(len(x), classes)).astype(np.float32)
    return x, start, run_onnx(compiled, {"x": x, "start": start})["relevance"]


def _axes(net: Network, *axes: int) -> str:
    return net.constant("axes", np.array(axes))


@pytest.mark.parametrize("keep", [0, 1])
def test_a_norm_shares_by_squares(keep: int, saved: Save) -> None:
    def build(net: Network) -> str:
        return net.node("ReduceL2", "x", _axes(net, 2, 3), keepdims=keep)

    x, start, found = relevance(build, saved)
    squares = x.astype(np.float64) ** 2
    share = squares / squares.sum((2, 3), keepdims=True)
    np.testing.assert_allclose(found, share * start[:, :, None, None], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("keep", [0, 1])
def test_a_maximum_takes_all_and_equal_ones_share(keep: int, saved: Save) -> None:
    def build(net: Network) -> str:
        rounded = net.node("Clip", "x", net.constant("low", np.float32(0.2)))
        return net.node("ReduceMax", rounded, _axes(net, 1), keepdims=keep)

    x, start, found = relevance(build, saved)
    clipped = np.maximum(x, np.float32(0.2))
    largest = clipped == clipped.max(1, keepdims=True)
    assert (largest.sum(1) > 1).any() and (largest.sum(1) == 1).any()
    expected = largest / largest.sum(1, keepdims=True) * start.reshape(2, 1, 3, 5)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("repeated", [False, True])
def test_a_quotient_gives_all_to_its_signal(repeated: bool, saved: Save) -> None:
    """As LayerNorm in AttnLRP: what a tensor is divided by counts as a constant."""

    def build(net: Network) -> str:
        norm = net.node("ReduceL2", "x", _axes(net, 1))
        if repeated:
            norm = net.node("Expand", norm, net.constant("sizes", np.array([1, *SIZE])))
        return net.node("Div", "x", norm)

    _, start, found = relevance(build, saved)
    np.testing.assert_allclose(found, start.reshape(2, *SIZE), rtol=1e-5)


def test_both_sides_of_a_difference_take_what_they_give(saved: Save) -> None:
    def build(net: Network) -> str:
        return net.node("Sub", "x", net.node("ReduceMean", "x", _axes(net, 2, 3)))

    x, start, found = relevance(build, saved)
    x = x.astype(np.float64)
    mean = x.mean((2, 3), keepdims=True)
    quotient = start.reshape(2, *SIZE) / (x - mean)
    of_mean = -mean * quotient.sum((2, 3), keepdims=True)
    expected = x * quotient + x / (15 * mean) * of_mean
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("composite", COMPOSITES)
def test_every_composite_has_rules_for_them(composite: str, saved: Save) -> None:
    net = Network(2)
    y = net.node("Relu", net.conv("x", (3, 4), (3, 3)))
    norm = net.node("ReduceL2", y, _axes(net, 2, 3))
    y = net.node("Add", net.node("Mul", y, norm), net.node("GlobalMaxPool", y))
    y = net.node("LRN", net.node("Sub", y, net.node("Abs", y)), size=3)
    head = net.dense(net.node("ReduceL2", y, "axes", keepdims=0), (4, 3))
    model = net.model(head, ["N", 3, 9, 8])
    options = {"box": "z-box(low=-4, high=4)"} if "box" in composite else {}
    rules = {"@first": options["box"]} if options else {}
    compiled = compile_model(saved(model), composite=composite, rules=rules).model
    assert np.isfinite(run_onnx(compiled, {"x": picture(model)})["heatmap"]).all()
