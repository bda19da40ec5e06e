"""Convolution and its transpose as ONNX nodes, by strategies that differ in speed alone.

Stride 1: a convolution with flipped, transposed weights, which runtimes run on their fastest
kernels. Otherwise: ConvTranspose, with symmetric pads only (asymmetric ones leave the CUDA
provider; then pads are 0 and the border is cut off by a Slice).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lrp_onnx.plan import kinds
from lrp_onnx.relevance.graph.builder import Value

FIRST = -(2**31)
"""As a Slice end with a negative step: up to and including the first element."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Everything about a convolution but its weights."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]
    group: int
    out_channels: int
    in_shape: tuple[int, int, int]
    """(C, H, W)"""

    @classmethod
    def of(cls, layer: kinds.Convolution, sizes: tuple[int, ...]) -> Geometry:
        """The geometry of `layer` on an input of shape `sizes` = (1, C, H, W)."""
        out_channels, _, rows, columns = layer.weight.shape
        return cls(
            (rows, columns),
            layer.strides,
            layer.pads,
            layer.dilations,
            layer.group,
            out_channels,
            (sizes[1], sizes[2], sizes[3]),
        )

    @classmethod
    def of_pool(cls, pool: kinds.AveragePool, sizes: tuple[int, ...]) -> Geometry:
        """An average pooling on (1, C, H, W), seen as a convolution of one channel."""
        return cls(pool.kernel, pool.strides, pool.pads, (1, 1), 1, 1, (1, sizes[2], sizes[3]))

    @property
    def reach(self) -> tuple[int, int]:
        """Rows and columns that the dilated kernel spans beyond one pixel: d(k − 1)."""
        return self.dilations[0] * (self.kernel[0] - 1), self.dilations[1] * (self.kernel[1] - 1)

    @property
    def out_size(self) -> tuple[int, int]:
        """(H', W')"""
        return self._windows(0)[0], self._windows(1)[0]

    @property
    def remainder(self) -> tuple[int, int]:
        """Rows and columns at the end of the padded input that no window reaches."""
        return self._windows(0)[1], self._windows(1)[1]

    def _windows(self, axis: int) -> tuple[int, int]:
        """(how many windows fit along the axis, what is left behind the last one)."""
        padded = self.in_shape[axis + 1] + self.pads[axis] + self.pads[axis + 2]
        steps, left = divmod(padded - self.reach[axis] - 1, self.strides[axis])
        return steps + 1, left


def pooled_size(pool: kinds.AveragePool, sizes: tuple[int, ...]) -> tuple[int, int]:
    """(H', W') of an average pooling on (1, C, H, W)."""
    return Geometry.of_pool(pool, sizes).out_size


def forward(x: Value, w: Value, geometry: Geometry, b: Value | None = None) -> Value:
    """``W x``, or ``W x + b`` with `b` a number or (1, O, 1, 1): (N, C, H, W) → (N, O, H', W')."""
    attributes: dict[str, Any] = {
        "kernel_shape": geometry.kernel,
        "strides": geometry.strides,
        "pads": geometry.pads,
        "dilations": geometry.dilations,
        "group": geometry.group,
    }
    if b is None or b.number == 0.0:
        return x.builder.node("Conv", x, w, attributes=attributes, sign=x.sign * w.sign)
    size = x.builder.integers((geometry.out_channels,))
    vector = x.builder.node("Expand", b if b.number is not None else b.reshape(-1), size)
    sign = x.sign * w.sign + b.sign
    return x.builder.node("Conv", x, w, vector, attributes=attributes, sign=sign)


def vjp(s: Value, w: Value, geometry: Geometry) -> Value:
    """``Wᵀ s`` (N, O, H', W') → (N, C, H, W), by the first strategy that fits."""
    for strategy in STRATEGIES.values():
        if (result := strategy(s, w, geometry)) is not None:
            return result
    raise AssertionError("conv_transpose fits every geometry")


def flipped_convolution(s: Value, w: Value, geometry: Geometry) -> Value | None:
    """Stride 1: a convolution with the weights flipped and their channel axes exchanged.

    Pads p become ``d(k − 1) − p``. None for another stride.
    """
    if not s.builder.emission.flipped_convolutions:
        return None
    reach = geometry.reach
    pads = tuple(reach[i % 2] - geometry.pads[i] for i in range(4))
    if geometry.strides != (1, 1) or min(pads) < 0:
        return None
    attributes: dict[str, Any] = {
        "kernel_shape": geometry.kernel,
        "pads": pads,
        "dilations": geometry.dilations,
        "group": geometry.group,
    }
    return s.builder.node(
        "Conv", s, _transposed(w, geometry), attributes=attributes, sign=s.sign * w.sign
    )


def conv_transpose(s: Value, w: Value, geometry: Geometry) -> Value:
    """Any geometry, by ConvTranspose."""
    top, left, bottom, right = geometry.pads
    symmetric = (top, left) == (bottom, right)
    attributes: dict[str, Any] = {
        "kernel_shape": geometry.kernel,
        "strides": geometry.strides,
        "dilations": geometry.dilations,
        "group": geometry.group,
        "pads": geometry.pads if symmetric else (0, 0, 0, 0),
        "output_padding": geometry.remainder,
    }
    if s.builder.emission.separate_weights:
        w = w.copied()
    full = s.builder.node("ConvTranspose", s, w, attributes=attributes, sign=s.sign * w.sign)
    if symmetric:
        return full
    integers = s.builder.integers
    _, height, width = geometry.in_shape
    return s.builder.node(
        "Slice",
        full,
        integers((top, left)),
        integers((top + height, left + width)),
        integers((2, 3)),
        sign=full.sign,
    )


Strategy = Callable[[Value, Value, Geometry], Value | None]
STRATEGIES: dict[str, Strategy] = {
    "flipped-convolution": flipped_convolution,
    "conv-transpose": conv_transpose,
}
"""In the order of preference; the last fits everything."""


def _transposed(w: Value, geometry: Geometry) -> Value:
    """(O, C/g, kh, kw) → (C, O/g, kh, kw), flipped in height and width."""
    builder, group, (rows, columns) = w.builder, geometry.group, geometry.kernel
    channels, out = geometry.in_shape[0], geometry.out_channels
    if group == 1:
        swapped = builder.node("Transpose", w, attributes={"perm": (1, 0, 2, 3)}, sign=w.sign)
    else:
        split = w.reshape(group, out // group, channels // group, rows, columns)
        turned = builder.node("Transpose", split, attributes={"perm": (0, 2, 1, 3, 4)}, sign=w.sign)
        swapped = turned.reshape(channels, out // group, rows, columns)
    if (rows, columns) == (1, 1):
        return swapped
    integers = builder.integers
    return builder.node(
        "Slice",
        swapped,
        integers((-1, -1)),
        integers((FIRST, FIRST)),
        integers((2, 3)),
        integers((-1, -1)),
        sign=w.sign,
    )
