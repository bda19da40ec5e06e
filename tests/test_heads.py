"""The ends of classifiers as people export them: one number, (N, C, 1, 1), what follows a softmax.

Every form of a head is of one network, so that its map must be that of the plain form.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import relative, run_onnx
from networks import Network, picture

from lrp_onnx.cli.verify import run_once
from lrp_onnx.compiled.verify import audit, random_picture
from lrp_onnx.compiler import Compiled, compile_model
from lrp_onnx.errors import UnsupportedModelError
from lrp_onnx.relevance.composites.presets import COMPOSITES
from lrp_onnx.runtime.explainer import Explainer

Save = Callable[[onnx.ModelProto], Path]
Tail = Callable[[Network, str], str]


def trunk(net: Network) -> str:
    y = net.activate("Relu", net.conv("x", (3, 8)))
    y = net.activate("Relu", net.node("Add", net.conv(y, (8, 8), pads=[1] * 4), y))
    return net.node("GlobalAveragePool", y)


def made(net: Network, output: str, shape: list[int | str]) -> onnx.ModelProto:
    model = net.model(output, ["N", 3, 12, 12], classes=1)
    value = onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, shape)
    model.graph.output[0].CopyFrom(value)
    return model


def constant(net: Network, values: Any, dtype: Any = np.int64) -> str:
    return net.constant(f"c{len(net.weights)}", np.asarray(values, dtype))


ONE: dict[str, tuple[Tail, list[int | str], str]] = {
    "logit": (lambda net, z: z, ["N", 1], "logit"),
    "flat": (lambda net, z: net.node("Squeeze", z, constant(net, [1])), ["N"], "logit"),
    "reshaped": (lambda net, z: net.node("Reshape", z, constant(net, [-1])), ["N"], "logit"),
    "sigmoid": (lambda net, z: net.node("Sigmoid", z), ["N", 1], "probability"),
    "flat sigmoid": (
        lambda net, z: net.node("Sigmoid", net.node("Squeeze", z, constant(net, [1]))),
        ["N"],
        "probability",
    ),
    "sigmoid, then flat": (
        lambda net, z: net.node("Squeeze", net.node("Sigmoid", z), constant(net, [1])),
        ["N"],
        "probability",
    ),
}


def of_one_number(name: str, seed: int = 0) -> onnx.ModelProto:
    tail, shape, _ = ONE[name]
    net = Network(seed)
    z = net.dense(net.node("Flatten", trunk(net)), (8, 1))
    return made(net, tail(net, z), shape)


def of_two_classes(seed: int = 0) -> onnx.ModelProto:
    """The same network with a layer of its weights' negatives and themselves: logits -z and z."""
    net = Network(seed)
    z = net.dense(net.node("Flatten", trunk(net)), (8, 1))
    model = made(net, z, ["N", 2])
    dense = next(node for node in model.graph.node if z in node.output)
    for name in dense.input[1:]:
        (weight,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
        array = onnx.numpy_helper.to_array(weight)
        axis = 1 if array.ndim == 2 and array.shape[1] == 1 else 0
        weight.CopyFrom(onnx.numpy_helper.from_array(np.concatenate([-array, array], axis), name))
    return model


def maps_of(compiled: Compiled, x: Any, target: int) -> np.ndarray[Any, Any]:
    feeds = {"x": x, "target": np.full(len(x), target)}
    return run_onnx(compiled.model, feeds)["heatmap"]


@pytest.mark.parametrize("composite", ["lrp-resnet", "excitation-backprop", "lrp-epsilon"])
@pytest.mark.parametrize("name", ONE)
def test_one_number_has_two_classes(saved: Save, name: str, composite: str) -> None:
    """The maps of a network that has both of them as neurons."""
    choices: dict[str, Any] = {"composite": composite, "resolution": "full", "start": "logit"}
    compiled = compile_model(saved(of_one_number(name)), runner=run_once, **choices)
    two = compile_model(saved(of_two_classes()), **choices)
    assert compiled.contract.classes == 2 and compiled.contract.labels == ("no", "yes")
    assert compiled.contract.outputs == {compiled.model.graph.output[0].name: ONE[name][2]}
    x = picture(compiled.model, 3)
    for target in (0, 1, -1):
        expected, found = maps_of(two, x, target), maps_of(compiled, x, target)
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("composite", COMPOSITES)
def test_every_composite_explains_one_number(saved: Save, composite: str) -> None:
    compiled = compile_model(saved(of_one_number("sigmoid")), composite=composite)
    found = audit(
        compiled.model,
        compiled.contract,
        run_once,
        pictures=random_picture(compiled.model, "x", batch=2),
        original=None,
    )
    assert found.passed, found.checks


def test_the_gradient_is_that_of_the_number(saved: Save) -> None:
    path = saved(of_one_number("logit"))
    compiled = compile_model(path, composite="gradient", outputs=("relevance",))
    x = picture(compiled.model, 1).astype(np.float64)
    found = run_onnx(compiled.model, {"x": x.astype(np.float32), "target": np.array([1])})
    rng = np.random.default_rng(0)
    way = rng.normal(size=x.shape)
    step, model = 1e-2, onnx.load(path)
    ends = [run_onnx(model, {"x": (x + sign * step * way).astype(np.float32)}) for sign in (1, -1)]
    (up, down) = (float(next(iter(end.values())).item()) for end in ends)
    slope = (up - down) / (2 * step)
    assert float((found["relevance"] * way).sum()) == pytest.approx(slope, rel=2e-2)


@pytest.mark.parametrize("start", ["logit", "contrastive", "probability", "one"])
@pytest.mark.parametrize("name", ["logit", "sigmoid"])
def test_the_explainer_says_no_and_yes(saved: Save, tmp_path: Path, name: str, start: str) -> None:
    """Probabilities sum to one, the predicted class is the sign's, the start is the logit's."""
    compiled = compile_model(
        saved(of_one_number(name, seed=3)), composite="lrp-epsilon", start=start, resolution="full"
    )
    explainer = Explainer(compiled.model.SerializeToString(), providers="cpu")
    x = picture(compiled.model, 6) * np.linspace(0.2, 4, 6).reshape(-1, 1, 1, 1)
    x = x.astype(np.float32)
    outputs = explainer.explain(x)
    value = next(iter(outputs.values())).reshape(-1)
    z = value if name == "logit" else np.log(value / (1 - value))
    sums = {
        "logit": np.abs(z),
        "contrastive": np.abs(z),
        "probability": 1 / (1 + np.exp(-np.abs(z))),
        "one": np.ones(6),
    }
    ledger = explainer.explain(x, target=1), explainer.explain(x, target=0)
    by_sign = np.where((z > 0)[:, None, None], ledger[0]["heatmap"], ledger[1]["heatmap"])
    np.testing.assert_allclose(
        outputs["heatmap"], by_sign, atol=1e-5 * np.abs(by_sign).max(), err_msg="sign"
    )
    expected = sums[start] / np.abs(z)  # maps of the epsilon rule are proportional to the start
    base = compile_model(
        saved(of_one_number(name, seed=3)),
        composite="lrp-epsilon",
        start="logit",
        resolution="full",
    )
    plain = run_onnx(base.model, {"x": x})["heatmap"]
    assert relative(outputs["heatmap"], plain * expected[:, None, None]) < 1e-4


def test_of_a_picture_file(saved: Save, tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 255, (12, 12, 3)))
    compiled = compile_model(saved(of_one_number("sigmoid")), labels=("cat", "dog"))
    (found,) = Explainer(compiled.model.SerializeToString()).explain_images([tmp_path / "a.png"])
    (first, second) = found.top5
    assert {first[1], second[1]} == {"cat", "dog"} and first[2] + second[2] == pytest.approx(1)
    assert found.target_name == first[1] and found.start_value is None


