"""Whether the part of a compiled file that predicts is the one that was compiled: what changes the
hash, what does not, and what the commands say.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import lrp_onnx
from lrp_onnx.cli.commands import main
from lrp_onnx.compiler import compile_model
from lrp_onnx.contract import FORWARD, Contract
from lrp_onnx.deploy.forms import with_pixels, without_optional_inputs
from lrp_onnx.files.compiled import read_compiled
from lrp_onnx.files.forward import hash_of

MODELS = Path(__file__).parents[2] / "models"
MODEL, STAR = MODELS / "shapes-resnet.onnx", MODELS / "samples" / "star.png"
CHANGED = "is not the one that was compiled"


@pytest.fixture(scope="module")
def honest() -> bytes:
    return compile_model(MODEL, composite="lrp-resnet").model.SerializeToString()


def contract_of(model: onnx.ModelProto) -> Contract:
    return Contract.from_metadata({one.key: one.value for one in model.metadata_props})


def a_weight(model: onnx.ModelProto) -> TensorProto:
    (conv, *_) = [node for node in model.graph.node if node.op_type == "Conv"]
    return next(one for one in model.graph.initializer if one.name == conv.input[1])


def other_value(model: onnx.ModelProto) -> None:
    tensor = a_weight(model)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] += 1
    tensor.raw_data = values.tobytes()


def halves(model: onnx.ModelProto) -> None:
    tensor = a_weight(model)
    values = numpy_helper.to_array(tensor).astype(np.float16)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def other_attribute(model: onnx.ModelProto) -> None:
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    next(one for one in conv.attribute if one.name == "pads").ints[0] += 1


def other_operator(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Abs"


def other_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version += 1


def another_node(model: onnx.ModelProto) -> None:
    (name,) = [value.name for value in model.graph.output if value.name == "logits"]
    for node in model.graph.node:
        node.output[:] = ["before" if one == name else one for one in node.output]
        node.input[:] = ["before" if one == name else one for one in node.input]
    model.graph.node.append(helper.make_node("Neg", ["before"], [name]))


@pytest.mark.parametrize(
    "change", [other_value, halves, other_attribute, other_operator, other_opset, another_node]
)
def test_what_changes_the_hash(honest: bytes, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load_from_string(honest)
    contract = contract_of(model)
    assert hash_of(model, [*contract.outputs]) == contract.forward
    change(model)
    assert hash_of(model, [*contract.outputs]) != contract.forward


def test_what_does_not(honest: bytes, tmp_path: Path) -> None:
    model = onnx.load_from_string(honest)
    contract = contract_of(model)
    nodes, weights = list(model.graph.node), list(model.graph.initializer)
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes[::-1])
    model.graph.initializer.extend(weights[::-1])
    for node in model.graph.node:
        node.name = f"another {node.name}"
    model.graph.value_info.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    outputs = [*contract.outputs]
    assert hash_of(model, outputs) == contract.forward
    # What computes relevance is no part of it.
    for tensor in model.graph.initializer:
        if tensor.name.startswith("lrp/"):
            tensor.data_type = TensorProto.DOUBLE
    assert hash_of(model, outputs) == contract.forward
    path = tmp_path / "model.onnx"
    onnx.save(
        onnx.load_from_string(honest),
        path,
        save_as_external_data=True,
        location="w",
        size_threshold=0,
    )
    outside = onnx.load(path, load_external_data=False)
    assert hash_of(outside, outputs, tmp_path) == contract.forward
    assert read_compiled(path).changed == ""
    data = bytearray((tmp_path / "w").read_bytes())
    entries = {one.key: one.value for one in a_weight(outside).external_data}
    data[int(entries["offset"])] ^= 1
    (tmp_path / "w").write_bytes(data)
    assert CHANGED in read_compiled(path).changed


def test_the_forms_for_servers_are_no_changes(honest: bytes) -> None:
    model = onnx.load_from_string(honest)
    contract = contract_of(model)
    assert contract.preprocessing is not None
    for form in (
        without_optional_inputs(model, contract),
        with_pixels(model, contract, contract.preprocessing),
    ):
        assert read_compiled(form.SerializeToString()).changed == ""


def test_hashing_takes_no_time() -> None:
    weights = numpy_helper.from_array(np.zeros((2500, 2500), np.float32), "w")
    graph = helper.make_graph([helper.make_node("Gemm", ["x", "w"], ["y"])], "g", [], [], [weights])
    model = helper.make_model(graph)
    seconds = []
    for _ in range(3):
        before = time.process_time()
        hash_of(model, ["y"])
        seconds.append(time.process_time() - before)
    assert min(seconds) < 0.05  # of 25 MB


@pytest.fixture
def changed(honest: bytes, tmp_path: Path) -> Path:
    model = onnx.load_from_string(honest)
    other_value(model)
    path = tmp_path / "changed.lrp.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_verifying_a_changed_file(changed: Path, tmp_path: Path, honest: bytes) -> None:
    def verified(path: Path, *more: str) -> tuple[int, dict[str, list[str]], str]:
        command = ["verify", str(path), "--provider", "cpu", "--threads", "1", "--json", *more]
        done = CliRunner().invoke(main, command)
        said = json.loads(done.stdout)
        checks = {one["check"]: one["faults"] for one in said["checks"]}
        return done.exit_code, checks, " ".join(said["notes"])

    own = "the part that predicts is as it was compiled"
    code, checks, _ = verified(changed)
    assert code == 1 and CHANGED in checks[own][0] and "--original" in checks[own][0]
    # Beside its original the outputs decide: here a weight is another.
    code, checks, notes = verified(changed, "--original", str(MODEL))
    assert code == 1 and own not in checks and checks["original outputs unchanged"]
    # A harmless change: a weight through an Identity.
    model = onnx.load_from_string(honest)
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    model.graph.node.insert(0, helper.make_node("Identity", [conv.input[1]], ["same"]))
    conv.input[1] = "same"
    harmless = tmp_path / "harmless.lrp.onnx"
    harmless.write_bytes(model.SerializeToString())
    code, checks, notes = verified(harmless, "--original", str(MODEL))
    assert code == 0 and CHANGED in notes


def test_explaining_a_changed_file_warns(changed: Path, tmp_path: Path) -> None:
    command = ["explain", str(changed), str(STAR), "-o", str(tmp_path / "out"), "--report", "none"]
    done = CliRunner().invoke(main, [*command, "--provider", "cpu"])
    assert done.exit_code == 0 and f"WARNING: the part of {changed} that predicts" in done.stderr
    assert "lrp-onnx verify" in done.stderr and "--original MODEL" in done.stderr
    with pytest.warns(UserWarning, match=CHANGED):
        lrp_onnx.Explainer(changed, provider="cpu")
    assert any(CHANGED in note for note in compile_model(changed).plan.notes)


def test_files_of_early_versions_state_no_hash(honest: bytes, tmp_path: Path) -> None:
    model = onnx.load_from_string(honest)
    for entry in [one for one in model.metadata_props if one.key == FORWARD]:
        model.metadata_props.remove(entry)
    path = tmp_path / "early.lrp.onnx"
    path.write_bytes(model.SerializeToString())
    assert read_compiled(path).changed == ""
    done = CliRunner().invoke(main, ["verify", str(path), "--provider", "cpu"])
    assert done.exit_code == 0 and "does not state a hash" in done.stdout


def test_pixels_hide_no_change(honest: bytes, tmp_path: Path) -> None:
    """A changed file that is made to take pixels is a changed file, and an honest one is not."""
    model = onnx.load_from_string(honest)
    other_value(model)
    contract = contract_of(model)
    assert contract.preprocessing is not None
    inside = with_pixels(model, contract, contract.preprocessing)
    assert CHANGED in read_compiled(inside.SerializeToString()).changed
    for name, one in (("changed", model), ("honest", onnx.load_from_string(honest))):
        path = tmp_path / f"{name}.lrp.onnx"
        onnx.save(one, path, save_as_external_data=True, location=f"{name}.data", size_threshold=0)
        made = ["triton", str(path), "-o", str(tmp_path / name), "--name", "m", "--pixels"]
        done = CliRunner().invoke(main, made)
        assert done.exit_code == 0, done.output
        (written,) = (tmp_path / name).rglob("model.onnx/model.onnx")
        assert (CHANGED in read_compiled(written).changed) is (name == "changed")
