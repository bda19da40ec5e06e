"""The kinds of layers that a plan is made of: frozen records of parameters, with traits.

A trait is what other rooms have to know of a kind: what composites call it,
how many inputs it has, whether it only moves elements, whether it keeps
signs. A new kind states its traits here, and nothing else has to list it.
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


class Role(StrEnum):
    """What a branch of a residual block, or an operand of a product, is."""

    MAIN = "main"
    IDENTITY = "identity"
    PROJECTION = "projection"
    GATE = "gate"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of layer. Its traits are class variables, or
    properties where they depend on parameters.
    """

    category: ClassVar[str]
    """What composites call such layers, as in ``@convolution``; several kinds may share one."""
    merges: ClassVar[bool] = False
    """It has several inputs that depend on the picture."""
    moves: ClassVar[bool] = False
    """It moves elements, leaves some out or adds zeros, and
    computes nothing: an identity shortcut may hold it.
    """
    one_to_one: ClassVar[bool] = False
    """It has one output element for every input element, at the same place or at another one."""
    pointwise: ClassVar[bool] = False
    """An output element depends on the input elements at its own place alone."""
    keeps_signs: ClassVar[bool] = False
    """Where no input is negative, no output is."""
    learnt: ClassVar[bool] = False
    """Its parameters are what training found."""

    @property
    def nonnegative(self) -> bool:
        """The output is never negative, whatever the input."""
        return False

    @property
    def prepares(self) -> bool:
        """It may be part of how a model prepares its
        picture, before the first layer that mixes elements.
        """
        return False

    @property
    def title(self) -> str:
        """What people call it."""
        return type(self).__name__


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """A linear layer's effective parameters:
    ``stored tensor × scale`` per output channel, and a bias.

    The stored tensor stays where it is in the file; folding
    a batch normalisation only changes `scale` and `bias`.
    """

    tensor: str
    """Name of the initializer."""
    shape: tuple[int, ...]
    scale: NDArray[np.float64] | None = None
    """(out,) or None for 1."""
    bias: NDArray[np.float64] | None = None
    """(out,) or None for 0."""


class Weighted(Kind):
    """A layer with a weight tensor and a bias; the first of
    them on the way from the picture are the first layers.
    """

    __slots__ = ()

    learnt: ClassVar[bool] = True
    weight: Weight


@dataclass(frozen=True, slots=True, eq=False)
class Convolution(Weighted):
    """2-D convolution; weight (O, C/group, kh, kw); pads are (top, left, bottom, right)."""

    category: ClassVar[str] = "convolution"

    weight: Weight
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]
    group: int


@dataclass(frozen=True, slots=True, eq=False)
class Dense(Weighted):
    """Fully connected layer on (N, in); the stored weight
    is (out, in) if `transposed`, else (in, out).
    """

    category: ClassVar[str] = "dense"

    weight: Weight
    transposed: bool


@dataclass(frozen=True, slots=True, eq=False)
class Affine(Kind):
    """``scale · x + bias`` by constants: a batch normalisation
    that is not folded, or the picture's preparation.

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
        """The number that it multiplies by, where that is one number and nothing is added."""
        if self.bias.any() or (self.scale != self.scale.flat[0]).any():
            return None
        return float(self.scale.flat[0])


@dataclass(frozen=True, slots=True)
class AveragePool(Kind):
    """Average pooling on (N, C, H, W); pads are (top, left, bottom, right)."""

    category: ClassVar[str] = "average pooling"
    keeps_signs: ClassVar[bool] = True

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
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
class MaxPool(Kind):
    """Max pooling on (N, C, H, W); pads are (top, left, bottom, right)."""

    category: ClassVar[str] = "max pooling"
    keeps_signs: ClassVar[bool] = True

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]
    ceil_mode: bool


@dataclass(frozen=True, slots=True, eq=False)
class Activation(Kind):
    """A function of every element alone: one of
    `FUNCTIONS`, with its parameters in their order there.
    """

    category: ClassVar[str] = "activation"
    one_to_one: ClassVar[bool] = True
    pointwise: ClassVar[bool] = True

    function: str
    parameters: tuple[float, ...] = ()
    slopes: NDArray[np.float64] | None = None
    """What a PRelu has learnt in place of a parameter; it broadcasts to one sample."""

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
    """An activation that the exporter wrote out in several
    nodes, as ``x · sigmoid(x)`` or the error-function GELU.
    """

    category: ClassVar[str] = "activation"
    one_to_one: ClassVar[bool] = True
    pointwise: ClassVar[bool] = True

    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Normalization(Kind):
    """``scale · (x − mean) / √(variance + epsilon) + bias``
    with the picture's own statistics, over `axes` of a view.

    InstanceNormalization, LayerNormalization, GroupNormalization;
    `view` is one sample's shape in which the axes count from 1, and
    scale and bias broadcast to one sample as it stands in the graph.
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
class Join(Kind):
    """Sum of two or more tensors that all depend on the input: where branches meet."""

    category: ClassVar[str] = "join"
    merges: ClassVar[bool] = True
    pointwise: ClassVar[bool] = True
    keeps_signs: ClassVar[bool] = True

    roles: tuple[Role, ...] = ()
    """What each operand's branch is, where the join closes a residual block; nothing elsewhere."""

    @property
    def shortcut(self) -> Role | None:
        """What the block's shortcut is, identity or
        projection; None where it closes no residual block.
        """
        if not self.roles:
            return None
        return Role.IDENTITY if Role.IDENTITY in self.roles else Role.PROJECTION


