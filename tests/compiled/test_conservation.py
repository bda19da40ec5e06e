"""The ledger: what rules promise to conserve is conserved,
and a broken graph does not go unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import run_onnx
from networks import Network, picture, resnet

from lrp_onnx.compiled.conservation import Account
from lrp_onnx.compiled.verify import Audit, audit, check_compiled
from lrp_onnx.compiler import Compiled, Options, compile_model
from lrp_onnx.contract import Contract
from lrp_onnx.errors import VerificationError
from lrp_onnx.relevance.composites.presets import COMPOSITES

Save = Callable[[onnx.ModelProto], Path]


def audited(compiled: Compiled, x: np.ndarray, original: onnx.ModelProto | None = None) -> Audit:
    return audit(compiled.model, compiled.contract, run_onnx, pictures=x, original=original)


@pytest.mark.parametrize("composite", COMPOSITES)
def test_every_layer_accounts_for_its_relevance(composite: str, saved: Save) -> None:
    model = resnet("bottleneck", size=(32, 32), widths=(16, 32), batch_norm=True)
    compiled = compile_model(
        saved(model), Options(composite=composite, outputs=("heatmap", "relevance"))
    )
    found = audited(compiled, picture(model, batch=3), model)
    assert found.passed, found.checks
    reached = {row.step for row in found.rows}
    opened = (
        {step.name for step in compiled.plan.steps}
        if "block" not in str(compiled.contract.rules)
        else reached
    )
    assert reached == opened or composite.startswith("lrp-resnet-reference-main-only")


@pytest.mark.parametrize(
    ("network", "photos"),
    [
        ("tin10-resnet18w16.torchscript-op13-bn", "tin10-resnet18w16"),
        ("tin20-resnet50.torchscript-op17-folded", "tin20-resnet50"),
    ],
)
def test_lrp_resnet_conserves_on_trained_networks(network: str, photos: str, assets: Path) -> None:
    """Layer by layer, to 1e-3 of the start value: at every join
    the operands' shares add up, and nothing else may absorb.
    """
    compiled = compile_model(assets / "models" / f"{network}.onnx", Options(composite="lrp-resnet"))
    found = audited(compiled, np.load(assets / "golden" / f"{photos}.npz")["input"])
    assert found.passed, found.checks
    assert len(found.rows) == sum(1 for _ in compiled.plan.steps)
    for row in found.rows:
        assert np.abs((row.received - row.passed) / found.start).max() < 1e-3, row.step


def test_bias_and_epsilon_are_told_apart(saved: Save) -> None:
    """One dense layer under the ε-rule: the account equals the formula."""
    from networks import single_layer

    model = single_layer("dense", (2, 1, 2, 2), rectified=False)
    x = picture(model)
    compiled = compile_model(
        saved(model),
        Options(composite="lrp-epsilon", rules={"fc*": "epsilon(epsilon=0.5)"}, start="one"),
    )
    row: Account = next(r for r in audited(compiled, x).rows if r.step.startswith("fc"))
    stored = {
        t.name: onnx.numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer
    }
    w, b = (next(v for k, v in stored.items() if k.endswith(end)) for end in ("weight", "bias"))
    z = x.reshape(2, 4) @ w.T + b
    best = z.argmax(1)
    top, bias = z[np.arange(2), best], b[best]
    denominator = top + 0.5 * np.where(top < 0, -1, 1)
    assert np.allclose(row.bias, bias / denominator, rtol=1e-4)
    assert np.allclose(row.epsilon, 1 - top / denominator, rtol=1e-4)
    assert np.allclose(row.passed, (top - bias) / denominator, rtol=1e-4)


def test_a_broken_backward_pass_is_found(saved: Save) -> None:
    """Scale one backward convolution by 1.01: the ledger must say where."""
    model = resnet("basic", size=(32, 32), widths=(16, 32))
    compiled = compile_model(saved(model), Options(composite="epsilon-plus"))
    added = [n for n in compiled.model.graph.node if n.op_type == "ConvTranspose"]
    victim = added[0]
    scaled = onnx.helper.make_node("Mul", [victim.output[0], "test/scale"], ["test/scaled"])
    for node in compiled.model.graph.node:
        node.input[:] = ["test/scaled" if name == victim.output[0] else name for name in node.input]
    position = list(compiled.model.graph.node).index(victim)
    compiled.model.graph.node.insert(position + 1, scaled)
    compiled.model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.float32(1.01), "test/scale")
    )
    metadata = {
        p.key: p.value.replace(f'"{victim.output[0]}"', '"test/scaled"')
        for p in compiled.model.metadata_props
    }
    found = audit(
        compiled.model,
        Contract.from_metadata(metadata),
        run_onnx,
        pictures=picture(model),
        original=None,
    )
    faults = dict(found.checks)["every layer's relevance accounted for"]
    assert len(faults) == 1 and "unexplained" in faults[0]


@pytest.mark.parametrize(("rule", "noted"), [("signed", True), ("ratio", False)])
def test_relevance_that_grows_without_bound_is_said(rule: str, noted: bool, saved: Save) -> None:
    """A branch that undoes its shortcut but for a thousandth: what is conserved is a small
    difference of large numbers.
    """
    net = Network()
    fork = net.conv("x", (3, 3), (1, 1), bias=False)
    undone = net.constant(
        "undone", np.float32(-0.999) * np.eye(3, dtype=np.float32)[..., None, None]
    )
    main = net.node("Conv", fork, undone, kernel_shape=[1, 1])
    y = net.node("Flatten", net.node("Add", main, fork, name="join"))
    model = net.model(net.dense(y, (60, 3)), ["N", 3, 5, 4], classes=3)
    path = saved(model)
    compiled = compile_model(path, composite="lrp-epsilon", rules={"join": rule})
    found = audited(compiled, picture(model))
    assert found.passed
    assert len(found.notes) == noted
    if noted:
        assert (
            "1 layers, most at join" in found.notes[0] and "ratio or z-plus-join" in found.notes[0]
        )
    row = next(row for row in found.rows if row.step == "join")
    grown = row.size_passed / row.size_received
    assert (grown > 1000).all() if noted else np.allclose(grown, 1)


def test_a_changed_prediction_is_found(saved: Save) -> None:
    model = resnet("basic", size=(32, 32))
    compiled = compile_model(saved(model))
    other = resnet("basic", size=(32, 32), seed=1)
    assert "original outputs unchanged" in [
        name for name, faults in audited(compiled, picture(model), other).checks if faults
    ]
    with pytest.raises(VerificationError, match="changed by"):
        check_compiled(compiled.model, other, compiled.contract, run_onnx)


def test_not_a_number_is_found(saved: Save) -> None:
    model = resnet("basic", size=(32, 32))
    compiled = compile_model(saved(model))
    x = picture(model)
    x[0, 0, 0, 0] = np.nan
    assert any("NaN" in fault for _, faults in audited(compiled, x).checks for fault in faults)


def test_what_a_threshold_decides_is_compared_before_it(saved: Save) -> None:
    """Rounding may move a pixel of a region, not the relevance that the region is found in: a file
    whose batches differ is found out by that.
    """
    model = resnet(size=(32, 32), widths=(8, 16))
    compiled = compile_model(saved(model), composite="c3-lrp", outputs=("heatmap", "c3"))
    name = "a batch of 3 equals 3 single runs"
    assert not dict(audited(compiled, picture(model, batch=3)).checks)[name]
    graph = compiled.model.graph
    last = compiled.contract.ledger[-1]["passed"][0]
    (victim,) = (n for n in graph.node if set(n.output) & set(last))
    whole = victim.output[0]
    index = list(graph.node).index(victim)
    victim.output[0] = "lrp/alone"
    mixing = [
        onnx.helper.make_node("ReduceSum", ["lrp/alone", "lrp/first"], ["lrp/sum"], keepdims=1),
        onnx.helper.make_node("Add", ["lrp/alone", "lrp/sum"], [whole]),
    ]
    for offset, node in enumerate(mixing):
        graph.node.insert(index + 1 + offset, node)
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "lrp/first"))
    faults = dict(audited(compiled, picture(model, batch=3)).checks)[name]
    assert len(faults) == 1 and whole in faults[0]
