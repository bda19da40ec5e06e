"""Plans as JSON-ready data: names, shapes and parameters, never the values of weights."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from lrp_onnx.plan.kinds import Kind, Step, Weight
from lrp_onnx.plan.plan import Block, Plan


def plan_json(of: Plan) -> dict[str, Any]:
    """The plan as JSON-ready data."""
    return {
        "input": {"name": of.input, "shape": list(of.input_shape)},
        "logits": {"name": of.logits, "classes": of.classes},
        "outputs": dict(of.outputs),
        "items": [_block_json(i) if isinstance(i, Block) else step_json(i) for i in of.items],
        "notes": list(of.notes),
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
            {"role": b.role.value, "why": b.why, "steps": [step_json(s) for s in b.steps]} for b in block.branches
        ],
        "join": step_json(block.join),
        "tail": [step_json(s) for s in block.tail],
    }


def attributes(kind: Kind) -> dict[str, Any]:
    """A layer's parameters as short JSON-ready data: weights by name and shape, never by value."""
    found: dict[str, Any] = {}
    for entry in fields(kind):
        value = getattr(kind, entry.name)
        if isinstance(value, Weight):
            found |= {
                "weight": value.tensor,
                "weight_shape": list(value.shape),
                "bias": value.bias is not None,
                "folded_scale": value.scale is not None,
            }
        elif isinstance(value, np.ndarray):
            found[entry.name] = list(value.shape)
        elif not is_dataclass(value):
            found[entry.name] = list(value) if isinstance(value, tuple) else value
    return found
