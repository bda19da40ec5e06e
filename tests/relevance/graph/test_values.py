"""Arithmetic on values: every operation against NumPy for every sign that may be known, and what is
then known of its result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import onnx
import pytest
from conftest import run_onnx
from numpy.typing import NDArray

from lrp_onnx.relevance.graph.append import append
from lrp_onnx.relevance.graph.builder import (
    NEGATIVE,
    POSITIVE,
    UNKNOWN,
    Builder,
    Sign,
    Value,
    Zeros,
)
from lrp_onnx.relevance.graph.emission import EMISSIONS
from lrp_onnx.relevance.graph.relevance import Relevance, stabilize

Array = NDArray[np.float32]
OF_SIGN: dict[str, tuple[Sign, Array]] = {
    "unknown": (UNKNOWN, np.array([[-2, -1, 0, 0.5, 3]], np.float32)),
    "not negative": (POSITIVE, np.array([[0, 1, 2, 0, 0.25]], np.float32)),
    "not positive": (NEGATIVE, np.array([[-1, 0, -0.5, -3, 0]], np.float32)),
}
"""What is known → values of which just that holds."""


def computed(
    function: Callable[..., Value], *operands: tuple[Sign, Array], emission: str = "cpu"
) -> tuple[Value, Array, int]:
    """(the result as a value, its elements, the number of nodes it takes)."""
    info = onnx.helper.make_tensor_value_info
    names = [f"x{place}" for place in range(len(operands))]
    inputs = [
        info(name, onnx.TensorProto.FLOAT, x.shape)
        for name, (_, x) in zip(names, operands, strict=True)
    ]
    identity = onnx.helper.make_node("Identity", names[:1], ["y"])
    y = info("y", onnx.TensorProto.FLOAT, operands[0][1].shape)
    graph = onnx.helper.make_graph([identity], "g", inputs, [y])
    forward = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8
    )
    builder = Builder(taken=frozenset((*names, "y")), emission=EMISSIONS[emission])
    result = function(
        *(Value(builder, name, sign) for name, (sign, _) in zip(names, operands, strict=True))
    )
    nodes = len(builder.nodes)
    builder.node("Identity", result, output="z")
    model = append(builder, forward, inputs={}, defaults={}, outputs={"z": []})
    del model.graph.output[-1].type.tensor_type.shape.dim[:]
    model.graph.output[-1].type.tensor_type.ClearField("shape")
    feeds = {name: x for name, (_, x) in zip(names, operands, strict=True)}
    return result, run_onnx(model, feeds)["z"], nodes


def known_signs(values: Array) -> Sign:
    return Sign(bool((values >= 0).all()), bool((values <= 0).all()))


ONE: dict[str, tuple[Callable[[Value], Value], Callable[[Array], Array]]] = {
    "pos": (Value.pos, lambda x: np.maximum(x, 0)),
    "neg": (Value.neg, lambda x: np.minimum(x, 0)),
    "abs": (Value.abs, np.abs),
    "minus": (Value.__neg__, np.negative),
    "copied": (Value.copied, np.array),
    "squared": (Value.squared, np.square),
    "signum": (Value.signum, np.sign),
    "ones": (Value.ones_like, np.ones_like),
    "at least": (lambda x: x.at_least(0.5), lambda x: np.maximum(x, np.float32(0.5))),
    "flat": (lambda x: x.reshape(-1), np.ravel),
    "leaky": (lambda x: x.leaky(0.5), lambda x: np.where(x > 0, x, x / 2)),
    "twice": (lambda x: x * 2.0, lambda x: x * 2),
    "less one": (lambda x: x - 1.0, lambda x: x - 1),
    "plus nothing": (lambda x: 0.0 + x, np.array),
    "half": (lambda x: x / 2.0, lambda x: x / 2),
    "where positive": (lambda x: x.where_positive(3.0, -4.0), lambda x: np.where(x > 0, 3, -4)),
    "where negative": (lambda x: x.where_negative(3.0, -4.0), lambda x: np.where(x < 0, 3, -4)),
    "where zero": (lambda x: x.where_zero(3.0, -4.0), lambda x: np.where(x == 0, 3, -4)),
    "stabilized": (
        lambda x: stabilize(x, 0.5, signed=True),
        lambda x: x + np.where(x < 0, np.float32(-0.5), np.float32(0.5)),
    ),
    "stabilized upwards": (lambda x: stabilize(x, 0.5, signed=False), lambda x: x + 0.5),
}


@pytest.mark.parametrize("sign", OF_SIGN)
@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize("emission", ["cpu", "portable"])
def test_an_operation_is_numpys(name: str, sign: str, emission: str) -> None:
    """What is said to be known of the result is true."""
    function, expected = ONE[name]
    result, found, _ = computed(function, OF_SIGN[sign], emission=emission)
    np.testing.assert_array_equal(found, expected(OF_SIGN[sign][1]))
    said, true = result.sign, known_signs(found)
    assert true.nonnegative or not said.nonnegative
    assert true.nonpositive or not said.nonpositive


@pytest.mark.parametrize(
    ("name", "known"),
    {
        "pos": {"not negative": (0, POSITIVE), "not positive": (0, None), "unknown": (1, POSITIVE)},
        "neg": {"not negative": (0, None), "not positive": (0, NEGATIVE), "unknown": (1, NEGATIVE)},
        "abs": {
            "not negative": (0, POSITIVE),
            "not positive": (1, POSITIVE),
            "unknown": (1, POSITIVE),
        },
        "minus": {"not negative": (1, NEGATIVE), "not positive": (1, POSITIVE)},
        "copied": {"not negative": (2, POSITIVE), "not positive": (2, NEGATIVE)},
        "squared": {"not negative": (1, POSITIVE), "unknown": (1, POSITIVE)},
        "signum": {"not negative": (2, POSITIVE), "not positive": (2, NEGATIVE)},
        "ones": {"unknown": (2, POSITIVE)},
        "at least": {"unknown": (1, POSITIVE)},
        "flat": {"not negative": (1, POSITIVE), "not positive": (1, NEGATIVE)},
        "leaky": {"not negative": (1, POSITIVE), "unknown": (1, UNKNOWN)},
        "twice": {"not negative": (1, POSITIVE), "not positive": (1, NEGATIVE)},
        "less one": {"not positive": (1, NEGATIVE), "not negative": (1, UNKNOWN)},
        "plus nothing": {"not negative": (0, POSITIVE), "unknown": (0, UNKNOWN)},
        "half": {"not negative": (1, POSITIVE), "not positive": (1, NEGATIVE)},
        "stabilized": {"not negative": (1, POSITIVE), "unknown": (3, UNKNOWN)},
        "stabilized upwards": {"not negative": (1, POSITIVE), "unknown": (1, UNKNOWN)},
    }.items(),
)
def test_what_is_known_of_a_result_costs_no_node(
    name: str, known: dict[str, tuple[int, Sign | None]]
) -> None:
    """Nodes, and the sign; None for a constant 0."""
    for sign, (nodes, expected) in known.items():
        result, _, found = computed(ONE[name][0], OF_SIGN[sign])
        assert found == nodes, sign
        if expected is None:
            assert result.number == 0.0
        else:
            assert result.sign == expected, sign


TWO: dict[str, Callable[..., object]] = {
    "sum": lambda x, y: x + y,
    "difference": lambda x, y: x - y,
    "product": lambda x, y: x * y,
    "quotient": lambda x, y: x / (y.squared() + 1.0 if isinstance(y, Value) else y * y + 1),
    "choice": lambda x, y: (
        x.where_positive(x, y) if isinstance(x, Value) else np.where(x > 0, x, y)
    ),
}


@pytest.mark.parametrize(("one", "other"), list(product(OF_SIGN, OF_SIGN)))
@pytest.mark.parametrize("name", TWO)
def test_the_sign_of_two_operands(name: str, one: str, other: str) -> None:
    """As much is known as follows from the operands' signs: all pairs of their values are tried."""
    (sign, x), (other_sign, y) = OF_SIGN[one], OF_SIGN[other]
    pairs = np.array(list(product(x[0], y[0])), np.float32).T
    left, right = np.ascontiguousarray(pairs[0]), np.ascontiguousarray(pairs[1])
    result, found, _ = computed(TWO[name], (sign, left), (other_sign, right))
    np.testing.assert_allclose(found, TWO[name](left, right), rtol=1e-6)
    if name != "choice":
        assert result.sign == known_signs(found)
    else:  # nothing is made of the condition
        assert result.sign == sign + other_sign


