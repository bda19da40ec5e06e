"""The kinds of layers that a plan is made of, each a frozen record of its parameters, and the step that holds one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int | None, ...]
"""Sizes of a tensor; None where a size is symbolic (the batch)."""


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """A linear layer's effective parameters: ``stored tensor × scale`` per output channel, and a bias.

    The stored tensor stays where it is in the file; folding a batch normalisation only changes `scale` and `bias`.
    """

    tensor: str
    """Name of the initializer."""
    shape: tuple[int, ...]
    scale: NDArray[np.float64] | None = None
    """(out,) or None for 1."""
    bias: NDArray[np.float64] | None = None
    """(out,) or None for 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """2-D convolution; weight (O, C/group, kh, kw); pads are (top, left, bottom, right)."""

    weight: Weight
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]
    group: int


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """Fully connected layer on (N, in); the stored weight is (out, in) if `transposed`, else (in, out)."""

    weight: Weight
    transposed: bool


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """``scale · x + bias`` by constants: a batch normalisation that is not folded, or the picture's preparation.

    Both arrays broadcast to one sample: (C, 1, 1) for one value per channel of (N, C, H, W).
    """

    scale: NDArray[np.float64]
    bias: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AveragePool:
    """Average pooling on (N, C, H, W); pads are (top, left, bottom, right)."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    include_pad: bool


@dataclass(frozen=True, slots=True)
class GlobalAverage:
    """``factor · mean(x)`` over `axes`, none of which is the batch."""

    axes: tuple[int, ...]
    keepdims: bool
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class MaxPool:
    """Max pooling on (N, C, H, W); pads are (top, left, bottom, right)."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]
    ceil_mode: bool


@dataclass(frozen=True, slots=True)
class Relu:
    """``max(x, 0)``."""


@dataclass(frozen=True, slots=True)
class Clip:
    """``min(max(x, low), high)``; ReLU6 is low 0, high 6."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class LeakyRelu:
    """``x`` where x > 0, else ``slope · x``."""

    slope: float


@dataclass(frozen=True, slots=True)
class Smooth:
    """An activation without a kink that matters: `function` is one of the names in `relevance.activations.SMOOTH`."""

    function: str
    alpha: float = 1.0
    """The slope below zero of elu, the exponent of pow; 1 for the others, which have no parameter."""


@dataclass(frozen=True, slots=True, eq=False)
class PRelu:
    """``x`` where x > 0, else ``slope · x``, with learned slopes that broadcast to one sample."""

    slope: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Composed:
    """An activation that the exporter wrote out in several nodes, as ``x · sigmoid(x)`` or the error-function GELU."""

    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Normalization:
    """``scale · (x − mean) / √(variance + epsilon) + bias`` with the picture's own statistics, over `axes` of a view.

    InstanceNormalization, LayerNormalization, GroupNormalization; `view` is one sample's shape in which the axes
    count from 1, and scale and bias broadcast to one sample as it stands in the graph.
    """

    view: tuple[int, ...]
    axes: tuple[int, ...]
    epsilon: float
    scale: NDArray[np.float64]
    bias: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Join:
    """Sum of two or more tensors that all depend on the input: where branches meet."""


@dataclass(frozen=True, slots=True)
class Concat:
    """Tensors one after another along `axis`: what a DenseNet's layers read."""

    axis: int
    sizes: tuple[int, ...]
    """How many elements along the axis each operand has."""


@dataclass(frozen=True, slots=True)
class Product:
    """A signal times a gate, both computed from the input: squeeze-and-excitation, attention, x · sigmoid(x)."""

    signal: int | None
    """Which operand is the signal; None where it cannot be told, which only a written-out activation may have."""
    axes: tuple[int, ...]
    """Along which the gate has one value where the signal has many."""


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """``1 / (1 + exp(−x))``."""


@dataclass(frozen=True, slots=True)
class HardSigmoid:
    """``min(max(slope · x + offset, 0), 1)``."""

    slope: float
    offset: float


@dataclass(frozen=True, slots=True)
class Softmax:
    """``exp(x) / Σ exp(x)`` along `axis`: gates that compete."""

    axis: int


@dataclass(frozen=True, slots=True)
class Reshape:
    """Flatten, Reshape, Squeeze, Unsqueeze: the same elements in another shape."""


@dataclass(frozen=True, slots=True)
class Expand:
    """One value written many times along `axes`: a gate brought to its signal's size."""

    axes: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Resample:
    """``rows · x · columnsᵀ`` on height and width: mirrored or repeated borders, enlargement."""

    rows: NDArray[np.float64]
    """(H', H)"""
    columns: NDArray[np.float64]
    """(W', W)"""


@dataclass(frozen=True, slots=True)
class Subsample:
    """Every `steps`-th element from `starts` to before `stops`, along C, H and W: an option-A shortcut's stride."""

    starts: tuple[int, int, int]
    steps: tuple[int, int, int]
    stops: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class ZeroPad:
    """Zeros before and after along C, H and W: an option-A shortcut's further channels, a pooling's explicit border."""

    before: tuple[int, int, int]
    after: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Transpose:
    """The same elements with their axes in another order: output axis i is input axis ``order[i]``."""

    order: tuple[int, ...]


Activation = Relu | Clip | LeakyRelu | PRelu | Sigmoid | HardSigmoid | Smooth | Composed
"""Layers that bend every element alone; relevance passes through them."""
Merging = Join | Product | Concat
"""Layers with several inputs that depend on the picture."""
Kind = (
    Convolution
    | Dense
    | Affine
    | AveragePool
    | GlobalAverage
    | MaxPool
    | Activation
    | Normalization
    | Softmax
    | Merging
    | Reshape
    | Expand
    | Resample
    | Subsample
    | ZeroPad
    | Transpose
)


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
        return type(self.kind).__name__
