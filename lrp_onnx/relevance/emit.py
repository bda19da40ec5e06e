"""The reverse fold: from the start at the logits to relevance at the input, one rule per step, fan-out summed in one
place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lrp_onnx.contract import PREDICTED, START, TARGET
from lrp_onnx.plan import kinds
from lrp_onnx.plan.plan import Block, Plan, Role, Shape, Step
from lrp_onnx.relevance.graph.builder import Builder, Value
from lrp_onnx.relevance.graph.relevance import Relevance
from lrp_onnx.relevance.layers.layer import BlockLayer, Layer, Node
from lrp_onnx.relevance.layers.table import layer_of, nonnegative_tensors
from lrp_onnx.relevance.rules.linear import Ledger

ABSENT = -1e30
"""A logit that gives no probability, in float32 too."""


class LayerRule(Protocol):
    """A rule of a layer with one input."""

    def __call__(self, layer: Layer, r: Relevance, ledger: Ledger) -> Relevance:
        """Relevance of the input."""


class JoinRule(Protocol):
    """A rule of a join."""

    def __call__(self, layer: Node, r: Relevance, roles: Sequence[Role], ledger: Ledger) -> list[Relevance | None]:
        """Relevance of every operand."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Step name → rule, in three kinds. A join whose name is in `blocks` hands its whole block to that rule as one
    layer.
    """

    layers: Mapping[str, LayerRule]
    joins: Mapping[str, JoinRule]
    blocks: Mapping[str, LayerRule]


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """What happened at one step: relevance received and passed on, and the quotients formed on the way."""

    step: str
    received: Relevance
    passed: tuple[Relevance, ...]
    ledger: Ledger


@dataclass(slots=True, eq=False)
class Backward:
    """One backward pass over a plan. `at` holds the relevance of every tensor that was reached."""

    of: Plan
    builder: Builder
    rules: Rules
    at: dict[str, Relevance] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    _nonnegative: frozenset[str] = frozenset()
    _shapes: dict[str, Shape] = field(default_factory=dict)

    def run(self, start: Relevance, *, until: str | None = None) -> None:
        """Fold backwards from `start` at the logits, to the input or to the tensor `until`, one of `Plan.waists`."""
        emission = self.builder.emission
        self._nonnegative = nonnegative_tensors(self.of) if emission.signs else frozenset()
        self.at[self.of.logits] = start
        self._shapes = {self.of.input: self.of.input_shape} | {s.output: s.output_shape for s in self.of.steps}
        self._declare(self.of.logits, start.coefficient)
        for item in reversed(self.of.items):
            if item.output == until:
                break
            if isinstance(item, Block) and item.join.name in self.rules.blocks:
                self._block(item)
            elif isinstance(item, Block):
                for step in reversed(item.steps):
                    self._step(step, item)
            else:
                self._step(item, None)

    def _declare(self, name: str, value: Value) -> None:
        """State that `value`, computed for the tensor `name`, is of its shape."""
        shape = self._shapes[name]
        if shape and shape[0] is None and None not in shape[1:]:
            self.builder.declare(value, shape)

    def _receive(self, name: str, relevance: Relevance) -> None:
        if not self.builder.emission.telescoped:
            relevance = Relevance(relevance.total)
        self.at[name] = self.at[name] + relevance if name in self.at else relevance

    def _step(self, step: Step, block: Block | None) -> None:
        received = self.at.get(step.output)
        if received is None:
            return
        layer, ledger = self._layer(step), Ledger()
        passed: list[Relevance | None]
        if isinstance(step.kind, kinds.Merging):
            passed = self.rules.joins[step.name](layer, received, _roles(step, block), ledger)
        else:
            passed = [self.rules.layers[step.name](layer, received, ledger)]
        for name, relevance in zip(step.inputs, passed, strict=True):
            if relevance is not None:
                self._receive(name, relevance)
                self._declare(name, relevance.coefficient)
        self.entries.append(Entry(step.name, received, tuple(r for r in passed if r is not None), ledger))

    def _block(self, block: Block) -> None:
        received = self.at.get(block.output)
        if received is None:
            return
        layer = BlockLayer(
            self.builder, self._tensor(block.fork), self._tensor(block.output), lambda s: self._through(block, s)
        )
        ledger = Ledger()
        relevance = self.rules.blocks[block.join.name](layer, received, ledger)
        self._receive(block.fork, relevance)
        self.entries.append(Entry(block.join.name, received, (relevance,), ledger))

    def _through(self, block: Block, s: Value) -> Value:
        """The block's vjp: what its steps' vjps compose to. Tensors inside get the relevance ``t ⊙ cotangent``."""
        cotangents = {block.output: s}
        for step in reversed(block.steps):
            layer = self._layer(step)
            for name, back in zip(step.inputs, layer.vjps(cotangents[step.output]), strict=True):
                cotangents[name] = cotangents[name] + back if name in cotangents else back
                self._declare(name, back)
        for name, cotangent in cotangents.items():
            if name not in (block.fork, block.output):
                self.at[name] = Relevance(cotangent, self._tensor(name))
        return cotangents[block.fork]

    def _layer(self, step: Step) -> Node:
        return layer_of(self.builder, step, self._nonnegative)

    def _tensor(self, name: str) -> Value:
        return self.builder.known(name, nonnegative=name in self._nonnegative)


def _roles(step: Step, block: Block | None) -> list[Role]:
    """What each operand of a join or a product is."""
    if isinstance(step.kind, kinds.Product):
        return [Role.MAIN if i == step.kind.signal else Role.GATE for i in range(len(step.inputs))]
    if block is not None and block.join is step:
        return [branch.role for branch in block.branches]
    return [Role.MAIN] * len(step.inputs)


def start_relevance(builder: Builder, of: Plan, value: str) -> Relevance:
    """Relevance at the logits, (N, classes): the run-time inputs `target` and `start` decide where, `value` how much.

    Where a row of `start` has a non-zero entry it is taken as it is. Elsewhere the start is one-hot at `target` (at
    the largest logit if `target` is negative) times the logit, its softmax probability, or one; or ``contrastive``,
    ``z ⊙ ∂ log(p/(1 − p))/∂z`` with p the target's probability: its logit, and of every other class the logit times
    minus its softmax among those others. That sums to the target's logit minus a mean of the others' (ours; the
    idea of contrasting is Gu et al.'s, 2018, its softmax weights Iwana et al.'s, 2019). Where one picture serves many
    targets, -k is the class of the k-th largest logit.
    """
    logits, target, start = builder.known(of.logits), builder.known(TARGET), builder.known(START)
    column = builder.node("Reshape", target, builder.integers((-1, 1)))
    best = _ranked(builder, logits, column, of.classes) if builder.batch else _predicted(logits)
    chosen = builder.node("Where", builder.node("Less", column, builder.integer(0)), best, column)
    hit = builder.node("Equal", chosen, builder.integers(range(of.classes)))
    if value == "contrastive":
        others = builder.node("Where", hit, builder.value(ABSENT), logits)
        weights = builder.node("Softmax", others, attributes={"axis": 1})
        one_hot = builder.node("Where", hit, logits, logits * weights * -1.0)
    else:
        amount = {
            "logit": logits,
            "probability": builder.node("Softmax", logits, attributes={"axis": 1}),
            "one": builder.value(1.0),
        }[value]
        one_hot = builder.node("Where", hit, amount, builder.value(0.0))
    largest = builder.node("ReduceMax", start.abs(), builder.integers((1,)), attributes={"keepdims": 1})
    return Relevance(largest.where_positive(start, one_hot))


def _predicted(logits: Value) -> Value:
    """The class of the largest logit, (N, 1)."""
    return logits.builder.node("ArgMax", logits, attributes={"axis": 1, "keepdims": 1})


def _ranked(builder: Builder, logits: Value, column: Value, classes: int) -> Value:
    """For every row k of `column` (K, 1) the class of the (−k)-th largest logit of one picture, (K, 1)."""
    _, order = builder.nodes_of("TopK", logits, builder.integers((classes,)), outputs=2, attributes={"axis": 1})
    rank = builder.node("Max", builder.node("Sub", builder.integer(PREDICTED), column), builder.integer(0))
    row = builder.node("Min", rank, builder.integer(classes - 1)).reshape(-1)
    return builder.node("Gather", order, row, attributes={"axis": 1}).reshape(-1, 1)
