"""How much memory a graph takes, bounded before anything runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import prod

import onnx
from google.protobuf.message import Error as MessageError
from onnx import TensorProto

from lrp_onnx.contract import is_added
from lrp_onnx.errors import NATIVE_ERRORS, ModelFileError, first_line
from lrp_onnx.files.structure import behind, graphs_of, nested, where

SHARE = 0.5
"""The part of the machine's memory that a run of one picture may take."""
UNKNOWN = 4e9
"""Bytes that a run may take where the machine does not say how many it has."""
TOLERATED = 3.0
"""How many times what a compiled file states its graph may take, and as often its weights, of which
others are made when it is loaded.
"""
SMALL = 1 << 28
"""Bytes that any graph may take, whatever its file states."""
MOST_FOLDED = 1024
"""Elements of stored tensors that shapes may be computed from; a shape has one for every axis."""
GROWING = frozenset(
    {"ConstantOfShape", "EyeLike", "Expand", "OneHot", "Pad", "Range", "Resize", "Tile", "Upsample"}
)
"""Operators whose result is as large as the values of an input say."""


def check_memory(
    proto: onnx.ModelProto, source: str, *, stated: int | None, most: float | None = None
) -> None:
    """Check what a run of one picture takes: the tensors that are alive at once, without weights.

    Args:
        proto: the model.
        source: its name in errors.
        stated: bytes that the file says it takes; None where it does not say.
        most: bytes that it may take; None for `SHARE` of the machine's.

    Raises:
        ModelFileError: it takes more, or how much it takes cannot be told.
    """
    limit = most if most is not None else machine_memory() * SHARE
    peak, largest, open_ones = _peak(_skeleton(proto), source)
    if open_ones:
        raise ModelFileError(
            f"{source} makes tensors of sizes that cannot be told before it runs "
            f"({', '.join(open_ones[:3])}): it is not run"
        )
    if peak > limit:
        raise ModelFileError(
            f"{source} takes {peak / 1e9:,.1f} GB for one picture (most of it for {largest}), and "
            f"{limit / 1e9:,.1f} GB are allowed: give --max-memory if that is meant"
        )
    weights = proto.ByteSize() + sum(_external_bytes(proto))
    if stated is not None and peak > max(TOLERATED * (stated + weights), SMALL):
        raise ModelFileError(
            f"{source} states that it takes {stated / 1e9:,.3f} GB for one picture, and it takes "
            f"{peak / 1e9:,.1f} GB (most of it for {largest}): it is not run; compile it again"
        )


def _external_bytes(proto: onnx.ModelProto) -> Iterator[int]:
    """Bytes of the weights in other files, as far as they are stated."""
    for tensor in proto.graph.initializer:
        lengths = [one.value for one in tensor.external_data if one.key == "length"]
        yield from (int(length) for length in lengths if length.isdecimal())


def machine_memory() -> float:
    """Bytes of this machine's memory; `UNKNOWN` / `SHARE` where it does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # Windows
        return UNKNOWN / SHARE


def _skeleton(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model for one picture, without large weights and without the shapes that it states."""
    bare = onnx.ModelProto(ir_version=proto.ir_version)
    bare.opset_import.extend(proto.opset_import)
    bare.graph.name = "skeleton"
    bare.graph.node.extend(proto.graph.node)
    stored = set()
    for tensor in proto.graph.initializer:
        stored.add(tensor.name)
        if prod(tensor.dims) <= MOST_FOLDED and tensor.data_location != TensorProto.EXTERNAL:
            bare.graph.initializer.append(tensor)
        else:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            bare.graph.input.append(value)
    for value in proto.graph.input:
        if value.name not in stored:
            one = bare.graph.input.add()
            one.CopyFrom(value)
            for dim in one.type.tensor_type.shape.dim:
                dim.dim_value = dim.dim_value if dim.HasField("dim_value") else 1
    for value in proto.graph.output:
        one = bare.graph.output.add()
        one.name = value.name
    return bare


def _peak(bare: onnx.ModelProto, source: str) -> tuple[int, str, list[str]]:
    """(the most bytes alive at once, the node that makes the largest tensor, nodes of `GROWING`
    that maps depend on and whose results' sizes are not known).

    What a detector does with its boxes may depend on how many there are: it counts as nothing.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, MessageError, *NATIVE_ERRORS) as error:
        raise ModelFileError(
            f"{source} is damaged: its shapes do not fit each other ({first_line(error)})"
        ) from error
    sizes = _bytes_of(inferred)
    aside = behind(inferred, [value.name for value in inferred.output if is_added(value.name)])
    last_use = {n: i for i, node in enumerate(inferred.node) for n in _read_by(node)}
    last_use |= {value.name: len(inferred.node) for value in inferred.output}
    alive = peak = most = 0
    largest, open_ones = "", []
    for index, node in enumerate(inferred.node):
        inside = sum(_inner_bytes(node))
        made = [(name, sizes.get(name)) for name in node.output if name]
        if (
            node.op_type in GROWING
            and aside.isdisjoint(node.output)
            and any(size is None for _, size in made)
        ):
            open_ones.append(where(node))
        bytes_made = sum(size or 0 for _, size in made)
        alive += bytes_made
        peak = max(peak, alive + inside)
        if bytes_made + inside > most:
            most, largest = bytes_made + inside, where(node)
        done = {*_read_by(node), *node.output}
        alive -= sum(sizes.get(n) or 0 for n in done if last_use.get(n, index) == index)
    return peak, largest, open_ones


def _read_by(node: onnx.NodeProto) -> Iterator[str]:
    for inner in nested(node):
        yield from inner.input


def _inner_bytes(node: onnx.NodeProto) -> Iterator[int]:
    """Bytes of every tensor in the graphs that a node holds."""
    for graph in graphs_of(node):
        yield from (size or 0 for size in _bytes_of(graph).values())
        for inner in graph.node:
            yield from _inner_bytes(inner)


def _bytes_of(graph: onnx.GraphProto) -> dict[str, int | None]:
    """Name of every computed tensor → its bytes; None where its shape is not known."""
    return {v.name: _bytes(v.type.tensor_type) for v in (*graph.value_info, *graph.output)}


def _bytes(tensor: onnx.TypeProto.Tensor) -> int | None:
    if not tensor.HasField("shape") or any(
        not dim.HasField("dim_value") for dim in tensor.shape.dim
    ):
        return None
    try:
        item = int(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize)
    except KeyError:
        item = 8
    return item * prod(int(dim.dim_value) for dim in tensor.shape.dim)
