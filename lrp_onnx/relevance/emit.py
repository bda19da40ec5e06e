"""The backward pass: relevance from the logits to the input, by one rule for every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from lrp_onnx.plan.kinds import Shape, Step
from lrp_onnx.plan.plan import Block, Plan
from lrp_onnx.relevance.graph.builder import Builder, Term, Value
from lrp_onnx.relevance.graph.relevance import Relevance
from lrp_onnx.relevance.layers.layer import BlockLayer, Layer
from lrp_onnx.relevance.layers.linear import LinearLayer
from lrp_onnx.relevance.layers.pull_back import pull_back
from lrp_onnx.relevance.layers.table import layer_of, nonnegative_tensors
from lrp_onnx.relevance.rules.rule import Rule, Shares, StabilizedRule


@dataclass(frozen=True, slots=True, eq=False)
class LedgerEntry:
    """What happened at one step: relevance received and
    passed on, and the quotients formed on the way.
    """

    step: str
    received: Relevance
    passed: tuple[Relevance, ...]
    terms: tuple[Term, ...]


@dataclass(slots=True, eq=False)
class Backward:
    """One backward pass over a plan."""

    plan: Plan
    builder: Builder
    rules: Mapping[str, Rule]
    """Step name → rule. A rule of whole blocks stands at the join that closes the block."""
    at: dict[str, Relevance] = field(default_factory=dict)
    """The relevance of every tensor that was reached, also
    of those inside a block that is one layer.
    """
    ledger: list[LedgerEntry] = field(default_factory=list)
    entering: Callable[[Relevance], Relevance] | None = None
    """What becomes of the relevance that arrives at the feature map `Plan.pooled`, where a start
    of the feature map's shape is read.
    """
    _nonnegative: frozenset[str] = frozenset()
    _shapes: dict[str, Shape] = field(default_factory=dict)

    def run(self, start: Relevance, *, until: str | None = None) -> None:
        """Fold backwards from `start` at the logits, to the
        input or to `until`, one of `Plan.cut_points`.
        """
        plan = self.plan
        self.builder.views = plan.views
        self._nonnegative = (
            nonnegative_tensors(plan) if self.builder.emission.signs else frozenset()
        )
        self._shapes = {plan.input: plan.input_shape} | {
            s.output: s.output_shape for s in plan.steps
        }
        self._declare(plan.logits, start.coefficient)
        self.at[plan.logits] = start
        pull_back(self._pieces(until), self.at, self._apply)

    def _pieces(self, until: str | None) -> Sequence[Step | Block]:
        """What the fold goes over, behind `until`: steps,
        and the blocks whose rule takes them as one layer.
        """
        pieces: list[Step | Block] = []
        for item in self.plan.behind(until):
            opened = isinstance(item, Block) and not self.rules[item.join.name].whole_block
            pieces += item.steps if isinstance(item, Block) and opened else [item]
        return pieces

    def _apply(self, piece: Step | Block, received: Relevance) -> Shares:
        """What a step or a block hands to its inputs, by
        its rule; what happened goes into the ledger.
        """
        name = piece.join.name if isinstance(piece, Block) else piece.name
        first = len(self.builder.terms)
        passed = _passed(self.rules[name], self._layer(piece), received)
        terms = tuple(self.builder.terms[first:])
        if not self.builder.emission.telescoped:
            passed = [share and Relevance(share.total) for share in passed]
        if self.entering is not None and self.plan.pooled in piece.inputs:
            passed = [share and self.entering(share) for share in passed]
        if isinstance(
            piece, Step
        ):  # what enters a block was declared step by step, on the way through it
            for tensor, share in zip(piece.inputs, passed, strict=True):
                if share is not None:
                    self._declare(tensor, share.coefficient)
        self.ledger.append(LedgerEntry(name, received, tuple(filter(None, passed)), terms))
        return passed

    def _layer(self, piece: Step | Block) -> Layer:
        if isinstance(piece, Step):
            return layer_of(self.builder, piece, self._nonnegative)
        fork, output = self._tensor(piece.fork), self._tensor(piece.output)
        return BlockLayer(self.builder, fork, output, lambda s: self._through(piece, s))

    def _through(self, block: Block, s: Value) -> Value:
        """The block's vjp: what its steps' vjps compose to.
        Tensors inside get the relevance ``t ⊙ cotangent``.
        """

        def back(step: Step, cotangent: Value) -> tuple[Value, ...]:
            cotangents = layer_of(self.builder, step, self._nonnegative).vjps(cotangent)
            for name, value in zip(step.inputs, cotangents, strict=True):
                self._declare(name, value)
            return cotangents

        cotangents = pull_back(block.steps, {block.output: s}, back)
        for name, cotangent in cotangents.items():
            if name not in (block.fork, block.output):
                self.at[name] = Relevance(cotangent, self._tensor(name))
        return cotangents[block.fork]

    def _declare(self, name: str, value: Value) -> None:
        """State that `value`, computed for the tensor `name`, is of its shape."""
        shape = self._shapes[name]
        if shape and shape[0] is None and None not in shape[1:]:
            self.builder.declare(value, shape)

    def _tensor(self, name: str) -> Value:
        return self.builder.known(name, nonnegative=name in self._nonnegative)


def _passed(rule: Rule, layer: Layer, received: Relevance) -> Shares:
    """What `rule` hands on. A layer along the last axis computes only the positions or channels
    whose relevance is not known to be zero, as it is beside a class token. Without a stabilizer a
    rule may read no part of the output, which the ledger then would not find.
    """
    zeros, telescopes = received.zeros, isinstance(rule, StabilizedRule) and rule.epsilon == 0.0
    if zeros is None or telescopes or not isinstance(layer, LinearLayer):
        return rule(layer, received)
    shares, rank = rule(layer.without(zeros), received.without(zeros)), len(layer.step.input_shape)
    if zeros.axis == rank - 1:
        return shares
    return [share and share.within(zeros, layer.input, rank) for share in shares]
