"""The plan: what was recognised in a model, as frozen data.
The meeting point of `model` and `relevance`.

A plan is a sequence of items in the order of the computation. An item is a `Step` (one layer) or a
`Block` (a residual block: steps with the role of each branch). Steps name tensors of the forward
graph, so whatever computes relevance can reuse what it computes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lrp_onnx.plan import kinds
from lrp_onnx.plan.kinds import Role, Shape, Step


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """One way from a block's fork to its join."""

    role: Role
    steps: tuple[Step, ...]
    why: str


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A residual block: branches that leave one tensor (the fork)
    and meet in one sum (the join).
    """

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
    def output_shape(self) -> Shape:
        """The shape of the tensor that leaves the block."""
        return self.steps[-1].output_shape

    @property
    def inputs(self) -> tuple[str]:
        """The fork, as the one input of the block as a layer."""
        return (self.fork,)

    @property
    def shortcut(self) -> Role:
        """What the shortcut is: identity or projection."""
        return (
            Role.IDENTITY
            if any(b.role is Role.IDENTITY for b in self.branches)
            else Role.PROJECTION
        )


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What was recognised: from the picture to the logits."""

    input: str
    input_shape: Shape
    logits: str
    classes: int
    outputs: dict[str, str]
    """Every graph output and what it holds: ``logits``,
    ``probabilities``, ``log-probabilities`` or ``other``.
    """
    items: tuple[Step | Block, ...]
    notes: tuple[str, ...] = ()
    """What a reader should know, for example that the
    exporter had already folded batch normalisation.
    """

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
        """``NHWC`` where the input is turned from it before
        anything mixes its elements, else ``NCHW``.
        """
        prepared = self.preparation
        tensor = prepared[-1].output if prepared else self.input
        readers = [step.kind for step in prepared] or [
            s.kind for s in self.steps if tensor in s.inputs
        ]
        turned = [isinstance(r, kinds.Transpose) and r.order == (0, 3, 1, 2) for r in readers]
        return "NHWC" if any(turned) and (prepared or all(turned)) else "NCHW"

    @property
    def preparation(self) -> tuple[Step, ...]:
        """Steps that only prepare the picture: those
        between it and the first layer that mixes anything.
        """
        tensor = self.input
        steps: list[Step] = []
        while True:
            readers = [step for step in self.steps if tensor in step.inputs]
            if len(readers) != 1 or not readers[0].kind.prepares:
                return tuple(steps)
            steps.append(readers[0])
            tensor = readers[0].output

    @property
    def gated(self) -> frozenset[str]:
        """Names of steps that only feed gates: rules that
        hold gates constant hand them no relevance.
        """
        reached = {self.logits}
        names = set()
        for step in reversed(tuple(self.steps)):
            if step.output not in reached:
                names.add(step.name)
            elif isinstance(step.kind, kinds.Product):
                reached.add(step.inputs[step.kind.signal or 0])
            else:
                reached.update(step.inputs)
        return frozenset(names)

    @property
    def attention(self) -> dict[str, tuple[int, int]]:
        """Gates of one value for every pixel, as in
        attention branch networks: tensor → (height, width).
        """
        gates: dict[str, tuple[int, int]] = {}
        for step in self.steps:
            if (
                isinstance(step.kind, kinds.Product)
                and step.kind.axes == (1,)
                and len(step.output_shape) == 4
            ):
                height, width = step.output_shape[2:]
                gates[step.inputs[1 - (step.kind.signal or 0)]] = (height or 0, width or 0)
        return gates

    @property
    def cut_points(self) -> dict[str, tuple[int, int]]:
        """Feature maps that everything from the picture to
        the logits passes through: tensor → (height, width).
        """
        maps: dict[str, tuple[int, int]] = {}
        open_: set[str] = set()  # tensors that a later item still reads
        for item in reversed(self.items):
            open_.discard(item.output)
            if not open_ and len(item.output_shape) == 4:
                height, width = item.output_shape[2:]
                maps[item.output] = (height or 0, width or 0)
            open_.update(item.inputs)
        return dict(reversed(maps.items()))

    @property
    def channel_axis(self) -> int:
        """Where the input's channels are."""
        return 3 if self.layout == "NHWC" else 1

    @property
    def first(self) -> frozenset[str]:
        """Names of the first linear layers: those with no
        convolution or dense layer between them and the input.
        """
        reached, first = {self.input}, set()
        for step in self.steps:
            if not reached.isdisjoint(step.inputs):
                if isinstance(step.kind, kinds.Weighted):
                    first.add(step.name)
                else:
                    reached.add(step.output)
        return frozenset(first)
