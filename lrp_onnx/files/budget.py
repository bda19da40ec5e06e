"""How much memory a graph takes, bounded before anything runs."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto
from onnx.external_data_helper import load_external_data_for_tensor

from lrp_onnx.contract import is_added
from lrp_onnx.errors import ModelFileError
from lrp_onnx.files.loops import INFERENCE_ERRORS, Loops
from lrp_onnx.files.shapes import with_shapes
from lrp_onnx.files.structure import behind, bytes_of, graphs_of, nested, read_by, where

Sizes = Mapping[str, Sequence[int]]
"""Input → its shape."""
ONE_PICTURE: Sizes = {}
"""A run in which every symbolic size is 1."""
SHARE = 0.5
"""The part of the machine's memory that a run may take."""
UNKNOWN = 4e9
"""Bytes that a run may take where the machine does not say how many it has."""
TOLERATED = 3.0
"""How many times what a compiled file states its graph may take, and as often its weights, of which
others are made when it is loaded.
"""
ITEM = 16
"""Bytes of an element, at most."""
SMALL = 1 << 28
"""Bytes that any graph may take, whatever its file states."""
MOST_FOLDED = 1024
"""Elements of stored tensors that shapes may be computed from; a shape has one for every axis."""
GROWING = frozenset(
    {"ConstantOfShape", "EyeLike", "Expand", "OneHot", "Pad", "Range", "Resize", "Tile", "Upsample"}
)
"""Operators whose result is as large as the values of an input say."""


@dataclass(frozen=True, slots=True, eq=False)
class Footprint:
    """What runs of a model take: the tensors that are alive at once, without weights."""

    source: str
    """The model's name in errors."""
    most: float
    """Bytes that a run may take."""
    weights: int
    """Bytes of the model's stored tensors."""
    bare: onnx.ModelProto
    """The model without its large weights and without the shapes that it states."""
    inputs: frozenset[str]
    """Names of its inputs."""
    sized: bool
    """Whether the inputs, weights aside, state all sizes behind the batch."""

    @classmethod
    def of(
        cls,
        proto: onnx.ModelProto,
        source: str,
        most: float | None = None,
        *,
        folder: Path | None = None,
    ) -> Footprint:
        """That of a model; `most` is None for `SHARE` of the machine's memory, `folder` is where
        external data lies that fits (see `models.external_faults`).
        """
        weights = proto.ByteSize() + sum(map(_external_bytes, proto.graph.initializer))
        inputs = frozenset(value.name for value in proto.graph.input)
        stored = {tensor.name for tensor in proto.graph.initializer}
        given = (value for value in proto.graph.input if value.name not in stored)
        dims = (dim for value in given for dim in value.type.tensor_type.shape.dim[1:])
        sized = all(dim.dim_value > 0 for dim in dims)
        return cls(source, _allowed(most), weights, _skeleton(proto, folder), inputs, sized)

    def check(self, *, sizes: Sizes = ONE_PICTURE, stated: int | None = None) -> None:
        """Check a run.

        Args:
            sizes: input → the shape that it has in the run. In others, sizes that are symbolic are
                1: one picture.
            stated: bytes that the file says a run takes; None where it does not say.

        Raises:
            ModelFileError: it takes more than is allowed or stated, or how much it takes cannot be
                told.
        """
        peak, largest, open_ones = _peak(_sized(self.bare, sizes), self.source, self.inputs)
        if open_ones:
            raise ModelFileError(
                f"{self.source} makes tensors of sizes that cannot be told before it runs "
                f"({', '.join(open_ones[:3])}): it is not run"
            )
        pictures = max((shape[0] for shape in sizes.values() if shape), default=1)
        run = "one picture" if pictures == 1 else f"{pictures} pictures or targets at once"
        if peak > self.most:
            smaller = "" if pictures == 1 else "take fewer at once, or "
            raise ModelFileError(
                f"{self.source} takes {_bytes_as_text(peak)} for {run} (most of it for {largest}), "
                f"and {_bytes_as_text(self.most)} are allowed: {smaller}give --max-memory, where "
                "the command has it, if that is meant"
            )
        if stated is not None and peak > max(TOLERATED * (stated + self.weights), SMALL):
            raise ModelFileError(
                f"{self.source} states that it takes {_bytes_as_text(stated)} for {run}, and it "
                f"takes {_bytes_as_text(peak)} (most of it for {largest}): it is not run; compile "
                "it again"
            )


def check_weights(sizes: Iterable[int], source: str, most: float | None = None) -> None:
    """Check what weights take in memory that lie in other files; each is `sizes` bytes.

    Raises:
        ModelFileError: they take more than `most` bytes; None is `SHARE` of the machine's memory.
    """
    limit = _allowed(most)
    total = sum(sizes)
    if total > limit:
        raise ModelFileError(
            f"the weights of {source} that lie in other files take {_bytes_as_text(total)}, and "
            f"{_bytes_as_text(limit)} are allowed: give --max-memory, where the command has it, if "
            "that is meant"
        )


