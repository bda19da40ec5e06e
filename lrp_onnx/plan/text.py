"""Plans as text: JSON-ready data and rows of a table;
names, shapes and parameters, never the values of weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from math import isfinite
from typing import Any

import numpy as np

from lrp_onnx.plan.functions import FUNCTIONS
from lrp_onnx.plan.kinds import Activation, Composed, Kind, Shape, Step, Weight
from lrp_onnx.plan.plan import Block, Plan


def plan_json(plan: Plan) -> dict[str, Any]:
    """The plan as JSON-ready data."""
    return {
        "input": {"name": plan.input, "shape": list(plan.input_shape)},
        "logits": {"name": plan.logits, "classes": plan.classes},
        "outputs": dict(plan.outputs),
        "items": [_block_json(i) if isinstance(i, Block) else step_json(i) for i in plan.items],
        "notes": list(plan.notes),
    }


def block_summary(block: Block) -> dict[str, Any]:
    """A block as a few names: what a compiled file says of it."""
    branches = [[b.role.value, *(s.name for s in b.steps)] for b in block.branches]
    return {
        "block": block.name,
        "fork": block.fork,
        "output": block.output,
        "branches": branches,
        "join": block.join.name,
    }


def step_json(step: Step) -> dict[str, Any]:
    """One step as JSON-ready data."""
    return {
        "step": step.name,
        "op": step.op,
        "inputs": list(step.inputs),
        "output": step.output,
        "shape": list(step.output_shape),
        "attributes": attributes(step.kind),
        "nodes": list(step.nodes),
    }


def _block_json(block: Block) -> dict[str, Any]:
    return {
        "block": block.name,
        "fork": block.fork,
        "output": block.output,
        "shortcut": block.shortcut.value,
        "branches": [
            {"role": b.role.value, "why": b.why, "steps": [step_json(s) for s in b.steps]}
            for b in block.branches
        ],
        "join": step_json(block.join),
        "tail": [step_json(s) for s in block.tail],
    }


def attributes(kind: Kind) -> dict[str, Any]:
    """A layer's parameters as short JSON-ready data: weights by name and shape, never by value."""
    if isinstance(kind, Composed):
        return {"steps": [step_json(step) for step in kind.steps]}
    if isinstance(kind, Activation):
        return _function(kind)
    data: dict[str, Any] = {}
    for entry in fields(kind):
        value = getattr(kind, entry.name)
        if isinstance(value, Weight):
            data |= {
                "weight": value.tensor,
                "weight_shape": list(value.shape),
                "bias": value.bias is not None,
                "folded_scale": value.scale is not None,
            }
        elif isinstance(value, np.ndarray):
            data[entry.name] = list(value.shape)
        elif not is_dataclass(value):
            data[entry.name] = list(value) if isinstance(value, tuple) else value
    return data


def _function(kind: Activation) -> dict[str, Any]:
    """An activation function: its name, its formula, and its parameters by their names."""
    function = FUNCTIONS[kind.function]
    data: dict[str, Any] = {"function": kind.function, "formula": function.formula}
    if kind.slopes is not None:
        return data | {"slope": list(kind.slopes.shape)}
    # JSON has no infinity: a bound that is none is null.
    numbers = [number if isfinite(number) else None for number in kind.parameters]
    return data | dict(zip(function.parameters, numbers, strict=True))


INSIDE = "inside "
"""Before a block's name: the rule of a step that its block's rule decides for."""


@dataclass(frozen=True, slots=True)
class PlanRow:
    """A step, a block or an empty branch, as a table shows it."""

    name: str
    op: str
    role: str
    output: str
    rule: str
    why: str
    block: bool = False
    inner: bool = False
    """Whether it stands inside a block."""


def plan_rows(
    plan: Plan, rules: Mapping[str, str], reasons: Mapping[str, str]
) -> Iterator[PlanRow]:
    """The plan in the order of the computation, blocks opened.

    Args:
        plan: what was recognised.
        rules: step name → its rule as text; ``inside BLOCK`` where the block's rule decides for it.
        reasons: step name → why it has that rule.
    """
    for item in plan.items:
        if isinstance(item, Block):
            yield from _block_rows(item, rules, reasons)
        else:
            yield _row(item, "", rules, reasons)


def _block_rows(
    block: Block, rules: Mapping[str, str], reasons: Mapping[str, str]
) -> Iterator[PlanRow]:
    join = block.join.name
    whole = any(
        rules[step.name].startswith(INSIDE) for step in block.steps if step is not block.join
    )
    rule, why = (rules[join], f"{reasons[join]}; ") if whole else ("", "")
    rules = {**rules, join: INSIDE + block.name} if whole else rules
    reason = f"{why}its branches leave {block.fork}"
    yield PlanRow(block.name, "Block", block.shortcut.value, "", rule, reason, block=True)
    for branch in block.branches:
        if not branch.steps:
            yield PlanRow("(shortcut)", "", branch.role.value, "", "", branch.why, inner=True)
        for index, step in enumerate(branch.steps):
            row = _row(step, branch.role.value, rules, reasons, inner=True)
            yield row if index else replace(row, why="; ".join(filter(None, (row.why, branch.why))))
    for step in (block.join, *block.tail):
        yield _row(step, "join" if step is block.join else "tail", rules, reasons, inner=True)


def _row(
    step: Step,
    role: str,
    rules: Mapping[str, str],
    reasons: Mapping[str, str],
    *,
    inner: bool = False,
) -> PlanRow:
    rule, why = rules[step.name], reasons[step.name]
    if rule.startswith(INSIDE):
        rule, why = "", rule
    return PlanRow(step.name, step.op, role, shape_text(step.output_shape), rule, why, inner=inner)


def shape_text(shape: Shape) -> str:
    """``N×64×56×56``."""
    return "×".join("N" if size is None else str(size) for size in shape)
