"""Every node of every compiled file has a kernel where the file is meant to run, on paper: the
stored lists of ONNX Runtime's CUDA and WebGPU providers and of TensorRT's operators.

No GPU is needed, and none was used: what is not in a list is found, what a kernel does is not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from kernel_lists import (
    LISTS,
    RESTRICTIONS,
    Excuse,
    Fault,
    Restriction,
    excuses,
    faults,
    kernels_of,
)
from networks import resnet
from onnx import TensorProto, helper, numpy_helper
from zoo_files import REFUSED, families, manifest

import lrp_onnx
from lrp_onnx.compiler import compile_model
from lrp_onnx.contract import INPUTS, INTERNAL
from lrp_onnx.relevance.composites.presets import COMPOSITES, DEFAULT

Save = Callable[[onnx.ModelProto], Path]
FILES = {file.name: file for file in manifest() if file.family not in REFUSED}
FIRST = {name: files[0].name for name, files in families().items() if name not in REFUSED}
CHOSEN = sorted({*FIRST.values(), *(e.seen for e in excuses() if e.seen in FILES)})
"""A file of every family, and those that an exception is about."""
SHAPES = Path(__file__).parents[3] / "models" / "shapes-resnet.onnx"
GUIDE = Path(lrp_onnx.__file__).parent / "guides" / "kernels.md"
NETWORKS = {
    "gate": {"gate": "Sigmoid"},
    "bottleneck": {"kind": "bottleneck", "batch_norm": True},
}
"""Random networks that every composite compiles."""


def unexcused(model: onnx.ModelProto, name: str, *, without: str = "") -> list[str]:
    """Messages about the nodes that the list for `name` neither has nor excuses."""
    kernels = kernels_of(LISTS[name])
    found = faults(model, kernels.without(without) if without else kernels)
    return [fault.message for fault in found if fault.excuse is None]


def forms(path: Path, name: str, *, gated: bool) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Every composite, and the forms that differ in their inputs and outputs."""
    for composite in COMPOSITES:
        for many in (False, True) if gated else (False,):
            compiled = compile_model(
                path, composite=composite, optimize_for=name, many_targets=many
            )
            yield f"{composite}, many targets: {many}", compiled.model
    for inputs in INPUTS:
        yield f"inputs {inputs}", compile_model(path, optimize_for=name, inputs=inputs).model
    for start in ("probability", "contrastive"):
        yield f"start {start}", compile_model(path, optimize_for=name, start=start).model
    yield "static", compile_model(path, optimize_for=name, static=True).model


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", LISTS)
def test_every_form_has_its_kernels(name: str, network: str, saved: Save) -> None:
    path = saved(resnet(size=(32, 40), widths=(8, 16), **NETWORKS[network]))
    for form, model in forms(path, name, gated=network == "gate"):
        assert not unexcused(model, name), form


LACKING = {
    ("web", "resnet-3d"): "has no ConvTranspose (version 11) as it stands here: 3D",
    ("tensorrt", "resnet-1d"): "has no MaxPool (version 12) as it stands here: not 2D or 3D",
}
"""(Runtime, family) → what it has no kernel for: such files run elsewhere, or on the CPU."""


@pytest.mark.parametrize("file", CHOSEN)
@pytest.mark.parametrize("name", LISTS)
def test_every_family_has_its_kernels(name: str, file: str, tmp_path: Path) -> None:
    entry = FILES[file]
    path = entry.save(tmp_path)
    first = FIRST[entry.family] == file
    for composite in (DEFAULT, "lrp-resnet") if first else (DEFAULT,):
        model = compile_model(path, composite=composite, optimize_for=name, **entry.options).model
        found = unexcused(model, name)
        lacking = LACKING.get((name, entry.family))
        if lacking is not None:
            assert all(lacking in message for message in found), found
        else:
            assert not found, composite