def bytes_made(proto: onnx.ModelProto, inputs: Mapping[str, NDArray[np.generic]]) -> int | None:
    """Bytes of all outputs of a model whose `inputs` have these values; None where that cannot be
    told before it runs. Of large inputs the shapes alone count.
    """
    known = onnx.ModelProto()
    known.CopyFrom(proto)
    for name, array in inputs.items():
        if array.size <= MOST_FOLDED:
            known.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    try:
        inferred = onnx.shape_inference.infer_shapes(known, data_prop=True).graph
    except INFERENCE_ERRORS:
        return None
    sizes = [bytes_of(value.type.tensor_type) for value in inferred.output if value.name]
    return None if None in sizes else sum(size or 0 for size in sizes)


def _external_bytes(tensor: TensorProto) -> int:
    """Bytes of a weight in another file, 0 where they are not stated."""
    lengths = [one.value for one in tensor.external_data if one.key == "length"]
    return sum(int(length) for length in lengths if length.isdecimal())


def _allowed(most: float | None) -> float:
    return machine_memory() * SHARE if most is None else most


def _bytes_as_text(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"


def machine_memory() -> float:
    """Bytes of this machine's memory; `UNKNOWN` / `SHARE` where it does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # Windows
        return UNKNOWN / SHARE


def _skeleton(proto: onnx.ModelProto, folder: Path | None) -> onnx.ModelProto:
    """The model without large weights and without the shapes that it states."""
    bare = onnx.ModelProto(ir_version=proto.ir_version)
    bare.opset_import.extend(proto.opset_import)
    bare.functions.extend(proto.functions)
    bare.graph.name = "skeleton"
    bare.graph.node.extend(proto.graph.node)
    stored = set()
    for tensor in proto.graph.initializer:
        stored.add(tensor.name)
        external = tensor.data_location == TensorProto.EXTERNAL
        near = not external or (folder and 0 < _external_bytes(tensor) <= ITEM * MOST_FOLDED)
        if prod(tensor.dims) <= MOST_FOLDED and near:
            bare.graph.initializer.append(tensor)
            if external:
                load_external_data_for_tensor(bare.graph.initializer[-1], str(folder))
        else:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            bare.graph.input.append(value)
    bare.graph.input.extend(value for value in proto.graph.input if value.name not in stored)
    for value in proto.graph.output:
        one = bare.graph.output.add()
        one.name = value.name
    return bare


def _sized(bare: onnx.ModelProto, sizes: Sizes) -> onnx.ModelProto:
    """A copy of a skeleton whose inputs have these sizes; 1 where they are symbolic."""
    sized = onnx.ModelProto()
    sized.CopyFrom(bare)
    graph = sized.graph
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        given = sizes.get(value.name, ())
        own = [max(dim.dim_value, 1) for dim in dims]
        for dim, size in zip(dims, given if len(given) == len(own) else own, strict=True):
            dim.dim_value = size
    for tensor in [one for one in graph.initializer if one.name in sizes]:  # defaults
        shape = sizes[tensor.name]
        graph.initializer.remove(tensor)
        graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, shape))
    return sized


def _peak(
    bare: onnx.ModelProto, source: str, inputs: Collection[str]
) -> tuple[int, str, list[str]]:
    """(the most bytes alive at once, what takes most of them, nodes of `GROWING` that maps depend
    on and whose results' sizes are not known).

    What a detector does with its boxes may depend on how many there are: it counts as nothing.
    """
    inferred = with_shapes(bare, source, data_prop=True)
    sizes = _bytes_of(inferred)
    loops = Loops(bare, inferred)
    aside = behind(inferred, [value.name for value in inferred.output if is_added(value.name)])
    last_use = {n: i for i, node in enumerate(inferred.node) for n in read_by(node)}
    last_use |= {value.name: len(inferred.node) for value in inferred.output}
    given = (v.type.tensor_type for v in inferred.input if v.name in inputs)
    alive = peak = most = sum(bytes_of(kind) or 0 for kind in given)
    largest, open_ones = "its inputs", []
    for index, node in enumerate(inferred.node):
        inside = sum(_inner_bytes(node))
        inside += sum(loops.grown(inner, source) for inner in nested(node))
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
        done = {*read_by(node), *node.output}
        alive -= sum(sizes.get(n) or 0 for n in done if last_use.get(n, index) == index)
    return peak, largest, open_ones


def _inner_bytes(node: onnx.NodeProto) -> Iterator[int]:
    """Bytes of every tensor in the graphs that a node holds."""
    for graph in graphs_of(node):
        yield from (size or 0 for size in _bytes_of(graph).values())
        for inner in graph.node:
            yield from _inner_bytes(inner)


def _bytes_of(graph: onnx.GraphProto) -> dict[str, int | None]:
    """Name of every computed tensor → its bytes; None where its shape is not known."""
    return {v.name: bytes_of(v.type.tensor_type) for v in (*graph.value_info, *graph.output)}