@dataclass(frozen=True, slots=True)
class Concat(Kind):
    """Tensors one after another along `axis`: what a DenseNet's layers read."""

    category: ClassVar[str] = "concatenation"
    merges: ClassVar[bool] = True
    keeps_signs: ClassVar[bool] = True

    axis: int
    sizes: tuple[int, ...]
    """How many elements along the axis each operand has."""


@dataclass(frozen=True, slots=True)
class Product(Kind):
    """A signal times a gate, both computed from the input:
    squeeze-and-excitation, attention, x · sigmoid(x).
    """

    category: ClassVar[str] = "product"
    merges: ClassVar[bool] = True
    pointwise: ClassVar[bool] = True
    keeps_signs: ClassVar[bool] = True

    signal: int | None
    """Which operand is the signal; None where it cannot be
    told, which only a written-out activation may have.
    """
    axes: tuple[int, ...]
    """Along which the gate has one value where the signal has many."""


@dataclass(frozen=True, slots=True)
class Softmax(Kind):
    """``exp(x) / Σ exp(x)`` along `axis`: gates that compete."""

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
    """One value written many times along `axes`: a gate brought to its signal's size."""

    category: ClassVar[str] = "routing"
    keeps_signs: ClassVar[bool] = True

    axes: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Resample(Kind):
    """``rows · x · columnsᵀ`` on height and width: mirrored or repeated borders, enlargement."""

    category: ClassVar[str] = "routing"
    keeps_signs: ClassVar[bool] = True

    rows: NDArray[np.float64]
    """(H', H)"""
    columns: NDArray[np.float64]
    """(W', W)"""


@dataclass(frozen=True, slots=True)
class Subsample(Kind):
    """Every `steps`-th element from `starts` to before
    `stops`, along C, H and W: an option-A shortcut's stride.
    """

    category: ClassVar[str] = "routing"
    moves: ClassVar[bool] = True
    keeps_signs: ClassVar[bool] = True

    starts: tuple[int, int, int]
    steps: tuple[int, int, int]
    stops: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class ZeroPad(Kind):
    """Zeros before and after along C, H and W: an option-A
    shortcut's further channels, a pooling's explicit border.
    """

    category: ClassVar[str] = "routing"
    moves: ClassVar[bool] = True
    keeps_signs: ClassVar[bool] = True

    before: tuple[int, int, int]
    after: tuple[int, int, int]

    @property
    def prepares(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Transpose(Kind):
    """The same elements with their axes in another order: output
    axis i is input axis ``order[i]``.
    """

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
    """One layer: what it reads and writes in the forward graph, and its parameters."""

    name: str
    """Name of the node that gives the step its identity (the Conv of a Conv + BatchNormalization)."""
    kind: Kind
    inputs: tuple[str, ...]
    output: str
    input_shape: Shape
    output_shape: Shape
    nodes: tuple[str, ...]
    """Every graph node that the step covers."""

    @property
    def op(self) -> str:
        """The layer's kind, for people."""
        return self.kind.title
