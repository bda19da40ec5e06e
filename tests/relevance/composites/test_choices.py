"""What a composite gives to which step, what a user may change of it, and what is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import relative
from float64 import run_float64
from networks import Network, picture, resnet, transformer

from lrp_onnx.compiler import Options, compile_model, plan_model
from lrp_onnx.errors import RuleError
from lrp_onnx.relevance.composites import presets
from lrp_onnx.relevance.composites.assign import Choices, assign, depends_on_exporter
from lrp_onnx.relevance.composites.presets import COMPOSITES
from lrp_onnx.relevance.rules.linear import REFERENCE_EPSILON, Flat, ZBox
from lrp_onnx.relevance.rules.rule import LinearRule, Rule, StabilizedRule
from lrp_onnx.relevance.rules.table import parse_rule, rule_text

Save = Callable[[onnx.ModelProto], Path]


def prepared(norms: int) -> onnx.ModelProto:
    """``(x − mean) / std``, then convolutions, as many with batch normalisation."""
    net = Network(0)
    mean, std = (
        net.constant(name, np.array(values, np.float32).reshape(1, 3, 1, 1))
        for name, values in (("mean", [0.1, 0.2, 0.3]), ("std", [0.5, 0.4, 0.3]))
    )
    y = net.node("Div", net.node("Sub", "x", mean, name="shift"), std, name="scale")
    for place in range(3):
        y = net.conv(y, (3, 3), (1, 1), bias=False)
        y = net.node("Relu", net.batch_norm(y, 3) if place < norms else y)
    logits = net.dense(net.node("Flatten", net.node("GlobalAveragePool", y)), (3, 2))
    return net.model(logits, ["N", 3, 4, 4])


@pytest.mark.parametrize("norms", [0, 2])
def test_what_depends_on_the_exporter_is_said(norms: int, saved: Save) -> None:
    path = saved(prepared(norms))

    def notes(composite: str) -> list[str]:
        _, plan, _ = plan_model(path, Options(composite=composite))
        return depends_on_exporter(plan, COMPOSITES[composite])

    folded, kept = "epsilon-plus", "lrp-resnet-reference"
    assert COMPOSITES[folded].fold_batch_norm and not COMPOSITES[kept].fold_batch_norm
    assert not notes(folded)
    (note,) = notes(kept)
    assert f"keeps {norms} of them" in note
    (note,) = notes("gradient")  # its rule for everything is no pass through the preparation
    assert note.startswith("the file prepares the picture itself ('shift' and what follows)")


def test_no_preparation_is_no_matter(saved: Save) -> None:
    _, plan, _ = plan_model(saved(resnet()), Options(composite="gradient"))
    assert not depends_on_exporter(plan, COMPOSITES["gradient"])


def test_every_fault_is_named_at_once(saved: Save) -> None:
    _, plan, _ = plan_model(saved(prepared(0)))
    overrides = {"nothing*": "epsilon", "conv*": "signed", "@dense": "z-box", "@softmax": "pass"}
    with pytest.raises(RuleError) as error:
        assign(plan, COMPOSITES["epsilon-plus"], Choices(overrides=overrides))
    said = str(error.value).split("; ")
    assert "the override 'nothing*' fits no node" in said[0]
    assert "the override '@softmax' fits no step" in "; ".join(said)
    assert str(error.value).count("cannot have the rule signed") == 3
    assert "needs the lowest and highest possible input" in str(error.value)
    with pytest.raises(
        RuleError, match=r"no kind of step '@dence'; there are @preparation, @first"
    ):
        assign(plan, COMPOSITES["epsilon-plus"], Choices(overrides={"@dence": "epsilon"}))


def test_a_user_s_choices(saved: Save) -> None:
    """Earlier overrides win; a bias is that of rules that have one; a box is for z-box alone."""
    _, plan, _ = plan_model(saved(prepared(0)))
    names = [step.name for step in plan.steps if step.kind.category == "convolution"]
    box = ((-1.0,), (2.0,))
    overrides = {names[0]: "z-box", "conv*": "gamma", "@convolution": "flat"}
    found = assign(
        plan, COMPOSITES["epsilon-plus"], Choices(bias="drop", overrides=overrides, box=box)
    )
    texts = {name: rule_text(entry.rule) for name, entry in found.items()}
    assert "low=-1" in texts[names[0]] and "high=2" in texts[names[0]]
    assert {texts[name] for name in names[1:]} == {"gamma(bias=drop)"}
    dense = next(step.name for step in plan.steps if step.kind.category == "dense")
    assert texts[dense] == "epsilon(bias=drop)"
    reasons = {name: entry.why for name, entry in found.items()}
    assert reasons[names[1]] == "override conv*" and reasons[dense] == "dense"
    for low in (2, 4):  # bounds of another number of channels
        wrong = ((-1.0,) * low, (2.0,) * low)
        with pytest.raises(RuleError, match="needs the lowest and highest"):
            assign(plan, COMPOSITES["epsilon-plus"], Choices(overrides=overrides, box=wrong))
    three = ((-1.0, -2.0, -3.0), (1.0, 2.0, 3.0))
    assign(plan, COMPOSITES["epsilon-plus"], Choices(overrides=overrides, box=three))


@pytest.mark.parametrize("convolutions", [2, 3, 4, 5])
def test_the_upper_half_of_the_convolutions(convolutions: int, saved: Save) -> None:
    """Those with at least as many before them as behind."""
    net = Network(0)
    y = "x"
    for place in range(convolutions):
        y = net.node("Relu", net.conv(y, (3, 3), (1, 1), name=f"c{place}"))
    logits = net.dense(net.node("Flatten", y), (12, 2))
    path = saved(net.model(logits, ["N", 3, 2, 2]))
    rules = {"@upper convolution": "gamma", "@lower convolution": "flat"}
    for which in (rules, dict(reversed(rules.items()))):
        compiled = compile_model(path, composite="lrp-z", rules=which, resolution="full")
        found = [compiled.contract.rules[f"c{place}"] for place in range(convolutions)]
        upper = [place / convolutions >= 0.5 for place in range(convolutions)]
        assert found == ["gamma" if above else "flat" for above in upper]


def test_of_parallel_branches_the_one_with_most_convolutions_is_first(saved: Save) -> None:
    """Before one with more weights; then the one with more weights, then those behind both."""
    net = Network(0)
    fork = net.node("Relu", net.conv("x", (3, 3), (1, 1), name="fork"))
    long = net.conv(net.conv(fork, (3, 3), (1, 1), name="long0"), (3, 3), (1, 1), name="long1")
    wide = net.conv(fork, (3, 3), (3, 3), pads=[1] * 4, name="wide")
    narrow = net.conv(fork, (3, 3), (1, 1), name="narrow")
    joined = net.node("Add", net.node("Add", narrow, wide), long)
    last = net.conv(net.node("Relu", joined), (3, 3), (1, 1), name="last")
    path = saved(net.model(net.dense(net.node("Flatten", last), (12, 2)), ["N", 3, 2, 2]))
    rules = {"@upper convolution": "gamma", "@convolution": "flat"}
    found = compile_model(path, composite="lrp-z", rules=rules, resolution="full").contract.rules
    order = ["fork", "long0", "long1", "wide", "narrow", "last"]
    assert [name for name in order if found[name] == "gamma"] == ["wide", "narrow", "last"]


def test_layers_without_weights_do_not_count(saved: Save) -> None:
    """A branch with more weights is first, however many activations the other has."""
    net = Network(0)
    fork = net.node("Relu", net.conv("x", (3, 3), (1, 1), name="fork"))
    small = net.conv(fork, (3, 3), (1, 1), name="small")  # 9 weights
    for _ in range(12):
        small = net.node("Tanh", small)
    large = net.conv(fork, (3, 3), (1, 2), pads=[0, 0, 0, 1], name="large")  # 18
    last = net.conv(net.node("Add", small, large), (3, 3), (1, 1), name="last")
    path = saved(net.model(net.dense(net.node("Flatten", last), (12, 2)), ["N", 3, 2, 2]))
    rules = {"@upper convolution": "gamma", "@convolution": "flat"}
    found = compile_model(path, composite="lrp-z", rules=rules, resolution="full").contract.rules
    assert (found["large"], found["small"]) == ("flat", "gamma")


def test_lrp_0_has_no_stabilizer(saved: Save) -> None:
    """Without biases it is homogeneous: a picture of a millionth has a millionth of the map."""
    model = resnet("basic", size=(16, 16), widths=(8, 8), bias=False)
    for tensor in model.graph.initializer:
        if tensor.name.startswith("fc") and tensor.name.endswith("bias"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros(10, np.float32), tensor.name))
    x = picture(model).astype(np.float64)
    compiled = compile_model(saved(model), composite="lrp-z", start="logit", post="none").model
    small, large = (run_float64(compiled, {"x": x * scale})["heatmap"] for scale in (1e-6, 1))
    assert relative(small * 1e6, large) < 1e-9


def test_stabilizers_are_small() -> None:
    """But for the dense layers of iNNvestigate's presets, whose paper has 0.1."""
    large = {
        (which, rule.epsilon)
        for composite in COMPOSITES.values()
        for which, rule in composite.entries
        if getattr(rule, "epsilon", 0.0) > 1e-5
    }
    assert large == {("dense", 0.1)}


