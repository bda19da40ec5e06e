"""Loops of a graph that nobody vouches for: how many turns they have, and what they gather."""

from __future__ import annotations

from collections import defaultdict
from itertools import chain
from math import prod

import numpy as np
import onnx
from google.protobuf.message import Error as MessageError
from onnx import TensorProto

from lrp_onnx.errors import NATIVE_ERRORS, ModelFileError
from lrp_onnx.files.structure import bytes_of, graphs_of, nested, read_by, standard, where

MOST_TURNS = 10_000
"""Most turns of a Loop: that of C3 takes as many as its mask has pixels, at most."""
INFERENCE_ERRORS = (onnx.shape_inference.InferenceError, MessageError, *NATIVE_ERRORS)
"""What shape inference raises: ONNX's errors, those of protobuf and of its C++ code."""
PASSING = frozenset(("Gather", "Identity", "ReduceMax", "Reshape", "Slice", "Squeeze", "Unsqueeze"))
"""Operators that make no number larger than those of their first input. ReduceMin makes the largest
number that there is where its input is empty.
"""
CHOOSING = frozenset(("Concat", "Max", "Min"))
"""Operators that make no number larger than those of all their inputs."""
SIGNED = frozenset((TensorProto.INT32, TensorProto.INT64))
"""Element types between which a Cast makes no number larger: in others -1 may be 4,294,967,295."""