@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose", "MaxPool", "Where", "Div"])
@pytest.mark.parametrize("name", LISTS)
def test_an_operator_that_is_not_in_a_list_is_found(name: str, operator: str, saved: Save) -> None:
    path = saved(resnet(size=(32, 32)))
    model = compile_model(path, optimize_for=name, resolution="full").model
    assert not unexcused(model, name)
    (first, *_) = unexcused(model, name, without=operator)
    assert kernels_of(LISTS[name]).provider in first and f"no {operator} (version" in first


@pytest.mark.parametrize("excuse", excuses(), ids=lambda e: f"{e.list}-{e.operator}-{e.missing}")
def test_every_exception_is_still_needed(excuse: Excuse, saved: Save, tmp_path: Path) -> None:
    """One that nothing needs would hide a fault to come."""
    name = next(name for name, listed in LISTS.items() if listed == excuse.list)
    options: dict[str, Any] = {"optimize_for": name}
    if excuse.seen == "resnet":
        path = saved(resnet(size=(32, 32)))
    else:
        path = FILES[excuse.seen].save(tmp_path)
        options |= FILES[excuse.seen].options
    models = [compile_model(path, composite=c, **options).model for c in ("lrp-resnet", DEFAULT)]
    if excuse.seen == "resnet":
        models.append(compile_model(path, many_targets=True, **options).model)
    found = [fault for model in models for fault in faults(model, kernels_of(excuse.list))]
    assert excuse in [fault.excuse for fault in found]


def test_an_excuse_for_the_original_is_none_for_the_compiler() -> None:
    model = FILES["hardswish.dynamo"].model
    (fault, *_) = (f for f in faults(model, kernels_of("webgpu")) if f.operator == "HardSwish")
    assert fault.whose == "original" and fault.excuse is not None
    assert replace(fault, node=f"{INTERNAL}1").excuse is None


GRID, WEIGHT = (1, 4, 9, 9), (4, 4, 3, 3)
EVEN = {"kernel_shape": [3, 3], "strides": [2, 2]}
BROKEN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "uneven pads": ({"pads": [0, 0, 1, 1]}, {"pads": [1, 1, 1, 1]}),
    "select_last_index": ({"select_last_index": 1}, {}),
    "training_mode": ({"training_mode": 1}, {}),
    "Indices": ({**EVEN, "outputs": 2}, EVEN),
    "3D": ({"kernel_shape": [3, 3, 3]}, {"kernel_shape": [3, 3]}),
    "antialias": ({"antialias": 1}, {}),
    "more than 7 outputs": ({"outputs": 8}, {"outputs": 7}),
    "dilations": ({**EVEN, "dilations": [2, 2]}, EVEN),
    "not 2D or 3D": ({"kernel_shape": [3]}, {"kernel_shape": [3, 3]}),
    "computed weights": ({"stored": False}, {"stored": True}),
    "computed axes": ({"stored": False}, {"stored": True}),
    "zero point": ({"zero": 3}, {"zero": 0}),
    "not sorted, or K of 3840 or more": ({"sorted": 0, "outputs": 2}, {"outputs": 2}),
    "reduction": ({"reduction": "add"}, {}),
    "mode": ({"mode": "cubic"}, {"mode": "linear"}),
}
"""Name of a restriction → a node that breaks it and one that does not, as `node_of` takes them."""


