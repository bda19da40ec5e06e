"""The compiled file: valid, small, plain, unchanged in what it
predicts, and steerable at run time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import relative, run_onnx
from float64 import run_float64
from networks import picture, resnet
from zoo_files import manifest

from lrp_onnx.compiled.verify import audit, random_picture
from lrp_onnx.compiler import Options, compile_model
from lrp_onnx.contract import Contract, is_compiled
from lrp_onnx.errors import ContractError, OutputExistsError, RuleError, UnsupportedModelError
from lrp_onnx.relevance.composites.presets import COMPOSITES

Save = Callable[[onnx.ModelProto], Path]
VARIANTS = {
    "basic": {"kind": "basic"},
    "basic-bn": {"kind": "basic", "batch_norm": True},
    "bottleneck": {"kind": "bottleneck", "tail": "Softmax", "head": "gap-reshape-matmul"},
    "bottleneck-v1-bn": {
        "kind": "bottleneck",
        "batch_norm": True,
        "stride_in": "1x1",
        "head": "meankeep-flatten-gemm",
    },
    "grouped-dilated": {
        "kind": "bottleneck",
        "group": 2,
        "dilation": 2,
        "widths": (16, 32),
        "head": "mean-none-gemm",
        "swap": True,
    },
    "option-a": {"kind": "basic", "shortcut": "slices", "batch_norm": True},
    "squeeze-and-excitation": {"kind": "bottleneck", "gate": "Sigmoid", "widths": (16, 32)},
    "silu": {"kind": "basic", "activation": "Silu", "gate": "HardSigmoid"},
    "relu6": {"kind": "basic", "activation": "Clip"},
    "leaky": {"kind": "bottleneck", "activation": "LeakyRelu", "batch_norm": True},
    "old-opset": {"kind": "basic", "opset": 9, "batch_norm": True},
    "newest-opset": {"kind": "basic", "opset": 20, "head": "gap-squeeze-gemm"},
}


def metadata(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


# Every composite with every third resnet, and the other way round: all pairs take minutes.
@pytest.mark.parametrize(
    ("composite", "variant"),
    [
        (composite, variant)
        for place, composite in enumerate(COMPOSITES)
        for number, variant in enumerate(VARIANTS)
        if (place + number) % 3 == 0
    ],
)
def test_every_composite_compiles_every_resnet(composite: str, variant: str, saved: Save) -> None:
    # The reference composites take a 2×2 average for the
    # stem's pooling: sizes must be divisible for that.
    model = resnet(**VARIANTS[variant], size=(24, 32))
    compiled = compile_model(
        saved(model),
        Options(composite=composite, outputs=("heatmap", "relevance"), post="none"),
    ).model
    onnx.checker.check_model(compiled, full_check=True)
    assert {node.domain for node in compiled.graph.node} <= {""}
    assert compiled.ir_version <= 9 and 13 <= compiled.opset_import[0].version <= 20
    x = picture(model)
    expected = run_onnx(model, {"x": x}, optimize=False)
    for optimize, tolerance in ((False, 0.0), (True, 1e-5)):
        found = run_onnx(compiled, {"x": x}, optimize=optimize)
        assert list(found) == [*expected, "heatmap", "relevance"]
        for name, value in expected.items():
            assert relative(found[name], value) <= tolerance
        assert np.isfinite(found["relevance"]).all() and np.abs(found["relevance"]).max() > 0
        assert found["heatmap"].shape == (2, 24, 32)
        assert relative(found["relevance"].sum(1), found["heatmap"]) < 1e-5
    exact = run_float64(compiled, {"x": x})["relevance"]
    signed_shares = any(text.startswith("signed") for text in compiled_rules(compiled))
    # Signed shares divide by sums that nearly cancel: the rule itself
    # magnifies rounding, so only the formula is compared elsewhere.
    assert relative(found["relevance"], exact) < (1e-2 if signed_shares else 1e-4)


def compiled_rules(model: onnx.ModelProto) -> list[str]:
    return list(Contract.from_metadata(metadata(model)).rules.values())


def test_what_was_decided_is_in_the_file(saved: Save) -> None:
    path = saved(resnet("bottleneck", batch_norm=True))
    compiled = compile_model(
        path,
        Options(
            composite="lrp-resnet", start="one", rules={"conv*": "flat"}, labels=tuple("abcdefghij")
        ),
    )
    promise = Contract.from_metadata(
        metadata(onnx.load_from_string(compiled.model.SerializeToString()))
    )
    assert is_compiled(metadata(compiled.model))
    assert (
        promise.composite == "lrp-resnet"
        and promise.start_value == "one"
        and promise.labels == tuple("abcdefghij")
    )
    assert promise.classes == 10 and len(promise.blocks) == 4 and promise.input == "x"
    assert {promise.rules[name] for name in promise.rules if name.startswith("conv")} == {"flat"}
    assert "lrp-onnx" in promise.versions


def test_compilation_is_reproducible(saved: Save) -> None:
    path = saved(resnet("basic", batch_norm=True))
    first, second = (
        compile_model(path).model.SerializeToString(deterministic=True) for _ in range(2)
    )
    assert first == second


def test_target_is_chosen_at_run_time(saved: Save) -> None:
    model = resnet("basic")
    x = picture(model, batch=3)
    compiled = compile_model(saved(model), Options(composite="gradient-x-input")).model
    predicted = run_onnx(model, {"x": x})[model.graph.output[0].name].argmax(1)
    default = run_onnx(compiled, {"x": x})["heatmap"]
    named = run_onnx(compiled, {"x": x, "target": predicted.astype(np.int64)})["heatmap"]
    assert np.array_equal(default, named)
    per_sample = run_onnx(compiled, {"x": x, "target": np.array([1, 5, -1])})["heatmap"]
    for sample, target in enumerate((1, 5, int(predicted[2]))):
        alone = run_onnx(compiled, {"x": x[sample : sample + 1], "target": np.array([target])})[
            "heatmap"
        ]
        assert relative(per_sample[sample : sample + 1], alone) < 1e-5
    assert relative(per_sample[0], default[0]) > 1e-2


def test_any_start_vector_can_be_given(saved: Save) -> None:
    """The gradient is linear in its start: a contrastive start is the difference of two targets."""
    model = resnet("basic")
    x = picture(model, batch=2)
    compiled = compile_model(saved(model), Options(composite="gradient")).model

    def towards(target: int) -> np.ndarray:
        return run_onnx(compiled, {"x": x, "target": np.array([target])})["heatmap"]

    start = np.zeros((1, 10), np.float32)
    start[0, 2], start[0, 7] = 1.0, -1.0
    contrast = run_onnx(compiled, {"x": x, "start": start})["heatmap"]
    assert relative(contrast, towards(2) - towards(7)) < 1e-5
    mixed = run_onnx(
        compiled,
        {"x": x, "start": np.concatenate([start, np.zeros_like(start)]), "target": np.array([4])},
    )["heatmap"]
    assert relative(mixed[0], contrast[0]) < 1e-6 and relative(mixed[1], towards(4)[1]) < 1e-6


@pytest.mark.parametrize("start", ["logit", "probability", "one"])
def test_start_value(start: str, saved: Save) -> None:
    """`lrp-resnet` conserves: its map sums to what it started from."""
    model = resnet("basic", size=(32, 32), widths=(32, 64), bias=False)
    x = picture(model)
    logits = run_float64(model, {"x": x})[model.graph.output[0].name]
    best = logits.max(1)
    expected = {
        "logit": best,
        "probability": np.exp(best) / np.exp(logits).sum(1),
        "one": np.ones(2),
    }[start]
    compiled = compile_model(saved(model), Options(composite="lrp-resnet", start=start)).model
    assert relative(run_onnx(compiled, {"x": x})["heatmap"].sum((1, 2)), expected) < 1e-3


def test_contrastive_start(saved: Save) -> None:
    """z ⊙ ∂ log(p/(1 − p))/∂z by central differences, handed to the same file as its `start`."""
    model = resnet("basic", size=(32, 32), widths=(16, 32))
    x, targets = picture(model), np.array([3, 7])
    logits = run_float64(model, {"x": x})[model.graph.output[0].name]

    def log_odds(z: np.ndarray) -> np.ndarray:
        p = (
            np.exp(z - z.max(1, keepdims=True))
            / np.exp(z - z.max(1, keepdims=True)).sum(1, keepdims=True)
        )[np.arange(2), targets]
        return np.asarray(np.log(p / (1 - p)))

    start = np.empty((2, 10), np.float32)
    for column in range(10):
        step = np.zeros((1, 10))
        step[0, column] = 1e-5
        start[:, column] = (
            logits[:, column] * (log_odds(logits + step) - log_odds(logits - step)) / 2e-5
        )
    compiled = compile_model(saved(model), composite="epsilon-plus", start="contrastive").model
    plain = compile_model(saved(model), composite="epsilon-plus").model
    found = run_onnx(compiled, {"x": x, "target": targets})["heatmap"]
    assert relative(found, run_onnx(plain, {"x": x, "start": start})["heatmap"]) < 1e-4


def test_contrastive_start_of_a_model_that_is_sure(saved: Save) -> None:
    """Logits a thousand apart: nothing overflows, and the runner-up alone is contrasted with."""
    model = resnet(size=(32, 32), widths=(8, 16))
    for tensor in model.graph.initializer:
        if tensor.name.startswith("fc"):
            values = onnx.numpy_helper.to_array(tensor) * np.float32(1e4)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    x = picture(model)
    logits = run_onnx(model, {"x": x})[model.graph.output[0].name]
    order = np.argsort(-logits, 1)
    assert (logits.max(1) - np.take_along_axis(logits, order, 1)[:, 1]).min() > 100
    start = np.zeros_like(logits)
    for row, (best, second) in enumerate(order[:, :2]):
        start[row, best], start[row, second] = logits[row, best], -logits[row, second]
    compiled = compile_model(saved(model), composite="lrp-resnet", start="contrastive").model
    plain = compile_model(saved(model), composite="lrp-resnet").model
    found = run_onnx(compiled, {"x": x})["heatmap"]
    assert relative(found, run_onnx(plain, {"x": x, "start": start})["heatmap"]) < 1e-4


def test_rules_for_kinds_of_steps(saved: Save) -> None:
    rules = {
        "@first": "flat",
        "@upper convolution": "epsilon",
        "@join": "z-plus-join",
        "@lower convolution": "gamma",
    }
    compiled = compile_model(saved(resnet(size=(32, 32))), composite="lrp-resnet", rules=rules)
    said = [
        (step.op, compiled.rules[step.name].why.removeprefix("override "))
        for step in compiled.plan.steps
    ]
    convolutions = [why for op, why in said if op == "Convolution"]
    half = -(-len(convolutions) // 2)
    assert convolutions == ["@first"] + ["@lower convolution"] * (half - 1) + [
        "@upper convolution"
    ] * (len(convolutions) - half)
    assert {why for op, why in said if op == "Join"} == {"@join"}
    with pytest.raises(RuleError, match=r"no kind of step '@frist'; did you mean @first"):
        compile_model(saved(resnet()), rules={"@frist": "flat"})
    with pytest.raises(RuleError, match="fits no step"):
        compile_model(saved(resnet()), rules={"@concatenation": "parts"})


def test_shuffled_weights(saved: Save) -> None:
    """The layers nearest to the logits change, those below do not, and the file says so."""
    model = resnet(size=(32, 32), widths=(8, 16))
    path = saved(model)
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    plain = compile_model(path, composite="lrp-resnet")
    layers = sum(step.op in ("Convolution", "Dense") for step in plain.plan.steps)
    changed = {}
    for count in (1, 3, layers, 10**6):
        compiled = compile_model(path, composite="lrp-resnet", randomize=count, seed=1)
        kept = {t.name: onnx.numpy_helper.to_array(t) for t in compiled.model.graph.initializer}
        changed[count] = {n for n, values in stored.items() if not np.array_equal(kept[n], values)}
        for name, values in stored.items():
            np.testing.assert_array_equal(np.sort(kept[name], None), np.sort(values, None))
        assert compiled.contract.randomized == count and any(
            "shuffled" in note for note in compiled.plan.notes
        )
    assert changed[1] == {
        name for name in stored if name.startswith("fc") and np.ptp(stored[name]) > 0
    }
    assert changed[1] < changed[3] < changed[layers] == changed[10**6]
    assert {n for n, v in stored.items() if v.ndim > 1} <= changed[layers]
    x = picture(model)
    found = [
        run_onnx(
            compile_model(path, composite="lrp-resnet", randomize=3, seed=seed).model, {"x": x}
        )["heatmap"]
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    assert relative(found[0], found[2]) > 0.1
    with pytest.raises(ContractError, match="randomized"):
        Contract.from_metadata(
            {p.key: p.value for p in plain.model.metadata_props if p.key != "lrp_onnx.randomized"}
        )


def test_inner_relevance_by_name(saved: Save) -> None:
    """Relevance at a block's input equals what a file that stops
    there would give: both maps agree when summed over all pixels.
    """
    model = resnet("basic", size=(32, 32), widths=(32, 64), bias=False)
    plan = compile_model(saved(model)).plan
    fork = plan.blocks[2].fork
    for composite in ("lrp-resnet", "c3-lrp"):
        compiled = compile_model(
            saved(model), Options(composite=composite, outputs=("heatmap", fork))
        ).model
        found = run_onnx(compiled, {"x": picture(model)})
        inner = found[f"relevance/{fork}"]
        assert inner.ndim == 4 and np.abs(inner).max() > 0
        if composite == "lrp-resnet":
            assert relative(inner.sum((1, 2, 3)), found["heatmap"].sum((1, 2))) < 1e-3


def test_inner_relevance_inside_a_block_that_is_one_layer(saved: Save) -> None:
    model = resnet("basic", size=(32, 32))
    plan = compile_model(saved(model)).plan
    inside = plan.blocks[0].branches[0].steps[0].output
    compiled = compile_model(saved(model), Options(composite="c3-lrp", outputs=(inside,))).model
    assert np.abs(run_onnx(compiled, {"x": picture(model)})[f"relevance/{inside}"]).max() > 0


def test_every_sample_is_explained_alone(saved: Save) -> None:
    model = resnet("bottleneck", size=(32, 32))
    x = picture(model, batch=4)
    compiled = compile_model(saved(model), Options(outputs=("relevance",))).model
    together = run_onnx(compiled, {"x": x})["relevance"]
    alone = np.concatenate([run_onnx(compiled, {"x": x[i : i + 1]})["relevance"] for i in range(4)])
    assert relative(together, alone) < 1e-5


def test_nothing_is_overwritten(saved: Save, tmp_path: Path) -> None:
    compiled = compile_model(saved(resnet()))
    target = tmp_path / "out.onnx"
    target.write_text("mine")
    with pytest.raises(OutputExistsError, match="--force"):
        compiled.save(target)
    assert target.read_text() == "mine"
    compiled.save(target, force=True)
    assert onnx.load(target).producer_name == "lrp-onnx"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model0.onnx", "out.onnx"]


@pytest.mark.parametrize("optimize_for", ["cpu", "portable"])
@pytest.mark.parametrize("composite", ["residual-c3", "c3-lrp", "lrp-resnet"])
def test_a_compiled_file_is_compiled_anew(saved: Save, composite: str, optimize_for: str) -> None:
    """From the part of it that predicts: the same maps as from the original."""
    path = saved(resnet())
    asked = Options(composite=composite, optimize_for=optimize_for)
    expected = compile_model(path, asked).model
    first = compile_model(path, composite="gradient", many_targets=True).model
    again = compile_model(saved(first), asked)
    assert any("compiled anew" in note for note in again.plan.notes)
    feeds = {"x": picture(expected), "target": np.array([1, 3])}
    before, after = (run_onnx(model, feeds) for model in (expected, again.model))
    assert before.keys() == after.keys()
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values, err_msg=name)


@pytest.mark.parametrize("name", ["vit.dynamo", "vit-separate.onnxruntime-transformers"])
def test_a_compiled_transformer_is_compiled_anew(name: str, tmp_path: Path) -> None:
    """The class token's size of the batch is written by the first compilation."""
    (entry,) = (one for one in manifest() if one.name == name)
    first = compile_model(entry.save(tmp_path)).save(tmp_path / "first.onnx")
    again = compile_model(first).model
    feeds = {"input": np.float32(np.random.default_rng(0).normal(size=(3, 3, 32, 32)))}
    before, after = run_onnx(onnx.load(first), feeds), run_onnx(again, feeds)
    assert relative(after["heatmap"], before["heatmap"]) < 1e-6


