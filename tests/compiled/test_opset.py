"""The lowest opset: the same values from the same file, and an error where an operator is newer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import relative, run_onnx
from networks import picture, resnet
from onnx import TensorProto, helper
from zoo_files import PRECISIONS, REFUSED, families

from lrp_onnx.compiled.opset import lower
from lrp_onnx.compiler import compile_model
from lrp_onnx.errors import RuleError
from lrp_onnx.relevance.composites.presets import COMPOSITES

Save = Callable[[onnx.ModelProto], Path]


def one_node(
    op: str, opset: int, inputs: Sequence[str] = ("x",), **attributes: object
) -> onnx.ModelProto:
    """A model of one node on ``x`` (2, 4, 6, 6) with the constant ``axes`` = [1]."""
    axes = onnx.numpy_helper.from_array(np.array([1], np.int64), "axes")
    graph = helper.make_graph(
        [helper.make_node(op, list(inputs), ["y"], name="node", **attributes)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4, 6, 6])],
        [onnx.ValueInfoProto(name="y")],
        [axes],
    )
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def lowest(model: onnx.ModelProto) -> int:
    return lower(model, None, original=7).opset_import[0].version


X = np.random.default_rng(0).normal(size=(2, 4, 6, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "expected"),
    [
        ("Relu", ["x"], {}, 13),
        ("ReduceMax", ["x", "axes"], {"keepdims": 0}, 13),
        ("ReduceMean", ["x"], {"noop_with_empty_axes": 0}, 13),
        ("ReduceMean", ["x"], {"noop_with_empty_axes": 1}, 18),
        ("Shape", ["x"], {}, 13),
        ("Shape", ["x"], {"start": 0}, 13),
        ("Shape", ["x"], {"start": 1}, 15),
        ("Cast", ["x"], {"to": TensorProto.INT64, "saturate": 1}, 13),
        ("AveragePool", ["x"], {"kernel_shape": [2, 2]}, 13),
        ("AveragePool", ["x"], {"kernel_shape": [2, 2], "ceil_mode": 1, "strides": [4, 4]}, 19),
        ("AveragePool", ["x"], {"kernel_shape": [2, 2], "dilations": [2, 2]}, 19),
        ("HardSwish", ["x"], {}, 14),
        ("Mish", ["x"], {}, 18),
        ("Gelu", ["x"], {}, 20),
    ],
)
def test_the_lowest_opset_of_an_operator(
    op: str, inputs: list[str], attributes: dict[str, object], expected: int
) -> None:
    model = one_node(op, 20, inputs, **attributes)
    before = run_onnx(model, {"x": X}, optimize=False)["y"]
    assert lowest(model) == expected
    onnx.checker.check_model(model, full_check=True)
    found = run_onnx(model, {"x": X}, optimize=False)["y"]
    # AveragePool of opset 11 and of opset 19 are two kernels, which sum in another order.
    assert relative(found, before) <= (1e-6 if op == "AveragePool" else 0)


@pytest.mark.parametrize(("opset", "ir"), [(13, 7), (15, 8), (18, 8), (19, 9), (20, 9)])
def test_the_lowest_ir_version(opset: int, ir: int) -> None:
    assert lower(one_node("Relu", 20), opset, original=20).ir_version == ir


def test_imports_that_no_node_uses_are_dropped() -> None:
    model = one_node("Relu", 20)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    imports = lower(model, None, original=20).opset_import
    assert [(entry.domain, entry.version) for entry in imports] == [("", 20)]


def test_nodes_inside_a_loop_are_rewritten() -> None:
    body = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["v", "axes"], ["m"], keepdims=1, name="inner"),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [2, 4, 6, 6]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("m", TensorProto.FLOAT, [2, 1, 6, 6]),
        ],
    )
    model = one_node("Loop", 20, ["", "", "x"], body=body)
    model.graph.node[0].input[0] = "trips"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(1, np.int64), "trips"))
    before = run_onnx(model, {"x": X}, optimize=False)["y"]
    assert lowest(model) == 13
    assert len(model.graph.node[0].attribute[0].g.node[0].input) == 1
    assert [t.name for t in model.graph.initializer] == ["trips"]
    np.testing.assert_array_equal(run_onnx(model, {"x": X}, optimize=False)["y"], before)


def test_an_opset_that_lacks_operators_names_them_all() -> None:
    model = one_node("Gelu", 20)
    model.graph.node.append(helper.make_node("Mish", ["y"], ["z"], name="second"))
    with pytest.raises(RuleError, match=r"--opset 16 lacks Gelu \(opset 20\), Mish \(opset 18\)"):
        lower(model, 16, original=20)
    with pytest.raises(RuleError, match="opset 20 at most: --opset 21"):
        lower(one_node("Relu", 20), 21, original=20)
    with pytest.raises(RuleError, match="opset 13 at least: --opset 12"):
        lower(one_node("Relu", 20), 12, original=20)


@pytest.mark.parametrize(("opset", "expected"), [(9, 13), (13, 13), (17, 17), (20, 20)])
def test_the_file_has_the_opset_of_the_original(opset: int, expected: int, saved: Save) -> None:
    path = saved(resnet(size=(32, 32), opset=opset))
    compiled = compile_model(path, optimize_for="portable").model
    assert compiled.opset_import[0].version == expected


@pytest.mark.parametrize("composite", COMPOSITES)
def test_every_composite_at_opset_13(composite: str, saved: Save) -> None:
    model = resnet("bottleneck", size=(32, 32), widths=(8, 16), gate="Sigmoid", opset=20)
    path, x = saved(model), {"x": picture(model)}
    newest, oldest = (
        compile_model(path, composite=composite, optimize_for="portable", opset=opset).model
        for opset in (20, 13)
    )
    assert (oldest.opset_import[0].version, oldest.ir_version) == (13, 7)
    expected = run_onnx(newest, x, optimize=False)
    found = run_onnx(oldest, x, optimize=False)
    np.testing.assert_array_equal(found[model.graph.output[0].name], next(iter(expected.values())))
    # The two kernels of AveragePool, as above.
    assert relative(found["heatmap"], expected["heatmap"]) < 1e-6


@pytest.mark.parametrize(
    "family",
    [n for n in families() if n not in REFUSED and PRECISIONS.get(n) != "bfloat16"],
)
def test_every_family_keeps_its_opset(family: str, tmp_path: Path) -> None:
    """That the maps are right is tested in tests/relevance/graph/test_emission.py."""
    file = families()[family][0]
    path = file.save(tmp_path)
    original = onnx.load(path, load_external_data=False).opset_import
    opset = next(entry.version for entry in original if entry.domain in ("", "ai.onnx"))
    compiled = compile_model(path, composite="gradient", optimize_for="portable", **file.options)
    assert compiled.model.opset_import[0].version <= max(13, min(opset, 20))
