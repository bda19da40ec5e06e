"""The gate for compiled files: every lie by hand, and what it is told as."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lrp_onnx.compiler import compile_model
from lrp_onnx.contract import PREFIX, Contract
from lrp_onnx.errors import ContractError, LrpOnnxError, ModelFileError
from lrp_onnx.evaluation.presets import forward_of, try_presets
from lrp_onnx.files.budget import machine_memory
from lrp_onnx.files.compiled import checked, read_compiled
from lrp_onnx.runtime.explainer import Explainer

MODEL = Path(__file__).parents[2] / "models" / "shapes-resnet.onnx"


@pytest.fixture(scope="module")
def honest() -> bytes:
    return compile_model(MODEL, composite="c3-lrp").model.SerializeToString()


def changed(data: bytes, change: Callable[[onnx.ModelProto], Any]) -> bytes:
    model = onnx.load_from_string(data)
    change(model)
    return model.SerializeToString()


def stating(key: str, text: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        for entry in [one for one in model.metadata_props if one.key == PREFIX + key]:
            model.metadata_props.remove(entry)
        model.metadata_props.add(key=PREFIX + key, value=text)

    return change


def test_an_honest_file_passes(honest: bytes) -> None:
    assert read_compiled(honest).contract.classes == 10


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("blocks", "null", r"lrp_onnx\.blocks is None, not a list"),
        ("blocks", "3", r"lrp_onnx\.blocks is 3, not a list"),
        ("composite", "[1]", r"lrp_onnx\.composite is \[1\], not a text"),
        ("ledger", '[{"step": 1}]', r"ledger\[0\] has no received, passed, terms"),
        ("rules", "[" * 100_000, r"lrp_onnx\.rules is nested too deeply"),
        ("classes", "10.0", r"lrp_onnx\.classes is 10\.0, not a whole number"),
        ("classes", "true", r"lrp_onnx\.classes is True"),
        ("classes", "0", r"lrp_onnx\.classes is 0, not from 1"),
        ("start_value", '"two"', r"'two', not one of logit"),
        ("outputs", '{"logits": "nonsense"}', r"outputs\['logits'\] is 'nonsense'"),
        ("outputs", "{}", r"lrp_onnx\.outputs is empty"),
        ("resolution", "[0, 0]", r"lrp_onnx\.resolution\[0\] is 0"),
        ("memory_each", "Infinity", r"lrp_onnx\.memory_each is inf"),
        ("preprocessing", '{"mean": [NaN]}', r"mean\[0\] is nan, not a finite number"),
        ("preprocessing", '{"mean": []}', r"mean has 0 entries"),
        ("preprocessing", "[]", r"it is \[\], not an object"),
        ("labels", "{}", r"lrp_onnx\.labels is damaged"),
        ("sources", '{"labels": 3}', r"lrp_onnx\.sources\['labels'\] is 3"),
    ],
)
def test_metadata_of_a_wrong_type(honest: bytes, key: str, text: str, words: str) -> None:
    with pytest.raises(ContractError, match=words):
        read_compiled(changed(honest, stating(key, text)))


def test_a_newer_format_is_told_before_its_faults(honest: bytes) -> None:
    newer = changed(changed(honest, stating("format", "2")), stating("blocks", "3"))
    with pytest.raises(ContractError, match=r"has format 2.*reads up to 1: upgrade lrp-onnx"):
        read_compiled(newer)


def test_all_faults_of_the_metadata_at_once(honest: bytes) -> None:
    data = changed(changed(honest, stating("blocks", "null")), stating("rules", "[]"))
    with pytest.raises(ContractError, match=r"lrp_onnx\.rules.*lrp_onnx\.blocks"):
        read_compiled(data)


def test_a_number_with_thousands_of_digits(honest: bytes) -> None:
    with pytest.raises(ContractError, match=r"lrp_onnx\.classes"):
        read_compiled(changed(honest, stating("classes", "1" * 5000)))


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("classes", "11", "has 10 classes, not 11"),
        ("input", '"picture"', "the inputs are"),
        ("inputs", '"none"', "the inputs are"),
        ("layout", '"NCL"', "not NCL"),
        ("start_shape", "[5, 2]", "the input 'start' has the shape"),
        ("outputs", '{"other": "logits"}', "the outputs 'other' are not there"),
        ("labels", '["a", "b"]', "there are 2 class names, not 10"),
        ("selection", "[:, 5:3]", "the selection"),
    ],
)
def test_metadata_that_does_not_fit_the_graph(
    honest: bytes, key: str, text: str, words: str
) -> None:
    with pytest.raises(ContractError, match=words):
        read_compiled(changed(honest, stating(key, text)))


def test_a_ledger_of_tensors_that_are_not_there(honest: bytes) -> None:
    model = onnx.load_from_string(honest)
    contract = Contract.from_metadata({e.key: e.value for e in model.metadata_props})
    ledger = [dict(entry) for entry in contract.ledger]
    ledger[0]["received"] = ["nowhere"]
    for key, text, words in (
        ("ledger", json.dumps(ledger), "names 'nowhere', which are no tensors"),
        ("ledger", "[]", "the ledger is empty"),
        ("rules", "{}", "has no rule"),
        ("constants", '{"a": {"shape": [2], "float32": "AAAA"}}', "the constant 'a' is damaged"),
    ):
        lie = onnx.load_from_string(changed(honest, stating(key, text)))
        with pytest.raises(ContractError, match=words):
            checked(lie, "lie.onnx", ledger=True)


def output_of(values: np.ndarray[Any, Any], name: str) -> Callable[[onnx.ModelProto], None]:
    """Makes the output `name` a stored tensor."""

    def change(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.output[:] = [f"{one}/was" if one == name else one for one in node.output]
        model.graph.initializer.append(numpy_helper.from_array(values, "stored"))
        model.graph.node.append(helper.make_node("Identity", ["stored"], [name]))
        value = next(one for one in model.graph.output if one.name == name)
        kind = helper.np_dtype_to_tensor_dtype(values.dtype)
        value.CopyFrom(helper.make_tensor_value_info(name, kind, values.shape))

    return change


@pytest.mark.parametrize(
    "values", [np.zeros((1, 4), np.float32), np.zeros((1, 96, 96), np.int64), np.float32(0)]
)
def test_a_heatmap_of_another_rank_or_type(honest: bytes, values: np.ndarray[Any, Any]) -> None:
    with pytest.raises(ContractError, match="the output 'heatmap' has the shape"):
        read_compiled(changed(honest, output_of(np.asarray(values), "heatmap")))


def test_outputs_are_checked_in_the_run_where_no_shape_is_stated(honest: bytes) -> None:
    def silent(model: onnx.ModelProto) -> None:
        output_of(np.zeros((1, 4), np.float32), "heatmap")(model)
        value = next(one for one in model.graph.output if one.name == "heatmap")
        value.type.tensor_type.ClearField("shape")

    explainer = Explainer(changed(honest, silent), providers="cpu", threads=1)
    with pytest.raises(ContractError, match=r"'heatmap' has shape \(1, 4\)"):
        explainer.explain(np.zeros((1, 3, 96, 96), np.float32))


def test_outputs_are_checked_where_presets_are_tried(honest: bytes, tmp_path: Path) -> None:
    """Logits of no axes, and no shape is stated."""

    def silent(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.input[:] = ["logits/was" if one == "logits" else one for one in node.input]
        output_of(np.zeros((), np.float32), "logits")(model)
        value = next(one for one in model.graph.output if one.name == "logits")
        value.type.tensor_type.ClearField("shape")

    path = tmp_path / "lie.onnx"
    path.write_bytes(changed(honest, silent))
    contract, session = forward_of(path, provider="cpu", threads=1)
    with pytest.raises(ContractError, match=r"'logits' has shape \(\)"):
        try_presets(contract, session, [MODEL.parent / "samples" / "star.png"], {})


def loop(count: str) -> Callable[[onnx.ModelProto], None]:
    """Adds a Loop that repeats nothing, `count` times, and that the heatmap waits for."""

    def change(model: onnx.ModelProto) -> None:
        info = helper.make_tensor_value_info
        nodes = [
            helper.make_node("Identity", ["c"], ["d"]),
            helper.make_node("Identity", ["v"], ["w"]),
        ]
        inputs = [info("i", 7, []), info("c", 9, []), info("v", 1, None)]
        body = helper.make_graph(nodes, "body", inputs, [info("d", 9, []), info("w", 1, None)])
        for name, value in (("long", np.array(2**40)), ("short", np.array(3)), ("on", np.array(1))):
            stored = value.astype(bool) if name == "on" else value
            model.graph.initializer.append(numpy_helper.from_array(stored, name))
        for node in model.graph.node:
            node.output[:] = ["before" if one == "heatmap" else one for one in node.output]
        model.graph.node.append(
            helper.make_node("Loop", [count, "on", "before"], ["heatmap"], body=body)
        )

    return change


def test_a_loop_must_end(honest: bytes) -> None:
    assert read_compiled(changed(honest, loop("short"))).contract.classes == 10
    with pytest.raises(ModelFileError, match="1,099,511,627,776 turns: up to 10,000 are run"):
        read_compiled(changed(honest, loop("long")))
    with pytest.raises(ModelFileError, match="no stored number of turns"):
        read_compiled(changed(honest, loop("")))


def test_foreign_operators_and_functions(honest: bytes) -> None:
    def foreign(model: onnx.ModelProto) -> None:
        model.graph.node[0].domain = "com.microsoft"

    def function(model: onnx.ModelProto) -> None:
        model.functions.add(name="Conv", domain="")

    with pytest.raises(ModelFileError, match=r"is of the domain 'com\.microsoft'"):
        read_compiled(changed(honest, foreign))
    with pytest.raises(ModelFileError, match="1 functions of its own"):
        read_compiled(changed(honest, function))


@pytest.mark.parametrize("place", ["../secret.bin", "/etc/hostname", "beside.bin"])
def test_external_data_outside_the_folder(honest: bytes, place: str, tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(b"\0" * 10_000_000)
    folder = tmp_path / "folder"
    folder.mkdir()

    def external(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=place)

    data = changed(honest, external)
    (folder / "model.onnx").write_bytes(data)
    with pytest.raises(ModelFileError, match=r"weights lie in"):
        read_compiled(folder / "model.onnx")
    with pytest.raises(ModelFileError, match="give the model's path"):
        read_compiled(data)


def growing(op: str) -> Callable[[onnx.ModelProto], None]:
    """Adds a few bytes that unfold to 4 GB, and that the heatmap waits for."""

    def whole(model: onnx.ModelProto, name: str, *values: int) -> None:
        stored = numpy_helper.from_array(np.array(values, np.int64), name)
        model.graph.initializer.append(stored)

    def change(model: onnx.ModelProto) -> None:
        whole(model, "one", 1)
        whole(model, "large", 2**29)
        whole(model, "pads", 0, 2**29)
        whole(model, "factor", 2**10)
        chain = ["one", "t0", "t1", "grown"]
        nodes = {
            "ConstantOfShape": [helper.make_node(op, ["large"], ["grown"])],
            "Expand": [helper.make_node(op, ["one", "large"], ["grown"])],
            "Pad": [helper.make_node(op, ["one", "pads"], ["grown"])],
            "Tile": [helper.make_node(op, [a, "factor"], [b]) for a, b in pairwise(chain)],
        }[op]
        for node in model.graph.node:
            node.output[:] = ["before" if one == "heatmap" else one for one in node.output]
        model.graph.node.extend(
            [
                *nodes,
                helper.make_node("ReduceMax", ["grown"], ["most"], keepdims=0),
                helper.make_node("Cast", ["most"], ["cast"], to=TensorProto.FLOAT),
                helper.make_node("Add", ["before", "cast"], ["heatmap"]),
            ]
        )

    return change


@pytest.mark.parametrize("op", ["ConstantOfShape", "Expand", "Pad", "Tile"])
def test_what_unfolds_is_told_before_it_runs(honest: bytes, op: str) -> None:
    with pytest.raises(ModelFileError, match=f"most of it for {op} 'grown'"):
        read_compiled(changed(honest, growing(op)))


def test_what_unfolds_as_values_say_is_not_run(honest: bytes) -> None:
    """How large it becomes shows in the run alone."""

    def change(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.output[:] = ["before" if one == "heatmap" else one for one in node.output]
        model.graph.node.extend(
            [
                helper.make_node("ReduceMax", ["before"], ["size"], keepdims=0),
                helper.make_node("Cast", ["size"], ["whole"], to=TensorProto.INT64),
                helper.make_node("Range", ["whole", "whole", "whole"], ["grown"]),
                helper.make_node("ReduceMax", ["grown"], ["most"], keepdims=0),
                helper.make_node("Cast", ["most"], ["cast"], to=TensorProto.FLOAT),
                helper.make_node("Add", ["before", "cast"], ["heatmap"]),
            ]
        )

    with pytest.raises(ModelFileError, match=r"cannot be told before it runs \(Range 'grown'\)"):
        read_compiled(changed(honest, change))


def test_the_memory_that_is_allowed(honest: bytes) -> None:
    large = changed(honest, growing("Expand"))
    stated = changed(large, stating("memory_each", "5000000000"))
    with pytest.raises(ModelFileError, match=r"takes 4\.3 GB .* 1\.0 GB are allowed.*--max-memory"):
        read_compiled(stated, max_memory=1e9)
    assert read_compiled(stated, max_memory=5e9).contract.memory_each == 5_000_000_000
    assert machine_memory() > 1e8


def test_the_explainer_refuses_before_any_runtime_sees_the_file(
    honest: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the runtime saw the file")

    monkeypatch.setattr("lrp_onnx.runtime.explainer.open_session", never)
    for change in (growing("Expand"), loop("long"), stating("classes", "11")):
        with pytest.raises(LrpOnnxError):
            Explainer(changed(honest, change), providers="cpu")


def beside(kind: str) -> onnx.ModelProto:
    """The embedded model with a second output, which takes 16 TB or has no end."""
    model = onnx.load(MODEL)
    long = numpy_helper.from_array(np.array(2**42), "long")
    shape = numpy_helper.from_array(np.array([2**42]), "shape")
    on = numpy_helper.from_array(np.array(True), "on")
    model.graph.initializer.extend([long, shape, on])
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Identity", ["v"], ["w"])],
        "body",
        [info("i", 7, []), info("c", 9, []), info("v", 7, [])],
        [info("d", 9, []), info("w", 7, [])],
    )
    nodes = {
        "Loop": helper.make_node("Loop", ["long", "on", "long"], ["more"], body=body),
        "ConstantOfShape": helper.make_node("ConstantOfShape", ["shape"], ["more"]),
    }
    model.graph.node.append(nodes[kind])
    element = 7 if kind == "Loop" else 1
    model.graph.output.append(info("more", element, [] if kind == "Loop" else [2**42]))
    return model


@pytest.mark.parametrize("kind", ["Loop", "ConstantOfShape"])
def test_the_compiler_does_not_run_an_original_without_bounds(kind: str, tmp_path: Path) -> None:
    def never(*_: object, **__: object) -> Any:
        raise AssertionError("it ran")

    path = tmp_path / "model.onnx"
    onnx.save(beside(kind), path)
    with pytest.raises(LrpOnnxError, match=r"turns|makes a tensor of sizes \[4398046511104\]"):
        compile_model(path, explain="logits", runner=never)
