"""Linear layers: forward and its transpose, one class per kind of step."""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.plan import kinds
from lrp_onnx.relevance.graph.builder import Builder, Value
from lrp_onnx.relevance.layers import convolution
from lrp_onnx.relevance.layers.layer import Node


class ConvolutionLayer(Node):
    """2-D convolution, or 1-D as a picture of one row."""

    __slots__ = ()

    @property
    def geometry(self) -> convolution.Geometry:
        """Strides, pads, sizes."""
        layer = self.step.kind
        assert isinstance(layer, kinds.Convolution)
        sizes = self._sizes()
        return convolution.Geometry.of(layer, (1, sizes[1], 1, sizes[2]) if self._is_1d else sizes)

    @property
    def weight(self) -> Value:
        layer = self.step.kind
        assert isinstance(layer, kinds.Convolution)
        if self._is_1d:
            return self.builder.known(layer.weight.tensor).reshape(*layer.weight.shape) * _scale(self.builder, layer)
        return _weight(self.builder, layer, (-1, 1, 1, 1))

    @property
    def bias(self) -> Value:
        return _bias(self.builder, self.step.kind, (1, -1, *(1 for _ in self.step.output_shape[2:])))

    @property
    def _is_1d(self) -> bool:
        """Whether it runs along one axis, (N, C, L): computed as one row."""
        return len(self.step.input_shape) == 3

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        if not self._is_1d:
            return convolution.forward(self._tensor(x), w, self.geometry, b)
        row = self._tensor(x).reshape(-1, *self.geometry.in_shape)
        y = convolution.forward(row, w, self.geometry).reshape(-1, self.geometry.out_channels, self._length)
        return _plus(y, b)

    def vjp(self, s: Value, w: Value) -> Value:
        if not self._is_1d:
            return convolution.vjp(s, w, self.geometry)
        row = s.reshape(-1, self.geometry.out_channels, 1, self._length)
        return convolution.vjp(row, w, self.geometry).reshape(-1, *self._sizes()[1:])

    @property
    def _length(self) -> int:
        return self.geometry.out_size[1]


class DenseLayer(Node):
    """Fully connected layer."""

    __slots__ = ()

    @property
    def _transposed(self) -> bool:
        assert isinstance(self.step.kind, kinds.Dense)
        return self.step.kind.transposed

    @property
    def weight(self) -> Value:
        return _weight(self.builder, self.step.kind, (-1, 1) if self._transposed else (1, -1))

    @property
    def bias(self) -> Value:
        return _bias(self.builder, self.step.kind, (1, -1))

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        return _plus(self._product(self._tensor(x), w, transposed=self._transposed), b)

    def vjp(self, s: Value, w: Value) -> Value:
        return self._product(s, w, transposed=not self._transposed)

    def _product(self, x: Value, w: Value, *, transposed: bool) -> Value:
        signs = x.nonnegative and w.nonnegative, x.nonnegative and w.nonpositive
        return self.builder.node("Gemm", x, w, attributes={"transB": int(transposed)}, signs=signs)


class AffineLayer(Node):
    """A scale by constants."""

    __slots__ = ()

    def _vector(self, values: NDArray[np.float64]) -> Value:
        return self.builder.array(values[None])

    @property
    def weight(self) -> Value:
        assert isinstance(self.step.kind, kinds.Affine)
        return self._vector(self.step.kind.scale)

    @property
    def bias(self) -> Value:
        assert isinstance(self.step.kind, kinds.Affine)
        return self._vector(self.step.kind.bias)

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        return _plus(self._tensor(x) * w, b)

    def vjp(self, s: Value, w: Value) -> Value:
        return s * w


class AveragePoolLayer(Node):
    """Average pooling; its weight is a number that scales the fixed weights."""

    __slots__ = ()

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        pool = self.step.kind
        assert isinstance(pool, kinds.AveragePool)
        return _plus(average_pool(self._tensor(x), pool) * w, b)

    def vjp(self, s: Value, w: Value) -> Value:
        pool = self.step.kind
        assert isinstance(pool, kinds.AveragePool)
        return spread(s * w, pool, self._sizes())