def test_a_compiled_file_with_shuffled_weights_is_not_compiled_anew(
    saved: Save, tmp_path: Path
) -> None:
    """The result would no longer say that its predictions mean nothing."""
    path = saved(resnet())
    shuffled = compile_model(path, randomize=2).save(tmp_path / "shuffled.onnx")
    with pytest.raises(RuleError, match=r"2 layers .* are shuffled"):
        compile_model(shuffled)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"composite": "c3-lpr"}, "did you mean c3-lrp"),
        ({"start": "logits"}, "did you mean logit"),
        ({"rules": {"nothing*": "flat"}}, "fits no node"),
        ({"rules": {"conv*": "flatt"}}, "did you mean flat"),
        ({"rules": {"conv*": "gamma(gama=1)"}}, "no parameter 'gama'"),
        ({"rules": {"relu*": "pass(epsilon=3)"}}, "pass has no parameter 'epsilon'"),
        ({"rules": {"conv*": "gamma(gamma=much)"}}, "gamma=much: the value must be a number"),
        ({"rules": {"conv*": "gamma(gamma=-1)"}}, "not negative"),
        ({"rules": {"conv*": "alpha-beta(alpha=2, beta=2)"}}, "differ by exactly 1"),
        ({"rules": {"conv*": "gamma(gamma=inf)"}}, "not negative"),
        ({"rules": {"conv*": "epsilon(epsilon=nan)"}}, "not negative"),
        ({"rules": {"conv0": "z-box(low=-1/-1, high=1/1)"}}, "2 bounds, its input 3 channels"),
        ({"rules": {"conv0": "z-box(low=-1, high=1/1)"}}, "as many of each"),
        ({"rules": {"conv*": "ratio"}}, "rule of the residual Add"),
        ({"rules": {"add*": "flat"}}, "rule of layers with one input"),
        ({"rules": {"conv*": "block"}}, "closes no residual block"),
        ({"rules": {"maxpool*": "pass"}}, "cannot have the rule pass"),
        (
            {"composite": "lrp-resnet", "rules": {"maxpool*": "flat"}},
            "no linear|not linear",
        ),
        ({"rules": {"conv*": "average"}}, "no max pooling"),
        ({"rules": {"conv0": "z-box(low=1, high=2)"}}, "must enclose 0"),
    ],
)
def test_a_wrong_choice_is_explained(choices: dict[str, Any], message: str, saved: Save) -> None:
    with pytest.raises(RuleError, match=message):
        compile_model(saved(resnet(size=(32, 32))), **choices)


