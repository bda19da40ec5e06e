"""Plans as JSON-ready data and as rows of a table: names, shapes and parameters, not weights."""

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
        "items": [
            _block_json(item) if isinstance(item, Block) else step_json(item) for item in plan.items
        ],
        "notes": list(plan.notes),
    }


def block_summary(block: Block) -> dict[str, Any]:
    """The names of a block's parts, as a compiled file's metadata states them."""
    branches = [
        [branch.role.value, *(step.name for step in branch.steps)] for branch in block.branches
    ]
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
        elif isinstance(value, tuple):
            data[entry.name] = [
                list(one.shape) if isinstance(one, np.ndarray) else one for one in value
            ]
        elif not is_dataclass(value):
            data[entry.name] = value
    return data


def _function(kind: Activation) -> dict[str, Any]:
    """An activation function: its name, its formula, and its parameters by their names."""
    function = FUNCTIONS[kind.function]
    data: dict[str, Any] = {"function": kind.function, "formula": function.formula}
    if kind.slopes is not None:
        return data | {"slope": list(kind.slopes.shape)}
    # JSON has no infinity: a missing bound becomes null.
    numbers = [number if isfinite(number) else None for number in kind.parameters]
    return data | dict(zip(function.parameters, numbers, strict=True))


INSIDE = "inside "
"""Prefix of a block's name, in place of the rule of a step that follows the block's rule."""


@dataclass(frozen=True, slots=True)
class PlanRow:
    """A row of the table: a step, a block or an empty branch."""

    name: str
    op: str
    role: str
    output: str
    rule: str
    why: str
    block: bool = False
    inner: bool = False
    """Whether it is inside a block."""


def plan_rows(
    plan: Plan, rules: Mapping[str, str], reasons: Mapping[str, str]
) -> Iterator[PlanRow]:
    """The rows of a plan in the order of the computation; every block is followed by its steps.

    Args:
        plan: the plan.
        rules: step name → its rule as text, or ``inside BLOCK`` if it follows the block's rule.
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
    has_block_rule = any(
        rules[step.name].startswith(INSIDE) for step in block.steps if step is not block.join
    )
    rule, reason = "", f"its branches leave {block.fork}"
    if has_block_rule:  # the assignment states it at the join
        rule, reason = rules[join], f"{reasons[join]}; {reason}"
        rules = {**rules, join: INSIDE + block.name}
    yield PlanRow(block.name, "Block", block.shortcut.value, "", rule, reason, block=True)
    for branch in block.branches:
        if not branch.steps:
            yield PlanRow("(shortcut)", "", branch.role.value, "", "", branch.why, inner=True)
        for index, step in enumerate(branch.steps):
            row = _row(step, branch.role.value, rules, reasons, inner=True)
            if index == 0:
                row = replace(row, why=f"{row.why}; {branch.why}" if row.why else branch.why)
            yield row
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
    """A shape as text, such as ``N×64×56×56``; N is a symbolic size."""
    return "×".join("N" if size is None else str(size) for size in shape)
