"""Values, and the builder that collects the nodes behind them, in the order of the computation.

Arithmetic on values appends nodes; equal expressions are built once. What
is known of a tensor (its sign, that it is one constant number, where it is
zero) travels with it, so that ``|x|`` of a post-ReLU tensor costs no node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import ArrayLike, NDArray

from lrp_onnx.contract import INTERNAL
from lrp_onnx.plan.kinds import View
from lrp_onnx.relevance.graph.emission import DEFAULT_EMISSION, EMISSIONS, Emission

LAST = 2**31 - 1
"""As a Slice end: up to and including the last element."""
STEEP = 1e30
"""Steep enough that every float32 above 1e-30 becomes 1 where it is cut off there."""


@dataclass(frozen=True, slots=True)
class Sign:
    """What is known of the sign of every element of a
    tensor; zero is both non-negative and non-positive.
    """

    nonnegative: bool = False
    nonpositive: bool = False

    def __add__(self, other: Sign) -> Sign:
        """The sign of a sum."""
        return Sign(self.nonnegative and other.nonnegative, self.nonpositive and other.nonpositive)

    def __mul__(self, other: Sign) -> Sign:
        """The sign of a product, of a sum of products, or of a quotient."""
        return Sign(
            (self.nonnegative and other.nonnegative) or (self.nonpositive and other.nonpositive),
            (self.nonnegative and other.nonpositive) or (self.nonpositive and other.nonnegative),
        )

    def __neg__(self) -> Sign:
        return Sign(self.nonpositive, self.nonnegative)


UNKNOWN = Sign()
POSITIVE = Sign(nonnegative=True)
"""Non-negative."""
NEGATIVE = Sign(nonpositive=True)
"""Non-positive."""


@dataclass(frozen=True, slots=True)
class Zeros:
    """Where a tensor is known to be zero: `before` elements at the start of an axis, and `after` at
    its end.
    """

    axis: int
    before: int
    after: int

    def __and__(self, other: Zeros) -> Zeros | None:
        """Where both are zero, None for nowhere."""
        both = Zeros(self.axis, min(self.before, other.before), min(self.after, other.after))
        return both if self.axis == other.axis and (both.before or both.after) else None


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A tensor in the graph being built."""

    builder: Builder
    name: str
    sign: Sign = UNKNOWN
    number: float | None = None
    """The one number that every element equals, where that is known."""
    vanishes: str | None = None
    """Name of a tensor of the same shape: where it is zero, so is this."""
    zeros: Zeros | None = None
    """Where it is zero whatever the picture."""

    @property
    def nonnegative(self) -> bool:
        """No element is known to be below zero."""
        return self.sign.nonnegative

    @property
    def nonpositive(self) -> bool:
        """No element is above zero."""
        return self.sign.nonpositive

    def constant(self, number: float) -> Value:
        """A number in the same graph."""
        return self.builder.value(number)

    def __add__(self, other: Value | float) -> Value:
        other = self.builder.value(other)
        if self.number == 0.0:
            return other
        if other.number == 0.0:
            return self
        zeros = self.zeros & other.zeros if self.zeros and other.zeros else None
        return self.builder.node("Add", self, other, sign=self.sign + other.sign).zero(zeros)

    def __sub__(self, other: Value | float) -> Value:
        other = self.builder.value(other)
        if other.number == 0.0:
            return self
        return self.builder.node("Sub", self, other, sign=self.sign + -other.sign)

    def __mul__(self, other: Value | float) -> Value:
        other = self.builder.value(other)
        for one, two in ((self, other), (other, self)):
            if one.number == 0.0 or two.number == 1.0:
                return one
        product = self.builder.node("Mul", self, other, sign=self.sign * other.sign)
        return product.zero(self.zeros or other.zeros)

    __radd__ = __add__
    __rmul__ = __mul__

    def __truediv__(self, other: Value | float) -> Value:
        other = self.builder.value(other)
        if other.number == 1.0 or self.number == 0.0:
            return self
        quotient = self.builder.node("Div", self, other, sign=self.sign * other.sign)
        return quotient.zero(self.zeros)

    def __neg__(self) -> Value:
        if self.number is not None:
            return self.constant(-self.number)
        return self.builder.node("Neg", self, sign=-self.sign)

    def copied(self) -> Value:
        """The same tensor as another one, which adds nothing to the file."""
        opposite = self.builder.node("Neg", self, sign=-self.sign)
        return self.builder.node("Neg", opposite, sign=self.sign)

    def pos(self) -> Value:
        """``max(x, 0)``."""
        if self.nonnegative:
            return self
        if self.nonpositive:
            return self.constant(0.0)
        return self.builder.node("Relu", self, sign=POSITIVE)

    def at_least(self, least: float) -> Value:
        """``max(x, least)`` for a `least` above 0."""
        return self.builder.node("Clip", self, self.constant(least), None, sign=POSITIVE)

    def leaky(self, slope: float) -> Value:
        """x where x > 0, else ``slope · x``; for a slope below 0 it is ``max(x, slope · x)``."""
        sign = POSITIVE if slope <= 0 or self.nonnegative else UNKNOWN
        return self.builder.node("LeakyRelu", self, attributes={"alpha": slope}, sign=sign)

    def neg(self) -> Value:
        """``min(x, 0)``."""
        if self.nonpositive:
            return self
        if self.nonnegative:
            return self.constant(0.0)
        zero = self.constant(0.0)
        if self.builder.emission.clipped_minima:
            return self.builder.node("Clip", self, None, zero, sign=NEGATIVE)
        return self.builder.node("Min", self, zero, sign=NEGATIVE)

    def abs(self) -> Value:
        """``|x|``."""
        if self.nonnegative:
            return self
        return -self if self.nonpositive else self.builder.node("Abs", self, sign=POSITIVE)

    def signum(self) -> Value:
        """1 where x > 0, −1 where x < 0, 0 where it is 0; of values below 1e-30 something between.

        A product and a Clip: runtimes' Sign and their comparisons take four times as long.
        """
        if self.number is not None:
            return self.constant(float(np.sign(self.number)))
        low, high = self.constant(-1.0), self.constant(1.0)
        return self.builder.node("Clip", self * STEEP, low, high, sign=self.sign)

    def where_positive(self, then: Value | float, otherwise: Value | float = 0.0) -> Value:
        """`then` where x > 0, else `otherwise`."""
        return self._where("Greater", then, otherwise)

    def where_negative(self, then: Value | float, otherwise: Value | float = 0.0) -> Value:
        """`then` where x < 0, else `otherwise`."""
        return self._where("Less", then, otherwise)

    def where_zero(self, then: Value | float, otherwise: Value | float) -> Value:
        """`then` where x = 0, else `otherwise`."""
        return self._where("Equal", then, otherwise)

    def _where(self, comparison: str, then: Value | float, otherwise: Value | float) -> Value:
        """`then` where the comparison of x with zero holds, else `otherwise`."""
        then, otherwise = self.builder.value(then), self.builder.value(otherwise)
        condition = self.builder.node(comparison, self, self.constant(0.0))
        return self.builder.node(
            "Where", condition, then, otherwise, sign=then.sign + otherwise.sign
        )

    def ones_like(self) -> Value:
        """A constant's shape, filled with ones."""
        if self.number is not None:
            return self.constant(1.0)
        return self.builder.node(
            "Expand", self.constant(1.0), self.builder.node("Shape", self), sign=POSITIVE
        )

    def reshape(self, *shape: int) -> Value:
        """The same elements in another shape; -1 is the batch."""
        if self.number is not None:
            return self
        return self.builder.node("Reshape", self, self.builder.integers(shape), sign=self.sign)

    def without(self, zeros: Zeros) -> Value:
        """The part that may be anything else than `zeros`."""
        if self.number is not None:
            return self
        integers = self.builder.integers
        end = -zeros.after if zeros.after else LAST
        bounds = integers((zeros.before,)), integers((end,)), integers((zeros.axis,))
        return self.builder.node("Slice", self, *bounds, sign=self.sign)

    def within(self, zeros: Zeros, rank: int) -> Value:
        """The tensor with `rank` axes whose part this is, zero elsewhere."""
        pads = np.zeros((2, rank), int)
        pads[:, zeros.axis] = zeros.before, zeros.after
        padded = self.builder.node("Pad", self, self.builder.integers(pads.ravel()), sign=self.sign)
        return padded.zero(zeros)

    def zero(self, zeros: Zeros | None) -> Value:
        """The same tensor, known to be zero there."""
        return replace(self, zeros=zeros) if zeros else self

    def squared(self) -> Value:
        """``x²``."""
        return replace(self * self, sign=POSITIVE)

    def absorbed(self, share: Value) -> Value:
        """The same quotient of relevance; of its product with `share`, a part of a bias, the ledger
        is told.
        """
        if share.number != 0.0:
            self.builder.terms.append(Term(self, self.constant(0.0), share, 1.0))
        return self

    def vanishing(self, where: Value) -> Value:
        """The same tensor, known to be zero wherever `where` is."""
        return replace(self, vanishes=where.name)


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """One quotient ``s = R / stabilize(z)`` that a rule
    formed: what `verify` needs to say where relevance went.
    """

    quotient: Value
    denominator: Value
    bias: Value
    factor: float
    stabilizer: float = 0.0
    """What of the denominator is stabilizer already."""


