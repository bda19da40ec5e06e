"""The kinds of layers in a plan: frozen records of parameters, with traits.

Traits are what other packages need to know about a kind: its name in composites, whether it has
several inputs, whether it only moves elements, whether it keeps signs. A new kind states its traits
here; no other module lists the kinds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.plan.functions import FUNCTIONS

Shape = tuple[int | None, ...]
"""Sizes of a tensor; None where a size is symbolic (the batch)."""

MOST_AXES = 3
"""The most axes behind the channels: signals have one, pictures two, volumes and films three."""


class Role(StrEnum):
    """The role of a branch of a residual block, or of an operand of a product."""

    MAIN = "main"
    IDENTITY = "identity"
    PROJECTION = "projection"
    GATE = "gate"


@dataclass(frozen=True, slots=True)
class View:
    """How a tensor of the graph becomes one with the batch first: reshaped to `shape`, in which -1
    is the batch (empty: as it is), then transposed by `order`.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of layer.

    Its traits are class variables, or properties if they depend on parameters.
    """

    category: ClassVar[str]
    """Its name in composites, as in ``@convolution``; several kinds may share one."""
    merges: ClassVar[bool] = False
    """Whether it has several inputs that depend on the picture."""
    moves: ClassVar[bool] = False
    """Whether it only moves elements, drops some or adds zeros, so that an identity shortcut may
    contain it.
    """
    one_to_one: ClassVar[bool] = False
    """Whether it has one output element for every input element, at the same or another place."""
    pointwise: ClassVar[bool] = False
    """Whether an output element depends only on the input elements at the same place."""
    keeps_signs: ClassVar[bool] = False
    """Whether its output is never negative if its inputs are not."""
    learnt: ClassVar[bool] = False
    """Whether training determines its parameters."""

    @property
    def nonnegative(self) -> bool:
        """Whether the output is never negative, whatever the input."""
        return False

    @property
    def prepares(self) -> bool:
        """Whether it may be part of a model's preparation of the picture, which comes before the
        first layer that mixes elements.
        """
        return False

    @property
    def title(self) -> str:
        """Its name in tables and messages."""
        return type(self).__name__


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """A linear layer's effective parameters: ``stored tensor × scale`` per output channel, and a
    bias.

    Folding a batch normalisation changes `scale` and `bias`; the file's stored tensor stays.
    """

    tensor: str
    """Name of the initializer."""
    shape: tuple[int, ...]
    scale: NDArray[np.float64] | None = None
    """(out,) or None for 1."""
    bias: NDArray[np.float64] | None = None
    """(out,) or None for 0."""


class Weighted(Kind):
    """A layer with a weight tensor and a bias: a linear layer."""

    __slots__ = ()

    learnt: ClassVar[bool] = True
    weight: Weight


@dataclass(frozen=True, slots=True, eq=False)
class Convolution(Weighted):
    """Convolution along one to three axes; weight (O, C/group, kernel …).

    Strides and dilations have a number for every axis, pads one before every axis and then one
    after every axis: (top, left, bottom, right) of pictures.
    """

    category: ClassVar[str] = "convolution"

    weight: Weight
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    group: int


@dataclass(frozen=True, slots=True, eq=False)
class Deconvolution(Weighted):
    """Transposed convolution along one to three axes; weight (C, O/group, kernel …).

    It is the transpose of the convolution with the same parameters from its output to its input.
    """

    category: ClassVar[str] = "convolution"

    weight: Weight
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    group: int


@dataclass(frozen=True, slots=True, eq=False)
class Dense(Weighted):
    """Fully connected layer on (N, in).

    The stored weight is (out, in) if `transposed`, else (in, out).
    """

    category: ClassVar[str] = "dense"

    weight: Weight
    transposed: bool


@dataclass(frozen=True, slots=True, eq=False)
class Linear(Weighted):
    """Fully connected layer along the last axis of (N, …, in), the same at every position: the 1×1
    convolution of pictures with channels last, and of tokens.

    The stored weight is (out, in) if `transposed`, else (in, out).
    """

    category: ClassVar[str] = "convolution"

    weight: Weight
    transposed: bool


@dataclass(frozen=True, slots=True, eq=False)
class Matrices(Kind):
    """``x @ M``, or ``M @ x`` if `left`, with constant matrices, which may be others for every
    head: a learnt query times keys.
    """

    category: ClassVar[str] = "convolution"
    learnt: ClassVar[bool] = True

    matrices: NDArray[np.float64]
    """(…, rows, columns), broadcastable to one sample."""
    left: bool


@dataclass(frozen=True, slots=True, eq=False)
class Affine(Kind):
    """``scale · x + bias`` with constants: a batch normalisation that is not folded, or a part of
    the picture's preparation.

    Both arrays broadcast to one sample: (C, 1, 1) for one value per channel of (N, C, H, W).
    """

    category: ClassVar[str] = "affine"
    one_to_one: ClassVar[bool] = True
    learnt: ClassVar[bool] = True

    scale: NDArray[np.float64]
    bias: NDArray[np.float64]

    @property
    def prepares(self) -> bool:
        return True

    @property
    def uniform(self) -> float | None:
        """The one number that it multiplies by, or None if it adds something or has several."""
        if self.bias.any() or (self.scale != self.scale.flat[0]).any():
            return None
        return float(self.scale.flat[0])


@dataclass(frozen=True, slots=True)
class AveragePool(Kind):
    """Average pooling along one to three axes; pads as those of a `Convolution`."""

    category: ClassVar[str] = "average pooling"
    keeps_signs: ClassVar[bool] = True

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    include_pad: bool


@dataclass(frozen=True, slots=True)
class GlobalAverage(Kind):
    """``factor · mean(x)`` over `axes`, none of which is the batch."""

    category: ClassVar[str] = "average pooling"
    keeps_signs: ClassVar[bool] = True

    axes: tuple[int, ...]
    keepdims: bool
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class GlobalNorm(Kind):
    """``√Σx²`` over `axes`, none of which is the batch, or ``Σx²`` if `squared`."""

    category: ClassVar[str] = "average pooling"

    axes: tuple[int, ...]
    keepdims: bool
    squared: bool = False

    @property
    def nonnegative(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class GlobalMax(Kind):
    """The largest element along `axes`, none of which is the batch."""

    category: ClassVar[str] = "max pooling"
    keeps_signs: ClassVar[bool] = True

    axes: tuple[int, ...]
    keepdims: bool


@dataclass(frozen=True, slots=True)
class MaxPool(Kind):
    """Max pooling along one to three axes; pads as those of a `Convolution`."""

    category: ClassVar[str] = "max pooling"
    keeps_signs: ClassVar[bool] = True

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    ceil_mode: bool


@dataclass(frozen=True, slots=True, eq=False)
class Activation(Kind):
    """An elementwise function: one of `FUNCTIONS`, with its parameters in the order given there."""

    category: ClassVar[str] = "activation"
    one_to_one: ClassVar[bool] = True
    pointwise: ClassVar[bool] = True

    function: str
    parameters: tuple[float, ...] = ()
    slopes: NDArray[np.float64] | None = None
    """The learnt slopes of a PRelu, or the learnt bounds of a Max, in place of a parameter; they
    broadcast to one sample.
    """

    @property
    def nonnegative(self) -> bool:
        return FUNCTIONS[self.function].nonnegative or (
            self.function == "Clip" and self.parameters[0] >= 0
        )

    @property
    def prepares(self) -> bool:
        return self.function == "Clip"

    @property
    def title(self) -> str:
        return self.function


@dataclass(frozen=True, slots=True, eq=False)
class Composed(Kind):
    """An activation that the exporter wrote out in several nodes, such as ``x · sigmoid(x)`` or the
    error-function GELU.
    """

    category: ClassVar[str] = "activation"
    one_to_one: ClassVar[bool] = True
    pointwise: ClassVar[bool] = True

    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Normalization(Kind):
    """``scale · (x − mean) / √(variance + epsilon) + bias`` with the picture's own mean and
    variance over `axes`: InstanceNormalization, LayerNormalization, GroupNormalization.

    The statistics are taken over a reshaped tensor: `view` is the shape of one of its samples, and
    `axes` count from 1 in it (0 is the batch). Scale and bias broadcast to one sample in the shape
    of the graph.
    """

    category: ClassVar[str] = "normalization"
    one_to_one: ClassVar[bool] = True
    learnt: ClassVar[bool] = True

    view: tuple[int, ...]
    axes: tuple[int, ...]
    epsilon: float
    scale: NDArray[np.float64]
    bias: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LocalResponse(Kind):
    """``x / (bias + alpha / size · Σx²) ^ beta`` with the sum over the `size` nearest channels of
    (N, C, …): the local response normalisation of AlexNet.
    """

    category: ClassVar[str] = "normalization"
    one_to_one: ClassVar[bool] = True
    keeps_signs: ClassVar[bool] = True

    size: int
    alpha: float
    beta: float
    bias: float


@dataclass(frozen=True, slots=True)
class Join(Kind):
    """Sum of two or more tensors that all depend on the input: the point where branches meet."""

    category: ClassVar[str] = "join"
    merges: ClassVar[bool] = True
    pointwise: ClassVar[bool] = True
    keeps_signs: ClassVar[bool] = True

    roles: tuple[Role, ...] = ()
    """The role of each operand's branch if the join closes a residual block, else empty."""

    @property
    def shortcut(self) -> Role | None:
        """The role of the block's shortcut: identity or projection; None outside a block."""
        if not self.roles:
            return None
        return Role.IDENTITY if Role.IDENTITY in self.roles else Role.PROJECTION


