"""Linear layers: forward and its transpose, one class per kind of step."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.plan import kinds
from lrp_onnx.relevance.graph.builder import Value
from lrp_onnx.relevance.layers import convolution
from lrp_onnx.relevance.layers.layer import Layer, Node

W = TypeVar("W", bound=kinds.Weighted)
LAST = 2**31 - 1
"""As a Slice end: up to and including the last element."""


class WeightedLayer(Node[W]):
    """A layer with a stored weight, scaled per output channel, and a bias."""

    __slots__ = ()

    @property
    def bias(self) -> Value:
        bias = self.kind.weight.bias
        if bias is None or not bias.any():
            return self.builder.value(0.0)
        return self.builder.array(bias.reshape(1, -1, *(1 for _ in self.step.output_shape[2:])))

    @property
    def _stored(self) -> Value:
        return self.builder.known(self.kind.weight.tensor)

    def _scale(self, *shape: int) -> Value:
        """The scale of every output channel in a shape that broadcasts to the weight."""
        scale = self.kind.weight.scale
        return (
            self.builder.value(1.0) if scale is None else self.builder.array(scale.reshape(shape))
        )


class ConvolutionLayer(WeightedLayer[kinds.Convolution]):
    """2-D convolution, or 1-D as a picture of one row."""

    __slots__ = ()

    @property
    def geometry(self) -> convolution.Geometry:
        """Strides, pads, sizes."""
        sizes = self._sizes()
        return convolution.Geometry.of(
            self.kind, (1, sizes[1], 1, sizes[2]) if self._is_1d else sizes
        )

    @property
    def weight(self) -> Value:
        stored = self._stored.reshape(*self.kind.weight.shape) if self._is_1d else self._stored
        return stored * self._scale(-1, 1, 1, 1)

    @property
    def _is_1d(self) -> bool:
        """Whether it runs along one axis, (N, C, L): computed as one row."""
        return len(self.step.input_shape) == 3

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        if not self._is_1d:
            return convolution.forward(self._tensor(x), w, self.geometry, b)
        row = self._tensor(x).reshape(-1, *self.geometry.in_shape)
        y = convolution.forward(row, w, self.geometry).reshape(
            -1, self.geometry.out_channels, self._length
        )
        return _plus(y, b)

    def vjp(self, s: Value, w: Value) -> Value:
        if not self._is_1d:
            return convolution.vjp(s, w, self.geometry)
        row = s.reshape(-1, self.geometry.out_channels, 1, self._length)
        return convolution.vjp(row, w, self.geometry).reshape(-1, *self._sizes()[1:])

    def subsampled(self) -> tuple[Layer, Layer]:
        shape = (*self.step.input_shape[:2], *self.step.output_shape[2:])
        read = self.builder.node(
            "Slice",
            self.input,
            self.builder.integers((0, 0)),
            self.builder.integers((LAST, LAST)),
            self.builder.integers((2, 3)),
            self.builder.integers(self.kind.strides),
            sign=self.input.sign,
        )
        dense = replace(self.kind, strides=(1, 1))
        point = replace(self.step, kind=dense, input_shape=shape)
        rows, columns = (
            _windows(old or 0, new or 0, stride)
            for old, new, stride in zip(
                self.step.input_shape[2:], shape[2:], self.kind.strides, strict=True
            )
        )
        kind = kinds.Resample(rows, columns)
        window = replace(self.step, kind=kind, output_shape=shape)
        return (
            ResampleLayer(self.builder, window, kind, self.inputs, read),
            ConvolutionLayer(self.builder, point, dense, (read,), self.output),
        )

    @property
    def _length(self) -> int:
        return self.geometry.out_size[1]


class DeconvolutionLayer(WeightedLayer[kinds.Deconvolution]):
    """2-D transposed convolution: the transpose of a convolution from its output to its input."""

    __slots__ = ()

    @property
    def geometry(self) -> convolution.Geometry:
        """That of the convolution which it is the transpose of."""
        kind = self.kind
        out, height, width = (size for size in self.step.output_shape[1:] if size is not None)
        return convolution.Geometry(
            (kind.weight.shape[2], kind.weight.shape[3]),
            kind.strides,
            kind.pads,
            kind.dilations,
            kind.group,
            kind.weight.shape[0],
            (out, height, width),
        )

    @property
    def weight(self) -> Value:
        scale = self.kind.weight.scale
        if scale is None:
            return self._stored
        group, channels = self.kind.group, self.kind.weight.shape[0]
        each = np.repeat(scale.reshape(group, -1), channels // group, axis=0)
        return self._stored * self.builder.array(each[:, :, None, None])

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        return _plus(convolution.conv_transpose(self._tensor(x), w, self.geometry), b)

    def vjp(self, s: Value, w: Value) -> Value:
        return convolution.forward(s, w, self.geometry)


class DenseLayer(WeightedLayer[kinds.Dense]):
    """Fully connected layer."""

    __slots__ = ()

    @property
    def weight(self) -> Value:
        return self._stored * (self._scale(-1, 1) if self.kind.transposed else self._scale(1, -1))

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        return _plus(self._product(self._tensor(x), w, transposed=self.kind.transposed), b)

    def vjp(self, s: Value, w: Value) -> Value:
        return self._product(s, w, transposed=not self.kind.transposed)

    def _product(self, x: Value, w: Value, *, transposed: bool) -> Value:
        attributes = {"transB": int(transposed)}
        return self.builder.node("Gemm", x, w, attributes=attributes, sign=x.sign * w.sign)


class LinearLayer(WeightedLayer[kinds.Linear]):
    """Fully connected layer along the last axis, as one product of all positions."""

    __slots__ = ()

    @property
    def weight(self) -> Value:
        return self._stored * (self._scale(-1, 1) if self.kind.transposed else self._scale(1, -1))

    @property
    def bias(self) -> Value:
        bias = self.kind.weight.bias
        if bias is None or not bias.any():
            return self.builder.value(0.0)
        return self.builder.array(bias.reshape(*(1 for _ in self.step.output_shape[1:]), -1))

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        y = self._product(self._tensor(x), w, transposed=self.kind.transposed)
        return _plus(y.reshape(-1, *self._sizes_of(self.step.output_shape)), b)

    def vjp(self, s: Value, w: Value) -> Value:
        y = self._product(s, w, transposed=not self.kind.transposed)
        return y.reshape(-1, *self._sizes_of(self.step.input_shape))

    def _product(self, x: Value, w: Value, *, transposed: bool) -> Value:
        """`x`, a row for every position, times `w`."""
        length = self.kind.weight.shape[1 if transposed else 0]
        attributes = {"transB": int(transposed)}
        sign = x.sign * w.sign
        return self.builder.node("Gemm", x.reshape(-1, length), w, attributes=attributes, sign=sign)

    def _sizes_of(self, shape: kinds.Shape) -> list[int]:
        return [size for size in shape[1:] if size is not None]


class AffineLayer(Node[kinds.Affine]):
    """A scale by constants."""

    __slots__ = ()

    @property
    def weight(self) -> Value:
        return self.builder.array(self.kind.scale[None])

    @property
    def bias(self) -> Value:
        return self.builder.array(self.kind.bias[None])

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        return _plus(self._tensor(x) * w, b)

    def vjp(self, s: Value, w: Value) -> Value:
        return s * w


class AveragePoolLayer(Node[kinds.AveragePool]):
    """Average pooling; its weight is a number that scales the fixed weights."""

    __slots__ = ()

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        x = self._tensor(x)
        attributes = {
            "kernel_shape": self.kind.kernel,
            "strides": self.kind.strides,
            "pads": self.kind.pads,
            "count_include_pad": int(self.kind.include_pad),
        }
        return _plus(self.builder.node("AveragePool", x, attributes=attributes, sign=x.sign) * w, b)

    def vjp(self, s: Value, w: Value) -> Value:
        """(N, C, H', W') → (N, C, H, W), channel by channel."""
        s, pool, sizes = s * w, self.kind, self._sizes()
        channels, height, width = sizes[1:]
        geometry = convolution.Geometry.of_pool(pool, sizes)
        rows, columns = geometry.out_size
        full = np.full((1, 1, rows, columns), float(prod(pool.kernel)))
        counts = full if pool.include_pad else _window_sizes(pool, height, width)
        each = (s * self.builder.array(1.0 / counts)).reshape(-1, 1, rows, columns)
        ones = self.builder.array(np.ones((1, 1, *pool.kernel)))
        return convolution.vjp(each, ones, geometry).reshape(-1, channels, height, width)


class GlobalAverageLayer(Node[kinds.GlobalAverage]):
    """Mean over some axes."""

    __slots__ = ()

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        axes, attributes = (
            self.builder.integers(self.kind.axes),
            {"keepdims": int(self.kind.keepdims)},
        )
        mean = self.builder.node(
            "ReduceMean", self._tensor(x), axes, attributes=attributes, sign=x.sign
        )
        return _plus(mean * self.kind.factor * w, b)

    def vjp(self, s: Value, w: Value) -> Value:
        sizes, axes = self._sizes(), self.kind.axes
        kept = (1 if axis in axes else size for axis, size in enumerate(sizes) if axis)
        column = s if self.kind.keepdims else s.reshape(-1, *kept)
        return self.expand(column * w * (self.kind.factor / prod(sizes[axis] for axis in axes)))


class GlobalNormLayer(Node[kinds.GlobalNorm]):
    """``y = √Σx²``: its vjp is ``x · s / y``, 0 where y is. Of ``y = Σx²`` it is ``2 · x · s``."""

    __slots__ = ()

    def vjp(self, s: Value, w: Value) -> Value:
        y = self.output
        each = s * 2.0 if self.kind.squared else s / y.where_zero(1.0, y)
        kept = (1 if axis in self.kind.axes else n for axis, n in enumerate(self._sizes()) if axis)
        return self.input * (each if self.kind.keepdims else each.reshape(-1, *kept))


class ResampleLayer(Node[kinds.Resample]):
    """Mirrored borders, enlargement: one small matrix for the rows and one for the columns."""

    __slots__ = ()

    @property
    def routes(self) -> bool:
        """Where every row of both matrices has a single one."""
        matrices = (self.kind.rows, self.kind.columns)
        return all(bool(((m == 0) | (m == 1)).all() and (m.sum(1) == 1).all()) for m in matrices)

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        return _plus(self._through(self._tensor(x), self.kind.rows, self.kind.columns) * w, b)

    def vjp(self, s: Value, w: Value) -> Value:
        return self._through(s, self.kind.rows.T, self.kind.columns.T) * w

    def _through(self, x: Value, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> Value:
        across = self._times(x, columns)
        if self.builder.emission.matrices_last:
            return self._turned(self._times(self._turned(across), rows))
        return self.builder.node("MatMul", self.builder.array(rows), across, sign=x.sign)

    def _times(self, x: Value, matrix: NDArray[np.float64]) -> Value:
        """``x @ matrix.T``"""
        return self.builder.node("MatMul", x, self.builder.array(matrix.T), sign=x.sign)

    def _turned(self, x: Value) -> Value:
        """Rows and columns exchanged."""
        return self.builder.node("Transpose", x, attributes={"perm": (0, 1, 3, 2)}, sign=x.sign)


def _windows(size: int, read: int, stride: int) -> NDArray[np.float64]:
    """(read, size): how much of every position belongs to each of those that are read.

    A position between two that are read belongs to both, more to the nearer one; one behind the
    last that is read belongs to that.
    """
    distances = np.abs(np.arange(size)[None, :] - stride * np.arange(read)[:, None])
    near = np.maximum(1.0 - distances / stride, 0.0)
    return np.asarray(near / near.sum(0))


def _plus(y: Value, b: Value | None) -> Value:
    return y if b is None else y + b


def _window_sizes(pool: kinds.AveragePool, height: int, width: int) -> NDArray[np.float64]:
    """How many input pixels each window covers, (1, 1, H', W')."""

    def along(size: int, kernel: int, stride: int, before: int, after: int) -> NDArray[np.float64]:
        starts = np.arange(0, size + before + after - kernel + 1, stride) - before
        return np.asarray(np.minimum(starts + kernel, size) - np.maximum(starts, 0), np.float64)

    top, left, bottom, right = pool.pads
    rows = along(height, pool.kernel[0], pool.strides[0], top, bottom)
    columns = along(width, pool.kernel[1], pool.strides[1], left, right)
    return (rows[:, None] * columns[None, :])[None, None]
