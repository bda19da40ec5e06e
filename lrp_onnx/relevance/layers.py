"""Layers as rules see them: an input, an output, a weight, ``forward`` and ``vjp`` (the transpose of forward).

`forward` is always without bias; `vjp(s, w)` is the vector-Jacobian product: ⟨s, forward(x, w)⟩ = ⟨vjp(s, w), x⟩ for linear layers.
A residual block is itself a layer: its forward is what the graph already computes, its vjp the composition of its steps' vjps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lrp_onnx import plan
from lrp_onnx.errors import RuleError
from lrp_onnx.relevance import convolution
from lrp_onnx.relevance.builder import Builder, Value


class Layer(Protocol):
    """What a rule may ask of a layer with one input."""

    @property
    def input(self) -> Value:
        """The activation that enters."""

    @property
    def output(self) -> Value:
        """The tensor that the forward graph computes, bias included."""

    @property
    def weight(self) -> Value:
        """W; the number 1 where a layer's weights are fixed (pools)."""

    @property
    def bias(self) -> Value:
        """b, broadcastable to the output; the number 0 where there is none."""

    def forward(self, x: Value, w: Value) -> Value:
        """``W x``, without bias."""

    def vjp(self, s: Value, w: Value) -> Value:
        """``Wᵀ s``."""

    def fill(self, x: Value) -> Value:
        """`x`, a number or one value per channel, as a tensor of the input's shape with batch 1."""

    @property
    def routes(self) -> bool:
        """Whether every output element equals one input element, so that ``y⊙c → x⊙vjp(c)`` holds."""

    @property
    def rectifies(self) -> bool:
        """Whether the output equals the input wherever it is not zero, so that a⊙c may be divided by either."""

    def as_average(self, kernel: int) -> tuple[plan.AveragePool, tuple[int, ...]]:
        """A max pooling as an average pooling and its input's shape with batch 1; RuleError for other layers."""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """What all layers of one step share."""

    builder: Builder
    step: plan.Step
    inputs: tuple[Value, ...]
    output: Value

    @property
    def routes(self) -> bool:
        return False

    @property
    def rectifies(self) -> bool:
        return False

    def forward(self, x: Value, w: Value) -> Value:
        raise RuleError(
            f"{self.step.op} '{self.step.name}' is not linear: the rule given to it serves only linear layers"
        )

    def vjp(self, s: Value, w: Value) -> Value:
        raise NotImplementedError

    def as_average(self, kernel: int) -> tuple[plan.AveragePool, tuple[int, ...]]:
        raise RuleError(f"{self.step.op} '{self.step.name}' is no max pooling: the rule average does not fit it")

    @property
    def input(self) -> Value:
        return self.inputs[0]

    @property
    def weight(self) -> Value:
        return self.builder.value(1.0)

    @property
    def bias(self) -> Value:
        return self.builder.value(0.0)

    def fill(self, x: Value) -> Value:
        return self.builder.node(
            "Expand", x, self.builder.integers(self._sizes()), signs=(x.nonnegative, x.nonpositive)
        )

    def _sizes(self) -> tuple[int, ...]:
        """The input's shape with batch 1."""
        return 1, *(size for size in self.step.input_shape[1:] if size is not None)

    def _tensor(self, x: Value) -> Value:
        return self.fill(x) if x.number is not None else x


class ConvolutionLayer(Node):
    """2-D convolution."""

    __slots__ = ()

    @property
    def geometry(self) -> convolution.Geometry:
        """Strides, pads, sizes."""
        layer = self.step.layer
        assert isinstance(layer, plan.Convolution)
        return convolution.Geometry.of(layer, self._sizes())

    @property
    def weight(self) -> Value:
        return _weight(self.builder, self.step.layer, (-1, 1, 1, 1))

    @property
    def bias(self) -> Value:
        return _bias(self.builder, self.step.layer, (1, -1, 1, 1))

    def forward(self, x: Value, w: Value) -> Value:
        return convolution.forward(self._tensor(x), w, self.geometry)

    def vjp(self, s: Value, w: Value) -> Value:
        return convolution.vjp(s, w, self.geometry)


class DenseLayer(Node):
    """Fully connected layer."""

    __slots__ = ()

    @property
    def _transposed(self) -> bool:
        assert isinstance(self.step.layer, plan.Dense)
        return self.step.layer.transposed

    @property
    def weight(self) -> Value:
        return _weight(self.builder, self.step.layer, (-1, 1) if self._transposed else (1, -1))

    @property
    def bias(self) -> Value:
        return _bias(self.builder, self.step.layer, (1, -1))

    def forward(self, x: Value, w: Value) -> Value:
        return self._product(self._tensor(x), w, transposed=self._transposed)

    def vjp(self, s: Value, w: Value) -> Value:
        return self._product(s, w, transposed=not self._transposed)

    def _product(self, x: Value, w: Value, *, transposed: bool) -> Value:
        signs = x.nonnegative and w.nonnegative, x.nonnegative and w.nonpositive
        return self.builder.node("Gemm", x, w, attributes={"transB": int(transposed)}, signs=signs)


