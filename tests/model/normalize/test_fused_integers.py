"""Operators that compute in integers: between quantisers they give the same, to one step."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import run_onnx
from onnx import TensorProto, helper, numpy_helper

from lrp_onnx.errors import UnsupportedModelError
from lrp_onnx.model.load import normalise
from lrp_onnx.model.normalize.parts import MICROSOFT

RNG = np.random.default_rng(0)
STEP = 0.047
"""The step of the output's quantiser."""
SCALES: dict[str, Any] = {
    "s": np.float32(0.02),
    "z": np.uint8(120),
    "ys": np.float32(STEP),
    "yz": np.uint8(128),
    "ws": np.float32(0.01),
    "wz": np.int8(0),
    "each": RNG.uniform(0.005, 0.02, 4).astype(np.float32),
    "zeros": np.zeros(4, np.int8),
    "conv": RNG.integers(-90, 90, (4, 3, 3, 3)).astype(np.int8),
    "bias": RNG.integers(-900, 900, 4).astype(np.int32),
    "dense": RNG.integers(-90, 90, (6, 4)).astype(np.int8),
}
ONE, TWO, OUT = ["q", "s", "z"], ["q", "s", "z", "q", "s", "z"], ["ys", "yz"]
CASES: dict[str, tuple[str, str, list[str], dict[str, Any]]] = {
    "conv": ("", "QLinearConv", [*ONE, "conv", "ws", "wz", *OUT], {"pads": [1, 1, 1, 1]}),
    "conv by channel": ("", "QLinearConv", [*ONE, "conv", "each", "zeros", *OUT, "bias"], {}),
    "matmul": ("", "QLinearMatMul", [*ONE, "dense", "ws", "wz", *OUT], {}),
    "matmul by column": ("", "QLinearMatMul", [*ONE, "dense", "each", "zeros", *OUT], {}),
    "gemm": (MICROSOFT, "QGemm", [*ONE, "dense", "ws", "wz", "bias", *OUT], {}),
    "gemm of numbers": (MICROSOFT, "QGemm", [*ONE, "dense", "ws", "wz", "bias"], {}),
    "add": (MICROSOFT, "QLinearAdd", [*TWO, *OUT], {}),
    "mul": (MICROSOFT, "QLinearMul", [*TWO, *OUT], {}),
    "mean": (MICROSOFT, "QLinearGlobalAveragePool", [*ONE, *OUT], {}),
    "pool": (MICROSOFT, "QLinearAveragePool", [*ONE, *OUT], {"kernel_shape": [2, 2]}),
    "leaky": (MICROSOFT, "QLinearLeakyRelu", [*ONE, *OUT], {"alpha": 0.2}),
    "sigmoid": (MICROSOFT, "QLinearSigmoid", [*ONE, *OUT], {}),
    "concat": (MICROSOFT, "QLinearConcat", [*OUT, *TWO], {"axis": 1}),
}


def single(name: str, **attributes: Any) -> onnx.ModelProto:
    """A quantiser, one operator in integers, and the way back."""
    domain, operator, inputs, own = CASES[name]
    shape = ["N", 6] if "gemm" in name else ["N", 5, 6] if "matmul" in name else ["N", 3, 6, 6]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node(operator, inputs, ["o"], "fused", domain=domain, **own | attributes),
        helper.make_node("DequantizeLinear", ["o", "ys", "yz"], ["y"]),
    ]
    if "ys" not in inputs:
        nodes[1].output[0] = "y"
        del nodes[2]
    floats, rank = TensorProto.FLOAT, len(shape)
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", floats, shape)],
        [helper.make_tensor_value_info("y", floats, [f"y{axis}" for axis in range(rank)])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in SCALES.items()],
    )
    imports = [helper.make_opsetid("", 20), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


@pytest.mark.parametrize("name", CASES)
def test_an_operator_in_integers(name: str) -> None:
    model = single(name)
    split = ir.to_proto(normalise(model, "model").model)
    assert not any("QLinear" in n.op_type or n.domain for n in split.graph.node)
    sizes = [dim.dim_value or 2 for dim in model.graph.input[0].type.tensor_type.shape.dim]
    x = {"x": np.random.default_rng(1).normal(size=sizes).astype(np.float32)}
    expected, found = (run_onnx(m, x, optimize=False)["y"] for m in (model, split))
    assert np.abs(expected).max() > 2 * STEP
    assert np.abs(found - expected).max() <= STEP * 1.001
    assert (np.abs(found - expected) > 1e-6).mean() < 0.02, "few fall on another step"


def test_channels_last_are_said() -> None:
    with pytest.raises(UnsupportedModelError, match="'fused': its channels are last"):
        normalise(single("mean", channels_last=1), "model")
