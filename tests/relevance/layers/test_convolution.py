"""⟨s, W x⟩ = ⟨Wᵀ s, x⟩ for every linear operator and every way of emitting its transpose."""

from __future__ import annotations

from itertools import product

import numpy as np
import onnx
import pytest
from conftest import run_onnx
from float64 import run_float64
from numpy.typing import NDArray
from onnx import TensorProto, helper

from lrp_onnx.plan.kinds import AveragePool, Step
from lrp_onnx.relevance.graph.append import append
from lrp_onnx.relevance.graph.builder import Builder
from lrp_onnx.relevance.layers import convolution
from lrp_onnx.relevance.layers.convolution import STRATEGIES, Geometry
from lrp_onnx.relevance.layers.linear import AveragePoolLayer

SIZES = [(7, 7), (8, 6), (13, 14)]
KERNELS = [(1, 1), (3, 3), (2, 3), (7, 7)]
STRIDES = [(1, 1), (2, 2), (3, 2)]
PADS = [(0, 0, 0, 0), (1, 1, 1, 1), (3, 3, 3, 3), (0, 1, 2, 1)]
DILATIONS = [(1, 1), (2, 2)]
GROUPS = [1, 2]


def geometries() -> list[Geometry]:
    """Every combination in which at least one window fits and
    every window sees at least one pixel.
    """
    found = []
    for size, kernel, strides, pads, dilations, group in product(
        SIZES, KERNELS, STRIDES, PADS, DILATIONS, GROUPS
    ):
        geometry = Geometry(kernel, strides, pads, dilations, group, 6, (4, *size))
        span = [size[i] + pads[i] + pads[i + 2] - geometry.reach[i] for i in (0, 1)]
        if min(span) >= 1 and all(pads[i] <= geometry.reach[i % 2] for i in range(4)):
            found.append(geometry)
    return found


def build(builder: Builder, inputs: dict[str, NDArray[np.float32]], output: str) -> onnx.ModelProto:
    forward = helper.make_model(
        helper.make_graph(
            [],
            "empty",
            [
                helper.make_tensor_value_info(k, TensorProto.FLOAT, v.shape)
                for k, v in inputs.items()
            ],
            [],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    model = append(builder, forward, {}, {}, {})
    model.graph.output.append(onnx.ValueInfoProto(name=output))
    return model


def random(*shape: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def describe(g: Geometry) -> str:
    return (
        f"{g.in_shape} kernel {g.kernel} strides {g.strides} "
        f"pads {g.pads} dilations {g.dilations} groups {g.group}"
    )


def test_there_are_many_geometries() -> None:
    assert len(geometries()) > 150


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_transpose_of_convolution(strategy: str) -> None:
    fits = 0
    for geometry in geometries():
        x, w = (
            random(2, *geometry.in_shape, seed=0),
            random(6, 4 // geometry.group, *geometry.kernel, seed=1),
        )
        s = random(2, 6, *geometry.out_size, seed=2)
        builder = Builder()
        back = STRATEGIES[strategy](builder.known("s"), builder.known("w"), geometry)
        if back is None:
            continue
        fits += 1
        ahead = convolution.forward(builder.known("x"), builder.known("w"), geometry)
        inputs = {"x": x, "w": w, "s": s}
        for runner, tolerance in ((run_float64, 1e-12), (run_onnx, 1e-4)):
            y = runner(build(builder, inputs, ahead.name), inputs)[ahead.name].astype(np.float64)
            c = runner(build(builder, inputs, back.name), inputs)[back.name].astype(np.float64)
            assert c.shape == x.shape, describe(geometry)
            left, right = (s * y).sum(), (c * x).sum()
            assert abs(left - right) <= tolerance * np.abs(s * y).sum(), describe(geometry)
    assert fits > 30


@pytest.mark.parametrize("include_pad", [False, True])
@pytest.mark.parametrize(
    ("kernel", "strides", "pads"),
    [
        ((2, 2), (2, 2), (0, 0, 0, 0)),
        ((3, 3), (2, 2), (1, 1, 1, 1)),
        ((3, 2), (1, 2), (1, 0, 0, 1)),
        ((7, 7), (1, 1), (0, 0, 0, 0)),
    ],
)
def test_transpose_of_average_pooling(
    kernel: tuple[int, int],
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    include_pad: bool,
) -> None:
    for size in ((7, 7), (8, 9)):
        pool = AveragePool(kernel, strides, pads, include_pad)
        builder = Builder()
        known, one = builder.known("x"), builder.value(1.0)
        step = Step("pool", pool, ("x",), "y", (None, 3, *size), (None, 3, None, None), ("pool",))
        layer = AveragePoolLayer(builder, step, pool, (known,), builder.known("y"))
        ahead = layer.forward(known, one)
        x = random(2, 3, *size, seed=0)
        y = run_float64(build(builder, {"x": x}, ahead.name), {"x": x})[ahead.name]
        s = random(*y.shape, seed=1)
        back = layer.vjp(builder.known("s"), one)
        inputs = {"x": x, "s": s}
        for runner, tolerance in ((run_float64, 1e-7), (run_onnx, 1e-5)):
            c = runner(build(builder, inputs, back.name), inputs)[back.name]
            assert c.shape == x.shape
            assert (
                abs((s * y).sum() - (c.astype(np.float64) * x).sum())
                <= tolerance * np.abs(s * y).sum()
            )