@dataclass(frozen=True, slots=True)
class Concat(Kind):
    """Tensors one after another along `axis`, as in a DenseNet. Between them there may be
    constants, as a transformer's class token is.
    """

    category: ClassVar[str] = "concatenation"
    merges: ClassVar[bool] = True

    axis: int
    sizes: tuple[int, ...]
    """The size of each operand along the axis."""
    starts: tuple[int, ...] = ()
    """Where each operand begins; empty if they follow each other from 0 on."""
    length: int = 0
    """The size of the whole along the axis if there are constants, else 0."""

    @property
    def keeps_signs(self) -> bool:  # type: ignore[override]
        return not self.length

    @property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """Where each operand begins and ends along the axis."""
        starts = self.starts or tuple(sum(self.sizes[:i]) for i in range(len(self.sizes)))
        return tuple((start, start + size) for start, size in zip(starts, self.sizes, strict=True))


@dataclass(frozen=True, slots=True)
class Product(Kind):
    """A signal times a gate, both computed from the input: squeeze-and-excitation, attention,
    ``x · sigmoid(x)``.
    """

    category: ClassVar[str] = "product"
    merges: ClassVar[bool] = True
    pointwise: ClassVar[bool] = True
    keeps_signs: ClassVar[bool] = True

    signal: int | None
    """Index of the operand that is the signal; None if both are: queries times positions, ``u · v``
    of a gated layer without a bounded function.
    """
    axes: tuple[int, ...]
    """Axes along which the gate has one value and the signal has several."""


