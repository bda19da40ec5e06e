"""Layers of attention: the product of two activations, the elements at some indices."""

from __future__ import annotations

from math import prod

import numpy as np

from lrp_onnx.plan import kinds
from lrp_onnx.plan.kinds import Role
from lrp_onnx.relevance.graph.builder import Value
from lrp_onnx.relevance.layers.layer import Node
from lrp_onnx.relevance.layers.structural import zero_pad


class MatrixProductLayer(Node[kinds.MatrixProduct]):
    """``Y = A @ B``; its vjps are ``S Bᵀ`` and ``Aᵀ S``."""

    __slots__ = ()

    @property
    def roles(self) -> tuple[Role, ...]:
        return tuple(Role.GATE if i == self.kind.attention else Role.MAIN for i in (0, 1))

    def vjps(self, s: Value) -> tuple[Value, ...]:
        a, b = self.inputs
        to_a = self.builder.node("MatMul", s, self._turned(b), sign=s.sign * b.sign)
        to_b = self.builder.node("MatMul", self._turned(a), s, sign=s.sign * a.sign)
        return self._summed(to_a, 0), self._summed(to_b, 1)

    def _turned(self, x: Value) -> Value:
        """The transposed matrices of `x`."""
        rank = len(self.step.output_shape)
        order = (*range(rank - 2), rank - 1, rank - 2)
        return self.builder.node("Transpose", x, attributes={"perm": order}, sign=x.sign)

    def _summed(self, x: Value, operand: int) -> Value:
        """Summed over the axes along which an operand has one matrix for several."""
        axes = self.kind.repeated[operand]
        if not axes:
            return x
        summed = self.builder.integers(axes)
        return self.builder.node("ReduceSum", x, summed, attributes={"keepdims": 1}, sign=x.sign)


class MatricesLayer(Node[kinds.Matrices]):
    """Constant matrices times a tensor, from the left or from the right."""

    __slots__ = ()

    @property
    def weight(self) -> Value:
        return self.builder.array(self.kind.matrices[None])

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        y = self._product(self._tensor(x), w)
        return y if b is None else y + b

    def vjp(self, s: Value, w: Value) -> Value:
        rank = self.kind.matrices.ndim + 1
        order = (*range(rank - 2), rank - 1, rank - 2)
        turned = self.builder.node("Transpose", w, attributes={"perm": order}, sign=w.sign)
        return self._product(s, turned)

    def _product(self, x: Value, w: Value) -> Value:
        factors = (w, x) if self.kind.left else (x, w)
        return self.builder.node("MatMul", *factors, sign=x.sign * w.sign)


class PickLayer(Node[kinds.Pick]):
    """Elements at some indices, some of them several times; its transpose sums them up."""

    __slots__ = ()

    def vjp(self, s: Value, w: Value) -> Value:
        axis, indices, sizes = self.kind.axis, self.kind.indices, self._sizes()
        before, behind = prod(sizes[1:axis]), prod(sizes[axis + 1 :])
        places = np.zeros((len(indices), sizes[axis]))
        places[np.arange(len(indices)), indices] = 1
        columns = self._turned(s.reshape(-1, before, len(indices), behind))
        summed = self.builder.node("MatMul", columns, self.builder.array(places), sign=s.sign)
        return self._turned(summed).reshape(-1, *sizes[1:])

    def _turned(self, x: Value) -> Value:
        """The last two of four axes exchanged."""
        return self.builder.node("Transpose", x, attributes={"perm": (0, 1, 3, 2)}, sign=x.sign)


class SelectLayer(Node[kinds.Select]):
    """Elements at some indices; its transpose puts them back among zeros."""

    __slots__ = ()

    def vjp(self, s: Value, w: Value) -> Value:
        axis, indices, sizes = self.kind.axis, self.kind.indices, self._sizes()
        if self.kind.drops:
            s = s.reshape(-1, *(1 if i == axis else n for i, n in enumerate(sizes) if i))
        first, missing = indices[0], sizes[axis] - len(indices)
        run = indices == tuple(range(first, first + len(indices)))
        before = [first if run and i == axis else 0 for i in range(len(sizes))]
        after = [missing - before[i] if i == axis else 0 for i in range(len(sizes))]
        padded = zero_pad(s, before, after)
        if run:
            return padded
        place = np.full(sizes[axis], len(indices), np.int64)
        place[list(indices)] = np.arange(len(indices))
        back = self.builder.integers(place)
        return self.builder.node("Gather", padded, back, attributes={"axis": axis}, sign=s.sign)