def test_dropped_biases_are_those_of_rules_that_have_one(saved: Save) -> None:
    compiled = compile_model(saved(resnet()), composite="epsilon-plus-flat", bias="drop")
    dropped = {rule for rule in compiled.contract.rules.values() if "bias=drop" in rule}
    assert dropped == {"z-plus(bias=drop)", "epsilon(bias=drop)"}
    assert {"flat", "norm", "pass", "signed", "winner-take-all"} <= set(
        compiled.contract.rules.values()
    )


def test_a_box_that_is_not_stated_is_the_picture_s(saved: Save) -> None:
    """As an override as in a composite: −1 to 1 is nobody's picture."""
    path = saved(resnet())
    stated = compile_model(path, composite="epsilon-gamma-box").contract.rules
    override = compile_model(
        path, composite="epsilon-gamma-box", rules={"@first": "z-box"}
    ).contract.rules
    (box,) = {rule for rule in override.values() if rule.startswith("z-box")}
    assert override == stated and "low=-2.11" in box and "high=2.2" in box


@pytest.mark.parametrize(
    ("outputs", "message"), [((), "no output"), (("nonsense",), "no tensor 'nonsense'")]
)
def test_a_wrong_output_is_explained(outputs: tuple[str, ...], message: str, saved: Save) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        compile_model(saved(resnet()), Options(outputs=outputs))