class Turns:
    """The numbers of turns of a graph's Loops."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._stored: dict[str, list[TensorProto]] = defaultdict(list)
        self._producers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        nodes = [inner for node in graph.node for inner in nested(node)]
        for one in (graph, *chain.from_iterable(map(graphs_of, nodes))):
            for tensor in one.initializer:
                self._stored[tensor.name].append(tensor)
        for node in nodes:
            for name in node.output:
                if standard(node) == "Constant":
                    self._stored[name] += map(_constant, node.attribute)
                else:
                    self._producers[name].append(node)

    def fault(self, loop: onnx.NodeProto, *, computed: bool) -> str:
        """Why a Loop may have more than `MOST_TURNS`, or empty; `computed` if its number of turns
        may be the size of a tensor, which memory bounds.
        """
        count = loop.input[0] if loop.input else ""
        numbers = [_number(tensor) for tensor in self._stored.get(count, ())]
        if numbers and None not in numbers:
            most = max(number or 0 for number in numbers)
            said = f"{most:,} turns" if most > MOST_TURNS else ""
        else:
            sizes = computed and count != "" and self._is_size(count)
            said = "" if sizes else "no stored number of turns"
        return f"{where(loop)} has {said}: up to {MOST_TURNS:,} are run" if said else ""

    def _is_size(self, count: str) -> bool:
        """Whether a number is the size of a tensor, chosen among sizes and stored numbers."""
        todo, seen = [count], set[str]()
        while todo:
            name = todo.pop()
            if name in seen:
                continue
            seen.add(name)
            numbers = [_number(tensor) for tensor in self._stored.get(name, ())]
            if any(number is None or not 0 <= number <= MOST_TURNS for number in numbers):
                return False
            producers = self._producers.get(name, [])
            if len(producers) + len(numbers) != 1:
                return False
            for node in producers:
                kind = standard(node)
                if kind in CHOOSING:
                    todo += node.input
                elif kind in PASSING or (kind == "Cast" and _keeps(node)):
                    todo += node.input[:1]
                elif kind not in ("Shape", "Size"):
                    return False
        return True


def loop_faults(graph: onnx.GraphProto) -> list[str]:
    """One message for every Loop of an original that may have more than `MOST_TURNS`, and than a
    tensor has elements along an axis.
    """
    turns = Turns(graph)
    nodes = (inner for node in graph.node for inner in nested(node))
    found = (turns.fault(node, computed=True) for node in nodes if node.op_type == "Loop")
    return [fault for fault in found if fault]


def _keeps(node: onnx.NodeProto) -> bool:
    """Whether a Cast is to one of `SIGNED`."""
    kinds = {value.i for value in node.attribute if value.name == "to"}
    return bool(kinds) and kinds <= SIGNED


def _constant(value: onnx.AttributeProto) -> TensorProto:
    """The tensor of a Constant; an empty one where it is no tensor and no whole number."""
    if value.type == onnx.AttributeProto.INT:
        return onnx.numpy_helper.from_array(np.array(value.i, np.int64))
    return value.t


def _number(tensor: TensorProto) -> int | None:
    """The whole number in a stored tensor; None where it is something else."""
    if prod(tensor.dims) != 1 or tensor.data_location == TensorProto.EXTERNAL:
        return None
    try:
        return int(onnx.numpy_helper.to_array(tensor).reshape(-1)[0])
    except (TypeError, ValueError, OverflowError):
        return None


class Loops:
    """What the Loops of a graph gather from turn to turn, where shapes tell it.

    Args:
        model: the model, for its opset and its small stored tensors.
        inferred: its graph, with all shapes that can be inferred.
    """

    def __init__(self, model: onnx.ModelProto, inferred: onnx.GraphProto) -> None:
        self._model = model
        values = (*inferred.input, *inferred.value_info, *inferred.output)
        self._types = {value.name: value.type for value in values}
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}

    def grown(self, loop: onnx.NodeProto, source: str) -> int:
        """Bytes that a Loop's tensors have gathered after its last turn; 0 for other nodes, and
        where shapes are not known.

        Raises:
            ModelFileError: they grow faster from turn to turn.
        """
        if loop.op_type != "Loop":
            return 0
        body = next(iter(graphs_of(loop)), None)
        if body is None or len(body.input) != len(loop.input):
            return 0
        starts = [self._type_of(name) for name in loop.input[2:]]
        first = self._turn(body, starts)
        second = self._turn(body, first[: len(starts)])
        sizes = [_total(types) for types in (starts, first[: len(starts)], second[: len(starts)])]
        gathered = _total(first[len(starts) :]) or 0
        turns = _number(self._stored[loop.input[0]]) if loop.input[0] in self._stored else None
        turns = MOST_TURNS if turns is None else turns
        before, then, later = sizes
        if before is not None and then is not None and later is not None:
            growth = max(then - before, 0)
            gathered += growth
            if later - then > growth:
                raise ModelFileError(
                    f"{source} has tensors in {where(loop)} that grow faster from turn to turn: it "
                    "is not run"
                )
        return turns * gathered

    def _type_of(self, name: str) -> onnx.TypeProto | None:
        if name in self._stored:
            tensor = self._stored[name]
            return onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
        return self._types.get(name)

    def _turn(
        self, body: onnx.GraphProto, states: list[onnx.TypeProto | None]
    ) -> list[onnx.TypeProto | None]:
        """The types of a body's outputs behind the condition, from those of its states."""
        one = onnx.ModelProto(ir_version=self._model.ir_version)
        one.opset_import.extend(self._model.opset_import)
        graph = one.graph
        graph.name = "turn"
        graph.node.extend(body.node)
        graph.initializer.extend(body.initializer)
        graph.input.extend(body.input[:2])
        for value, kind in zip(body.input[2:], states, strict=True):
            graph.input.append(onnx.ValueInfoProto(name=value.name, type=kind or value.type))
        own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
        for name in dict.fromkeys(name for node in body.node for name in read_by(node)):
            if name in self._stored and name not in own:
                graph.initializer.append(self._stored[name])
            elif name in self._types and name not in own:
                graph.input.append(onnx.ValueInfoProto(name=name, type=self._types[name]))
        graph.output.extend(onnx.ValueInfoProto(name=value.name) for value in body.output[1:])
        try:
            inferred = onnx.shape_inference.infer_shapes(one, data_prop=True).graph
        except INFERENCE_ERRORS:
            return [None] * len(graph.output)
        return [value.type for value in inferred.output]


def _total(types: list[onnx.TypeProto | None]) -> int | None:
    """Bytes of several tensors; None where one is not known."""
    sizes = [None if kind is None else bytes_of(kind.tensor_type) for kind in types]
    return None if None in sizes else sum(size or 0 for size in sizes)
