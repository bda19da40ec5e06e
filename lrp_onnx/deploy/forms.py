"""The inputs of a compiled file, for servers: none may be left out, and pixels for pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from lrp_onnx.contract import PREFIX, START, TARGET, Contract, Preprocessing
from lrp_onnx.errors import ContractError
from lrp_onnx.files.forward import hash_of

PIXELS = "pixels"
"""Name of the input of a file that prepares its pictures itself."""


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


def with_pixels(
    model: onnx.ModelProto, contract: Contract, how: Preprocessing, folder: Path | None = None
) -> onnx.ModelProto:
    """A compiled file that takes pixels: the input `PIXELS`, uint8 from 0 to 255, in the shape and
    layout of the input that it has; the graph divides and normalises them.

    A file whose part that predicts was changed keeps its hash, which tells that.

    Args:
        model: a compiled file; it stays as it is.
        contract: what it says of itself.
        how: how a picture becomes its input. Pictures are resized and cropped as before.
        folder: where its external data lies, None where it has none.

    Raises:
        ContractError: it takes no pictures, or integers already.
    """
    picture = next(value for value in model.graph.input if value.name == contract.input)
    element = picture.type.tensor_type.elem_type
    kind = onnx.helper.tensor_dtype_to_np_dtype(element)
    if not contract.takes_pictures or kind.kind == "i" or kind.kind == "u":
        raise ContractError(
            f"the model's input '{contract.input}' is {contract.layout} {kind}: --pixels is for "
            "pictures that must be divided and normalised first; leave it out"
        )
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    value = next(value for value in graph.input if value.name == contract.input)
    value.name, value.type.tensor_type.elem_type = PIXELS, onnx.TensorProto.UINT8
    shape = [-1 if letter == "C" else 1 for letter in contract.layout]
    steps = [onnx.helper.make_node("Cast", [PIXELS], [f"{PIXELS}/float"], to=1)]
    for op, numbers in (("Sub", how.mean), ("Div", how.std)):
        constant = (np.asarray(numbers) * how.divisor).astype(np.float32).reshape(shape)
        graph.initializer.append(onnx.numpy_helper.from_array(constant, f"{PIXELS}/{op}.by"))
        inputs = [steps[-1].output[0], f"{PIXELS}/{op}.by"]
        steps.append(onnx.helper.make_node(op, inputs, [f"{PIXELS}/{op}"]))
    steps.append(onnx.helper.make_node("Cast", [f"{PIXELS}/Div"], [contract.input], to=element))
    for number, step in enumerate(steps):
        step.name = f"{PIXELS}/{number}"
    _keep(graph.node, [*steps, *graph.node])
    stored = replace(how, mean=(0.0,) * len(how.mean), std=(1.0,) * len(how.std), divisor=1.0)
    said = {**contract.sources, "preprocessing": "the graph: it takes pixels of 0 to 255"}
    told = replace(contract, input=PIXELS, preprocessing=stored, sources=said)
    if told.forward and told.forward == hash_of(model, [*told.outputs], folder):
        told = replace(told, forward=hash_of(changed, [*told.outputs], folder))
    onnx.helper.set_model_props(
        changed, {e.key: e.value for e in changed.metadata_props} | told.to_metadata()
    )
    return changed


def _keep(field: Any, items: Iterable[Any]) -> None:
    """Replace the items of a repeated field."""
    kept = list(items)
    del field[:]
    field.extend(kept)
