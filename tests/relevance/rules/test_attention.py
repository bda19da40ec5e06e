"""Rules of attention and of layer normalisation against their formulas, every index written out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import relative, run_onnx
from float64 import run_float64
from networks import Network, picture
from numpy.typing import NDArray

from lrp_onnx.compiled.conservation import accounts_of, constants_of, expose, tensors_of
from lrp_onnx.compiler import Options, compile_model
from lrp_onnx.errors import RuleError

Array = NDArray[np.float64]
Save = Callable[[onnx.ModelProto], Path]


def stabilized(z: Array, epsilon: float, *, signed: bool = True) -> Array:
    return z + epsilon * np.where(z < 0, -1.0, 1.0) if signed else z + epsilon


def product(*, softmax: bool = False, shared: bool = False) -> onnx.ModelProto:
    """``A @ B`` of two matrices (N, 2, 4, 5) and (N, 2, 5, 3), A behind a softmax if asked for; B
    is one for both of A's if `shared`, as in grouped-query attention.
    """
    net = Network(3)
    left = net.conv("x", (2, 2), (1, 1), name="left")
    right = net.conv("x", (2, 1 if shared else 2), (1, 1), name="right")
    left = net.node("Slice", left, *_bounds(net, "l", (4, 5)), name="a")
    right = net.node("Slice", right, *_bounds(net, "r", (5, 3)), name="b")
    if softmax:
        left = net.node("Softmax", left, axis=-1, name="p")
    mixed = net.node("MatMul", left, right, name="mixed")
    return net.model(net.node("Flatten", mixed), ["N", 2, 5, 5], classes=24)


def _bounds(net: Network, name: str, ends: tuple[int, int]) -> list[str]:
    arrays = {"starts": [0, 0], "ends": list(ends), "axes": [2, 3]}
    return [net.constant(f"{name}.{key}", np.array(value)) for key, value in arrays.items()]


def run(
    model: onnx.ModelProto, rules: dict[str, str], tensors: list[str], saved: Save
) -> tuple[dict[str, Array], dict[str, Array], Array]:
    """The relevance of some tensors, all tensors that the network computes, and the start; ONNX
    Runtime's relevance is compared on the way.
    """
    rng = np.random.default_rng(0)
    x, size = picture(model), model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    r = rng.normal(size=(len(x), size)).astype(np.float32)
    composite = "attn-lrp" if "softmax" in rules.values() else "gradient"
    options = Options(composite=composite, rules=rules, outputs=tuple(tensors))
    compiled = compile_model(saved(model), options).model
    feeds = {"x": x, "start": r}
    found, rounded = run_float64(compiled, feeds), run_onnx(compiled, feeds)
    names = [name for node in model.graph.node for name in node.output]
    for tensor in tensors:
        assert relative(rounded[f"relevance/{tensor}"], found[f"relevance/{tensor}"]) < 1e-4
    relevance = {tensor: found[f"relevance/{tensor}"] for tensor in tensors}
    return relevance, run_float64(model, {"x": x}, names), r.astype(np.float64)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("epsilon", "signed"), [(1e-6, True), (0.0, True), (9.0, False)])
def test_halves_of_a_product(epsilon: float, signed: bool, shared: bool, saved: Save) -> None:
    """AttnLRP, Prop. 3.3."""
    rule = f"halves(epsilon={epsilon}, signed={str(signed).lower()})"
    model = product(shared=shared)
    relevance, values, r = run(model, {"@matrix product": rule}, ["a.out", "b.out"], saved)
    a, b, z = values["a.out"], values["b.out"], values["mixed.out"]
    b = np.broadcast_to(b, (len(b), 2, 5, 3))
    s = r.reshape(z.shape) / (2 * stabilized(z, epsilon, signed=signed))
    to_a = np.einsum("nhji,nhip,nhjp->nhji", a, b, s)
    to_b = np.einsum("nhji,nhip,nhjp->nhip", a, b, s)
    to_b = to_b.sum(1, keepdims=True) if shared else to_b
    assert relative(relevance["a.out"], to_a) < 1e-7
    assert relative(relevance["b.out"], to_b) < 1e-7
    if epsilon == 0:
        assert np.allclose(to_a.sum() + to_b.sum(), r.sum())


@pytest.mark.parametrize("shared", [False, True])
def test_the_gradient_of_a_product(shared: bool, saved: Save) -> None:
    rules = {"@matrix product": "gradient-product"}
    relevance, values, r = run(product(shared=shared), rules, ["a.out", "b.out"], saved)
    a, s = values["a.out"], r.reshape(values["mixed.out"].shape)
    b = np.broadcast_to(values["b.out"], (len(a), 2, 5, 3))
    to_b = np.einsum("nhji,nhjp->nhip", a, s)
    to_b = to_b.sum(1, keepdims=True) if shared else to_b
    assert relative(relevance["a.out"], np.einsum("nhip,nhjp->nhji", b, s)) < 1e-9
    assert relative(relevance["b.out"], to_b) < 1e-9


@pytest.mark.parametrize("epsilon", [1e-6, 0.5])
def test_values_take_all(epsilon: float, saved: Save) -> None:
    """CP-LRP: probabilities are constants."""
    rules = {"@attention": f"values(epsilon={epsilon})", "@softmax": "softmax"}
    relevance, values, r = run(product(softmax=True), rules, ["b.out"], saved)
    p, v, z = values["p.out"], values["b.out"], values["mixed.out"]
    s = r.reshape(z.shape) / stabilized(z, epsilon)
    assert relative(relevance["b.out"], np.einsum("nhji,nhip,nhjp->nhip", p, v, s)) < 1e-7


def test_the_softmax_rule(saved: Save) -> None:
    """AttnLRP, Prop. 3.1."""
    rules = {"@attention": "halves", "@softmax": "softmax"}
    relevance, values, _ = run(product(softmax=True), rules, ["a.out", "p.out"], saved)
    x, p, r = values["a.out"], values["p.out"], relevance["p.out"]
    total = np.einsum("nhji->nhj", r)
    expected = np.einsum("nhji,nhji->nhji", x, r - np.einsum("nhji,nhj->nhji", p, total))
    assert relative(relevance["a.out"], expected) < 1e-9


def test_values_need_attention(saved: Save) -> None:
    with pytest.raises(RuleError, match="neither of its factors is a softmax's"):
        compile_model(saved(product()), composite="gradient", rules={"@matrix product": "values"})


@pytest.mark.parametrize("broadcast", [False, True])
def test_halves_of_a_product_of_elements(broadcast: bool, saved: Save) -> None:
    """AttnLRP, Prop. 3.2: R/2 for both; a factor that is read many times gets the sum."""
    net = Network(4)
    left = net.conv("x", (2, 3), (1, 1), name="a")
    right = net.conv("x", (2, 3), (1, 1), name="b")
    right = net.node("GlobalAveragePool", right, name="b2") if broadcast else right
    right = net.node("Sigmoid", right, name="gate")
    y = net.node("Flatten", net.node("Mul", left, right, name="z"))
    model = net.model(y, ["N", 2, 5, 5], classes=75)
    relevance, values, r = run(model, {"@product": "halves"}, ["a.out", "gate.out"], saved)
    z = values["z.out"]
    half = r.reshape(z.shape) * z / stabilized(z, 1e-6) / 2
    assert relative(relevance["a.out"], half) < 1e-7
    to_gate = half.sum((2, 3), keepdims=True) if broadcast else half
    assert relative(relevance["gate.out"], to_gate) < 1e-7
    quotient = "it divides by a norm"
    net.nodes[-2] = onnx.helper.make_node("Div", [left, right], ["z.out"], name="z")
    with pytest.raises(RuleError, match=quotient):
        compile_model(
            saved(net.model(y, ["N", 2, 5, 5], classes=75)),
            composite="gradient",
            rules={"@product": "halves"},
        )


def normalised(form: str) -> tuple[onnx.ModelProto, tuple[int, ...], str]:
    """``x → conv → normalisation → Flatten``, the axes of its statistics in (N, 2, 2, 5, 4), and
    the name of the normalisation's output.
    """
    net = Network(6)
    y, rng = net.conv("x", (2, 4), (1, 1), name="c"), net.rng

    def vector(size: int, centre: float) -> str:
        values = rng.normal(centre, 0.3, size).astype(np.float32)
        return net.constant(f"vector{len(net.weights)}", values)

    if form == "instance":
        y = net.node("InstanceNormalization", y, vector(4, 1), vector(4, 0), name="norm")
        axes: tuple[int, ...] = (3, 4)
    elif form == "layer":
        y = net.node("LayerNormalization", y, vector(4, 1), vector(4, 0), axis=-1, name="norm")
        axes = (4,)
    elif form == "group":
        halves = net.node("Reshape", y, net.constant("halves", np.array([0, 2, -1])))
        ones = [net.constant(k, np.full(2, v, np.float32)) for k, v in (("one", 1), ("zero", 0))]
        y = net.node("InstanceNormalization", halves, *ones, name="inner")
        y = net.node("Reshape", y, net.constant("whole", np.array([0, 4, 5, 4])), name="norm")
        axes = (2, 3, 4)
    else:
        axis = net.constant("axis", np.array([-1]))
        centred = net.node("Sub", y, net.node("ReduceMean", y, axis))
        square = net.node("Pow", centred, net.constant("two", np.float32(2)))
        shifted = net.node(
            "Add", net.node("ReduceMean", square, axis), net.constant("e", np.float32(1e-5))
        )
        y = net.node("Div", centred, net.node("Sqrt", shifted))
        y = net.node("Add", net.node("Mul", y, vector(4, 1)), vector(4, 0), name="norm")
        axes = (4,)
    return net.model(net.node("Flatten", y), ["N", 2, 5, 4], classes=80), axes, y


@pytest.mark.parametrize("bias", ["keep", "drop"])
@pytest.mark.parametrize("epsilon", [1e-6, 0.25])
@pytest.mark.parametrize("form", ["layer", "written", "instance", "group"])
def test_layer_norm_equals_its_formula(form: str, epsilon: float, bias: str, saved: Save) -> None:
    """AttnLRP, Prop. 3.4, on the layer's matrix given its deviations: z = Jx + β."""
    model, axes, output = normalised(form)
    rules = {"@normalization": f"layer-norm(epsilon={epsilon}, bias={bias})"}
    relevance, values, r = run(model, rules, ["c.out"], saved)
    x, z = values["c.out"], values[output]
    split = (len(x), 2, 2, 5, 4)
    seen = x.reshape(split)
    deviation = np.sqrt(seen.var(axes, keepdims=True) + 1e-5)
    unit = ((seen - seen.mean(axes, keepdims=True)) / deviation).reshape(x.shape)
    # z = γ · unit + β, and neither depends on the sample: two of them give both.
    gamma = (z[0] - z[1]) / (unit[0] - unit[1])
    beta = z[0] - gamma * unit[0]
    s = r.reshape(z.shape) / stabilized(z - (beta if bias == "drop" else 0), epsilon)
    size = np.prod([split[axis] for axis in axes])
    back = (gamma * s).reshape(split) / deviation
    expected = np.zeros(split)
    for place in np.ndindex(split):  # every output of a group hands on to every input of it
        group = tuple(slice(None) if i in axes else place[i] for i in range(5))
        expected[group] -= seen[group] * back[place] / size
        expected[place] += seen[place] * back[place]
    assert relative(relevance["c.out"], expected.reshape(x.shape)) < 1e-5


