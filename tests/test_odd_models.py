"""Odd models and odd inputs: each is explained rightly, or refused in words, never given a map that
looks like an explanation and is none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from conftest import run_onnx
from networks import Network
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lrp_onnx.cli.commands import main
from lrp_onnx.cli.verify import run_once
from lrp_onnx.compiled.conservation import TOLERANCE, Account
from lrp_onnx.compiled.verify import Audit, audit, random_picture
from lrp_onnx.compiler import Compiled, compile_model
from lrp_onnx.contract import PREDICTED, Preprocessing
from lrp_onnx.errors import ImageError, LrpOnnxError, UnsupportedModelError, VerificationError
from lrp_onnx.files.description import describe_model
from lrp_onnx.relevance.start import START_VALUES
from lrp_onnx.runtime.classes import Classes
from lrp_onnx.runtime.explainer import Explainer
from lrp_onnx.runtime.preprocess import input_size

Save = Callable[[onnx.ModelProto], Path]
Outputs = Sequence[tuple[str, int, Sequence[int | str]]]
Tail = Callable[[Network, str], str | Outputs]
CLASSES = 5
SIZE = 12


def classifier(
    tail: Tail = lambda net, z: z,
    *,
    classes: int = CLASSES,
    channels: int = 3,
    bias: Sequence[float] | None = None,
    scale: float = 1.0,
    types: type[np.floating] = np.float32,
) -> onnx.ModelProto:
    """A small network; `tail` stands behind its logits, whose biases may be given, and its weights
    are multiplied by `scale` before they become numbers of `types`.
    """
    net = Network(0)
    y = net.activate("Relu", net.conv("x", (channels, 6)))
    y = net.activate("Relu", net.node("Add", net.conv(y, (6, 6), pads=[1] * 4), y))
    z = net.dense(net.node("Flatten", net.node("GlobalAveragePool", y)), (6, classes))
    outputs = tail(net, z)
    for tensor in net.weights:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and tensor.name.startswith(("conv", "fc")):
            given = bias if tensor.name.endswith("bias") and tensor.name[:2] == "fc" else None
            values = np.asarray(values * np.float32(scale) if given is None else given, types)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(types))
    if isinstance(outputs, str):
        outputs = [(outputs, kind, ["N", classes])]
    graph = helper.make_graph(
        net.nodes,
        "odd",
        [helper.make_tensor_value_info("x", kind, ["N", channels, SIZE, SIZE])],
        [helper.make_tensor_value_info(*output) for output in outputs],
        net.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def samples(count: int = 1, channels: int = 3) -> NDArray[np.float32]:
    shape = count, channels, SIZE, SIZE
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def explainer_of(compiled: Compiled) -> Explainer:
    return Explainer(compiled.model.SerializeToString(), providers="cpu")


def audited(compiled: Compiled) -> Audit:
    pictures = random_picture(compiled.model, "x", batch=2)
    return audit(compiled.model, compiled.contract, run_once, pictures=pictures, original=None)


def constant(net: Network, values: Any, dtype: Any = np.float32) -> str:
    return net.constant(f"k{len(net.weights)}", np.asarray(values, dtype))


# Scores that are equal


def _clipped(net: Network, z: str) -> str:
    bounds = constant(net, 1e-3), constant(net, 0.999)
    return net.node("Clip", net.node("Softmax", z, axis=1), *bounds)


TAILS: dict[str, Tail] = {
    "logits": lambda net, z: z,
    "softmax": lambda net, z: net.node("Softmax", z, axis=1),
    "log-softmax": lambda net, z: net.node("LogSoftmax", z, axis=1),
    "sigmoids": lambda net, z: net.node("Sigmoid", z),
    "clipped": _clipped,
    "temperature": lambda net, z: net.node(
        "Softmax", net.node("Div", z, constant(net, 0.5)), axis=1
    ),
}


@pytest.mark.parametrize("tail", TAILS)
def test_the_class_that_is_named_is_the_one_that_is_explained(saved: Save, tail: str) -> None:
    """Also where many classes have the probability 1, or 0: the first of them, as in ArgMax."""
    bias = (0, 1800, 150, 900, 100)  # in float64 the others have the probability 0
    path, x = saved(classifier(TAILS[tail], bias=bias)), samples()
    choices: dict[str, Any] = {"composite": "lrp-epsilon", "resolution": "full"}
    one = explainer_of(compile_model(path, **choices))
    many = explainer_of(compile_model(path, **choices, many_targets=True))
    (predicted,) = one.explain_prepared(x)
    values = next(iter(run_onnx(onnx.load(path), {"x": x}).values()))
    assert predicted.target == values[0].argmax()
    ranks = list(many.explain_prepared(x, target=[-1, -2, -3, -4, -5]))
    assert [e.target for e in ranks] == list(np.argsort(-values[0], kind="stable"))
    for found in (predicted, *ranks):
        expected = one.explain(x, target=found.target)["heatmap"][0]
        np.testing.assert_allclose(
            found.heatmap, expected, atol=1e-5 * max(1e-30, float(np.abs(expected).max()))
        )


# Classes that do not exist


@pytest.mark.parametrize(
    ("start", "runtime"),
    [(start, "cpu") for start in START_VALUES] + [("contrastive", "portable")],
)
def test_a_class_that_does_not_exist_has_a_map_of_zeros(
    saved: Save, start: str, runtime: str
) -> None:
    path = saved(classifier())
    choices: dict[str, Any] = {"start": start, "optimize_for": runtime, "composite": "c3-lrp"}
    one, many = (compile_model(path, **choices, many_targets=m) for m in (False, True))
    targets = {
        one: {PREDICTED: True, 0: True, CLASSES: False, 10**12: False},
        many: {-CLASSES: True, 0: True, -CLASSES - 1: False, -(10**12): False, CLASSES: False},
    }
    for compiled, expected in targets.items():
        x = samples(1 if compiled is many else len(expected))
        found = run_onnx(compiled.model, {"x": x, "target": np.array(list(expected))})
        assert [bool(values.any()) for values in found["heatmap"]] == list(expected.values())
        for values, exists in zip(found["c3"], expected.values(), strict=True):
            assert exists or not values.any()


# Maps that explain nothing


def test_a_map_of_zeros_is_said_to_explain_nothing(saved: Save, tmp_path: Path) -> None:
    path = saved(classifier(scale=0.0))
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / "in" / name), np.full((20, 30, 3), 90, np.uint8))
    arguments = ["explain", str(path), str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(main, [*arguments, "--preprocess", "imagenet", "--json"])
    assert done.exit_code == 0
    assert "the map of a.png explains nothing, nor does that of 1 other: every" in done.stderr
    assert "every value of it is zero" in done.stderr
    for line in done.stdout.splitlines():
        found = json.loads(line)
        assert {one["probability"] for one in found["top5"]} == {0.2}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "explains nothing" in page and "NaN" not in page
    for name in ("c.png", "d.png"):
        cv2.imwrite(str(tmp_path / "in" / name), np.full((20, 30, 3), 90, np.uint8))
    again = CliRunner().invoke(main, [*arguments, "--preprocess", "imagenet"])
    assert "going on" in again.stderr
    said = "the map of a.png explains nothing, nor do those of 3 others: every"
    assert said in again.stderr and said in (tmp_path / "out" / "report.html").read_text()
    found = audited(compile_model(path))
    assert found.passed and any("no relevance at the logits" in note for note in found.notes)


@pytest.mark.parametrize("scale", [1e-13, 1e-9])
def test_what_rounding_leaves_is_said_to_explain_nothing(saved: Save, scale: float) -> None:
    compiled = compile_model(saved(classifier(scale=scale)))
    (found,) = explainer_of(compiled).explain_prepared(samples())
    assert found.heatmap.any() and "rounding" in found.nothing
    assert any("stabilizers took" in note for note in audited(compiled).notes)


def test_other_maps_are_not(saved: Save) -> None:
    compiled = compile_model(saved(classifier()))
    (found,) = explainer_of(compiled).explain_prepared(samples())
    assert found.nothing == "" and audited(compiled).notes == ()


# Numbers that are none, or too many


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_inputs_that_are_not_finite_are_refused(saved: Save, value: float) -> None:
    explainer, x = explainer_of(compile_model(saved(classifier()))), samples(3)
    x[1, 0, 3, 3] = value
    with pytest.raises(ImageError, match="sample 1 of the batch holds NaN or infinity"):
        list(explainer.explain_prepared(x))
    with pytest.raises(ImageError, match="the start holds NaN or infinity"):
        explainer.explain(samples(), start=np.full((1, CLASSES), value, np.float32))


def test_what_a_type_of_16_bits_does_not_hold_is_refused(saved: Save) -> None:
    explainer = explainer_of(compile_model(saved(classifier(types=np.float16))))
    with pytest.raises(ImageError, match="infinity as float16"):
        explainer.explain(samples() * 1e6)


def test_an_empty_batch_is_refused(saved: Save) -> None:
    explainer = explainer_of(compile_model(saved(classifier())))
    with pytest.raises(ImageError, match="the batch is empty"):
        explainer.explain(samples(0))
    assert list(explainer.explain_images([])) == []


def test_integers_do_not_wrap(saved: Save) -> None:
    """A preparation of floats is refused by a model of bytes: -1 is not 255."""
    net = Network(0)
    y = net.node("Cast", net.node("Transpose", "x", perm=[0, 3, 1, 2]), to=TensorProto.FLOAT)
    y = net.activate("Relu", net.conv(net.node("Div", y, constant(net, 255)), (3, 6)))
    z = net.dense(net.node("Flatten", net.node("GlobalAveragePool", y)), (6, CLASSES))
    model = net.model(z, ["N", SIZE, SIZE, 3], classes=CLASSES)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    data = compile_model(saved(model)).model.SerializeToString()
    picture = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    assert len(list(Explainer(data).explain_images([picture]))) == 1
    for spec in (Preprocessing(), Preprocessing(mean=(0.0,), std=(1.0,))):
        explainer = Explainer(data, preprocessing=spec)
        with pytest.raises(ImageError, match="whole numbers from 0 to 255"):
            list(explainer.explain_images([picture]))


@pytest.mark.parametrize("types", [np.float32, np.float16])
def test_a_model_whose_output_overflows_is_told_so(saved: Save, types: type[np.floating]) -> None:
    scale = {np.float32: 1e15, np.float16: 300.0}[types]
    path = saved(classifier(scale=scale, types=types))
    with pytest.raises(VerificationError, match="own output is not finite"):
        compile_model(path, runner=run_once)
    explainer = explainer_of(compile_model(path))
    with pytest.raises(ImageError, match="values are not finite"):
        list(explainer.explain_prepared(samples()))
    found = audited(compile_model(path))
    assert not found.passed and found.notes == ()


# 16 bits


@pytest.mark.parametrize("composite", ["residual-c3", "lrp-epsilon", "attn-lrp"])
def test_files_of_16_bits_are_verified(saved: Save, composite: str) -> None:
    """The ledger names tensors as float32 that no node reads: they are made for the audit."""
    compiled = compile_model(saved(classifier(types=np.float16)), composite=composite)
    assert any("casts" in entry for entry in compiled.contract.ledger)
    found = audited(compiled)
    assert found.passed, found.checks


def test_rounding_explains_no_more_than_it_moves() -> None:
    """Of relevance whose signs cancel, and not of what a rule loses."""

    def account(passed: float) -> Account:
        numbers = {"received": 1.0, "passed": passed, "bias": 0.0, "epsilon": 0.0}
        sizes = {"size_received": 4.0, "size_passed": 4.0}
        arrays = {name: np.array([value]) for name, value in (numbers | sizes).items()}
        return Account(step="a", rule="epsilon", conserves=True, rounding=2.0**-11, **arrays)

    start, moved = np.ones(1), 8 * 2.0**-11
    assert account(1 - moved).fault(start) is None
    assert account(1 - moved - 2 * TOLERANCE).fault(start) is not None


# Heads


def _twice(net: Network, z: str) -> Outputs:
    return [(z, TensorProto.FLOAT, ["N", CLASSES])] * 2


REFUSED: dict[str, tuple[Tail, int, str]] = {
    "softmax of one class": (
        lambda net, z: net.node("Softmax", z, axis=1),
        1,
        "made by Softmax 'softmax.*', which is always 1",
    ),
    "softmax over the batch": (
        lambda net, z: net.node("Softmax", z, axis=0),
        CLASSES,
        "normalises over axis 0",
    ),
    "hardmax": (lambda net, z: net.node("Hardmax", z, axis=1), CLASSES, "Hardmax"),
    "round": (
        lambda net, z: net.node("Round", net.node("Softmax", z, axis=1)),
        CLASSES,
        "Round",
    ),
    "integers": (
        lambda net, z: [(net.node("Cast", z, to=7), TensorProto.INT64, ["N", CLASSES])],
        CLASSES,
        "casts to int64, which rounds",
    ),
    "label": (
        lambda net, z: [(net.node("ArgMax", z, axis=1, keepdims=0), TensorProto.INT64, ["N"])],
        CLASSES,
        r"exactly one of shape \(N, classes\)",
    ),
    "no class": (lambda net, z: z, 0, r"exactly one of shape \(N, classes\)"),
    "no output": (lambda net, z: [], CLASSES, "its outputs are none"),
    "one name twice": (_twice, CLASSES, "two of its outputs are called 'fc"),
    "scalar": (
        lambda net, z: [(net.node("ReduceSum", z, keepdims=0), TensorProto.FLOAT, [])],
        1,
        r"\(\): exactly one",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_words(saved: Save, name: str) -> None:
    tail, classes, words = REFUSED[name]
    with pytest.raises(UnsupportedModelError, match=words):
        compile_model(saved(classifier(tail, classes=classes)))


def test_a_copy_of_an_output_stays_an_output(saved: Save) -> None:
    def tail(net: Network, z: str) -> Outputs:
        return [(v, TensorProto.FLOAT, ["N", CLASSES]) for v in (z, net.node("Identity", z))]

    path = saved(classifier(tail))
    names = [value.name for value in onnx.load(path).graph.output]
    for name in names:
        compiled = compile_model(path, explain=name, runner=run_once)
        assert [value.name for value in compiled.model.graph.output[:2]] == names


def test_a_label_beside_the_scores_stays(saved: Save) -> None:
    def tail(net: Network, z: str) -> Outputs:
        label = net.node("ArgMax", z, axis=1, keepdims=0)
        return [(label, TensorProto.INT64, ["N"]), (z, TensorProto.FLOAT, ["N", CLASSES])]

    compiled = compile_model(saved(classifier(tail)), runner=run_once)
    x = samples(2)
    outputs = run_onnx(compiled.model, {"x": x})
    label = outputs[compiled.model.graph.output[0].name]
    found = explainer_of(compiled).explain_prepared(x)
    assert [one.target for one in found] == label.tolist()


# Names of classes


def test_names_that_several_classes_have_choose_none() -> None:
    classes = Classes(5, ("a", "b", "a", "", ""))
    assert classes.indices("b", 1).tolist() == [1]
    for name, words in (
        ("a", "2 classes are called 'a', 0 and 2"),
        ("", "2 classes have no name"),
    ):
        with pytest.raises(ImageError, match=words):
            classes.indices(name, 1)
    with pytest.raises(ImageError, match="no class ''"):
        Classes(2, ("a", "")).indices("", 1)
    for huge in (10**30, -(10**30), 2**63):
        with pytest.raises(ImageError, match=f"there is no class {huge}:"):
            classes.indices(huge, 1)
    with pytest.raises(ImageError, match=f"there is no class {10**30}:"):
        classes.indices([0, 10**30], 2)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"0": "a", "1": "b", "2": "c"}, ("a", "b", "c")),
        ({"2": "c", "0": "a", "1": None}, ("a", "", "c")),
        (["a", "b", "c"], ("a", "b", "c")),
        ({"0": "a", "2": "b", "3": "c"}, None),
        ({"1": "a", "2": "b", "3": "c"}, None),
        ({"a": 0, "b": 1, "c": 2}, None),
        ({"0": "a", "00": "b", "1": "c"}, None),
    ],
)
def test_names_by_index(tmp_path: Path, labels: Any, expected: tuple[str, ...] | None) -> None:
    """Gaps are remarked upon: every name behind one would be another class's."""
    (tmp_path / "config.json").write_text(json.dumps({"id2label": labels}))
    for said in (
        describe_model({}, tmp_path / "model.onnx", classes=3),
        describe_model({"names": repr(labels)}, None, classes=3),
    ):
        assert said.labels == (expected or ())
        assert bool(said.remarks) == (expected is None)


# Other channels


def test_models_of_other_channels_take_arrays(saved: Save) -> None:
    explainer = explainer_of(compile_model(saved(classifier(channels=4))))
    assert len(list(explainer.explain_prepared(samples(2, channels=4)))) == 2
    with pytest.raises(ImageError, match="4 channels, and pictures have 1 or 3: prepare arrays"):
        list(explainer.explain_images([np.zeros((20, 20, 4), np.uint8)]))
    with pytest.raises(ImageError, match="for grey pictures: change the preprocessing"):
        input_size([None, 1, SIZE, SIZE], Preprocessing())


def test_a_model_without_nodes_is_called_so(saved: Save) -> None:
    model = classifier()
    del model.graph.node[:]
    with pytest.raises(LrpOnnxError, match="it has no nodes"):
        compile_model(saved(model))
