"""The kinds of layers that a plan is made of, each a frozen record of its parameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
    """Per-channel ``scale · x + bias`` on axis 1: a batch normalisation that is not folded, or its written-out form."""

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
    """Mean over H and W."""

    keepdims: bool


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
class Join:
    """Sum of two or more tensors that all depend on the input: where branches meet."""


@dataclass(frozen=True, slots=True)
class Product:
    """A signal times a gate, both computed from the input: squeeze-and-excitation, or x · sigmoid(x)."""

    signal: int
    """Which operand is the signal."""
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
class Reshape:
    """Flatten, Reshape, Squeeze, Unsqueeze: the same elements in another shape."""


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


Layer = (
    Convolution
    | Dense
    | Affine
    | AveragePool
    | GlobalAverage
    | MaxPool
    | Relu
    | Clip
    | LeakyRelu
    | Sigmoid
    | HardSigmoid
    | Product
    | Join
    | Reshape
    | Subsample
    | ZeroPad
    | Transpose
)
Activation = Relu | Clip | LeakyRelu | Sigmoid | HardSigmoid
"""Layers that bend every element alone; relevance passes through them."""