class AffineLayer(Node):
    """Per-channel scale."""

    __slots__ = ()

    def _vector(self, values: NDArray[np.float64]) -> Value:
        return self.builder.array(values.reshape(1, -1, *(1 for _ in self.step.input_shape[2:])))

    @property
    def weight(self) -> Value:
        assert isinstance(self.step.layer, plan.Affine)
        return self._vector(self.step.layer.scale)

    @property
    def bias(self) -> Value:
        assert isinstance(self.step.layer, plan.Affine)
        return self._vector(self.step.layer.bias)

    def forward(self, x: Value, w: Value) -> Value:
        return self._tensor(x) * w

    def vjp(self, s: Value, w: Value) -> Value:
        return s * w


class AveragePoolLayer(Node):
    """Average pooling; its weight is a number that scales the fixed weights."""

    __slots__ = ()

    def forward(self, x: Value, w: Value) -> Value:
        pool = self.step.layer
        assert isinstance(pool, plan.AveragePool)
        return average_pool(self._tensor(x), pool) * w

    def vjp(self, s: Value, w: Value) -> Value:
        pool = self.step.layer
        assert isinstance(pool, plan.AveragePool)
        return spread(s * w, pool, self._sizes())


class GlobalAverageLayer(Node):
    """Mean over height and width."""

    __slots__ = ()

    def forward(self, x: Value, w: Value) -> Value:
        assert isinstance(self.step.layer, plan.GlobalAverage)
        attributes = {"keepdims": int(self.step.layer.keepdims)}
        return (
            self.builder.node(
                "ReduceMean",
                self._tensor(x),
                self.builder.integers((2, 3)),
                attributes=attributes,
                signs=(x.nonnegative, x.nonpositive),
            )
            * w
        )

    def vjp(self, s: Value, w: Value) -> Value:
        _, channels, height, width = self._sizes()
        assert isinstance(self.step.layer, plan.GlobalAverage)
        column = s if self.step.layer.keepdims else s.reshape(-1, channels, 1, 1)
        return self.fill(column * w * (1.0 / (height * width)))


class MaxPoolLayer(Node):
    """Max pooling; vjp gives everything to the first maximum of a window."""

    __slots__ = ()

    @property
    def routes(self) -> bool:
        return True

    def as_average(self, kernel: int) -> tuple[plan.AveragePool, tuple[int, ...]]:
        pool = self.step.layer
        assert isinstance(pool, plan.MaxPool)
        pair, none = (kernel, kernel), (0, 0, 0, 0)
        average = (
            plan.AveragePool(pair, pair, none, True)
            if kernel
            else plan.AveragePool(pool.kernel, pool.strides, pool.pads, False)
        )
        size = convolution.pooled_size(average, self._sizes())
        if size != self.step.output_shape[2:] or (not kernel and pool.dilations != (1, 1)):
            raise RuleError(
                f"MaxPool '{self.step.name}' gives {self.step.output_shape[2:]}, an average pooling of kernel {average.kernel} {size}: "
                "give it another rule, for example winner-take-all or average(kernel=0)"
            )
        return average, self._sizes()

    def vjp(self, s: Value, w: Value) -> Value:
        pool = self.step.layer
        assert isinstance(pool, plan.MaxPool)
        attributes = {
            "kernel_shape": pool.kernel,
            "strides": pool.strides,
            "pads": pool.pads,
            "dilations": pool.dilations,
            "ceil_mode": int(pool.ceil_mode),
        }
        _, indices = self.builder.nodes_of("MaxPool", self.input, outputs=2, attributes=attributes)
        zeros = self.builder.node("ConstantOfShape", self.builder.node("Shape", self.input)).reshape(-1)
        routed = self.builder.node(
            "ScatterElements",
            zeros,
            indices.reshape(-1),
            s.reshape(-1),
            attributes={"axis": 0, "reduction": "add"},
            signs=(s.nonnegative, s.nonpositive),
        )
        return routed.reshape(-1, *self._sizes()[1:])


class ReluLayer(Node):
    """``max(x, 0)``."""

    __slots__ = ()

    @property
    def rectifies(self) -> bool:
        return True

    def vjp(self, s: Value, w: Value) -> Value:
        return self.output.where_positive(s)


class JoinLayer(Node):
    """Sum of branches; its vjp is the same for every operand."""

    __slots__ = ()

    def vjp(self, s: Value, w: Value) -> Value:
        return s


class ReshapeLayer(Node):
    """The same elements in another shape."""

    __slots__ = ()

    @property
    def routes(self) -> bool:
        return True

    def forward(self, x: Value, w: Value) -> Value:
        return x.reshape(-1, *(size for size in self.step.output_shape[1:] if size is not None)) * w

    def vjp(self, s: Value, w: Value) -> Value:
        return s.reshape(-1, *self._sizes()[1:]) * w


