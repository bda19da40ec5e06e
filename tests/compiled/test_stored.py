"""Stored weights and static files: no weight is computed, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import relative, run_onnx
from networks import picture, resnet

from lrp_onnx.cli.verify import verify_file
from lrp_onnx.compiled.stored import store_constants
from lrp_onnx.compiler import compile_model
from lrp_onnx.errors import UnsupportedModelError
from lrp_onnx.model.normalize.fold import MOST_BYTES, evaluate_all
from lrp_onnx.relevance.composites.presets import COMPOSITES

Save = Callable[[onnx.ModelProto], Path]


def computed_from_stored(model: onnx.ModelProto) -> list[str]:
    """Nodes whose inputs are all stored tensors that no run can change."""
    inputs = {value.name for value in model.graph.input}
    stored = {t.name for t in model.graph.initializer} - inputs
    return [n.name for n in model.graph.node if all(name in stored for name in n.input if name)]


@pytest.mark.parametrize("composite", COMPOSITES)
def test_a_static_file_stores_every_weight(composite: str, saved: Save) -> None:
    model = resnet("bottleneck", size=(32, 32), widths=(8, 16), gate="Sigmoid")
    path, x = saved(model), {"x": picture(model, batch=1)}
    for name in ("cpu", "portable"):
        choices = {"composite": composite, "resolution": "full"}
        static = compile_model(path, optimize_for=name, static=True, **choices).model
        plain = compile_model(path, optimize_for="cpu", **choices).model
        assert computed_from_stored(plain) or composite == "gradient"
        assert computed_from_stored(static) == []
        sizes = [
            dim
            for value in (*static.graph.input, *static.graph.output)
            if name == "portable" or value.name in ("x", "heatmap")
            for dim in value.type.tensor_type.shape.dim
        ]
        assert sizes and all(dim.dim_value > 0 for dim in sizes)
        found, expected = (run_onnx(one, x, optimize=False) for one in (static, plain))
        for output in model.graph.output:
            np.testing.assert_array_equal(found[output.name], expected[output.name])
        assert relative(found["heatmap"], expected["heatmap"]) < 1e-5


def test_no_convolution_of_a_portable_file_has_a_computed_weight(saved: Save) -> None:
    for composite in COMPOSITES:
        path = saved(resnet("bottleneck", size=(32, 32), widths=(8, 16)))
        model = compile_model(path, composite=composite, optimize_for="portable").model
        stored = {t.name for t in model.graph.initializer}
        weights = {
            n.input[1] for n in model.graph.node if n.op_type in ("Conv", "ConvTranspose", "Gemm")
        }
        assert weights and weights <= stored


def test_the_ledger_of_a_static_file_is_whole(saved: Save, tmp_path: Path) -> None:
    path = saved(resnet("bottleneck", size=(32, 32), widths=(8, 16)))
    for composite in ("c3-lrp", "lrp-resnet", "epsilon-gamma-plus"):
        out = tmp_path / f"{composite}.onnx"
        compile_model(path, composite=composite, optimize_for="portable", static=True).save(out)
        assert verify_file(out, original=path, images=(), provider="cpu").passed


def test_a_batch_that_stays_fixed_is_not_made_one(saved: Save) -> None:
    model = resnet(size=(32, 32))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    freed = compile_model(saved(model), static=True)
    assert freed.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    assert not any("batch" in note for note in freed.plan.notes)
    logits = model.graph.output[0].name
    # Hardmax is none of the operators that are known to treat every picture alone.
    model.graph.node.append(onnx.helper.make_node("Hardmax", [logits], ["more"]))
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, [4, 10])
    )
    with pytest.raises(UnsupportedModelError, match=r"fixed batch of 4.*a static file"):
        compile_model(saved(model), static=True, explain=logits)


def test_the_originals_own_nodes_stay() -> None:
    """A weight that the original computes is still computed, beside what follows from it."""
    weight = onnx.numpy_helper.from_array(np.ones((2, 2), np.float32), "w")
    nodes = [
        onnx.helper.make_node("Neg", ["w"], ["minus"]),
        onnx.helper.make_node("MatMul", ["x", "minus"], ["logits"]),
        onnx.helper.make_node("Neg", ["minus"], ["lrp/1"]),
        onnx.helper.make_node("MatMul", ["logits", "lrp/1"], ["heatmap"]),
    ]
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2])
        for name in ("x", "logits", "heatmap")
    ]
    graph = onnx.helper.make_graph(nodes, "g", values[:1], values[1:], [weight])
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8
    )
    store_constants(model)
    assert [node.output[0] for node in model.graph.node] == ["minus", "logits", "heatmap"]
    (stored,) = (t for t in model.graph.initializer if t.name == "lrp/1")
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(stored), np.ones((2, 2)))


def test_sums_of_products_are_rounded_once() -> None:
    """So that they do not depend on the threads that share a sum."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(300, 300)).astype(np.float32) for _ in range(2))
    weights = [onnx.numpy_helper.from_array(value, name) for name, value in (("a", a), ("b", b))]
    nodes = [
        onnx.helper.make_node("MatMul", ["a", "b"], ["lrp/1"]),
        onnx.helper.make_node("MatMul", ["x", "lrp/1"], ["heatmap"]),
    ]
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 300])
        for name in ("x", "heatmap")
    ]
    graph = onnx.helper.make_graph(nodes, "g", values[:1], values[1:], weights)
    model = store_constants(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    )
    (stored,) = (t for t in model.graph.initializer if t.name == "lrp/1")
    exact = a.astype(np.float64) @ b.astype(np.float64)
    assert not np.array_equal(a @ b, exact.astype(np.float32))
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(stored), exact.astype(np.float32))
    (folded,) = evaluate_all(ir.from_proto(nodes[0]), [a, b], MOST_BYTES) or []
    np.testing.assert_array_equal(folded, exact.astype(np.float32))
