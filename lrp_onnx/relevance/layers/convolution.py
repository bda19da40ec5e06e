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

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    """Before every axis, then after every axis."""
    dilations: tuple[int, ...]
    group: int
    out_channels: int
    in_shape: tuple[int, ...]
    """(C, H, W), or (C, L) or (C, D, H, W)."""

    @classmethod
    def of(cls, layer: kinds.Convolution, sizes: tuple[int, ...]) -> Geometry:
        """The geometry of `layer` on an input of shape `sizes` = (1, C, H, W)."""
        out_channels, _, *kernel = layer.weight.shape
        return cls(
            tuple(kernel),
            layer.strides,
            layer.pads,
            layer.dilations,
            layer.group,
            out_channels,
            sizes[1:],
        )

    @classmethod
    def of_pool(cls, pool: kinds.AveragePool, sizes: tuple[int, ...]) -> Geometry:
        """An average pooling on (1, C, H, W), seen as a convolution of one channel."""
        ones = (1,) * len(pool.kernel)
        return cls(pool.kernel, pool.strides, pool.pads, ones, 1, 1, (1, *sizes[2:]))

    @property
    def axes(self) -> range:
        """The axes of tensors behind the channels."""
        return range(2, len(self.kernel) + 2)

    @property
    def before(self) -> tuple[int, ...]:
        """The pads before every axis."""
        return self.pads[: len(self.kernel)]

    @property
    def after(self) -> tuple[int, ...]:
        """The pads after every axis."""
        return self.pads[len(self.kernel) :]

    @property
    def reach(self) -> tuple[int, ...]:
        """What the dilated kernel spans beyond one pixel along every axis: d(k − 1)."""
        return tuple(d * (k - 1) for d, k in zip(self.dilations, self.kernel, strict=True))

    @property
    def out_size(self) -> tuple[int, ...]:
        """(H', W')"""
        return tuple(steps + 1 for steps, _ in self._windows())

    @property
    def remainder(self) -> tuple[int, ...]:
        """Rows and columns at the end of the padded input that no window reaches."""
        return tuple(left for _, left in self._windows())

    def _windows(self) -> list[tuple[int, int]]:
        """For every axis (how many windows follow the first, what is left behind the last)."""
        padded = map(sum, zip(self.in_shape[1:], self.before, self.after, strict=True))
        each = zip(padded, self.reach, self.strides, strict=True)
        return [divmod(size - reach - 1, stride) for size, reach, stride in each]


def pooled_size(pool: kinds.AveragePool, sizes: tuple[int, ...]) -> tuple[int, ...]:
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
    pads = tuple(r - pad for r, pad in zip(reach * 2, geometry.pads, strict=True))
    if set(geometry.strides) != {1} or min(pads) < 0:
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
    before, symmetric = geometry.before, geometry.before == geometry.after
    attributes: dict[str, Any] = {
        "kernel_shape": geometry.kernel,
        "strides": geometry.strides,
        "dilations": geometry.dilations,
        "group": geometry.group,
        "pads": geometry.pads if symmetric else (0,) * len(geometry.pads),
        "output_padding": geometry.remainder,
    }
    if s.builder.emission.separate_weights:
        w = w.copied()
    full = s.builder.node("ConvTranspose", s, w, attributes=attributes, sign=s.sign * w.sign)
    if symmetric:
        return full
    integers = s.builder.integers
    ends = tuple(map(sum, zip(before, geometry.in_shape[1:], strict=True)))
    return s.builder.node(
        "Slice",
        full,
        integers(before),
        integers(ends),
        integers(geometry.axes),
        sign=full.sign,
    )


Strategy = Callable[[Value, Value, Geometry], Value | None]
STRATEGIES: dict[str, Strategy] = {
    "flipped-convolution": flipped_convolution,
    "conv-transpose": conv_transpose,
}
"""In the order of preference; the last fits everything."""


def _transposed(w: Value, geometry: Geometry) -> Value:
    """(O, C/g, kernel …) → (C, O/g, kernel …), flipped along every axis of the kernel."""
    builder, group, kernel = w.builder, geometry.group, geometry.kernel
    channels, out = geometry.in_shape[0], geometry.out_channels
    if group == 1:
        order = (1, 0, *geometry.axes)
        swapped = builder.node("Transpose", w, attributes={"perm": order}, sign=w.sign)
    else:
        split = w.reshape(group, out // group, channels // group, *kernel)
        order = (0, 2, 1, *(axis + 1 for axis in geometry.axes))
        turned = builder.node("Transpose", split, attributes={"perm": order}, sign=w.sign)
        swapped = turned.reshape(channels, out // group, *kernel)
    if set(kernel) == {1}:
        return swapped
    integers = builder.integers
    return builder.node(
        "Slice",
        swapped,
        integers((-1,) * len(kernel)),
        integers((FIRST,) * len(kernel)),
        integers(geometry.axes),
        integers((-1,) * len(kernel)),
        sign=w.sign,
    )
