"""The rule of strided shortcuts against its formula in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import relative, run_onnx
from float64 import run_float64
from networks import Network, resnet
from numpy.typing import NDArray

from lrp_onnx.compiler import Options, compile_model, plan_model
from lrp_onnx.errors import RuleError
from lrp_onnx.relevance.rules.table import parse_rule, rule_text

Array = NDArray[np.float64]
Save = Callable[[onnx.ModelProto], Path]


def strided(
    size: tuple[int, int], strides: tuple[int, int], *, rectified: bool, group: int = 1
) -> onnx.ModelProto:
    net = Network(5)
    x = net.node("Relu", net.conv("x", (4, 4), (1, 1), name="fork")) if rectified else "x"
    y = net.conv(x, (4, 6), (1, 1), strides=list(strides), name="shortcut", group=group)
    return net.model(net.node("Flatten", y), ["N", 4, *size])


def windows(size: int, stride: int) -> Array:
    """(read, size): what every position that is read gets of every position, by hand."""
    read = list(range(0, size, stride))
    shares = np.zeros((len(read), size))
    for place in range(size):
        before = place // stride
        if place % stride == 0 or before + 1 == len(read):
            shares[before, place] = 1
        else:
            shares[before + 1, place] = place % stride / stride
            shares[before, place] = 1 - shares[before + 1, place]
    return shares


def spread_by_hand(x: Array, taken: Array, strides: tuple[int, int]) -> Array:
    """``|x(p)| Σᵢ g(p, i) R(i) / Σ_q g(q, i) |x(q)|``"""
    rows, columns = windows(x.shape[2], strides[0]), windows(x.shape[3], strides[1])
    size = np.einsum("ih,jw,nchw->ncij", rows, columns, np.abs(x))
    each = np.where(size > 0, taken / np.where(size > 0, size, 1), 0)
    return np.abs(x) * np.einsum("ih,jw,ncij->nchw", rows, columns, each)


@pytest.mark.parametrize("rectified", [False, True], ids=["signed", "rectified"])
@pytest.mark.parametrize(
    "rule", ["z-plus", "gamma", "gamma(gamma=2)", "epsilon(bias=drop)", "flat"]
)
@pytest.mark.parametrize(
    ("size", "strides"), [((6, 8), (2, 2)), ((7, 5), (2, 2)), ((6, 7), (1, 2)), ((8, 9), (3, 4))]
)
def test_spread_equals_its_formula(
    size: tuple[int, int], strides: tuple[int, int], rule: str, rectified: bool, saved: Save
) -> None:
    """What the positions that are read take is what `rule` gives them without it."""
    model = strided(size, strides, rectified=rectified)
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 4, *size)).astype(np.float32)
    read = [len(range(0, side, stride)) for side, stride in zip(size, strides, strict=True)]
    r = rng.normal(size=(2, 6 * read[0] * read[1])).astype(np.float32)
    feeds = {"x": x, "start": r}
    name = "relevance"
    if rectified:
        name = next(n.output[0] for n in model.graph.node if n.op_type == "Relu")
    path = saved(model)

    def compiled(text: str) -> onnx.ModelProto:
        rules = {"shortcut": text, "fork": "flat"} if rectified else {"shortcut": text}
        return compile_model(path, composite="lrp-z", rules=rules, outputs=(name,)).model

    output = f"relevance/{name}" if rectified else name
    plain = run_float64(compiled(rule), feeds)[output]
    inside = run_float64(model, {"x": x}, [name])[name] if rectified else x.astype(np.float64)
    taken = plain[:, :, :: strides[0], :: strides[1]]
    expected = spread_by_hand(inside, taken, strides)
    spread = compiled(f"spread(rule={rule})")
    assert relative(run_float64(spread, feeds)[output], expected) < 1e-7  # 1/3 is stored in float32
    assert relative(run_onnx(spread, feeds)[output], expected) < 1e-4
    if not rectified:  # no window is all zeros: everything arrives
        assert abs(expected.sum() - plain.sum()) < 1e-7 * np.abs(plain).sum()


def test_what_is_flat_stays_flat(saved: Save) -> None:
    """Equal activations with equal relevance have no lattice, at any border."""
    for size in ((12, 14), (13, 15)):
        model = strided(size, (2, 2), rectified=False)
        x = np.ones((1, 4, *size), np.float32)
        count = 6 * ((size[0] + 1) // 2) * ((size[1] + 1) // 2)
        feeds = {"x": x, "start": np.ones((1, count), np.float32)}
        rules = {"shortcut": "spread(rule=flat)"}
        compiled = compile_model(
            saved(model), composite="lrp-z", rules=rules, outputs=("relevance",)
        )
        found = run_float64(compiled.model, feeds)["relevance"][0, 0]
        # In the middle exactly flat; a window at the border has fewer positions to share with.
        assert np.ptp(found[2:-4, 2:-4]) < 1e-12 * found.max()
        assert found.max() < 3 * found.min()


def test_what_it_serves(saved: Save) -> None:
    """Strided 1×1 convolutions alone: the kind, and an override that does not fit."""
    path = saved(resnet("bottleneck", size=(32, 32), widths=(8, 16)))
    rules = {"@subsampling convolution": "spread"}
    _, plan, assigned = plan_model(path, Options(composite="lrp-resnet", rules=rules))
    spread = [name for name, entry in assigned.items() if rule_text(entry.rule) == "spread"]
    strided_names = [
        step.name
        for step in plan.steps
        if step.kind.category == "convolution"
        and step.kind.weight.shape[2:] == (1, 1)
        and step.kind.strides != (1, 1)
    ]
    assert spread == strided_names != []
    with pytest.raises(RuleError, match="cannot have the rule spread: it is no strided 1x1"):
        compile_model(path, rules={"conv0": "spread"})
    with pytest.raises(RuleError, match="there is no rule 'ratio'"):
        parse_rule("spread(rule=ratio)")
    dropped = plan_model(path, Options(composite="lrp-resnet", rules=rules, bias="drop"))[2]
    assert rule_text(dropped[spread[0]].rule) == "spread(rule=z-plus(bias=drop))"