def _pooled(net: Network) -> str:
    return net.conv(trunk(net), (8, 5), (1, 1))


MANY: dict[str, tuple[Tail, list[int | str], str]] = {
    "logits": (lambda net, z: net.node("Flatten", z), ["N", 5], "logits"),
    "1x1": (lambda net, z: z, ["N", 5, 1, 1], "logits"),
    "1x1 softmax": (
        lambda net, z: net.node("Softmax", z, axis=1),
        ["N", 5, 1, 1],
        "probabilities",
    ),
    "softmax, then flat": (
        lambda net, z: net.node("Flatten", net.node("Softmax", z, axis=1)),
        ["N", 5],
        "probabilities",
    ),
    "log of a softmax": (
        lambda net, z: net.node("Log", net.node("Softmax", net.node("Flatten", z), axis=-1)),
        ["N", 5],
        "log-probabilities",
    ),
    "exp of a log-softmax": (
        lambda net, z: net.node("Exp", net.node("LogSoftmax", net.node("Flatten", z), axis=1)),
        ["N", 5],
        "probabilities",
    ),
    "percent": (
        lambda net, z: net.node(
            "Mul",
            net.node("Softmax", net.node("Flatten", z), axis=1),
            constant(net, 100.0, np.float32),
        ),
        ["N", 5],
        "other",
    ),
    "reshaped softmax": (
        lambda net, z: net.node(
            "Reshape",
            net.node("Softmax", net.node("Flatten", z), axis=1),
            constant(net, [-1, 5]),
        ),
        ["N", 5],
        "probabilities",
    ),
}