def test_what_the_shift_of_a_norm_absorbs_is_in_the_ledger(saved: Save) -> None:
    model, _, _ = normalised("layer")
    rules = {"@normalization": "layer-norm"}
    compiled = compile_model(saved(model), composite="lrp-epsilon", rules=rules)
    names, x = tensors_of(compiled.contract), {"x": picture(model)}
    values = run_onnx(expose(compiled.model, names), x)
    stored = constants_of(compiled.model, compiled.contract, names)
    accounts = {a.step: a for a in accounts_of(compiled.contract, values | stored | x)}
    norm = accounts["norm"]
    assert (np.abs(norm.bias) > 1e-3 * np.abs(norm.received)).all()
    np.testing.assert_allclose(norm.received, norm.passed + norm.bias + norm.epsilon, rtol=1e-3)


def test_a_local_response_is_divided_by_a_constant(saved: Save) -> None:
    """It has no mean and no shift: the ε-rule with its divisor as a constant hands on R."""
    net = Network(2)
    y = net.node("LRN", net.conv("x", (2, 4), (1, 1), name="c"), size=3, alpha=0.9, name="norm")
    model = net.model(net.node("Flatten", y), ["N", 2, 5, 4], classes=80)
    rules = {"@normalization": "layer-norm(epsilon=0)"}
    relevance, _, r = run(model, rules, ["c.out"], saved)
    assert relative(relevance["c.out"], r.reshape(-1, 4, 5, 4)) < 1e-6
