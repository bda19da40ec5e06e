"""The plan: what was recognised in a model, as frozen data. The meeting point of `model` and `relevance`.

A plan is a sequence of items in the order of the computation. An item is a `Step` (one layer) or a `Block` (a
residual block: steps with the role of each branch). Steps name tensors of the forward graph, so whatever computes
relevance can reuse what it computes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int | None, ...]
"""Sizes of a tensor; None where a size is symbolic (the batch)."""


class Role(StrEnum):
    """What a branch of a residual block is."""

    MAIN = "main"
    IDENTITY = "identity"
    PROJECTION = "projection"


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
    | Join
    | Reshape
    | Subsample
    | ZeroPad
    | Transpose
)
Activation = Relu | Clip | LeakyRelu
"""Layers that bend every element alone; relevance passes through them."""
LINEAR = (Convolution, Dense, Affine, AveragePool, GlobalAverage)
"""Layers whose output is linear in their input, up to a bias."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One layer: what it reads and writes in the forward graph, and its parameters."""

    name: str
    """Name of the node that gives the step its identity (the Conv of a Conv + BatchNormalization)."""
    layer: Layer
    inputs: tuple[str, ...]
    output: str
    input_shape: Shape
    output_shape: Shape
    nodes: tuple[str, ...]
    """Every graph node that the step covers."""

    @property
    def op(self) -> str:
        """The layer's kind, for people."""
        return type(self.layer).__name__


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """One way from a block's fork to its join."""

    role: Role
    steps: tuple[Step, ...]
    why: str


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A residual block: branches that leave one tensor (the fork) and meet in one sum (the join)."""

    name: str
    fork: str
    branches: tuple[Branch, ...]
    """In the order of the join's operands."""
    join: Step
    tail: tuple[Step, ...]
    """The activation after the join, or nothing."""
    steps: tuple[Step, ...]
    """Every step of the block, join and tail included, in the order of the computation."""

    @property
    def output(self) -> str:
        """The tensor that leaves the block."""
        return self.steps[-1].output

    @property
    def role(self) -> Role:
        """What the shortcut is: identity or projection."""
        return Role.IDENTITY if any(b.role is Role.IDENTITY for b in self.branches) else Role.PROJECTION


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What was recognised: from the picture to the logits."""

    input: str
    input_shape: Shape
    logits: str
    classes: int
    outputs: dict[str, str]
    """Every graph output and what it holds: ``logits``, ``probabilities``, ``log-probabilities`` or ``other``."""
    items: tuple[Step | Block, ...]
    notes: tuple[str, ...] = ()
    """What a reader should know, for example that the exporter had already folded batch normalisation."""

    @property
    def steps(self) -> Iterator[Step]:
        """Every step, blocks opened, in the order of the computation."""
        for item in self.items:
            yield from item.steps if isinstance(item, Block) else (item,)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The residual blocks."""
        return tuple(item for item in self.items if isinstance(item, Block))

    @property
    def layout(self) -> str:
        """``NHWC`` where the input is turned from it before anything else happens, else ``NCHW``."""
        readers = [step.layer for step in self.steps if self.input in step.inputs]
        turned = bool(readers) and all(isinstance(r, Transpose) and r.order == (0, 3, 1, 2) for r in readers)
        return "NHWC" if turned else "NCHW"

    @property
    def channel_axis(self) -> int:
        """Where the input's channels are."""
        return 3 if self.layout == "NHWC" else 1

    @property
    def first(self) -> frozenset[str]:
        """Names of the first linear layers: those with no convolution or dense layer between them and the input."""
        reached, first = {self.input}, set()
        for step in self.steps:
            if not reached.isdisjoint(step.inputs):
                if isinstance(step.layer, Convolution | Dense):
                    first.add(step.name)
                else:
                    reached.add(step.output)
        return frozenset(first)