@dataclass(frozen=True, slots=True)
class MatrixProduct(Kind):
    """``A @ B`` of two tensors that both depend on the picture: queries and keys, attention and
    values.
    """

    category: ClassVar[str] = "matrix product"
    merges: ClassVar[bool] = True
    keeps_signs: ClassVar[bool] = True

    attention: int | None
    """Index of the operand that is a softmax's; None if neither is."""
    repeated: tuple[tuple[int, ...], tuple[int, ...]]
    """For each operand the axes along which it has one matrix and the other has several."""


@dataclass(frozen=True, slots=True)
class Quotient(Kind):
    """A signal divided by a norm or another gate, both computed from the input: to rules it is a
    product, whose gate is one over the divisor.
    """

    category: ClassVar[str] = "product"
    merges: ClassVar[bool] = True
    pointwise: ClassVar[bool] = True
    keeps_signs: ClassVar[bool] = True

    axes: tuple[int, ...]
    """Axes along which the divisor has one value and the signal has several."""
    signal: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class Softmax(Kind):
    """``exp(x) / Σ exp(x)`` along `axis`, as in attention."""

    category: ClassVar[str] = "softmax"
    one_to_one: ClassVar[bool] = True

    axis: int

    @property
    def nonnegative(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Reshape(Kind):
    """Flatten, Reshape, Squeeze, Unsqueeze: the same elements in another shape."""

    category: ClassVar[str] = "reshape"
    moves: ClassVar[bool] = True
    one_to_one: ClassVar[bool] = True
    keeps_signs: ClassVar[bool] = True

    @property
    def prepares(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Expand(Kind):
    """Values repeated along `axes`: a gate expanded to its signal's size."""

    category: ClassVar[str] = "routing"
    keeps_signs: ClassVar[bool] = True

    axes: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Resample(Kind):
    """One matrix along every axis behind the channels, ``rows · x · columnsᵀ`` of pictures:
    mirrored or repeated borders, resizing.
    """

    category: ClassVar[str] = "routing"

    matrices: tuple[NDArray[np.float64], ...]
    """For every axis (new size, old size)."""

    @property
    def keeps_signs(self) -> bool:  # type: ignore[override]
        """Not where weights are negative, as those of cubic interpolation."""
        return all(bool((matrix >= 0).all()) for matrix in self.matrices)


@dataclass(frozen=True, slots=True)
class Subsample(Kind):
    """Every `steps`-th element from `starts` up to, not including, `stops`, along every axis but
    the batch: a slice, or the stride of an option-A shortcut (He et al. 2015).
    """

    category: ClassVar[str] = "routing"
    moves: ClassVar[bool] = True
    keeps_signs: ClassVar[bool] = True

    starts: tuple[int, ...]
    steps: tuple[int, ...]
    stops: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Select(Kind):
    """The elements at `indices` along `axis`, each at most once: a class token, or a turned order;
    without that axis if `drops`, which is for one index.
    """

    category: ClassVar[str] = "routing"
    moves: ClassVar[bool] = True
    keeps_signs: ClassVar[bool] = True

    axis: int
    indices: tuple[int, ...]
    drops: bool = False


@dataclass(frozen=True, slots=True)
class Pick(Kind):
    """The elements at `indices` along `axis`, some of them several times, in place of that axis in
    the axes of `shape`: windows that overlap.
    """

    category: ClassVar[str] = "routing"
    keeps_signs: ClassVar[bool] = True

    axis: int
    indices: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ZeroPad(Kind):
    """Zeros before and after along every axis but the batch: the added channels of an option-A
    shortcut, or the explicit border of a convolution or pooling.
    """

    category: ClassVar[str] = "routing"
    moves: ClassVar[bool] = True
    keeps_signs: ClassVar[bool] = True

    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def prepares(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Transpose(Kind):
    """The same elements with permuted axes: output axis i is input axis ``order[i]``."""

    category: ClassVar[str] = "reshape"
    moves: ClassVar[bool] = True
    one_to_one: ClassVar[bool] = True
    keeps_signs: ClassVar[bool] = True

    order: tuple[int, ...]

    @property
    def prepares(self) -> bool:
        return True


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One layer: its input and output tensors in the forward graph, and its parameters."""

    name: str
    """Name of the step's main node, such as the Conv of Conv + BatchNormalization."""
    kind: Kind
    inputs: tuple[str, ...]
    output: str
    input_shape: Shape
    output_shape: Shape
    nodes: tuple[str, ...]
    """Names of all graph nodes that the step covers."""
    view: View | None = None
    """How the graph's output tensor becomes the step's, which has the batch first; None where it
    is the same.
    """

    @property
    def op(self) -> str:
        """The layer's kind, for tables and messages."""
        return self.kind.title


def attends(step: Step) -> bool:
    """Whether a step is the product of attention's weights and what is attended to."""
    return isinstance(step.kind, MatrixProduct) and step.kind.attention is not None
