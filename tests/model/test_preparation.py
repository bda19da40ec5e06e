"""What a graph says of its pictures: integers, factors of 255, ImageNet's numbers, learnt ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lrp_onnx.compiler import compile_model
from lrp_onnx.contract import Preprocessing
from tests import networks

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
Saved = Callable[[onnx.ModelProto], Path]


def scaled(
    scale: np.ndarray, bias: np.ndarray, picture: int = TensorProto.FLOAT
) -> onnx.ModelProto:
    """A ResNet that multiplies its picture by `scale` and adds `bias` first."""
    model = networks.resnet()
    for node in model.graph.node:
        node.input[:] = ["prepared" if name == "x" else name for name in node.input]
    shape = (1, -1, 1, 1)
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(scale.astype(np.float32).reshape(shape), "scale"),
            numpy_helper.from_array(bias.astype(np.float32).reshape(shape), "bias"),
        ]
    )
    nodes = [
        helper.make_node("Cast", ["x"], ["float"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["multiplied"], name="mul"),
        helper.make_node("Add", ["multiplied", "bias"], ["prepared"], name="add"),
    ]
    for index, node in enumerate(nodes):
        model.graph.node.insert(index, node)
    model.graph.input[0].type.tensor_type.elem_type = picture
    return model


ONES = np.ones(3)


@pytest.mark.parametrize(
    ("scale", "bias", "expected"),
    [
        (1 / 255 / STD, -MEAN / STD, (1.0, "RGB")),
        (1 / STD, -MEAN / STD, (255.0, "RGB")),
        (1 / 255 / STD[::-1], -MEAN[::-1] / STD[::-1], (1.0, "BGR")),
        (ONES, -255 * MEAN[::-1], (1.0, "BGR")),
        (ONES / 127.5, -ONES, (1.0, "RGB")),
        (ONES / 255, 0 * ONES, (1.0, "RGB")),
        (2 * ONES, -ONES, (255.0, "RGB")),
    ],
    ids=["imagenet-255", "imagenet-1", "bgr", "caffe", "tf", "unit", "tf-of-unit"],
)
def test_a_normalisation_inside_tells_the_range(
    saved: Saved, scale: np.ndarray, bias: np.ndarray, expected: tuple[float, str]
) -> None:
    contract = compile_model(saved(scaled(scale, bias))).contract
    divisor, channels = expected
    assert contract.preprocessing == Preprocessing(
        mean=(0.0,), std=(1.0,), divisor=divisor, channels=channels, layout="NCHW"
    )
    assert contract.sources["preprocessing"].startswith("the graph")


@pytest.mark.parametrize(
    ("scale", "bias"),
    [(ONES * 1.1, ONES * 0.02), (np.array([0.9, 1.3, 2.0]), ONES * -0.1), (ONES, 0 * ONES)],
)
def test_a_learnt_normalisation_says_nothing(
    saved: Saved, scale: np.ndarray, bias: np.ndarray
) -> None:
    contract = compile_model(saved(scaled(scale, bias))).contract
    assert contract.preprocessing is None and not contract.sources


def test_integers_are_stored_pixels(saved: Saved) -> None:
    contract = compile_model(saved(scaled(1 / STD, -MEAN / STD, TensorProto.UINT8))).contract
    assert contract.preprocessing is not None and contract.preprocessing.divisor == 1
    assert "integers" in contract.sources["preprocessing"]