def test_constants_are_computed_at_once() -> None:
    builder = Builder()
    x, two = Value(builder, "x"), builder.value(2.0)
    assert (x * 0.0).number == (0.0 * x).number == 0.0
    assert x * 1.0 is x and 1.0 * x is x and x + 0.0 is x and x - 0.0 is x and x / 1.0 is x
    zero = builder.value(0.0)
    assert (zero / x).number == 0.0 and (zero + x) is x
    assert (-two).number == -2.0 and (-two).sign == NEGATIVE
    assert builder.value(0.0).sign == Sign(True, True)
    assert two.reshape(3, 4) is two and two.ones_like().number == 1.0
    assert [builder.value(v).signum().number for v in (2.0, 0.0, -0.5)] == [1, 0, -1]
    assert two.without(Zeros(1, 1, 1)) is two
    assert not builder.nodes
    assert builder.array([0, 1]).sign == POSITIVE and builder.array([-1, 0]).sign == NEGATIVE
    assert builder.array([-1, 1]).sign == UNKNOWN and builder.array([0.0]).sign == Sign(True, True)


def test_equal_nodes_and_constants_are_built_once() -> None:
    builder = Builder()
    x, y = Value(builder, "x"), Value(builder, "y")
    assert (x + y).name == (x + y).name and (x + y).name != (y + x).name
    assert builder.integers([1]).name == builder.integers([1]).name
    names = {builder.integers([1]).name, builder.integer(1).name, builder.array([1]).name}
    assert len(names | {builder.array([[1]]).name, builder.value(1.0).name}) == 5
    named = builder.node("Add", x, y, output="sum")
    assert named.name == "sum" and (x + y).name != "sum" and len(builder.nodes) == 3
    pools = [builder.node("Pool", x, attributes={"axis": axis}).name for axis in (0, 1, 0)]
    assert pools[0] == pools[2] != pools[1]


