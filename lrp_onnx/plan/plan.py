"""The plan: the recognised layers of a model as frozen data.

`model` makes plans; `relevance` uses them. A plan is a sequence of items in the order of the
computation. An item is a `Step` (one layer) or a `Block` (a residual block: steps with the role of
each branch). Steps name tensors of the forward graph, so that the backward pass can reuse them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lrp_onnx.plan import kinds
from lrp_onnx.plan.kinds import Role, Shape, Step
from lrp_onnx.plan.layouts import Layout, channels_first, layout_of

LAYOUTS = {1: ("NCL", "NLC"), 2: ("NCHW", "NHWC"), 3: ("NCDHW", "NDHWC")}
"""Number of axes behind the channels → the order of axes, channels first and channels last."""


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """One path from a block's fork to its join."""

    role: Role
    steps: tuple[Step, ...]
    why: str
    """Why the branch has this role."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A residual block: branches from one tensor (the fork) to one sum (the join)."""

    name: str
    fork: str
    """Name of the tensor that the branches start from."""
    branches: tuple[Branch, ...]
    """In the order of the join's operands."""
    join: Step
    tail: tuple[Step, ...]
    """The activation after the join, or empty."""
    steps: tuple[Step, ...]
    """Every step of the block, join and tail included, in the order of the computation."""

    @property
    def output(self) -> str:
        """Name of the block's output tensor."""
        return self.steps[-1].output

    @property
    def output_shape(self) -> Shape:
        """The shape of the block's output tensor."""
        return self.steps[-1].output_shape

    @property
    def inputs(self) -> tuple[str]:
        """The fork, as the one input of the block as a layer."""
        return (self.fork,)

    @property
    def shortcut(self) -> Role:
        """The role of the shortcut: identity or projection."""
        is_identity = any(branch.role is Role.IDENTITY for branch in self.branches)
        return Role.IDENTITY if is_identity else Role.PROJECTION


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The layers of a model from the picture to the logits."""

    input: str
    """Name of the picture input."""
    input_shape: Shape
    logits: str
    """Name of the tensor that relevance starts from."""
    classes: int
    """Number of classes."""
    outputs: dict[str, str]
    """Name of every graph output → what it holds, see `contract.Contract.outputs`."""
    items: tuple[Step | Block, ...]
    """Steps and blocks, in the order of the computation."""
    notes: tuple[str, ...] = ()
    """Remarks for the reader, for example that the exporter had already folded batch
    normalisation.
    """
    selection: str = ""
    """The part of the explained output that is explained, as text; empty for all of it."""
    start: tuple[int, ...] = ()
    """The shape of a start without its batch; empty for (classes,)."""
    ranked: str = ""
    """Name of the tensor (N, classes) whose largest value is the predicted class; empty for the
    logits.
    """
    single: bool = False
    """Whether the model gives one number, whose sign decides between two classes: the logits are
    its negative and itself.
    """

    @property
    def separate(self) -> bool:
        """Whether no other class speaks against one: it has a sigmoid of its own."""
        return self.single or "sigmoids" in self.outputs.values()

    @property
    def start_shape(self) -> tuple[int, ...]:
        """The shape of a start without its batch."""
        return self.start or (self.classes,)

    @property
    def pooled(self) -> str | None:
        """The feature map (N, C, H, W) at which a start enters, behind the logits, which are its
        means; None where a start is one of the logits.
        """
        if len(self.start) != 3 or self.start[1:] == (1, 1):
            return None
        last = {step.output: step for step in self.steps}
        step = last[self.logits]
        while step.input_shape[1:] != self.start:
            step = last[step.inputs[0]]
        return step.inputs[0]

    @property
    def steps(self) -> Iterator[Step]:
        """Every step, including those in blocks, in the order of the computation."""
        for item in self.items:
            yield from item.steps if isinstance(item, Block) else (item,)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The residual blocks."""
        return tuple(item for item in self.items if isinstance(item, Block))

    @property
    def views(self) -> dict[str, kinds.View]:
        """Tensors of the graph whose batch is not first → how relevance sees them."""
        inner = (step.kind.steps for step in self.steps if isinstance(step.kind, kinds.Composed))
        steps = (*self.steps, *(step for steps in inner for step in steps))
        return {step.output: step.view for step in steps if step.view is not None}

    @property
    def axes(self) -> int:
        """How many axes the input has behind its channels: 1 for signals, 2 for pictures, 3 for
        volumes and films.
        """
        return len(self.input_shape) - 2

    @property
    def layout(self) -> str:
        """The order of the input's axes, as ``NCHW``; ``NHWC`` if the model transposes its input
        from channels last to first before anything else. See `LAYOUTS`.
        """
        preparation = self.preparation
        if preparation:
            is_last = any(self._to_first(step) for step in preparation)
        else:
            readers = [step for step in self.steps if self.input in step.inputs]
            is_last = bool(readers) and all(self._to_first(step) for step in readers)
        return LAYOUTS[self.axes][is_last]

    def _to_first(self, step: Step) -> bool:
        """Whether a step transposes channels last to channels first.

        Of signals, the other way round is the same order: then a dense layer along the last axis
        tells that it has the channels.
        """
        turned = kinds.Transpose(channels_first(self.axes))
        readers = [other for other in self.steps if step.output in other.inputs]
        return step.kind == turned and not (
            self.axes == 1 and any(isinstance(other.kind, kinds.Linear) for other in readers)
        )

    @property
    def preparation(self) -> tuple[Step, ...]:
        """Steps that only prepare the picture, before the first layer that mixes elements."""
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
        """Names of steps that only feed gates.

        Rules that hold gates constant pass no relevance to these steps.
        """
        reached = {self.logits}
        names = set()
        for step in reversed(tuple(self.steps)):
            if step.output not in reached:
                names.add(step.name)
            elif isinstance(step.kind, kinds.Product | kinds.Quotient) and (
                step.kind.signal is not None
            ):
                reached.add(step.inputs[step.kind.signal])
            elif isinstance(step.kind, kinds.MatrixProduct) and step.kind.attention is not None:
                reached.add(step.inputs[1 - step.kind.attention])
            else:
                reached.update(step.inputs)
        return frozenset(names)

    @property
    def attention(self) -> dict[str, tuple[int, ...]]:
        """Gates with one value per pixel: tensor → (height, width), or the sizes of other inputs.

        Attention branch networks have such gates (Fukui et al. 2019).
        """
        gates: dict[str, tuple[int, ...]] = {}
        for step in self.steps:
            if (
                isinstance(step.kind, kinds.Product)
                and step.kind.axes == (1,)
                and len(step.output_shape) == len(self.input_shape)
            ):
                size = tuple(size or 0 for size in step.output_shape[2:])
                gates[step.inputs[1 - (step.kind.signal or 0)]] = size
        return gates

    @property
    def picture_size(self) -> tuple[int, ...]:
        """(height, width) of the pictures that the model takes, (length,) of its signals, or
        (depth, height, width) of its volumes.
        """
        outside = (0, self.channel_axis)
        return tuple(size or 0 for axis, size in enumerate(self.input_shape) if axis not in outside)

    @property
    def layouts(self) -> dict[str, Layout]:
        """How pixels and channels lie in every tensor that is a picture or a feature map: in every
        one with as many axes as the input, and in tokens where it is known which pixels they come
        from.
        """
        layouts = {self.input: Layout(self.channel_axis, self.picture_size)}
        for step in self.steps:
            known = (layouts[name] for name in step.inputs if name in layouts)
            layout = layout_of(step, next(known, None), self.axes)
            if layout is not None:
                layouts[step.output] = layout
        return layouts

    @property
    def map_sizes(self) -> dict[str, tuple[int, ...]]:
        """(height, width), or as many sizes as the input has, of every feature map that a step
        makes.
        """
        return {name: at.size for name, at in self.layouts.items() if name != self.input}

    @property
    def cut_points(self) -> dict[str, tuple[int, ...]]:
        """Feature maps on every path from the picture to the logits: tensor → (height, width)."""
        sizes, maps = self.map_sizes, dict[str, tuple[int, ...]]()
        needed_later: set[str] = set()  # tensors that a later item reads
        for item in reversed(self.items):
            needed_later.discard(item.output)
            if not needed_later and item.output in sizes:
                maps[item.output] = sizes[item.output]
            needed_later.update(item.inputs)
        return dict(reversed(maps.items()))

    def before(self, tensor: str) -> frozenset[str]:
        """Names of the steps up to the one that makes `tensor`, one of `cut_points`."""
        items = self.items[: len(self.items) - len(self.behind(tensor))]
        steps = (item.steps if isinstance(item, Block) else (item,) for item in items)
        return frozenset(step.name for group in steps for step in group)

    def behind(self, tensor: str | None) -> tuple[Step | Block, ...]:
        """The items behind the one that makes `tensor`, one of `cut_points`; all for None."""
        outputs = [item.output for item in self.items]
        return self.items[outputs.index(tensor) + 1 :] if tensor else self.items

    @property
    def is_transformer(self) -> bool:
        """Whether it has more layers of attention than convolutions with overlapping windows and
        one group: a stem of convolutions is no matter, nor is attention in a few blocks of a CNN.
        """
        attention = sum(map(kinds.attends, self.steps))
        return attention > sum(map(_overlaps, self.steps))

    @property
    def before_attention(self) -> tuple[Step | Block, ...]:
        """The items before the first with attention; all where there is none."""
        for index, item in enumerate(self.items):
            steps = item.steps if isinstance(item, Block) else (item,)
            if any(map(kinds.attends, steps)):
                return self.items[:index]
        return self.items

    @property
    def channel_axis(self) -> int:
        """The axis of the input's channels."""
        return self.layout.index("C")

    @property
    def first(self) -> frozenset[str]:
        """Names of the linear layers with no other linear layer between them and the input."""
        reached, first = {self.input}, set()
        for step in self.steps:
            if not reached.isdisjoint(step.inputs):
                if isinstance(step.kind, kinds.Weighted):
                    first.add(step.name)
                else:
                    reached.add(step.output)
        return frozenset(first)


def _overlaps(step: Step) -> bool:
    """Whether a step is a convolution of one group whose windows overlap."""
    kind = step.kind
    if not isinstance(kind, kinds.Convolution) or kind.group != 1:
        return False
    return any(k > s for k, s in zip(kind.weight.shape[2:], kind.strides, strict=True))
