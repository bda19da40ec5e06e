"""Layers without weights: joins, products, reshapes, normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from lrp_onnx.plan import kinds
from lrp_onnx.plan.kinds import Role
from lrp_onnx.relevance.graph.builder import LAST, POSITIVE, Value, Zeros
from lrp_onnx.relevance.graph.relevance import Relevance
from lrp_onnx.relevance.layers.layer import Layer, Node


class JoinLayer(Node[kinds.Join]):
    """Sum of branches; its vjp is the same for every operand."""

    __slots__ = ()

    @property
    def roles(self) -> tuple[Role, ...]:
        return self.kind.roles or (Role.MAIN,) * len(self.inputs)

    def operands(self, r: Relevance) -> tuple[Value, ...]:
        """The operands; the main branch of two as what the rectified sum leaves
        beside the shortcut, where that is all that counts: then no runtime has
        to keep the branch and the sum apart from the activation behind them.
        """
        fits = len(self.inputs) == 2 and Role.MAIN in self.roles and r.alias == self.output.name
        if r.activation is None or not fits or not self.builder.emission.remainders:
            return self.inputs
        one, other = self.inputs
        if self.roles[0] is Role.MAIN:
            return r.activation - other, other
        return one, r.activation - one

    def vjp(self, s: Value, w: Value) -> Value:
        return s


class ProductLayer(Node[kinds.Product]):
    """A signal times a gate, which may have one value where the signal has many."""

    __slots__ = ()

    @property
    def roles(self) -> tuple[Role, ...]:
        signal = self.kind.signal
        return tuple(
            Role.MAIN if signal in (None, i) else Role.GATE for i in range(len(self.inputs))
        )

    def vjps(self, s: Value) -> tuple[Value, ...]:
        product = self.kind
        which = product.signal or 0
        signal, gate = self.inputs[which], self.inputs[1 - which]
        to_gate = s * signal
        if product.axes:
            axes = s.builder.integers(product.axes)
            to_gate = s.builder.node("ReduceSum", to_gate, axes, attributes={"keepdims": 1})
        return (s * gate, to_gate) if which == 0 else (to_gate, s * gate)


class QuotientLayer(Node[kinds.Quotient]):
    """A signal over a divisor, which may have one value where the signal has many."""

    __slots__ = ()

    @property
    def roles(self) -> tuple[Role, ...]:
        return Role.MAIN, Role.GATE

    def vjps(self, s: Value) -> tuple[Value, ...]:
        to_signal = s / self.inputs[1]
        to_divisor = -(to_signal * self.output)
        if self.kind.axes:
            axes = s.builder.integers(self.kind.axes)
            to_divisor = s.builder.node("ReduceSum", to_divisor, axes, attributes={"keepdims": 1})
        return to_signal, to_divisor


class ConcatLayer(Node[kinds.Concat]):
    """Tensors one after another; each takes its part back."""

    __slots__ = ()

    @property
    def bias(self) -> Value:
        """1 where a constant stands, along the axis; the number 0 where there is none."""
        if not self.kind.length:
            return self.builder.value(0.0)
        constant = np.ones(self.kind.length)
        for start, end in self.kind.bounds:
            constant[start:end] = 0
        rank = len(self.step.output_shape)
        shape = [-1 if axis == self.kind.axis else 1 for axis in range(rank)]
        return self.builder.array(constant.reshape(shape))

    def vjps(self, s: Value) -> tuple[Value, ...]:
        integers = s.builder.integers
        return tuple(
            s.builder.node(
                "Slice",
                s,
                integers((start,)),
                integers((end,)),
                integers((self.kind.axis,)),
                sign=s.sign,
            )
            for start, end in self.kind.bounds
        )


class ExpandLayer(Node[kinds.Expand]):
    """One value written many times; its transpose sums them up."""

    __slots__ = ()

    def vjp(self, s: Value, w: Value) -> Value:
        expand = self.kind
        if not expand.axes:
            return s
        axes = s.builder.integers(expand.axes)
        return s.builder.node("ReduceSum", s, axes, attributes={"keepdims": 1}, sign=s.sign)


class SoftmaxLayer(Node[kinds.Softmax]):
    """``p = softmax(x)``: its vjp is ``p ⊙ (s − Σ p⊙s)``."""

    __slots__ = ()

    def vjp(self, s: Value, w: Value) -> Value:
        softmax = self.kind
        weighted = self.output * s
        axes = s.builder.integers((softmax.axis,))
        total = s.builder.node("ReduceSum", weighted, axes, attributes={"keepdims": 1})
        return weighted - self.output * total


class NormalizationLayer(Node[kinds.Normalization]):
    """Normalisation by the picture's own statistics; its
    vjp is the exact gradient, through the statistics.
    """

    __slots__ = ()

    def vjp(self, s: Value, w: Value) -> Value:
        x, back = self.input.reshape(-1, *self.kind.view), self._scaled(s)
        centred, spread = self._statistics(x)
        unit = centred / spread
        through = back - self._mean(back) - unit * self._mean(back * unit)
        return (through / spread).reshape(-1, *self._sizes()[1:])

    def with_fixed_deviation(self) -> Layer:
        return FixedDeviationLayer(self.builder, self.step, self.kind, self.inputs, self.output)

    def _statistics(self, x: Value) -> tuple[Value, Value]:
        """The input less its mean, and its deviation; `x` is the input in the shape of the view."""
        centred = x - self._mean(x)
        variance = self._mean(centred * centred) + self.kind.epsilon
        return centred, self.builder.node("Sqrt", variance, sign=POSITIVE)

    def _scaled(self, s: Value) -> Value:
        """`s` times the scale, in the shape of the view."""
        return (s * self.builder.array(self.kind.scale[None])).reshape(-1, *self.kind.view)

    def _mean(self, x: Value) -> Value:
        norm = self.kind
        return self.builder.node(
            "ReduceMean", x, self.builder.integers(norm.axes), attributes={"keepdims": 1}
        )


class FixedDeviationLayer(NormalizationLayer):
    """``scale · (x − mean) / deviation + bias`` with the deviation as a constant."""

    __slots__ = ()

    @property
    def bias(self) -> Value:
        return self.builder.array(self.kind.bias[None])

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        y = self.output - self.bias
        return y if b is None else y + b

    def vjp(self, s: Value, w: Value) -> Value:
        x, back = self.input.reshape(-1, *self.kind.view), self._scaled(s)
        _, deviation = self._statistics(x)
        back = ((back - self._mean(back)) / deviation).reshape(-1, *self._sizes()[1:])
        return back.zero(s.zeros if self._keeps(s.zeros) else None)

    def _keeps(self, zeros: Zeros | None) -> bool:
        """Whether what is zero before is zero behind: it lies along an axis without a mean."""
        if zeros is None or tuple(self.kind.view) != tuple(self._sizes()[1:]):
            return False
        return zeros.axis not in self.kind.axes


class LocalResponseLayer(Node[kinds.LocalResponse]):
    """Normalisation by the neighbouring channels; its vjp is the exact gradient.

    With ``u = bias + alpha / size · Σx²`` over a window it is
    ``s·u⁻ᵝ − 2·alpha·beta / size · x · Σ s·x·u⁻ᵝ⁻¹`` over the same window.
    """

    __slots__ = ()

    def vjp(self, s: Value, w: Value) -> Value:
        lrn, x = self.kind, self.input
        u, power = self._window()
        direct = s * power
        around = self._sum(direct * x / u)
        return direct - x * around * (2 * lrn.alpha / lrn.size * lrn.beta)

    def with_fixed_deviation(self) -> Layer:
        return FixedResponseLayer(self.builder, self.step, self.kind, self.inputs, self.output)

    def _window(self) -> tuple[Value, Value]:
        """u, and ``u⁻ᵝ``."""
        lrn, x = self.kind, self.input
        u = self._sum(x * x) * (lrn.alpha / lrn.size) + lrn.bias
        return u, self.builder.node("Pow", u, self.builder.value(-lrn.beta), sign=POSITIVE)

    def _sum(self, x: Value) -> Value:
        """The sum over every channel and its neighbours on both sides."""
        sizes, size = self._sizes()[1:], self.kind.size
        ones = self.builder.array(np.ones((1, 1, size, 1)))
        attributes = {"kernel_shape": (size, 1), "pads": (size // 2, 0, size // 2, 0)}
        columns = x.reshape(-1, 1, sizes[0], prod(sizes[1:]))
        return self.builder.node("Conv", columns, ones, attributes=attributes).reshape(-1, *sizes)


class FixedResponseLayer(LocalResponseLayer):
    """``x · u⁻ᵝ`` with u as a constant."""

    __slots__ = ()

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        return self.output if b is None else self.output + b

    def vjp(self, s: Value, w: Value) -> Value:
        return s * self._window()[1]


class ReshapeLayer(Node[kinds.Reshape]):
    """The same elements in another shape."""

    __slots__ = ()

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        y = x.reshape(-1, *(size for size in self.step.output_shape[1:] if size is not None)) * w
        return y if b is None else y + b

    def vjp(self, s: Value, w: Value) -> Value:
        return s.reshape(-1, *self._sizes()[1:]).zero(self._zeros(s.zeros)) * w

    def _zeros(self, zeros: Zeros | None) -> Zeros | None:
        """Where the input is zero if the output is so at `zeros`, where one axis tells that."""
        if zeros is None:
            return None
        sizes, after = self._sizes(), self.step.output_shape
        inner = prod(size or 1 for size in after[zeros.axis + 1 :])
        period = inner * (after[zeros.axis] or 1)
        for axis in range(1, len(sizes)):
            step = prod(sizes[axis + 1 :])
            before, behind = zeros.before * inner, zeros.after * inner
            if step * sizes[axis] == period and before % step == behind % step == 0:
                return Zeros(axis, before // step, behind // step)
        return None


class SubsampleLayer(Node[kinds.Subsample]):
    """Every n-th element; its transpose puts elements back among zeros."""

    __slots__ = ()

    def vjp(self, s: Value, w: Value) -> Value:
        taken = self.kind
        sizes = self._sizes()[1:]
        axes = range(len(sizes))
        counts = [len(range(taken.starts[i], taken.stops[i], taken.steps[i])) for i in axes]
        if all(step == 1 for step in taken.steps):
            missing = [size - stop for size, stop in zip(sizes, taken.stops, strict=True)]
            return zero_pad(s, [0, *taken.starts], [0, *missing])
        # (N, C, H, W) → (N, C, 1, H, 1, W, 1): zeros behind every element, then around everything.
        split = s.reshape(-1, *(n for count in counts for n in (count, 1)))
        between = [n for step in taken.steps for n in (0, step - 1)]
        spaced = zero_pad(split, [0] * (1 + len(between)), [0, *between])
        whole = spaced.reshape(
            -1, *(count * step for count, step in zip(counts, taken.steps, strict=True))
        )
        missing = [sizes[i] - taken.starts[i] - counts[i] * taken.steps[i] for i in axes]
        return zero_pad(whole, [0, *taken.starts], [0, *missing])


class ZeroPadLayer(Node[kinds.ZeroPad]):
    """Zeros around a tensor; its transpose cuts them off."""

    __slots__ = ()

    def vjp(self, s: Value, w: Value) -> Value:
        pad = self.kind
        return zero_pad(s, [0, *(-n for n in pad.before)], [0, *(-n for n in pad.after)])


class TransposeLayer(Node[kinds.Transpose]):
    """Axes in another order."""

    __slots__ = ()

    def vjp(self, s: Value, w: Value) -> Value:
        turned = self.kind
        back = tuple(turned.order.index(axis) for axis in range(len(turned.order)))
        turned_back = s.builder.node("Transpose", s, attributes={"perm": back}, sign=s.sign)
        return turned_back.zero(s.zeros and replace(s.zeros, axis=turned.order[s.zeros.axis]))


def zero_pad(x: Value, before: Sequence[int], after: Sequence[int]) -> Value:
    """`x` with zeros before and after each axis; a negative number cuts that many elements off."""
    grown = [max(n, 0) for n in (*before, *after)]
    axes = [axis for axis in range(len(before)) if before[axis] > 0 or after[axis] > 0]
    if axes:
        known = Zeros(axes[0], grown[axes[0]], grown[axes[0] + len(before)])
        x = x.builder.node("Pad", x, x.builder.integers(grown), sign=x.sign).zero(known)
    cut = [axis for axis in range(len(before)) if before[axis] < 0 or after[axis] < 0]
    if not cut:
        return x
    integers = x.builder.integers
    starts = [max(-before[axis], 0) for axis in cut]
    ends = [min(after[axis], 0) or LAST for axis in cut]
    return x.builder.node("Slice", x, integers(starts), integers(ends), integers(cut), sign=x.sign)
