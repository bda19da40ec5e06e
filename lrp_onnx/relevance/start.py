"""Where relevance starts: at the logits, by the run-time inputs `target` and `start`."""

from __future__ import annotations

from lrp_onnx.contract import PREDICTED, START, TARGET
from lrp_onnx.plan.plan import Plan
from lrp_onnx.relevance.graph.builder import Builder, Value
from lrp_onnx.relevance.graph.relevance import Relevance

START_VALUES = ("logit", "probability", "one", "contrastive")
"""What relevance starts from: the target's logit, its softmax probability, 1, or every logit times
the gradient of the target's log-odds with respect to it (see `start_relevance`).
"""
ABSENT = -1e30
"""A logit that gives no probability, in float32 too."""


def start_relevance(
    builder: Builder, plan: Plan, value: str, inputs: str = "optional"
) -> Relevance:
    """Relevance at the logits, (N, classes).

    The run-time inputs `target` and `start` decide where relevance starts, `value` how much. What
    `inputs` (one of `contract.INPUTS`) leaves out counts as its default.

    - A row of `start` with a non-zero entry is taken as it is; where it has the shape of a feature
      map whose means are the logits, `entered` does so behind them.
    - Elsewhere the start is one-hot at `target`, times the logit, its softmax probability, or one.
      A negative target is the largest logit, or the largest of `Plan.ranked`; where one picture
      serves many targets, -k is the k-th largest. Of equal ones it is the one of the lowest index.
      At a class that the model does not have the start is zero, and so is the map.
    - A model of one number (`Plan.single`) has the logits -z and z: its two classes are one neuron
      seen from both sides. There, and where every class has a sigmoid of its own, a contrastive
      start is the target's logit alone, and the probability is a sigmoid.
    - ``contrastive`` is ``z ⊙ ∂ log(p/(1 − p))/∂z`` with p the target's probability: the target's
      logit, and for every other class its logit times minus its softmax among those others. That
      sums to the target's logit minus a mean of the others' (ours; the idea of contrasting is
      Gu et al.'s, 2018, the softmax weights are Iwana et al.'s, 2019).
    """
    logits = builder.known(plan.logits)
    ranked = builder.known(plan.ranked) if plan.ranked else logits
    chosen = _predicted(ranked) if inputs == "none" else _chosen(builder, ranked, plan.classes)
    hit = builder.node("Equal", chosen, builder.integers(range(plan.classes)))
    if value == "contrastive" and not plan.separate:
        others = builder.node("Where", hit, builder.value(ABSENT), logits)
        weights = builder.node("Softmax", others, attributes={"axis": 1})
        rivals = logits * weights * -1.0
        if inputs != "none":
            exists = builder.node("Less", chosen, builder.integer(plan.classes))
            rivals = builder.node("Where", exists, rivals, builder.value(0.0))
        one_hot = builder.node("Where", hit, logits, rivals)
    else:
        amount = _amount(builder, plan, value, logits)
        one_hot = builder.node("Where", hit, amount, builder.value(0.0))
    if not reads_start(inputs) or plan.pooled:
        return Relevance(one_hot)
    start = builder.known(START)
    if len(plan.start_shape) > 1:
        flat = (-1, plan.classes) if inputs == "target,start" else (0, -1)
        start = builder.node("Reshape", start, builder.integers(flat))
    return Relevance(_unless_given(start, one_hot, axes=(1,)))


def reads_start(inputs: str) -> bool:
    """Whether a file with these `inputs`, one of `contract.INPUTS`, has the input `start`."""
    return inputs in ("optional", "target,start")


def entered(relevance: Relevance) -> Relevance:
    """The relevance at the feature map whose means are the logits: `start` where it is given."""
    start = relevance.total.builder.known(START)
    return Relevance(_unless_given(start, relevance.total, axes=(1, 2, 3)))


def _unless_given(start: Value, otherwise: Value, *, axes: tuple[int, ...]) -> Value:
    """The rows of `start` that are not all zeros, and those of `otherwise` in place of others."""
    builder = start.builder
    largest = builder.node(
        "ReduceMax", start.abs(), builder.integers(axes), attributes={"keepdims": 1}
    )
    return largest.where_positive(start, otherwise)


def _amount(builder: Builder, plan: Plan, value: str, logits: Value) -> Value:
    """What the start is at the target, for every class."""
    if value == "one":
        return builder.value(1.0)
    if value != "probability":
        return logits
    if plan.separate:
        return builder.node("Sigmoid", logits)
    return builder.node("Softmax", logits, attributes={"axis": 1})


def _chosen(builder: Builder, logits: Value, classes: int) -> Value:
    """The class that every element of `target` names, as a column."""
    column = builder.node("Reshape", builder.known(TARGET), builder.integers((-1, 1)))
    best = _ranked(builder, logits, column, classes) if builder.batch else _predicted(logits)
    return builder.node("Where", builder.node("Less", column, builder.integer(0)), best, column)


def _predicted(logits: Value) -> Value:
    """The class of the largest logit, (N, 1)."""
    return logits.builder.node("ArgMax", logits, attributes={"axis": 1, "keepdims": 1})


def _ranked(builder: Builder, logits: Value, column: Value, classes: int) -> Value:
    """For every row k of `column` (K, 1) the class of the (−k)-th largest logit, (K, 1).

    Where there are fewer logits it is no class of the model.
    """
    _, order = builder.nodes_of(
        "TopK", logits, builder.integers((classes,)), outputs=2, attributes={"axis": 1}
    )
    rank = builder.node(
        "Max", builder.node("Sub", builder.integer(PREDICTED), column), builder.integer(0)
    )
    row = builder.node("Min", rank, builder.integer(classes - 1)).reshape(-1)
    best = builder.node("Gather", order, row, attributes={"axis": 1}).reshape(-1, 1)
    return builder.node("Where", builder.node("Equal", row.reshape(-1, 1), rank), best, rank)
