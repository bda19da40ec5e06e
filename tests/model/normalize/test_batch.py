"""Files exported with a batch of fixed size: freed where
every sample is treated alone, left as they are where not.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import relative, run_onnx
from networks import Network, picture, resnet

from lrp_onnx.compiler import compile_model
from lrp_onnx.model.graph import shape_of
from lrp_onnx.model.load import load_model

Save = Callable[[onnx.ModelProto], Path]


def fixed(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The same network as an exporter writes it for one batch size."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in (*copy.graph.input, *copy.graph.output):
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_value = batch
    for tensor in copy.graph.initializer:
        if tensor.name == "shape":
            values = onnx.numpy_helper.to_array(tensor).copy()
            values[0] = batch
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, "shape"))
    return copy


@pytest.mark.parametrize(
    "head", ["gap-flatten-gemm", "gap-reshape-matmul", "gap-squeeze-gemm", "mean-none-gemm"]
)
@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_is_freed(batch: int, head: str, saved: Save) -> None:
    model = resnet(size=(32, 32), head=head)
    frozen = fixed(model, batch)
    x = picture(model, batch=3)
    found, expected = (run_onnx(compile_model(saved(m)).model, {"x": x}) for m in (frozen, model))
    for name, value in expected.items():
        assert relative(found[name], value) < 1e-6
    assert any("takes any" in note for note in compile_model(saved(frozen)).plan.notes)


def test_a_batch_that_is_mixed_with_the_rest_stays(saved: Save) -> None:
    """The mean over the batch needs the batch: nothing is changed."""
    net = Network(0)
    y = net.conv("x", (3, 4))
    y = net.node(
        "Sub", y, net.node("ReduceMean", y, net.constant("axes", np.array([0])), keepdims=1)
    )
    model = net.model(
        net.dense(net.node("Flatten", net.node("GlobalAveragePool", y)), (4, 5)),
        [4, 3, 8, 8],
        classes=5,
    )
    graph = load_model(saved(model))
    assert shape_of(graph.inputs[0]) == (4, 3, 8, 8) and not graph.notes


def test_real_exports_with_a_batch_of_one(assets: Path) -> None:
    folder = assets / "models"
    x = np.load(assets / "golden" / "tin10-resnet18w16.npz")["input"]
    dynamo, script = (
        run_onnx(
            compile_model(folder / f"tin10-resnet18w16.{n}.onnx", composite="lrp-resnet").model,
            {"input": x},
        )
        for n in ("dynamo-op20", "torchscript-op13-folded")
    )
    assert relative(dynamo["logits"], script["logits"]) < 1e-4
    assert relative(dynamo["heatmap"], script["heatmap"]) < 1e-4