class GlobalAverageLayer(Node):
    """Mean over some axes."""

    __slots__ = ()

    @property
    def _average(self) -> kinds.GlobalAverage:
        assert isinstance(self.step.kind, kinds.GlobalAverage)
        return self.step.kind

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        axes, attributes = self.builder.integers(self._average.axes), {"keepdims": int(self._average.keepdims)}
        signs = (x.nonnegative, x.nonpositive)
        mean = self.builder.node("ReduceMean", self._tensor(x), axes, attributes=attributes, signs=signs)
        return _plus(mean * self._average.factor * w, b)

    def vjp(self, s: Value, w: Value) -> Value:
        sizes, axes = self._sizes(), self._average.axes
        kept = (1 if axis in axes else size for axis, size in enumerate(sizes) if axis)
        column = s if self._average.keepdims else s.reshape(-1, *kept)
        return self.expand(column * w * (self._average.factor / prod(sizes[axis] for axis in axes)))


class ResampleLayer(Node):
    """Mirrored borders, enlargement: one small matrix for the rows and one for the columns."""

    __slots__ = ()

    @property
    def routes(self) -> bool:
        resample = self.step.kind
        assert isinstance(resample, kinds.Resample)
        return all(
            bool(((m == 0) | (m == 1)).all() and (m.sum(1) == 1).all()) for m in (resample.rows, resample.columns)
        )

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        resample = self.step.kind
        assert isinstance(resample, kinds.Resample)
        return _plus(self._through(self._tensor(x), resample.rows, resample.columns) * w, b)

    def vjp(self, s: Value, w: Value) -> Value:
        resample = self.step.kind
        assert isinstance(resample, kinds.Resample)
        return self._through(s, resample.rows.T, resample.columns.T) * w

    def _through(self, x: Value, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> Value:
        signs = (x.nonnegative, x.nonpositive)
        across = self.builder.node("MatMul", x, self.builder.array(columns.T), signs=signs)
        return self.builder.node("MatMul", self.builder.array(rows), across, signs=signs)


def _plus(y: Value, b: Value | None) -> Value:
    return y if b is None else y + b


def average_pool(x: Value, pool: kinds.AveragePool) -> Value:
    """The forward operator."""
    attributes = {
        "kernel_shape": pool.kernel,
        "strides": pool.strides,
        "pads": pool.pads,
        "count_include_pad": int(pool.include_pad),
    }
    return x.builder.node("AveragePool", x, attributes=attributes, signs=(x.nonnegative, x.nonpositive))


def spread(s: Value, pool: kinds.AveragePool, sizes: tuple[int, ...]) -> Value:
    """The transpose of average pooling: (N, C, H', W') → (N, C, H, W), channel by channel."""
    channels, height, width = sizes[1:]
    geometry = convolution.Geometry.of_pool(pool, sizes)
    rows, columns = geometry.out_size
    full = np.full((1, 1, rows, columns), float(prod(pool.kernel)))
    counts = full if pool.include_pad else _window_sizes(pool, height, width)
    each = (s * s.builder.array(1.0 / counts)).reshape(-1, 1, rows, columns)
    ones = s.builder.array(np.ones((1, 1, *pool.kernel)))
    return convolution.vjp(each, ones, geometry).reshape(-1, channels, height, width)


def _window_sizes(pool: kinds.AveragePool, height: int, width: int) -> NDArray[np.float64]:
    """How many input pixels each window covers, (1, 1, H', W')."""

    def along(size: int, kernel: int, stride: int, before: int, after: int) -> NDArray[np.float64]:
        starts = np.arange(0, size + before + after - kernel + 1, stride) - before
        return np.asarray(np.minimum(starts + kernel, size) - np.maximum(starts, 0), np.float64)

    top, left, bottom, right = pool.pads
    rows = along(height, pool.kernel[0], pool.strides[0], top, bottom)
    columns = along(width, pool.kernel[1], pool.strides[1], left, right)
    return (rows[:, None] * columns[None, :])[None, None]


def _weight(builder: Builder, layer: kinds.Kind, shape: tuple[int, ...]) -> Value:
    assert isinstance(layer, kinds.Convolution | kinds.Dense)
    return builder.known(layer.weight.tensor) * _scale(builder, layer, shape)


def _scale(builder: Builder, layer: kinds.Convolution | kinds.Dense, shape: tuple[int, ...] = (-1, 1, 1, 1)) -> Value:
    scale = layer.weight.scale
    return builder.value(1.0) if scale is None else builder.array(scale.reshape(shape))


def _bias(builder: Builder, layer: kinds.Kind, shape: tuple[int, ...]) -> Value:
    assert isinstance(layer, kinds.Convolution | kinds.Dense)
    bias = layer.weight.bias
    return builder.value(0.0) if bias is None or not bias.any() else builder.array(bias.reshape(shape))