LAYERS: Mapping[type[plan.Layer], type[Node]] = {
    plan.Convolution: ConvolutionLayer,
    plan.Dense: DenseLayer,
    plan.Affine: AffineLayer,
    plan.AveragePool: AveragePoolLayer,
    plan.GlobalAverage: GlobalAverageLayer,
    plan.MaxPool: MaxPoolLayer,
    plan.Relu: ReluLayer,
    plan.Join: JoinLayer,
    plan.Reshape: ReshapeLayer,
}
"""Every kind of step → how rules see it."""


@dataclass(frozen=True, slots=True, eq=False)
class BlockLayer:
    """A whole residual block as one layer: ``vjp`` runs through everything in it, ReLUs and shortcut included."""

    builder: Builder
    input: Value
    output: Value
    backward: Callable[[Value], Value]

    @property
    def weight(self) -> Value:
        """Not used: a block's Jacobian has no weight of its own."""
        return self.builder.value(1.0)

    @property
    def bias(self) -> Value:
        """0: what biases inside the block absorb is not told apart."""
        return self.builder.value(0.0)

    @property
    def routes(self) -> bool:
        """No."""
        return False

    @property
    def rectifies(self) -> bool:
        """No."""
        return False

    def as_average(self, kernel: int) -> tuple[plan.AveragePool, tuple[int, ...]]:
        """Not a pooling."""
        raise RuleError("a residual block is no max pooling")

    def forward(self, x: Value, w: Value) -> Value:
        """Not linear; the graph's own output serves."""
        raise RuleError("a residual block is not linear: its bias cannot be dropped")

    def vjp(self, s: Value, w: Value) -> Value:
        """``Jᵀ s`` with J the block's Jacobian at the picture."""
        return self.backward(s)

    def fill(self, x: Value) -> Value:
        """Not used."""
        raise RuleError("a residual block's input is never replaced")


def layer_of(builder: Builder, step: plan.Step, nonnegative: frozenset[str]) -> Node:
    """A step as rules see it; `nonnegative` names the tensors known to be ≥ 0."""
    inputs = tuple(builder.known(name, nonnegative=name in nonnegative) for name in step.inputs)
    return LAYERS[type(step.layer)](
        builder, step, inputs, builder.known(step.output, nonnegative=step.output in nonnegative)
    )


def nonnegative_tensors(of: plan.Plan) -> frozenset[str]:
    """Tensors that cannot be negative: behind a ReLU, and pooled, averaged, added or reshaped from such."""
    found: set[str] = set()
    keeps = plan.MaxPool | plan.AveragePool | plan.GlobalAverage | plan.Reshape | plan.Join
    for step in of.steps:
        if isinstance(step.layer, plan.Relu) or (isinstance(step.layer, keeps) and found.issuperset(step.inputs)):
            found.add(step.output)
    return frozenset(found)


def average_pool(x: Value, pool: plan.AveragePool) -> Value:
    """The forward operator."""
    attributes = {
        "kernel_shape": pool.kernel,
        "strides": pool.strides,
        "pads": pool.pads,
        "count_include_pad": int(pool.include_pad),
    }
    return x.builder.node("AveragePool", x, attributes=attributes, signs=(x.nonnegative, x.nonpositive))


def spread(s: Value, pool: plan.AveragePool, sizes: tuple[int, ...]) -> Value:
    """The transpose of average pooling: (N, C, H', W') → (N, C, H, W), channel by channel."""
    channels, height, width = sizes[1:]
    geometry = convolution.Geometry.of_pool(pool, sizes)
    rows, columns = geometry.out_size
    full = np.full((1, 1, rows, columns), float(prod(pool.kernel)))
    counts = full if pool.include_pad else _window_sizes(pool, height, width)
    each = (s * s.builder.array(1.0 / counts)).reshape(-1, 1, rows, columns)
    ones = s.builder.array(np.ones((1, 1, *pool.kernel)))
    return convolution.vjp(each, ones, geometry).reshape(-1, channels, height, width)


def _window_sizes(pool: plan.AveragePool, height: int, width: int) -> NDArray[np.float64]:
    """How many input pixels each window covers, (1, 1, H', W')."""

    def along(size: int, kernel: int, stride: int, before: int, after: int) -> NDArray[np.float64]:
        starts = np.arange(0, size + before + after - kernel + 1, stride) - before
        return np.asarray(np.minimum(starts + kernel, size) - np.maximum(starts, 0), np.float64)

    top, left, bottom, right = pool.pads
    rows = along(height, pool.kernel[0], pool.strides[0], top, bottom)
    columns = along(width, pool.kernel[1], pool.strides[1], left, right)
    return (rows[:, None] * columns[None, :])[None, None]


def _weight(builder: Builder, layer: plan.Layer, shape: tuple[int, ...]) -> Value:
    assert isinstance(layer, plan.Convolution | plan.Dense)
    stored = builder.known(layer.weight.tensor)
    return stored if layer.weight.scale is None else stored * builder.array(layer.weight.scale.reshape(shape))


def _bias(builder: Builder, layer: plan.Layer, shape: tuple[int, ...]) -> Value:
    assert isinstance(layer, plan.Convolution | plan.Dense)
    bias = layer.weight.bias
    return builder.value(0.0) if bias is None or not bias.any() else builder.array(bias.reshape(shape))
