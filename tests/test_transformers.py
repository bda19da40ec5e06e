"""Small vision transformers: the gradient against central differences, wherever attention has the
batch; what constants absorb. Rules of attention: relevance/rules/test_attention.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import relative, run_onnx
from float64 import run_float64
from networks import Network, picture, resnet, transformer
from onnx import TensorProto

from lrp_onnx.compiled.conservation import accounts_of, constants_of, expose, tensors_of
from lrp_onnx.compiled.verify import audit
from lrp_onnx.compiler import Options, compile_model
from lrp_onnx.errors import UnsupportedModelError
from lrp_onnx.model.batch_first import Place
from lrp_onnx.plan import kinds
from lrp_onnx.relevance.composites.presets import COMPOSITES, DEFAULT, TRANSFORMERS

Save = Callable[[onnx.ModelProto], Path]
FORMS = ("split", "merged", "windows")


@pytest.mark.parametrize("batch", ["N", 2])
@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_is_that_of_central_differences(
    form: str, batch: int | str, saved: Save
) -> None:
    model = transformer(form, batch=batch)
    x = picture(model).astype(np.float64)
    compiled = compile_model(saved(model), composite="gradient", outputs=("relevance",)).model
    found = run_float64(compiled, {"x": x})["relevance"]
    (logits,) = run_float64(model, {"x": x}).values()
    target = logits.argmax(1)
    rng, step = np.random.default_rng(0), 1e-6
    for _ in range(8):
        direction = rng.normal(size=x.shape)
        ends = [
            next(iter(run_float64(model, {"x": x + s * step * direction}).values()))
            for s in (1, -1)
        ]
        slope = ((ends[0] - ends[1]) / (2 * step))[np.arange(len(x)), target]
        expected = (found * direction).reshape(len(x), -1).sum(1)
        assert np.allclose(expected, slope, rtol=1e-5, atol=1e-7)
    assert relative(run_onnx(compiled, {"x": x.astype(np.float32)})["relevance"], found) < 1e-4


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("composite", COMPOSITES)
def test_every_composite_accounts_for_all_relevance(composite: str, form: str, saved: Save) -> None:
    path = saved(transformer(form))
    compiled = compile_model(path, composite=composite)
    found = audit(
        compiled.model,
        compiled.contract,
        run_onnx,
        pictures=picture(transformer(form)),
        original=None,
    )
    assert found.passed, [check for check in found.checks if check[1]]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("composite", ["gradient", "attn-lrp", "cp-lrp-gamma", "residual-c3"])
@pytest.mark.parametrize("optimize_for", ["cpu", "portable"])
def test_many_targets_are_single_runs(
    composite: str, form: str, optimize_for: str, saved: Save
) -> None:
    path, targets = saved(transformer(form)), np.array([1, 0, 2])
    x = {"x": picture(transformer(form), batch=1)}
    choices = {"composite": composite, "optimize_for": optimize_for, "outputs": ("heatmap",)}
    many = compile_model(path, many_targets=True, **choices).model
    one = compile_model(path, **choices).model
    together = run_onnx(many, x | {"target": targets})["heatmap"]
    for row, target in zip(together, targets, strict=True):
        alone = run_onnx(one, x | {"target": np.array([target])})["heatmap"]
        assert relative(row[None], alone) < 1e-4


@pytest.mark.parametrize("form", FORMS)
def test_what_the_file_computes_stays(form: str, saved: Save) -> None:
    model = transformer(form)
    x = {"x": picture(model)}
    compiled = compile_model(saved(model), composite="attn-lrp").model
    name = model.graph.output[0].name
    before = run_onnx(model, x, optimize=False)[name]
    np.testing.assert_array_equal(run_onnx(compiled, x, optimize=False)[name], before)


@pytest.mark.parametrize("form", FORMS)
def test_the_batch_comes_first_in_the_plan(form: str, saved: Save) -> None:
    plan = compile_model(saved(transformer(form)), composite="gradient").plan
    assert all(step.output_shape[0] is None for step in plan.steps)
    assert bool(plan.views)
    (attention,) = (s for s in plan.steps if s.name == "mixed")
    assert isinstance(attention.kind, kinds.MatrixProduct) and attention.kind.attention == 0


@pytest.mark.parametrize(
    ("place", "view", "sizes"),
    [
        (Place(1), ((), (1, 0, 2)), (3, 4)),
        (Place(1, 1, 2), ((3, -1, 2, 4), (1, 0, 2, 3)), (3, 2, 4)),
        (Place(1, 2, 1), ((3, 2, -1, 4), (2, 0, 1, 3)), (3, 2, 4)),
    ],
)
def test_a_view_of_a_place(
    place: Place, view: tuple[tuple[int, ...], ...], sizes: tuple[int, ...]
) -> None:
    shape = (3, None, 4)
    assert place.view(shape) == kinds.View(*view)
    assert place.sizes(shape) == sizes


def test_constants_absorb_what_they_receive(saved: Save) -> None:
    """The class token and the positions take relevance as a bias does; the ledger states it."""
    model = transformer("split")
    compiled = compile_model(saved(model), composite="cp-lrp-gamma")
    names = tensors_of(compiled.contract)
    x = {"x": picture(model)}
    values = run_onnx(expose(compiled.model, names), x)
    stored = constants_of(compiled.model, compiled.contract, names)
    accounts = {a.step: a for a in accounts_of(compiled.contract, values | stored | x)}
    token, positions = accounts["with token"], accounts["positions"]
    assert np.abs(token.bias).min() > 1e-3 and np.abs(positions.bias).min() > 1e-3
    np.testing.assert_allclose(token.received, token.passed + token.bias, rtol=1e-3)


def test_a_product_along_the_batch_is_refused(saved: Save) -> None:
    net = Network()
    y = net.node("Flatten", net.node("GlobalAveragePool", net.conv("x", (3, 4), (1, 1))))
    turned = net.node("Transpose", y, perm=[1, 0])
    mixed = net.node("MatMul", y, net.node("MatMul", turned, y))
    with pytest.raises(UnsupportedModelError, match="batch"):
        compile_model(saved(net.model(net.dense(mixed, (4, 3)), ["N", 3, 5, 5], classes=3)))


@pytest.mark.parametrize("form", FORMS)
def test_the_default_composite_follows_from_attention(form: str, saved: Save) -> None:
    path = saved(transformer(form))
    found = compile_model(path)
    assert found.contract.composite == TRANSFORMERS
    assert found.contract.post == COMPOSITES[TRANSFORMERS].post
    assert found.contract.start_value == COMPOSITES[TRANSFORMERS].start
    assert any(f"its composite is {TRANSFORMERS}, the default" in note for note in found.plan.notes)
    chosen = compile_model(path, composite=DEFAULT)
    assert chosen.contract.composite == DEFAULT
    assert not any("its composite is" in note for note in chosen.plan.notes)


def test_without_attention_the_default_is_that_of_most(saved: Save) -> None:
    found = compile_model(saved(resnet(size=(32, 32))))
    assert found.contract.composite == DEFAULT
    assert not any("its composite is" in note for note in found.plan.notes)


def test_the_defaults_of_all_families_are_shown_alike() -> None:
    """What `Options` says of outputs and post-processing before the model is read."""
    assert COMPOSITES[TRANSFORMERS].post == COMPOSITES[DEFAULT].post == str(Options().chain)
    assert COMPOSITES[TRANSFORMERS].fold_batch_norm and COMPOSITES[DEFAULT].fold_batch_norm


def quantized(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with rounding in the QDQ format behind every node that attention may consist of,
    and of its scalar constants; scales are those of one batch.
    """
    done = onnx.ModelProto()
    done.CopyFrom(model)
    operators = ("MatMul", "Softmax", "Mul", "Div", "Reshape", "Transpose")
    moved = [o for n in model.graph.node if n.op_type in operators for o in n.output]
    done.graph.output.extend(onnx.ValueInfoProto(name=name) for name in moved)
    largest = {k: float(np.abs(v).max()) for k, v in run_onnx(done, {"x": picture(model)}).items()}
    del done.graph.output[len(model.graph.output) :]
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and not tensor.dims:
            largest[tensor.name] = abs(float(onnx.numpy_helper.to_array(tensor)))
    rounded = [name for name in largest if name not in {o.name for o in model.graph.output}]
    for name in rounded:
        scale, zero = np.float32(largest[name] / 127), np.int8(0)
        for key, array in ((f"{name}.scale", scale), (f"{name}.zero", zero)):
            done.graph.initializer.append(onnx.numpy_helper.from_array(array, key))
    nodes = [one for name in rounded if name not in moved for one in _rounding(name)]
    for node in done.graph.node:
        node.input[:] = [f"{name}.dq" if name in rounded else name for name in node.input]
        nodes += [
            node,
            *(one for name in node.output if name in rounded for one in _rounding(name)),
        ]
    del done.graph.node[:]
    done.graph.node.extend(nodes)
    return done


def _rounding(name: str) -> list[onnx.NodeProto]:
    how = [f"{name}.scale", f"{name}.zero"]
    return [
        onnx.helper.make_node("QuantizeLinear", [name, *how], [f"{name}.q"]),
        onnx.helper.make_node("DequantizeLinear", [f"{name}.q", *how], [f"{name}.dq"]),
    ]


@pytest.mark.parametrize("form", FORMS)
def test_rounding_is_no_obstacle(form: str, saved: Save) -> None:
    """In the QDQ format attention is read as without it, wherever it has the batch."""
    plain, rounded = transformer(form), quantized(transformer(form))
    before, after = (compile_model(saved(one)) for one in (plain, rounded))
    assert before.contract.composite == after.contract.composite == TRANSFORMERS
    feeds = {"x": picture(plain)}
    one, two = (run_onnx(item.model, feeds)["heatmap"] for item in (before, after))
    assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.9
    found = audit(after.model, after.contract, run_onnx, pictures=feeds["x"], original=None)
    assert found.passed, found.checks
