"""How a compiled file is told the class to explain, and that ONNX Runtime loads it quietly."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from conftest import run_onnx
from networks import picture, resnet

from lrp_onnx.cli.commands import main
from lrp_onnx.cli.verify import verify_file
from lrp_onnx.compiler import compile_model
from lrp_onnx.contract import INPUTS, Contract
from lrp_onnx.errors import ContractError, RuleError
from lrp_onnx.relevance.composites.presets import COMPOSITES
from lrp_onnx.relevance.graph.emission import EMISSIONS, PURPOSES
from lrp_onnx.runtime.explainer import Explainer

Save = Callable[[onnx.ModelProto], Path]


def inputs_of(model: onnx.ModelProto) -> dict[str, list[int | str]]:
    return {
        v.name: [d.dim_value or d.dim_param for d in v.type.tensor_type.shape.dim]
        for v in model.graph.input
    }


@pytest.mark.parametrize("composite", ["c3-lrp", "lrp-resnet", "epsilon-gamma-plus", "gradient"])
def test_every_form_gives_the_same_maps(composite: str, saved: Save) -> None:
    model = resnet(size=(32, 32))
    path, x = saved(model), picture(model)
    models = {i: compile_model(path, composite=composite, inputs=i).model for i in INPUTS}
    for target in ([3, 1], [-1, 4], [-1, -1]):
        targets = np.array(target, np.int64)
        start = np.zeros((2, 10), np.float32)
        expected = run_onnx(models["optional"], {"x": x, "target": targets}, optimize=False)
        for inputs, feeds in (
            ("target", {"target": targets}),
            ("target,start", {"target": targets, "start": start}),
            *([("none", {})] if target == [-1, -1] else []),
        ):
            found = run_onnx(models[inputs], {"x": x} | feeds, optimize=False)
            np.testing.assert_array_equal(found["heatmap"], expected["heatmap"], inputs)
    start[1, 2] = 2.5
    both = {"x": x, "target": targets, "start": start}
    expected = run_onnx(models["optional"], both, optimize=False)
    found = run_onnx(models["target,start"], both, optimize=False)
    np.testing.assert_array_equal(found["heatmap"], expected["heatmap"])


def test_the_inputs_of_every_form(saved: Save) -> None:
    path = saved(resnet(size=(32, 32)))
    batch = "N"
    expected = {
        "optional": {"target": ["targets"], "start": ["starts", 10]},
        "target": {"target": [batch]},
        "target,start": {"target": [batch], "start": [batch, 10]},
        "none": {},
    }
    for inputs in INPUTS:
        compiled = compile_model(path, inputs=inputs)
        found = inputs_of(compiled.model)
        assert found.pop("x")[0] == batch
        assert found == expected[inputs] and compiled.contract.inputs == inputs
        optional = {t.name for t in compiled.model.graph.initializer} & set(found)
        assert optional == (set(found) if inputs == "optional" else set())


def test_the_default_is_required_where_an_optional_input_is_ignored(saved: Save) -> None:
    path = saved(resnet(size=(32, 32)))
    for name in EMISSIONS:
        inputs = compile_model(path, optimize_for=name).contract.inputs
        assert inputs == ("optional" if name in ("cpu", "cuda") else "target")


def test_a_required_target_is_as_long_as_a_fixed_batch_or_the_targets(saved: Save) -> None:
    path = saved(resnet(size=(32, 32)))
    static = compile_model(path, inputs="target,start", static=True).model
    assert inputs_of(static) == {"x": [1, 3, 32, 32], "target": [1], "start": [1, 10]}
    many = compile_model(path, inputs="target,start", many_targets=True).model
    assert inputs_of(many)["target"] == ["targets"]
    assert inputs_of(many)["start"] == ["targets", 10]
    with pytest.raises(RuleError, match="many targets needs the input target"):
        compile_model(path, inputs="none", many_targets=True)


@pytest.mark.parametrize(
    ("inputs", "many"),
    [(i, many) for i in INPUTS for many in (False, True) if not (many and i == "none")],
)
def test_the_explainer_feeds_what_the_file_requires(
    inputs: str, many: bool, saved: Save, tmp_path: Path
) -> None:
    model = resnet(size=(32, 32))
    path, x = saved(model), picture(model, batch=1 if many else 3)
    compiled = compile_model(path, inputs=inputs, many_targets=many)
    reference = compile_model(path, many_targets=many)
    explainer, expected = (
        Explainer(c.model.SerializeToString(), providers="cpu") for c in (compiled, reference)
    )
    for target in (None, 3, [3, 0, -1]):
        if inputs == "none" and target is not None:
            with pytest.raises(ContractError, match="the predicted class only"):
                explainer.explain(x, target=target)
            continue
        np.testing.assert_allclose(
            explainer.explain(x, target=target)["heatmap"],
            expected.explain(x, target=target)["heatmap"],
            rtol=1e-5,
            atol=1e-7,
        )
    start = np.eye(10, dtype=np.float32)[4:5]
    if inputs in ("target", "none"):
        with pytest.raises(ContractError, match="no input for the relevance to start from"):
            explainer.explain(x, start=start)
    else:
        np.testing.assert_allclose(
            explainer.explain(x, start=start)["heatmap"],
            expected.explain(x, start=start)["heatmap"],
            rtol=1e-5,
            atol=1e-7,
        )
    file = compiled.save(tmp_path / "compiled.onnx")
    assert verify_file(file, original=path, images=(), provider="cpu").passed


def test_an_unknown_form_of_the_inputs(saved: Save) -> None:
    path = saved(resnet(size=(32, 32)))
    with pytest.raises(RuleError, match="inputs='some' is not known; there are optional"):
        compile_model(path, inputs="some")
    result = CliRunner().invoke(main, ["compile", str(path), "--inputs", "some"])
    assert result.exit_code == 2 and "target,start" in result.output


def test_the_file_says_what_it_is_for(saved: Save) -> None:
    path = saved(resnet(size=(32, 32)))
    for name in EMISSIONS:
        compiled = compile_model(path, optimize_for=name)
        metadata = {entry.key: entry.value for entry in compiled.model.metadata_props}
        contract = Contract.from_metadata(metadata)
        assert (contract.optimized_for, contract.purpose) == (name, PURPOSES[name])
        noted = [note for note in compiled.plan.notes if contract.purpose in note]
        assert len(noted) == (1 if name in ("cpu", "cuda") else 0)
    result = CliRunner().invoke(main, ["compile", str(path), "--json", "--no-check"])
    assert "--optimize-for portable is for them" in result.stdout


def test_the_metadata_says_how_the_file_is_asked(saved: Save) -> None:
    model = compile_model(saved(resnet(size=(32, 32))), inputs="target").model
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert Contract.from_metadata(metadata).inputs == "target"


LOAD = """
import sys, onnxruntime
for path in sys.argv[1:]:
    print(path, file=sys.stderr, flush=True)
    onnxruntime.InferenceSession(path)