@pytest.mark.parametrize("bounds", ["low=-1, high=inf", "low=-inf, high=1", "low=1, high=2"])
def test_the_bounds_of_a_box_are_numbers_around_zero(bounds: str) -> None:
    with pytest.raises(RuleError):
        parse_rule(f"z-box({bounds})")
    assert rule_text(parse_rule("z-box(low=-1, high=0)")).startswith("z-box(")
    for low, high in ((-1.0, np.inf), (-np.inf, 1.0), (1.0, 2.0), (-2.0, -1.0)):
        with pytest.raises(RuleError):
            ZBox(low=(low,), high=(high,))
    assert ZBox(low=(0.0,), high=(1.0,)).low == (0.0,)


SPECIAL = {
    "preparation": ("affine",),
    "first": ("convolution", "dense"),
    "subsampling convolution": ("convolution",),
    "lower convolution": ("convolution",),
    "upper convolution": ("convolution",),
    "identity join": ("block join", "join"),
    "block join": ("join",),
    "elementwise product": ("product",),
    "attention": ("matrix product",),
}
"""Which steps are also of another kind."""


@pytest.mark.parametrize("name", COMPOSITES)
def test_no_entry_stands_behind_one_that_takes_its_steps(name: str) -> None:
    """But for entries of a list that several composites share, which one of them overrides."""
    kinds = [which for which, _ in COMPOSITES[name].entries]
    for place, which in enumerate(kinds):
        before, behind = set(kinds[:place]), set(kinds[place + 1 :])
        assert not before & set(SPECIAL.get(which, ())) - behind, which
        assert "everything" not in before, which