@pytest.mark.parametrize("name", MANY)
def test_what_follows_the_logits(saved: Save, name: str) -> None:
    maps = []
    for which in ("logits", name):
        tail, shape, holds = MANY[which]
        net = Network(0)
        model = made(net, tail(net, _pooled(net)), shape)
        compiled = compile_model(saved(model), runner=run_once, resolution="full")
        assert compiled.contract.classes == 5
        assert list(compiled.contract.outputs.values()) == [holds]
        maps.append(maps_of(compiled, picture(compiled.model, 2), -1))
    np.testing.assert_allclose(maps[1], maps[0], atol=1e-6 * np.abs(maps[0]).max())


def test_heads_that_are_refused_in_words(saved: Save) -> None:
    net = Network(0)
    wrong = net.node("Softmax", net.node("Flatten", _pooled(net)), axis=0)
    with pytest.raises(UnsupportedModelError, match="over axis 0, not over the classes"):
        compile_model(saved(made(net, wrong, ["N", 5])))
    net = Network(0)
    z = net.dense(net.node("Flatten", trunk(net)), (8, 1))
    with pytest.raises(UnsupportedModelError, match="one logit, or the sigmoid of one"):
        compile_model(saved(made(net, net.node("Log", net.node("Sigmoid", z)), ["N", 1])))


def test_scores_of_several_classes_come_before_one_number(saved: Save) -> None:
    net = Network(0)
    flat = net.node("Flatten", trunk(net))
    model = made(net, net.dense(flat, (8, 5)), ["N", 5])
    other = net.dense(flat, (8, 1))
    longer = made(net, model.graph.output[0].name, ["N", 5])
    longer.graph.output.append(
        onnx.helper.make_tensor_value_info(other, onnx.TensorProto.FLOAT, ["N", 1])
    )
    assert compile_model(saved(longer)).contract.classes == 5
    chosen = compile_model(saved(longer), explain=other)
    assert chosen.contract.classes == 2 and chosen.contract.outputs[other] == "logit"


def _members(net: Network, kind: str, classes: int = 5) -> list[str]:
    pooled = net.node("Flatten", trunk(net))
    axis = {} if kind == "Sigmoid" else {"axis": 1}
    return [net.node(kind, net.dense(pooled, (8, classes)), **axis) for _ in range(3)]