def node_of(
    operator: str, *, outputs: int = 1, stored: bool = True, zero: int = 0, **attributes: Any
) -> onnx.ModelProto:
    """A model of one node; `stored` is about its second input, `zero` about its zero point."""
    quantised = operator in ("QuantizeLinear", "DequantizeLinear")
    second = np.zeros((), np.float32) if quantised else np.array([2], np.int64)
    second = np.zeros(WEIGHT, np.float32) if operator.startswith("Conv") else second
    names = ["x", "second", "third"][: 3 if quantised or operator == "ScatterND" else 2]
    if operator in ("MaxPool", "AveragePool", "LpPool", "ArgMax", "ArgMin", "Split"):
        names = ["x"]
    if operator == "BatchNormalization":
        names = ["x", *"abcd"]
    if operator == "Resize":
        names = ["x", "", "second"]
        second = np.ones(4, np.float32)
    element = TensorProto.INT8 if operator == "DequantizeLinear" else TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("x", element, GRID)]
    inputs += [helper.make_tensor_value_info(n, TensorProto.FLOAT, (4,)) for n in "abcd"]
    kept = [numpy_helper.from_array(second, "second")]
    third = np.array(zero, np.int8) if quantised else np.zeros((1, 4, 9, 9), np.float32)
    kept.append(numpy_helper.from_array(third, "third"))
    if not stored:
        kind = helper.np_dtype_to_tensor_dtype(second.dtype)
        inputs.append(helper.make_tensor_value_info("second", kind, second.shape))
        kept = kept[1:]
    results = [f"y{i}" for i in range(outputs)]
    if operator == "Split":
        attributes = {"axis": 1, "num_outputs": outputs}
    node = helper.make_node(operator, names, results, name="n", **attributes)
    graph = helper.make_graph(
        [node], "one", inputs, [onnx.ValueInfoProto(name=name) for name in results], kept
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


@pytest.mark.parametrize("restriction", RESTRICTIONS, ids=lambda r: f"{r.list}-{r.name}")
def test_a_broken_restriction_is_found(restriction: Restriction) -> None:
    broken, kept = BROKEN[restriction.name]
    for operator in restriction.operators:
        found, others = (
            [fault.missing for fault in faults(node_of(operator, **options), kernels)]
            for options in (broken, kept)
            for kernels in [kernels_of(restriction.list)]
        )
        assert restriction.name in found, operator
        assert restriction.name not in others, operator


def test_kernels_that_name_no_last_version_take_their_first_only() -> None:
    """As ONNX Runtime reads them: a MaxPool of opset 22 finds no kernel of opset 12."""
    model = node_of("MaxPool", **EVEN)
    assert not faults(model, kernels_of("cuda"))
    model.opset_import[0].version = 22
    assert [fault.missing for fault in faults(model, kernels_of("cuda"))] == ["version 22"]


def test_lists_say_where_they_are_from() -> None:
    for name in LISTS.values():
        kernels = kernels_of(name)
        assert kernels.source and kernels.date > "2026" and len(kernels.operators) > 75


def missing_in(model: onnx.ModelProto, name: str) -> list[Fault]:
    return faults(model, kernels_of(LISTS[name]))


def counted(name: str, options: Mapping[str, Any], path: Path) -> str:
    """How many nodes a compiled file has, and which of them its list does not have."""
    model = compile_model(path, optimize_for=name, **options).model
    missing = Counter({fault.node: fault.operator for fault in missing_in(model, name)}.values())
    nodes = f"{sum(missing.values())} of {len(model.graph.node)}"
    return f"{nodes}: {', '.join(sorted(missing))}" if missing else nodes


def test_the_guide_counts_what_is_not_in_a_list(tmp_path: Path) -> None:
    rows: dict[str, tuple[Path, dict[str, Any]]] = {
        "`models/shapes-resnet.onnx`": (SHAPES, {}),
        "the same, `--many-targets`": (SHAPES, {"many_targets": True}),
        "a small ResNet in float16": (FILES["core-fp16.dynamo"].save(tmp_path), {}),
        "a small ResNet in int8 (QDQ)": (FILES["core-qdq.onnxruntime"].save(tmp_path), {}),
    }
    table = "\n".join(
        f"| {label} | {' | '.join(counted(name, options, path) for name in LISTS)} |"
        for label, (path, options) in rows.items()
    )
    guide = GUIDE.read_text(encoding="utf-8")
    assert table in guide, f"lrp_onnx/guides/kernels.md should have\n{table}"
    for name in LISTS.values():
        assert kernels_of(name).date in guide
        assert re.search(r"[\d.]+\d", kernels_of(name).source)[0] in guide  # type: ignore[index]