"""
OPTIONAL = re.compile(r"Initializer (target|start) appears in graph inputs")


def stderr_at_load(models: Mapping[str, onnx.ModelProto], folder: Path) -> dict[str, list[str]]:
    """What ONNX Runtime, with nothing set, writes to standard error: name of the model → lines."""
    paths = {}
    for index, (name, model) in enumerate(models.items()):
        paths[str(folder / f"{index}.onnx")] = name
        onnx.save(model, folder / f"{index}.onnx")
    command = [sys.executable, "-W", "error", "-c", LOAD, *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines: dict[str, list[str]] = {}
    for line in done.stderr.splitlines():
        if line in paths:
            name = paths[line]
            lines[name] = []
        elif line.strip():
            lines[name].append(line)
    return lines


@pytest.mark.parametrize("composite", ["c3-lrp", "lrp-resnet", "epsilon-gamma-plus", "gradient"])
def test_plain_onnx_runtime_loads_every_form_without_a_warning(
    composite: str, saved: Save, tmp_path: Path
) -> None:
    """But for the two that ONNX Runtime has for every optional input, of whatever file."""
    path = saved(resnet("bottleneck", size=(32, 32), widths=(8, 16)))
    choices = [
        {"optimize_for": name, "inputs": inputs, "static": static}
        for name in EMISSIONS
        for inputs, static in (("target", False), ("target,start", True), ("none", False))
    ]
    choices += [{"inputs": "target", "many_targets": True}, {"opset": 16}]
    models = {str(c): compile_model(path, composite=composite, **c).model for c in choices}
    for name, lines in stderr_at_load(models, tmp_path).items():
        optional = [] if "inputs" in name else ["target", "start"]
        assert [m[1] for line in lines if (m := OPTIONAL.search(line))] == optional
        assert len(lines) == len(optional), lines


def test_onnx_runtime_warns_of_any_optional_input(tmp_path: Path) -> None:
    """The two warnings are no fault of compiled files: the smallest file with an optional input
    has one. A version without it lets the test above ask for silence in every form.
    """
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "t"], ["y"])],
        "smallest",
        [helper.make_tensor_value_info(name, kind, [1]) for name in ("x", "t")],
        [helper.make_tensor_value_info("y", kind, [1])],
        [onnx.numpy_helper.from_array(np.ones(1, np.float32), "t")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    ((warning,),) = stderr_at_load({"smallest": model}, tmp_path).values()
    assert "Initializer t appears in graph inputs" in warning, onnxruntime.__version__


@pytest.mark.parametrize("composite", COMPOSITES)
def test_every_composite_verifies_without_unread_constants(composite: str, saved: Save) -> None:
    compiled = compile_model(saved(resnet("bottleneck", size=(32, 32))), composite=composite)
    graph = compiled.model.graph
    read = {name for node in graph.node for name in node.input} | {v.name for v in graph.output}
    assert {t.name for t in graph.initializer} <= read | {"target", "start"}