def _stack(net: Network, parts: list[str]) -> str:
    rows = [net.node("Unsqueeze", part, constant(net, [0])) for part in parts]
    whole = net.node("Concat", *rows, axis=0)
    return net.node("ReduceMean", whole, constant(net, [0]), keepdims=0)


ENSEMBLES: dict[str, Callable[[Network, list[str]], str]] = {
    "mean": lambda net, p: net.node("Mean", *p),
    "sum, divided": lambda net, p: net.node(
        "Div", net.node("Sum", *p), constant(net, 3.0, np.float32)
    ),
    "weighted": lambda net, p: net.node(
        "Add",
        net.node("Mul", constant(net, 0.5, np.float32), p[0]),
        net.node("Mul", net.node("Add", p[1], p[2]), constant(net, 0.25, np.float32)),
    ),
    "stacked": _stack,
}


@pytest.mark.parametrize("kind", ["Softmax", "Sigmoid"])
@pytest.mark.parametrize("form", ENSEMBLES)
def test_an_ensemble_is_its_members_logits(saved: Save, form: str, kind: str) -> None:
    """The gradient of their weighted mean; the predicted class is that of the mean output."""
    net = Network(2)
    parts = _members(net, kind)
    model = made(net, ENSEMBLES[form](net, parts), ["N", 5])
    path = saved(model)
    compiled = compile_model(path, composite="gradient", outputs=("relevance",), runner=run_once)
    holds = "sigmoids" if kind == "Sigmoid" else "probabilities"
    assert list(compiled.contract.outputs.values()) == [holds]
    logits = [node.input[0] for node in model.graph.node if node.op_type == kind]
    for name in logits:
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    weights = [0.5, 0.25, 0.25] if form == "weighted" else [1 / 3] * 3
    x = picture(compiled.model, 1).astype(np.float64)
    way, step = np.random.default_rng(1).normal(size=x.shape), 1e-3

    def mean(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        found = run_onnx(model, {"x": x.astype(np.float32)})
        return np.asarray(sum(w * found[n][0] for w, n in zip(weights, logits, strict=True)))

    slopes = (mean(x + step * way) - mean(x - step * way)) / (2 * step)
    feeds = {"x": x.astype(np.float32)}
    maps = [
        run_onnx(compiled.model, feeds | {"target": np.array([target])})["relevance"]
        for target in range(5)
    ]
    found = [float((one * way).sum()) for one in maps]
    np.testing.assert_allclose(found, slopes, rtol=2e-2, atol=2e-3 * np.abs(slopes).max())


def test_the_ensembles_class_is_that_of_its_output(saved: Save) -> None:
    """Where one member is sure, the mean of probabilities names another class than the logits'."""
    net = Network(0)
    pooled = net.node("Flatten", trunk(net))
    weight = net.constant("zeros", np.zeros((2, 8), np.float32))
    biases = [[0, 2], [0, 2], [20, 0]], [0.4, 0.4, 0.2]
    parts = []
    for index, bias in enumerate(biases[0]):
        z = net.node("Gemm", pooled, weight, constant(net, bias, np.float32), transB=1)
        share = constant(net, biases[1][index], np.float32)
        parts.append(net.node("Mul", net.node("Softmax", z, axis=1), share))
    path = saved(made(net, net.node("Sum", *parts), ["N", 2]))
    compiled = compile_model(path, composite="lrp-epsilon", start="logit", resolution="full")
    feeds = {"x": picture(compiled.model, 1)}
    exposed = onnx.ModelProto.FromString(compiled.model.SerializeToString())
    for name in ("lrp/explained", "lrp/ranked"):
        exposed.graph.output.append(onnx.ValueInfoProto(name=name))
    found = run_onnx(exposed, feeds)
    assert found["lrp/explained"].argmax() == 0 and found["lrp/ranked"].argmax() == 1


def test_a_mirrored_copy_is_averaged(saved: Save) -> None:
    """Flip-TTA: relevance comes back from both ways, mirrored for one of them."""
    net = Network(0)
    bounds = [constant(net, [value]) for value in (-1, -(2**62), 3, -1)]
    weight = net.constant("W", net.rng.normal(size=(8, 3, 3, 3)).astype(np.float32))
    dense = net.constant("F", net.rng.normal(size=(5, 8)).astype(np.float32))

    def logits(x: str) -> str:
        pooled = net.node("GlobalAveragePool", net.node("Relu", net.node("Conv", x, weight)))
        return net.node("Softmax", net.node("Gemm", net.node("Flatten", pooled), dense, transB=1))

    both = net.node("Add", logits("x"), logits(net.node("Slice", "x", *bounds)))
    half = constant(net, 0.5, np.float32)
    path = saved(made(net, net.node("Mul", both, half), ["N", 5]))
    compiled = compile_model(path, composite="lrp-epsilon", resolution="full", runner=run_once)
    x = picture(compiled.model, 1)
    maps = [
        run_onnx(compiled.model, {"x": one, "target": np.array([2])})["heatmap"]
        for one in (x, x[..., ::-1].copy())
    ]
    scale = np.abs(maps[0]).max()
    np.testing.assert_allclose(maps[1], maps[0][..., ::-1], atol=1e-5 * scale)
    assert scale > 0


def test_a_norm_of_squares_is_the_norm(saved: Save) -> None:
    """As Keras writes normalised features: a product with one over the root of the squares' sum."""
    maps = []
    for written in (False, True):
        net = Network(0)
        e = net.dense(net.node("Flatten", trunk(net)), (8, 5))
        if written:
            squares = net.node("ReduceSumSquare", e, constant(net, [1]), keepdims=1)
            squares = net.node("Max", squares, constant(net, 1e-12, np.float32))
            y = net.node("Mul", e, net.node("Reciprocal", net.node("Sqrt", squares)))
        else:
            y = net.node("Div", e, net.node("ReduceL2", e, constant(net, [1]), keepdims=1))
        for composite in ("gradient", "lrp-epsilon"):
            compiled = compile_model(
                saved(made(net, y, ["N", 5])), composite=composite, resolution="full"
            )
            maps.append(maps_of(compiled, picture(compiled.model, 2), 1))
    for plain, other in zip(maps[:2], maps[2:], strict=True):
        np.testing.assert_allclose(other, plain, atol=1e-5 * np.abs(plain).max())


def test_classes_with_sigmoids_of_their_own(saved: Save, tmp_path: Path) -> None:
    """Multi-label: probabilities need not sum to one, and no other class speaks against one."""
    import cv2

    net = Network(0)
    z = net.dense(net.node("Flatten", trunk(net)), (8, 5))
    path = saved(made(net, net.node("Sigmoid", z), ["N", 5]))
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 255, (12, 12, 3)))
    names = ("a", "b", "c", "d", "e")
    base: dict[str, Any] = {"labels": names, "composite": "lrp-epsilon", "resolution": "full"}
    maps, sums = {}, {}
    for start in ("logit", "contrastive", "probability"):
        compiled = compile_model(path, start=start, **base)
        assert list(compiled.contract.outputs.values()) == ["sigmoids"]
        explainer = Explainer(compiled.model.SerializeToString(), providers="cpu")
        (found,) = explainer.explain_images([tmp_path / "a.png"])
        maps[start], sums[start] = found.heatmap.astype(np.float64), found.start_value
    np.testing.assert_allclose(maps["contrastive"], maps["logit"])
    p = found.top5[0][2]
    np.testing.assert_allclose(
        maps["probability"] * np.log(p / (1 - p)), maps["logit"] * p, rtol=1e-3, atol=1e-6
    )
    assert sums["probability"] == pytest.approx(p)
    assert [name for _, name, _ in found.top5] == sorted(
        names, key=lambda name: -found.scores[names.index(name)]
    )
    assert found.probability == pytest.approx(p) and abs(float(found.scores.sum()) - 1) > 0.1