def rules_of(source: str) -> set[tuple[str, Rule]]:
    """(which steps, rule) of the composites with that source, but for what all composites share."""
    made = [composite for composite in COMPOSITES.values() if composite.source == source]
    assert made
    return {entry for composite in made for entry in composite.entries} - set(presets._TAIL)


def test_stabilizers_are_those_of_the_released_code() -> None:
    """iNNvestigate's is 1e-7 (0 in LRP-Z, 0.1 on the dense layers of its presets); the C3-LRP
    authors' is 1e-5 whatever the sign, and they drop biases.
    """
    for which, rule in rules_of(presets._INVESTIGATE_SOURCE):
        if isinstance(rule, StabilizedRule) and not isinstance(rule, Flat):
            assert rule.epsilon in (0, 1e-7, *((0.1,) if which == "dense" else ())), (which, rule)
    released = "released code of Otsuki et al., ECCV 2024"
    for which, rule in rules_of(released) | rules_of("Doublet et al., JSAI 2024"):
        if isinstance(rule, StabilizedRule) and "join" not in which:
            assert rule.epsilon == REFERENCE_EPSILON == 1e-5 and not rule.signed, (which, rule)
    for which, rule in rules_of(released):
        if isinstance(rule, LinearRule) and which in ("first", "convolution", "dense"):
            assert rule.bias == "drop", (which, rule)


def test_a_name_that_is_near() -> None:
    """Two are named at most, the nearest first."""
    assert presets.find_composite("preset-a") is COMPOSITES["preset-a"]
    with pytest.raises(RuleError, match=r"did you mean preset-b-flat or preset-a-flat\?"):
        presets.find_composite("preset-flat")
    with pytest.raises(RuleError, match=r"there is no composite 'xyzzy'; `lrp-onnx composites`"):
        presets.find_composite("xyzzy")


def test_the_default_of_a_family(saved: Save) -> None:
    for model, expected in ((resnet(), "residual-c3"), (transformer(), "transformer-c3")):
        _, plan, _ = plan_model(saved(model))
        assert presets.default_for(plan) == expected
        assert compile_model(saved(model)).contract.composite == expected
