"""The inputs of a compiled file, for servers: none that may be left out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import onnx

from lrp_onnx.contract import PREFIX, START, TARGET, Contract
from lrp_onnx.errors import ContractError


def without_optional_inputs(
    model: onnx.ModelProto, contract: Contract, *, target: bool | None = None
) -> onnx.ModelProto:
    """A compiled file whose every input must be given; its values are the same bit for bit.

    Args:
        model: a compiled file; it stays as it is.
        contract: what it says of itself.
        target: whether `target` is an input; None where the file has it.

    Raises:
        ContractError: the file has no `target` and one is asked for, or the other way round.
    """
    has_target = contract.inputs != "none"
    if target is None:
        target = has_target
    if target and not has_target:
        raise ContractError(
            "this compiled file explains the predicted class only: leave --target out, or give the "
            "model that it was compiled from"
        )
    if not target and contract.inputs.startswith("target"):
        raise ContractError(
            "this compiled file needs the class to explain: leave --no-target out, or give the "
            "model that it was compiled from"
        )
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    if contract.inputs == "optional":
        _settle(changed, contract, target=target)
    defaults = {tensor.name for tensor in changed.graph.initializer}
    _keep(changed.graph.input, (v for v in changed.graph.input if v.name not in defaults))
    return changed


def _settle(model: onnx.ModelProto, contract: Contract, *, target: bool) -> None:
    """Make `target` a required input, or its default a constant; that of `start` always is one."""
    graph = model.graph
    if target:
        _keep(graph.initializer, (t for t in graph.initializer if t.name != TARGET))
        sizes = {v.name: v.type.tensor_type.shape.dim for v in graph.input}
        if not contract.many_targets:
            sizes[TARGET][0].CopyFrom(sizes[contract.input][0])
    else:
        _keep(graph.input, (v for v in graph.input if v.name not in (TARGET, START)))
    for entry in model.metadata_props:
        if entry.key == f"{PREFIX}inputs":
            entry.value = json.dumps("target" if target else "none")


def _keep(field: Any, items: Iterable[Any]) -> None:
    """Replace the items of a repeated field."""
    kept = list(items)
    del field[:]
    field.extend(kept)
