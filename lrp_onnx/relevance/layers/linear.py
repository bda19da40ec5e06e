"""Linear layers: forward and its transpose, one class per kind of step."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.plan import kinds
from lrp_onnx.relevance.graph.builder import LAST, Value, Zeros
from lrp_onnx.relevance.layers import convolution
from lrp_onnx.relevance.layers.layer import Layer, Node

W = TypeVar("W", bound=kinds.Weighted)


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
    """Convolution along one to three axes."""

    __slots__ = ()

    @property
    def geometry(self) -> convolution.Geometry:
        """Strides, pads, sizes."""
        return convolution.Geometry.of(self.kind, self._sizes())

    @property
    def weight(self) -> Value:
        ones = (1 for _ in self.kind.weight.shape[1:])
        return self._stored * self._scale(-1, *ones)

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        return convolution.forward(self._tensor(x), w, self.geometry, b)

    def vjp(self, s: Value, w: Value) -> Value:
        return convolution.vjp(s, w, self.geometry)

    def subsampled(self) -> tuple[Layer, Layer]:
        shape = (*self.step.input_shape[:2], *self.step.output_shape[2:])
        axes = self.geometry.axes
        read = self.builder.node(
            "Slice",
            self.input,
            self.builder.integers((0,) * len(axes)),
            self.builder.integers((LAST,) * len(axes)),
            self.builder.integers(axes),
            self.builder.integers(self.kind.strides),
            sign=self.input.sign,
        )
        dense = replace(self.kind, strides=(1,) * len(axes))
        point = replace(self.step, kind=dense, input_shape=shape)
        kind = kinds.Resample(
            tuple(
                _windows(old or 0, new or 0, stride)
                for old, new, stride in zip(
                    self.step.input_shape[2:], shape[2:], self.kind.strides, strict=True
                )
            )
        )
        window = replace(self.step, kind=kind, output_shape=shape)
        return (
            ResampleLayer(self.builder, window, kind, self.inputs, read),
            ConvolutionLayer(self.builder, point, dense, (read,), self.output),
        )


class DeconvolutionLayer(WeightedLayer[kinds.Deconvolution]):
    """Transposed convolution: the transpose of a convolution from its output to its input."""

    __slots__ = ()

    @property
    def geometry(self) -> convolution.Geometry:
        """That of the convolution which it is the transpose of."""
        kind = self.kind
        return convolution.Geometry(
            kind.weight.shape[2:],
            kind.strides,
            kind.pads,
            kind.dilations,
            kind.group,
            kind.weight.shape[0],
            tuple(size for size in self.step.output_shape[1:] if size is not None),
        )

    @property
    def weight(self) -> Value:
        scale = self.kind.weight.scale
        if scale is None:
            return self._stored
        group, channels = self.kind.group, self.kind.weight.shape[0]
        each = np.repeat(scale.reshape(group, -1), channels // group, axis=0)
        ones = (1 for _ in self.kind.weight.shape[2:])
        return self._stored * self.builder.array(each.reshape(*each.shape, *ones))

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
        return _product(self._tensor(x), w, b, transposed=self.kind.transposed)

    def vjp(self, s: Value, w: Value) -> Value:
        return _product(s, w, transposed=not self.kind.transposed)


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
        return self.builder.array(bias)

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        rows = self._rows(self._tensor(x), 1 if self.kind.transposed else 0)
        y = _product(rows, w, b, transposed=self.kind.transposed)
        return y.reshape(-1, *self._sizes_of(self.step.output_shape))

    def vjp(self, s: Value, w: Value) -> Value:
        rows = self._rows(s, 0 if self.kind.transposed else 1)
        y = _product(rows, w, transposed=not self.kind.transposed)
        return y.reshape(-1, *self._sizes_of(self.step.input_shape))

    def without(self, zeros: Zeros) -> LinearLayer:
        """The layer whose output is what this one's is beside `zeros`, some of the positions or of
        the channels.
        """
        step, kind, inputs, axis = self.step, self.kind, self.inputs, zeros.axis
        left = (step.output_shape[axis] or 0) - zeros.before - zeros.after
        output_shape = _with_size(step.output_shape, axis, left)
        if axis == len(output_shape) - 1:
            kind = replace(kind, weight=self._channels(zeros))
            step = replace(step, kind=kind, output_shape=output_shape)
        else:
            inputs = tuple(x.without(zeros) for x in inputs)
            shape = _with_size(step.input_shape, axis, left)
            step = replace(step, input_shape=shape, output_shape=output_shape)
        return LinearLayer(self.builder, step, kind, inputs, self.output.without(zeros))

    def _channels(self, zeros: Zeros) -> kinds.Weight:
        """The weight of the output channels beside `zeros`."""
        weight, axis = self.kind.weight, 0 if self.kind.transposed else 1
        left = slice(zeros.before, weight.shape[axis] - zeros.after)
        stored = self._stored.without(replace(zeros, axis=axis))
        sizes = list(weight.shape)
        sizes[axis] -= zeros.before + zeros.after
        return kinds.Weight(
            stored.name,
            tuple(sizes),
            None if weight.scale is None else weight.scale[left],
            None if weight.bias is None else weight.bias[left],
        )

    def _rows(self, x: Value, axis: int) -> Value:
        """`x` as a row for every position, as long as the weight along `axis`."""
        return x.reshape(-1, self.kind.weight.shape[axis])

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
        geometry = convolution.Geometry.of_pool(pool, sizes)
        full = np.full((1, 1, *geometry.out_size), float(prod(pool.kernel)))
        counts = full if pool.include_pad else _window_sizes(geometry)
        each = (s * self.builder.array(1.0 / counts)).reshape(-1, 1, *geometry.out_size)
        ones = self.builder.array(np.ones((1, 1, *pool.kernel)))
        return convolution.vjp(each, ones, geometry).reshape(-1, *sizes[1:])


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
    """Mirrored borders, enlargement: one small matrix for every axis."""

    __slots__ = ()

    @property
    def routes(self) -> bool:
        """Where every row of all matrices has a single one."""
        return all(
            bool(((m == 0) | (m == 1)).all() and (m.sum(1) == 1).all()) for m in self.kind.matrices
        )

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        return _plus(self._through(self._tensor(x), self.kind.matrices) * w, b)

    def vjp(self, s: Value, w: Value) -> Value:
        return self._through(s, tuple(matrix.T for matrix in self.kind.matrices)) * w

    def _through(self, x: Value, matrices: tuple[NDArray[np.float64], ...]) -> Value:
        """`x` times a matrix along every axis behind the channels, the last axis first."""
        *outer, last = matrices
        x = self._times(x, last)
        if outer:
            x = self._down(x, outer.pop(), 2 + len(matrices))
        if outer:  # the first of three axes: those behind it are one
            (first,) = outer
            channels, sizes = self._sizes()[1], [len(matrix) for matrix in matrices]
            flat = x.reshape(-1, channels, first.shape[1], prod(sizes[1:]))
            x = self._down(flat, first, 4).reshape(-1, channels, *sizes)
        return x

    def _down(self, x: Value, matrix: NDArray[np.float64], rank: int) -> Value:
        """``matrix @ x``, along the last axis but one of `rank` axes."""
        if self.builder.emission.matrices_last:
            return self._turned(self._times(self._turned(x, rank), matrix), rank)
        return self.builder.node("MatMul", self.builder.array(matrix), x, sign=x.sign)

    def _times(self, x: Value, matrix: NDArray[np.float64]) -> Value:
        """``x @ matrix.T``"""
        return self.builder.node("MatMul", x, self.builder.array(matrix.T), sign=x.sign)

    def _turned(self, x: Value, rank: int) -> Value:
        """The last two of `rank` axes exchanged."""
        order = (*range(rank - 2), rank - 1, rank - 2)
        return self.builder.node("Transpose", x, attributes={"perm": order}, sign=x.sign)


def _windows(size: int, read: int, stride: int) -> NDArray[np.float64]:
    """(read, size): how much of every position belongs to each of those that are read.

    A position between two that are read belongs to both, more to the nearer one; one behind the
    last that is read belongs to that.
    """
    distances = np.abs(np.arange(size)[None, :] - stride * np.arange(read)[:, None])
    near = np.maximum(1.0 - distances / stride, 0.0)
    return np.asarray(near / near.sum(0))


def _with_size(shape: kinds.Shape, axis: int, size: int) -> kinds.Shape:
    return (*shape[:axis], size, *shape[axis + 1 :])


def _product(x: Value, w: Value, b: Value | None = None, *, transposed: bool) -> Value:
    """``x @ w + b``, or ``x @ wᵀ + b`` where the weight is stored `transposed`."""
    attributes, sign = {"transB": int(transposed)}, x.sign * w.sign
    if b is None or b.number == 0.0:
        return x.builder.node("Gemm", x, w, attributes=attributes, sign=sign)
    return x.builder.node("Gemm", x, w, b, attributes=attributes, sign=sign + b.sign)


def _plus(y: Value, b: Value | None) -> Value:
    return y if b is None else y + b


def _window_sizes(geometry: convolution.Geometry) -> NDArray[np.float64]:
    """How many input elements each window covers, (1, 1, H', W')."""
    counts = np.ones((1, 1))
    for axis, windows in enumerate(geometry.out_size):
        starts = np.arange(windows) * geometry.strides[axis] - geometry.before[axis]
        ends = np.minimum(starts + geometry.kernel[axis], geometry.in_shape[1 + axis])
        counts = counts[..., None] * (ends - np.maximum(starts, 0))
    return counts