@dataclass(slots=True, eq=False)
class Builder:
    """Collects the nodes and constants that are added to a graph,
    in the order of the computation.
    """

    taken: frozenset[str] = frozenset()
    """Tensor names of the graph that is being extended."""
    other_types: frozenset[str] = frozenset()
    """Which of them are not float32; relevance is computed
    in float32 whatever the model computes in.
    """
    emission: Emission = EMISSIONS[DEFAULT_EMISSION]
    batch: str | None = None
    """What the batch of relevance is called, where it is not that of the pictures: one picture's
    forward pass then serves many backward ones, and its tensors, of batch 1, are broadcast.
    """
    views: Mapping[str, View] = field(default_factory=dict)
    """How those of them are seen whose batch is not first."""
    seen: dict[str, str] = field(default_factory=dict)
    """Tensors that are views of those → which."""
    casts: dict[str, str] = field(default_factory=dict)
    """Tensors that are those of `other_types` as float32 → which."""
    prefix: str = INTERNAL
    """What the names of tensors begin with."""
    nodes: list[gs.Node] = field(default_factory=list)
    terms: list[Term] = field(default_factory=list)
    """Every quotient that rules formed, in their order."""
    tensors: dict[str, gs.Tensor] = field(default_factory=dict)
    _built: dict[Any, tuple[str, ...]] = field(default_factory=dict)
    shapes: dict[str, Sequence[int | None]] = field(default_factory=dict)
    _count: int = 0

    def tensor(self, name: str) -> gs.Tensor:
        """The tensor called `name`, created as a variable where it is not there yet."""
        if name not in self.tensors:
            self.tensors[name] = gs.Variable(name)
        return self.tensors[name]

    def value(self, source: Value | float) -> Value:
        """A number as a scalar constant; a Value as it is."""
        if isinstance(source, Value):
            return source
        number = float(source)
        name = self._constant(_as_float32(number))
        return Value(self, name, Sign(number >= 0, number <= 0), number=number)

    def array(self, values: ArrayLike) -> Value:
        """A constant float32 tensor."""
        data = np.ascontiguousarray(_as_float32(values))
        return Value(
            self, self._constant(data), Sign(bool((data >= 0).all()), bool((data <= 0).all()))
        )

    def integers(self, values: Iterable[int]) -> Value:
        """A constant int64 vector (shapes, axes, indices)."""
        return Value(self, self._constant(np.asarray(tuple(values), np.int64)))

    def integer(self, value: int) -> Value:
        """A constant int64 scalar."""
        return Value(self, self._constant(np.asarray(value, np.int64)))

    def stored(self, values: NDArray[Any]) -> Value:
        """A constant tensor of the array's own element type."""
        return Value(self, self._constant(np.ascontiguousarray(values).reshape(values.shape)))

    def known(self, name: str, *, nonnegative: bool = False) -> Value:
        """A tensor of the forward graph, or one that it stores, as float32 and batch first."""
        known = Value(self, name, Sign(nonnegative))
        if name in self.other_types:
            to = {"to": int(onnx.TensorProto.FLOAT)}
            known = self.node("Cast", known, attributes=to, sign=known.sign)
            self.casts[known.name] = name
        view = self.views.get(name)
        if view is None:
            return known
        if view.shape:
            known = known.reshape(*view.shape)
        if view.order != tuple(range(len(view.order))):
            known = self.node("Transpose", known, attributes={"perm": view.order}, sign=known.sign)
        self.seen[known.name] = name
        return known

    def node(
        self,
        op: str,
        *inputs: Value | None,
        attributes: Mapping[str, Any] | None = None,
        sign: Sign = UNKNOWN,
        output: str | None = None,
    ) -> Value:
        """Append one node of one output; the same node is
        not built twice unless its output is named.
        """
        (name,) = self._append(op, inputs, attributes or {}, [output])
        return Value(self, name, sign)

    def nodes_of(
        self,
        op: str,
        *inputs: Value | None,
        outputs: int,
        attributes: Mapping[str, Any] | None = None,
    ) -> list[Value]:
        """Append one node of several outputs."""
        return [
            Value(self, name)
            for name in self._append(op, inputs, attributes or {}, [None] * outputs)
        ]

    def _append(
        self,
        op: str,
        inputs: Sequence[Value | None],
        attributes: Mapping[str, Any],
        outputs: Sequence[str | None],
    ) -> tuple[str, ...]:
        key = (
            op,
            tuple(v.name if v else "" for v in inputs),
            repr(sorted(attributes.items())),
            len(outputs),
        )
        named = any(output is not None for output in outputs)
        if not named and key in self._built:
            return self._built[key]
        names = tuple(output or self.fresh() for output in outputs)
        self.nodes.append(
            gs.Node(
                op,
                name=names[0],
                attrs={
                    name: gs.Constant(name, value) if isinstance(value, np.ndarray) else value
                    for name, value in attributes.items()
                },
                inputs=[self.tensor(v.name) if v else gs.Variable.empty() for v in inputs],
                outputs=[self.tensor(name) for name in names],
            )
        )
        if not named:
            self._built[key] = names
        return names

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        """The values one after another along an axis, in nodes of at most
        `Emission.widest_concat` inputs.
        """
        most, parts = self.emission.widest_concat or len(values), list(values)
        while len(parts) > most:
            parts = [self.concat(parts[i : i + most], axis) for i in range(0, len(parts), most)]
        if len(parts) == 1:
            return parts[0]
        return self.node("Concat", *parts, attributes={"axis": axis})

    def declare(self, value: Value, shape: Sequence[int | None]) -> None:
        """State a computed tensor's shape, None for the batch.

        Shape inference loses the batch where a start of its own length comes in; runtimes that
        cannot prove two tensors to be of one shape leave their fast layouts.
        """
        if (
            self.emission.declared_shapes
            and value.number is None
            and value.name.startswith(INTERNAL)
        ):
            self.shapes[value.name] = shape

    def fresh(self) -> str:
        """A name that no tensor has yet."""
        while True:
            self._count += 1
            name = f"{self.prefix}{self._count}"
            if name not in self.taken:
                return name

    def _constant(self, data: np.ndarray[Any, Any]) -> str:
        key = (str(data.dtype), data.shape, data.tobytes())
        if key not in self._built:
            name = self.fresh()
            self.tensors[name] = gs.Constant(name, data)
            self._built[key] = (name,)
        return self._built[key][0]


def _as_float32(values: ArrayLike) -> np.ndarray[Any, Any]:
    """The numbers in float32; what is larger than its largest is infinite, which checks find."""
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float32)