def test_names_are_new() -> None:
    builder = Builder(taken=frozenset({"lrp/1", "lrp/3"}))
    assert [builder.fresh() for _ in range(3)] == ["lrp/2", "lrp/4", "lrp/5"]


@pytest.mark.parametrize("most", [0, 2, 3, 5])
def test_many_tensors_are_brought_together_few_at_a_time(most: int) -> None:
    emission = replace(EMISSIONS["cpu"], widest_concat=most)
    builder = Builder(emission=emission)
    values = [Value(builder, f"x{place}") for place in range(7)]
    assert builder.concat(values[:1], 1) is values[0]
    builder.concat(values, 1)
    widths = [len(node.inputs) for node in builder.nodes]
    assert max(widths) <= (most or 7)
    order = {node.outputs[0].name: [v.name for v in node.inputs] for node in builder.nodes}

    def leaves(name: str) -> list[str]:
        return [leaf for one in order[name] for leaf in leaves(one)] if name in order else [name]

    assert leaves(builder.nodes[-1].outputs[0].name) == [v.name for v in values]
    assert len(widths) == {0: 1, 2: 6, 3: 3, 5: 3}[most]


ZEROS = (Zeros(1, 2, 0), Zeros(1, 1, 3), Zeros(2, 1, 3), Zeros(1, 0, 4))


def test_zeros_of_sums_and_products() -> None:
    """A sum is zero where both operands are, a product where one is."""
    first, second, other, last = ZEROS
    assert first & second == Zeros(1, 1, 0) and second & last == Zeros(1, 0, 3)
    assert first & last is None and second & other is None
    builder = Builder()
    x, y = Value(builder, "x", zeros=first), Value(builder, "y", zeros=second)
    plain = Value(builder, "plain")
    assert (x + y).zeros == Zeros(1, 1, 0) and (x + plain).zeros is None
    assert (x * plain).zeros == (plain * x).zeros == first and (plain * plain).zeros is None
    assert (x / plain).zeros == first and (plain / x).zeros is None


