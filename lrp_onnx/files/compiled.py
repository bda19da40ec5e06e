"""The gate for compiled files: what a file's graph may be, and whether its contract fits it.

Both are checked before any runtime sees the file. `model.gate` does the same for originals.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from lrp_onnx.contract import (
    C3_REGION,
    HEATMAP,
    HEATMAP_RAW,
    OUTPUTS,
    RELEVANCE,
    SINGLE,
    START,
    TARGET,
    Contract,
    is_added,
)
from lrp_onnx.errors import ContractError, ModelFileError
from lrp_onnx.files.budget import Footprint
from lrp_onnx.files.forward import remark_on
from lrp_onnx.files.loops import Turns
from lrp_onnx.files.models import external_faults, external_weights, read_proto, source_name
from lrp_onnx.files.structure import MOST_NODES, STANDARD, behind, graphs_of, nested, where
from lrp_onnx.selection import Selection

REPEATING = ("Loop", "Scan")
"""Operators that repeat what is inside."""
MOST_LISTED = 8
"""Faults in one message."""
PICTURES = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.DOUBLE,
    TensorProto.UINT8,
    TensorProto.INT8,
    TensorProto.UINT16,
    TensorProto.INT16,
    TensorProto.INT32,
    TensorProto.INT64,
)
"""Element types of inputs and of outputs that are explained."""
Sizes = list[int | None]
"""A shape; None for a size that is symbolic."""


@dataclass(frozen=True, slots=True)
class CompiledFile:
    """A compiled file that has passed the gate."""

    contract: Contract
    footprint: Footprint
    """What its runs take."""
    changed: str
    """What to say where its part that predicts is not the one that was compiled, or empty."""


def read_compiled(model: Path | bytes, *, max_memory: float | None = None) -> CompiledFile:
    """A compiled file, checked.

    Args:
        model: a file or a serialized model.
        max_memory: bytes that a run may take; None for `budget.SHARE` of the machine's.

    Raises:
        ModelFileError: the file cannot be read, or its graph is not one that the compiler writes,
            or needs more memory.
        ContractError: it is not compiled, or its metadata is damaged or does not fit its graph.
    """
    return checked(
        read_proto(model),
        source_name(model),
        folder=model.parent if isinstance(model, Path) else None,
        max_memory=max_memory,
    )


def checked(
    proto: onnx.ModelProto,
    source: str,
    *,
    folder: Path | None = None,
    max_memory: float | None = None,
    ledger: bool = False,
) -> CompiledFile:
    """As `read_compiled`, of a model that was read from `source`; `folder` is where its external
    data lies, None where it has none. The `ledger`, which verifying alone reads, is checked where
    that is asked.
    """
    contract = Contract.from_metadata({entry.key: entry.value for entry in proto.metadata_props})
    check_structure(proto, source, folder)
    misfits = [*_misfits(proto.graph, contract)]
    misfits += _ledger(proto.graph, contract) if ledger else []
    if faults := list(dict.fromkeys(misfits)):
        raise ContractError(
            f"the metadata of {source} does not fit its graph: {_listed(faults)}; compile it again"
        )
    footprint = Footprint.of(proto, source, max_memory, folder=folder)
    footprint.check(stated=contract.memory_fixed + contract.memory_each)
    return CompiledFile(contract, footprint, remark_on(proto, contract, source, folder))


def check_structure(proto: onnx.ModelProto, source: str, folder: Path | None = None) -> None:
    """Check that a graph has nothing but what the compiler writes: no operators but the standard
    ones, no loops without end, no data outside `folder`.

    Raises:
        ModelFileError: it has.
    """
    if faults := list(dict.fromkeys(_unsafe(proto, folder))):
        raise ModelFileError(
            f"{source} is not a file as the compiler writes it: {_listed(faults)}; it is not run"
        )


def _listed(faults: Sequence[str]) -> str:
    more = len(faults) - MOST_LISTED
    return "; ".join(faults[:MOST_LISTED]) + (f"; and {more} more" if more > 0 else "")


def _unsafe(proto: onnx.ModelProto, folder: Path | None) -> Iterator[str]:
    """One message for everything in the graph that the compiler never writes."""
    graph = proto.graph
    if proto.functions:
        yield f"it has {len(proto.functions)} functions of its own"
    nodes = [inner for node in graph.node for inner in nested(node)]
    if len(nodes) > MOST_NODES:
        yield f"it has {len(nodes):,} nodes; up to {MOST_NODES:,} are read"
    for node in nodes:
        if node.domain not in STANDARD:
            yield f"{where(node)} is of the domain {node.domain!r}, and compiled files have none"
    yield from _control_flow(graph)
    yield from _weights(graph, nodes, folder)


def _control_flow(graph: onnx.GraphProto) -> Iterator[str]:
    """Faults of control flow: none but a Loop with a stored end may stand where maps are made.

    Elsewhere it is what the original does with its outputs (a detector's boxes), and a Loop may
    have as many turns as a tensor has elements along an axis.
    """
    turns = Turns(graph)
    added = [value.name for value in graph.output if is_added(value.name)]
    aside = behind(graph, added)
    for node in graph.node:
        if any(True for _ in graphs_of(node)):
            yield from _loops(node, turns, aside=not aside.isdisjoint(node.output))


def _loops(node: onnx.NodeProto, turns: Turns, *, aside: bool) -> Iterator[str]:
    """Faults of one node with inner graphs; `aside` if no map depends on it."""
    inside = [inner for graph in graphs_of(node) for one in graph.node for inner in nested(one)]
    holding = [inner for inner in inside if any(True for _ in graphs_of(inner))]
    if not aside and (node.op_type != "Loop" or holding):
        yield f"{where(node)} is control flow that the compiler does not write"
    if node.op_type in REPEATING and any(inner.op_type in REPEATING for inner in inside):
        yield f"{where(node)} is a {node.op_type} with another inside"
    for loop in (one for one in (node, *inside) if one.op_type == "Loop"):
        if fault := turns.fault(loop, computed=aside):
            yield fault


def _weights(
    graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto], folder: Path | None
) -> Iterator[str]:
    """Faults of stored tensors: those of the outer graph alone may lie in other files."""
    inner = [one for node in nodes for one in graphs_of(node)]
    if any(one.sparse_initializer for one in (graph, *inner)) or any(
        a.HasField("sparse_tensor") or a.sparse_tensors for node in nodes for a in node.attribute
    ):
        yield "it has sparse weights"
    in_nodes = [a.t for node in nodes for a in node.attribute if a.HasField("t")]
    in_nodes += [tensor for one in inner for tensor in one.initializer]
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in in_nodes):
        yield "a constant inside a node lies in another file"
    external = external_weights(graph)
    if external and folder is None:
        yield f"{len(external)} weights lie in other files: give the model's path"
    elif folder is not None:
        yield from external_faults(external, folder)


def _misfits(graph: onnx.GraphProto, contract: Contract) -> Iterator[str]:
    """One message for everything that the contract says and the graph does not hold."""
    yield from _inputs(graph, contract)
    yield from _outputs(graph, contract)
    try:
        Selection.read(contract.selection)
    except ValueError as error:
        yield f"the selection {contract.selection!r} cannot be read ({error})"


def _inputs(graph: onnx.GraphProto, contract: Contract) -> Iterator[str]:
    inputs = {value.name: value.type.tensor_type for value in graph.input}
    expected = {
        "optional": {TARGET, START},
        "target": {TARGET},
        "target,start": {TARGET, START},
        "none": set(),
    }[contract.inputs] | {contract.input}
    if set(inputs) != expected:
        yield f"the inputs are {_names(inputs)}, not {_names(expected)}"
        return
    picture = _sizes(inputs[contract.input])
    if inputs[contract.input].elem_type not in PICTURES or len(picture or []) != len(
        contract.layout
    ):
        yield f"the input '{contract.input}' has the shape {picture}, not {contract.layout}"
    elif any(size is not None and size < 1 for size in picture or []):
        yield f"the input '{contract.input}' has the shape {picture}"
    if TARGET in inputs:
        target = inputs[TARGET]
        if target.elem_type != TensorProto.INT64 or len(_sizes(target) or []) != 1:
            yield f"the input '{TARGET}' is not a list of whole numbers"
    if START in inputs:
        sizes = _sizes(inputs[START]) or []
        fits = (
            len(sizes) == 1 + len(contract.start_shape)
            and all(
                size in (None, wanted)  # the default of a large start has one element
                for size, wanted in zip(sizes[1:], contract.start_shape, strict=True)
            )
        )
        if inputs[START].elem_type != TensorProto.FLOAT or not fits:
            yield f"the input '{START}' has the shape {sizes}, not N, {contract.start_shape}"


def _outputs(graph: onnx.GraphProto, contract: Contract) -> Iterator[str]:
    outputs = {value.name: value.type.tensor_type for value in graph.output}
    if missing := [name for name in contract.outputs if name not in outputs]:
        yield f"the outputs {_names(missing)} are not there"
        return
    own = {**dict.fromkeys((HEATMAP, HEATMAP_RAW), len(contract.layout) - 1)}
    own |= {RELEVANCE: len(contract.layout), C3_REGION: 3}
    for name in [name for name in own if name in outputs]:
        sizes = _sizes(outputs[name])
        wrong = sizes is not None and len(sizes) != own[name]
        if outputs[name].elem_type != TensorProto.FLOAT or wrong:
            yield f"the output '{name}' has the shape {sizes}, not {own[name]} axes of float32"
    yield from _classes(outputs, contract)


def _classes(outputs: Mapping[str, Any], contract: Contract) -> Iterator[str]:
    """Faults of the number of classes, where the explained output's shape tells it."""
    name = min(contract.outputs, key=lambda one: OUTPUTS.index(contract.outputs[one]))
    kind = contract.outputs[name]
    if outputs[name].elem_type not in PICTURES:
        yield f"the output '{name}' does not hold numbers"
    sizes = _sizes(outputs[name])
    if not contract.selection and kind in SINGLE:
        found: int | None = 2
    elif contract.selection or sizes is None or None in sizes[1:] or len(sizes) < 2:
        found = None
    else:
        behind_batch = [size for size in sizes[1:] if size is not None]
        # of a feature map every channel is a class, as `runtime.explanation.scores_of` has it
        found = behind_batch[0] if len(sizes) == 4 or kind == "features" else prod(behind_batch)
    if found is not None and found != contract.classes:
        yield f"the output '{name}' of shape {sizes} has {found} classes, not {contract.classes}"
    if contract.classes not in (prod(contract.start_shape), contract.start_shape[0], 2):
        yield f"a start of shape {contract.start_shape} is not one of {contract.classes} classes"
    if contract.labels and len(contract.labels) != contract.classes:
        yield f"there are {len(contract.labels)} class names, not {contract.classes}"


def _ledger(graph: onnx.GraphProto, contract: Contract) -> Iterator[str]:
    """Faults of the ledger: names that are no tensors, steps without a rule."""
    known = {name for node in graph.node for name in node.output}
    known |= {tensor.name for tensor in graph.initializer} | {contract.input}
    known |= set(contract.constants)
    if not contract.ledger:
        yield "the ledger is empty"
    for entry in contract.ledger:
        views = entry.get("views", {})
        named = [*entry["received"], *(name for names in entry["passed"] for name in names)]
        named += [term[key] for term in entry["terms"] for key in ("s", "z", "b")]
        casts = entry.get("casts", {})
        named = [views[name]["of"] if name in views else casts.get(name, name) for name in named]
        if unknown := [name for name in named if name not in known]:
            yield f"the ledger of '{entry['step']}' names {_names(unknown)}, which are no tensors"
        if entry["step"] not in contract.rules:
            yield f"'{entry['step']}' has no rule"
    for name, value in contract.constants.items():
        try:
            length = len(b64decode(value["float32"], validate=True))
        except ValueError:
            length = -1
        if length != 4 * prod(value["shape"]):
            yield f"the constant '{name}' is damaged"


def _names(names: Any) -> str:
    return ", ".join(sorted(map(repr, names)))


def _sizes(tensor: onnx.TypeProto.Tensor) -> Sizes | None:
    """A stated shape; None where none is stated."""
    if not tensor.HasField("shape"):
        return None
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
