"""Ensembles: an output that is a weighted mean of several softmaxes or sigmoids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from lrp_onnx.contract import EXPLAINED
from lrp_onnx.model.graph import name_of, shape_of
from lrp_onnx.model.heads.head import MEANINGS, MOVES, NORMALISERS, Head, number_in, number_of


@dataclass(frozen=True, slots=True)
class Member:
    """One of several classifiers of which the mean is taken."""

    node: ir.Node
    """The softmax or sigmoid of its logits (N, classes)."""
    weight: float


def members_of(value: ir.Value) -> list[Member]:
    """The members of the ensemble whose weighted mean an output is; empty where it is none."""
    members = _members(value, 1.0)
    kinds = {member.node.op_type for member in members or ()}
    return members if members and len(members) > 1 and len(kinds) == 1 else []


def ensemble(picture: str, value: ir.Value, members: Sequence[Member]) -> Head:
    """The head of an ensemble: its logits are the weighted mean of its members' logits.

    The predicted class is that of the output, the mean of probabilities.
    """
    whole = sum(member.weight for member in members)
    one = (shape_of(members[0].node.outputs[0]) or (0, 0))[1] == 1
    holds = MEANINGS[("logits", members[0].node.op_type)]
    if abs(whole - 1) > 1e-3 or holds == "log-probabilities":
        holds = "other"
    if one:
        holds = "probability" if holds == "sigmoids" else "logit"
    sources = [(name_of(m.node.inputs[0]), m.weight / whole) for m in members if m.node.inputs[0]]
    return Head(
        picture, name_of(value), EXPLAINED, holds, tuple(sources), is_ranked=len(sources) > 1
    )


def _members(value: ir.Value, weight: float) -> list[Member] | None:
    """The members of `weight` times a tensor; None where it is no sum of softmaxes."""
    node = value.producer()
    if node is None or weight <= 0:
        return None
    if node.op_type in NORMALISERS:
        is_table = len(shape_of(value) or ()) == 2 and node.inputs[0] is not None
        return [Member(node, weight)] if is_table else None
    if node.op_type in ("Add", "Sum", "Mean"):
        parts = [part for part in node.inputs if part is not None]
        each = weight / len(parts) if node.op_type == "Mean" else weight
        return _together([(part, each) for part in parts])
    if node.op_type in ("ReduceMean", "ReduceSum"):
        return _stacked(node, weight)
    (first, *others) = node.inputs
    if node.op_type in ("Mul", "Div"):
        number = number_of(node)
        if number is None and node.op_type == "Mul" and first is not None:
            number = number_in(first)
            first = others[0]
        weight = weight * (number or 0.0)
    elif node.op_type not in MOVES:
        return None
    return _members(first, weight) if first is not None else None


def _together(parts: Sequence[tuple[ir.Value, float]]) -> list[Member] | None:
    found = [_members(part, weight) for part, weight in parts]
    members = [member for one in found if one for member in one]
    return members if all(found) else None


def _stacked(node: ir.Node, weight: float) -> list[Member] | None:
    """The members of a mean over an axis along which single ones were joined."""
    whole = node.inputs[0]
    joined = whole.producer() if whole is not None else None
    axes = node.inputs[1].const_value if len(node.inputs) > 1 and node.inputs[1] else None
    if joined is None or joined.op_type != "Concat" or axes is None or whole is None:
        return None
    rank = len(shape_of(whole) or ())
    axis = joined.attributes["axis"].as_int()
    parts = [part for part in joined.inputs if part is not None]
    sizes = [(shape_of(part) or (0,) * rank)[axis] for part in parts]
    if [n % max(rank, 1) for n in np.reshape(axes.numpy(), -1)] != [axis % max(rank, 1)]:
        return None
    if any(size != 1 for size in sizes):
        return None
    each = weight / len(parts) if node.op_type == "ReduceMean" else weight
    return _together([(part, each) for part in parts])