def test_as_many_names_as_classes(saved: Save) -> None:
    with pytest.raises(ContractError, match="2 class names"):
        compile_model(saved(resnet()), labels=("cat", "dog"))


def test_all_wrong_overrides_are_named_at_once(saved: Save) -> None:
    with pytest.raises(RuleError) as caught:
        compile_model(
            saved(resnet()), Options(rules={"one*": "flat", "two*": "flat", "add*": "z-plus"})
        )
    assert all(name in str(caught.value) for name in ("one*", "two*", "Join 'add"))


def test_a_full_size_resnet_50_compiles_in_under_ten_seconds(assets: Path) -> None:
    path = assets / "models" / "tin20-resnet50.torchscript-op17-folded.onnx"
    begun = time.process_time()
    compiled = compile_model(
        path, Options(composite="epsilon-alpha2-beta1", outputs=("heatmap", "relevance"))
    )
    data = compiled.model.SerializeToString()
    assert time.process_time() - begun < 10
    assert len(compiled.plan.blocks) == 16 and len(data) < 1.05 * path.stat().st_size


def test_every_real_model_compiles_and_verifies(assets: Path) -> None:
    names = sorted(path.stem for path in (assets / "models").glob("*.onnx"))
    assert len(names) >= 13
    for name in names:
        path = assets / "models" / f"{name}.onnx"
        compiled = compile_model(path, composite="lrp-resnet")
        x = random_picture(compiled.model, compiled.contract.input, batch=2)
        found = audit(compiled.model, compiled.contract, run_onnx, pictures=x, original=None)
        assert found.passed, (name, found.checks)


def test_a_start_of_negative_numbers_alone_is_taken(saved: Save) -> None:
    """What decides whether a start is there is its magnitude: −1 at a class is a start."""
    model = resnet()
    compiled = compile_model(saved(model), composite="gradient-x-input").model
    start = np.zeros((1, 10), np.float32)
    start[0, 3] = 1
    x = {"x": picture(model).astype(np.float32)}
    forward, backward = (
        run_onnx(compiled, x | {"start": sign * start})["heatmap"] for sign in (1, -1)
    )
    assert np.abs(forward).max() > 0 and relative(-backward, forward.astype(np.float64)) < 1e-6
