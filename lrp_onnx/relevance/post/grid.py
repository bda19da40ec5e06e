"""Batches of maps in a graph, and what is computed of every map: sums, extremes, resampling."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import onnx

from lrp_onnx.maps.resample import METHODS, Matrix
from lrp_onnx.relevance.graph.builder import POSITIVE, Value

LIMIT = float(np.finfo(np.float32).max)
"""The largest float32 number."""


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """A batch of maps in the graph, (N, rows, columns), or (N, …) with one or three axes."""

    value: Value
    """float32; float64 only between `exact` and `rounded`."""
    size: tuple[int, ...]
    """(rows, columns), or (length,) or (depth, rows, columns)."""

    def of(self, value: Value) -> Grid:
        """Other values of the same size."""
        return Grid(value, self.size)

    def times(self, *matrices: Matrix, double: bool = False) -> Grid:
        """``left @ map @ right.T`` for every map, by two stored matrices, or by as many as the maps
        have axes.

        Args:
            matrices: for every axis (new size, old size).
            double: whether the products are float64, rounded to float32 at the end.
        """
        builder = self.value.builder
        kind = np.float64 if double else np.float32
        value = exact(self.value) if double else self.value

        def across(value: Value, matrix: Matrix) -> Value:
            """``value @ matrix.T``: every runtime takes a stored matrix on the right."""
            return builder.node("MatMul", value, builder.stored(matrix.T.astype(kind)))

        def down(value: Value, matrix: Matrix, rank: int = 1 + len(matrices)) -> Value:
            if double:
                # ONNX Runtime 1.18 fuses a Transpose with a MatMul, and has no float64 kernel then.
                return builder.node("MatMul", builder.stored(matrix.astype(kind)), value)
            return transposed(across(transposed(value, rank), matrix), rank)

        *outer, right = matrices
        left = outer.pop() if outer else np.eye(1)
        # What is turned round is the smaller side of each product.
        if len(left) > left.shape[1] and not _is_identity(left):
            value = down(value, left)
        if not _is_identity(right):
            value = across(value, right)
        if len(left) <= left.shape[1] and not _is_identity(left):
            value = down(value, left)
        size = tuple(map(len, matrices))
        for matrix in outer:  # the first of three axes: those behind it are one
            if not _is_identity(matrix):
                flat = value.reshape(-1, matrix.shape[1], prod(size[1:]))
                value = down(flat, matrix, 3).reshape(-1, *size)
        return Grid(rounded(value) if double else value, size)

    def resampled(self, size: tuple[int, ...], method: str, *, double: bool = False) -> Grid:
        """The maps at another size, see `maps.resample`."""
        sizes = zip(size, self.size, strict=True)
        return self.times(*(METHODS[method](new, old) for new, old in sizes), double=double)

    def flat(self, *shape: int) -> Value:
        """The maps as vectors, (N, rows · columns), or of another `shape` behind the batch."""
        return self.value.reshape(-1, *(shape or (prod(self.size),)))

    def shaped(self, flat: Value) -> Grid:
        """Vectors (N, rows · columns), or other forms of them, as maps of this size."""
        return self.of(flat.reshape(-1, *self.size))

    def largest(self) -> Value:
        """The maximum of every map, (N, 1, 1), or (N, 1, …) with as many axes as the maps."""
        return self._reduced("ReduceMax")

    def smallest(self) -> Value:
        """The minimum of every map, (N, 1, 1)."""
        return self._reduced("ReduceMin")

    def total(self) -> Value:
        """The sum of every map, (N, 1, 1)."""
        return self._reduced("ReduceSum")

    def _reduced(self, operator: str) -> Value:
        builder = self.value.builder
        axes = builder.integers(range(1, 1 + len(self.size)))
        return builder.node(
            operator, self.value, axes, attributes={"keepdims": 1}, sign=self.value.sign
        )


def _is_identity(matrix: Matrix) -> bool:
    """Whether a product with the matrix changes nothing."""
    return matrix.shape[0] == matrix.shape[1] and bool((matrix == np.eye(len(matrix))).all())


def transposed(value: Value, rank: int = 3) -> Value:
    """Rows and columns of every map exchanged; `rank` is the number of axes with the batch."""
    order = [*range(rank - 2), rank - 1, rank - 2]
    return value.builder.node("Transpose", value, attributes={"perm": order})


def exact(value: Value) -> Value:
    """The value as float64."""
    return _cast(value, onnx.TensorProto.DOUBLE)


def rounded(value: Value) -> Value:
    """A float64 value as float32."""
    return _cast(value, onnx.TensorProto.FLOAT)


def _cast(value: Value, element: int) -> Value:
    return value.builder.node("Cast", value, attributes={"to": int(element)}, sign=value.sign)


def indicator(operator: str, left: Value, right: Value) -> Value:
    """1 where the comparison `operator` holds, else 0; float32."""
    holds = left.builder.node(operator, left, right)
    to = {"to": int(onnx.TensorProto.FLOAT)}
    return left.builder.node("Cast", holds, attributes=to, sign=POSITIVE)


def larger(left: Value, right: Value) -> Value:
    """The larger of both, element by element."""
    if not left.builder.emission.clipped_minima:
        return left.builder.node("Max", left, right)
    if right.number is not None:
        return left.builder.node("Clip", left, right, None)
    return left.builder.node("Where", left.builder.node("Greater", left, right), left, right)


def smaller(left: Value, right: Value) -> Value:
    """The smaller of both, element by element."""
    if not left.builder.emission.clipped_minima:
        return left.builder.node("Min", left, right)
    if right.number is not None:
        return left.builder.node("Clip", left, None, right)
    return left.builder.node("Where", left.builder.node("Less", left, right), left, right)


def where(mask: Value, then: Value, otherwise: Value) -> Value:
    """`then` where the 0/1 mask is 1, else `otherwise`."""
    return mask.where_positive(then, otherwise)


def order_statistic(grid: Grid, share: float, *, double: bool) -> Value:
    """The quantile `share` of every map, (N, 1, 1): linear between two neighbours of the sorted
    values, as NumPy has it; float64 if the values are.
    """
    builder = grid.value.builder
    count = prod(grid.size)
    position = share * (count - 1)
    lower = int(np.floor(position))
    upper, fraction = min(lower + 1, count - 1), position - lower
    from_top = count - lower <= upper + 1
    most = count - lower if from_top else upper + 1
    values, _ = builder.nodes_of(
        "TopK",
        grid.flat(),
        builder.integers((most,)),
        outputs=2,
        attributes={"axis": 1, "largest": int(from_top)},
    )

    def at(rank: int) -> Value:
        place = count - 1 - rank if from_top else rank
        row = builder.node("Gather", values, builder.integers((place,)), attributes={"axis": 1})
        return row.reshape(-1, *(1 for _ in grid.size))

    low, high = at(lower), at(upper)
    if fraction == 0.0 or low.name == high.name:
        return low
    kind = np.float64 if double else np.float32
    gap = builder.node("Sub", high, low)
    # From the nearer neighbour, so that equal neighbours give exactly that value.
    if fraction >= 0.5:
        part = builder.node("Mul", gap, builder.stored(np.asarray(1 - fraction, kind)))
        return builder.node("Sub", high, part)
    part = builder.node("Mul", gap, builder.stored(np.asarray(fraction, kind)))
    return builder.node("Add", low, part)