@pytest.mark.parametrize("zeros", [Zeros(1, 1, 0), Zeros(1, 0, 2), Zeros(2, 1, 1)])
def test_what_is_cut_out_is_put_back(zeros: Zeros) -> None:
    x = np.arange(1, 13, dtype=np.float32).reshape(1, 3, 4)
    kept = x.take(range(zeros.before, x.shape[zeros.axis] - zeros.after), zeros.axis)
    result, part, _ = computed(lambda value: value.without(zeros), (POSITIVE, x))
    np.testing.assert_array_equal(part, kept)
    assert result.sign == POSITIVE
    result, whole, _ = computed(lambda value: value.within(zeros, 3), (POSITIVE, kept))
    np.testing.assert_array_equal(whole, np.where(np.isin(x, kept), x, 0))
    assert result.zeros == zeros and result.sign == POSITIVE


def test_relevance_in_factors() -> None:
    builder = Builder()
    a, x, y = (Value(builder, name) for name in "axy")
    factored, plain = Relevance(a, x), Relevance(a)
    assert factored.is_of(x) and not factored.is_of(y) and not plain.is_of(x)
    assert plain.total is a and factored.total.name == (x * a).name
    assert (factored + Relevance(y, x)).is_of(x) and not (factored + plain).is_of(x)
    aliased = Relevance(a, x, "pre")
    assert (aliased + Relevance(y, x, "pre")).alias == "pre"
    assert not (aliased + Relevance(y, x)).is_of(x)
    pre = Value(builder, "pre")
    assert aliased.standing_for(pre) is x and aliased.standing_for(y) is y
    assert factored.standing_for(pre) is pre
    assert aliased.positive_only(pre) and not factored.positive_only(x)
    assert Relevance(a, Value(builder, "x", POSITIVE)).positive_only(Value(builder, "x", POSITIVE))
    assert Relevance(a.zero(ZEROS[0]), x).zeros == Relevance(a, x.zero(ZEROS[0])).zeros == ZEROS[0]
    assert Relevance(a, x).zeros is None


def test_what_constants_absorb_is_noted() -> None:
    builder = Builder()
    s, share = Value(builder, "s"), Value(builder, "share")
    assert s.absorbed(builder.value(0.0)) is s and not builder.terms
    assert s.absorbed(share) is s
    (term,) = builder.terms
    assert (term.quotient, term.bias, term.factor, term.stabilizer) == (s, share, 1.0, 0.0)
    assert term.denominator.number == 0.0
    total = Relevance(s, share).absorbed(share)
    assert total.name == (share * s).name
    assert builder.terms[1].quotient is total and builder.terms[1].denominator.number == 1.0


def test_a_quotient_is_noted_with_its_bias_and_factor() -> None:
    builder = Builder()
    r, z, bias = (Value(builder, name) for name in ("r", "z", "bias"))
    relevance = Relevance(r)
    plain = relevance.over(z, 0.5)
    gated = relevance.over(z, 0.5, bias=bias, factor=2.0, gate=lambda s: s * 3.0)
    held = relevance.over(z, 0.5, held=0.5)
    noted = [
        (term.quotient, term.denominator, term.factor, term.stabilizer) for term in builder.terms
    ]
    assert noted == [(plain, z, 1.0, 0.0), (gated, z, 2.0, 0.0), (held, z, 1.0, 0.5)]
    biases = [term.bias for term in builder.terms]
    assert (biases[0].number, biases[1], biases[2].number) == (0.0, bias, 0.0)
    assert gated.name == (plain * 3.0).name and held.name == (r / z).name


R, X = (np.array([[3, -1, 2, 0, 5]], np.float32), np.array([[-2, 4, 0, 1, 0.5]], np.float32))


@pytest.mark.parametrize("emission", ["cpu", "web"])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("epsilon", [0.0, 0.25])
@pytest.mark.parametrize("factored", [True, False])
def test_quotients_of_relevance(
    factored: bool, epsilon: float, signed: bool, emission: str
) -> None:
    """``R / stabilize(z)``, of a relevance that vanishes with z where it is its multiple."""

    def over(r: Value, z: Value) -> Value:
        relevance = Relevance(r, z) if factored else Relevance(r)
        return relevance.over(z, epsilon, signed=signed)

    total = R * X if factored else R
    stabilized = X + epsilon * (np.where(X < 0, -1, 1) if signed else 1)
    zero = stabilized == 0
    expected = np.where(zero, 0, total / np.where(zero, 1, stabilized))
    if factored and epsilon == 0:
        expected = R  # the limit
    _, found, _ = computed(over, (UNKNOWN, R), (UNKNOWN, X), emission=emission)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
