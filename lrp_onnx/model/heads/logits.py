"""Logits (N, classes) for a model without such a tensor: appended to its graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lrp_onnx.contract import EXPLAINED, RANKED, SINGLE
from lrp_onnx.model.graph import Graph, shape_of
from lrp_onnx.model.heads.head import Head
from lrp_onnx.selection import Selection


def append_logits(graph: Graph, head: Head) -> Graph:
    """A copy of the graph with the logits that `head` names, and what ranks its classes; the graph
    itself where it has them.

    Of a feature map they are the mean over height and width, of a selection the mean or the largest
    of its elements, of other tensors with three axes or more their elements, of an ensemble the
    weighted sum of its members'. Of one logit z they are -z and z, for the classes no and yes: the
    layer that makes z is computed once more with its weights and their negatives, so that rules
    see what speaks for either class; where its weights are not stored, the negative of z is taken.
    """
    if not head.sources and not head.is_ranked:
        return graph
    model = graph.model.clone()
    values = {v.name: v for node in model.graph for v in node.outputs}
    values |= {v.name: v for v in model.graph.inputs}
    maker = _Maker(model, len(shape_of(graph.inputs[0]) or ()))
    members = [(values[name], weight) for name, weight in head.sources]
    one = head.holds in SINGLE
    if members:
        maker.logits(members, head.taken, one=one)
    if head.is_ranked:
        maker.ranks(values[head.output], head.selection, one=one)
    model.graph.extend(maker.nodes)
    return replace(graph, model=model)


@dataclass(slots=True)
class _Maker:
    """Makes nodes of the head."""

    model: ir.Model
    rank: int
    """Number of axes of the model's input: a feature map has as many."""
    nodes: list[ir.Node] = field(default_factory=list)

    def logits(
        self,
        members: Sequence[tuple[ir.Value, float]],
        taken: Selection | None,
        *,
        one: bool,
    ) -> None:
        """The logits (N, classes), as the tensor `EXPLAINED`."""
        name = f"{EXPLAINED}.one" if one else EXPLAINED
        value = members[0][0] if len(members) == 1 else self.weighted_sum(members, name)
        value = self.classes_of(value, taken, name)
        if one:
            self.two_sided(value)

    def weighted_sum(self, members: Sequence[tuple[ir.Value, float]], name: str) -> ir.Value:
        """The sum of tensors of one shape, each times its weight."""
        parts = []
        for index, (value, weight) in enumerate(members):
            number = self.constant(f"{EXPLAINED}.weight{index}", _as(value, weight))
            parts.append(self.add("Mul", [value, number], f"{EXPLAINED}.member{index}", value))
        return self.add("Sum", parts, name, parts[0])

    def classes_of(self, value: ir.Value, selection: Selection | None, name: str) -> ir.Value:
        """The classes in a tensor (N, …), as (N, classes) or (N)."""
        if selection is not None:
            value = self._part(value, selection, name)
        shape = shape_of(value) or ()
        if len(shape) < 3:
            return value
        pixels = tuple(range(2, len(shape))) if len(shape) == self.rank else ()
        others = selection.others if selection is not None else pixels
        sizes = [shape[axis] for axis in others]
        if set(sizes) <= {1}:
            count = prod(size or 0 for size in shape[1:])
            numbers = self.constant(f"{name}.shape", np.array([0, count], np.int64))
            return self.add("Reshape", [value, numbers], name, value, [count])
        count = next(size or 0 for axis, size in enumerate(shape) if axis and axis not in others)
        operator = "ReduceMax" if selection is not None and selection.largest else "ReduceMean"
        axes = self.constant(f"{name}.axes", np.array(others, np.int64))
        return self.add(operator, [value, axes], name, value, [count], keepdims=0)

    def _part(self, value: ir.Value, selection: Selection, name: str) -> ir.Value:
        """The selected part of a tensor, with all its axes."""
        ranges = selection.ranges
        bounds = [
            self.constant(f"{name}.{what}", np.array(numbers, np.int64))
            for what, numbers in (
                ("from", [low for low, _ in ranges]),
                ("to", [high for _, high in ranges]),
                ("taken", list(range(1, len(ranges) + 1))),
            )
        ]
        sizes = [high - low for low, high in ranges]
        return self.add("Slice", [value, *bounds], f"{name}.part", value, sizes)

    def two_sided(self, logit: ir.Value) -> ir.Value:
        """(N, 2) of one logit: its negative, and itself."""
        layer = _dense(logit)
        if layer is None:
            return self._mirrored(logit)
        both = np.concatenate([-layer.weight, layer.weight], 1)
        inputs = [layer.x, self.constant(f"{EXPLAINED}.weight", both)]
        if layer.bias is not None:
            two = np.concatenate([-layer.bias, layer.bias])
            inputs.append(self.constant(f"{EXPLAINED}.bias", two))
        return self.add("Gemm", inputs, EXPLAINED, logit, [2])

    def _mirrored(self, logit: ir.Value) -> ir.Value:
        """The logit's negative and itself, where the layer that makes it cannot be doubled."""
        column = self._column(logit, f"{EXPLAINED}.z")
        minus = self.constant(f"{EXPLAINED}.minus", _as(logit, -1))
        negative = self.add("Mul", [column, minus], f"{EXPLAINED}.no", column)
        return self.add("Concat", [negative, column], EXPLAINED, column, [2], axis=1)

    def ranks(self, output: ir.Value, selection: Selection | None, *, one: bool) -> None:
        """The classes' values in the output, (N, classes), as the tensor `RANKED`."""
        if not one:
            scores = self.classes_of(output, selection, RANKED)
            if scores is output:
                self.add("Identity", [output], RANKED, output)
            return
        scores = self._column(self.classes_of(output, selection, f"{RANKED}.of"), f"{RANKED}.p")
        whole = self.constant(f"{RANKED}.one", _as(output, 1))
        rest = self.add("Sub", [whole, scores], f"{RANKED}.no", scores)
        self.add("Concat", [rest, scores], RANKED, scores, [2], axis=1)

    def _column(self, value: ir.Value, name: str) -> ir.Value:
        """One number for every picture as (N, 1)."""
        if len(shape_of(value) or ()) == 2:
            return value
        shape = self.constant(f"{name}.column", np.array([-1, 1], np.int64))
        return self.add("Reshape", [value, shape], name, value, [1])

    def add(
        self,
        op: str,
        inputs: Sequence[ir.Value],
        name: str,
        like: ir.Value,
        sizes: Sequence[int] | None = None,
        **attributes: int,
    ) -> ir.Value:
        """The output of a new node, called as the node: of the type of `like`, and of its shape or
        of its batch and `sizes`.
        """
        node = ir.node(op, inputs, attributes=attributes, name=name)
        self.nodes.append(node)
        (made,) = node.outputs
        made.name, made.type, made.shape = name, like.type, like.shape
        if sizes is not None and like.shape is not None:
            made.shape = ir.Shape([like.shape[0], *sizes])
        return made

    def constant(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        """A stored constant of the graph."""
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, const_value=tensor)
        value.shape, value.dtype = ir.Shape(array.shape), tensor.dtype
        self.model.graph.register_initializer(value)
        return value


def _as(like: ir.Value, number: float) -> NDArray[np.generic]:
    """A number in the element type of a tensor."""
    assert like.dtype is not None
    return np.array(number, like.dtype.numpy())


@dataclass(frozen=True, slots=True)
class _Dense:
    """A dense layer with one output."""

    x: ir.Value
    """(N, features)"""
    weight: NDArray[Any]
    """(features, 1)"""
    bias: NDArray[Any] | None
    """(1,)"""


def _dense(logit: ir.Value) -> _Dense | None:
    """The dense layer that makes a logit (N, 1); None where there is none, or it is not stored."""
    node = logit.producer()
    if node is None or node.op_type not in ("Gemm", "MatMul", "Add"):
        return None
    arrays = [_stored(value) for value in node.inputs]
    if node.op_type == "Gemm":
        return _of_gemm(node, arrays)
    if node.op_type == "MatMul":
        return _layer(node.inputs[0], arrays[1], None)
    others = [value for value, array in zip(node.inputs, arrays, strict=True) if array is None]
    product = others[0].producer() if len(others) == 1 and others[0] is not None else None
    if product is None or product.op_type != "MatMul":
        return None
    (bias,) = (array for array in arrays if array is not None)
    return _layer(product.inputs[0], _stored(product.inputs[1]), bias)


def _of_gemm(node: ir.Node, arrays: Sequence[NDArray[Any] | None]) -> _Dense | None:
    numbers = {name: attribute.value for name, attribute in node.attributes.items()}
    if numbers.get("transA", 0) or {numbers.get("alpha", 1.0), numbers.get("beta", 1.0)} != {1.0}:
        return None
    weight, has_bias = arrays[1], len(arrays) > 2 and node.inputs[2] is not None
    if weight is None or (has_bias and arrays[2] is None):
        return None
    bias = arrays[2] if has_bias else None
    return _layer(node.inputs[0], weight.T if numbers.get("transB", 0) else weight, bias)


def _layer(
    x: ir.Value | None, weight: NDArray[Any] | None, bias: NDArray[Any] | None
) -> _Dense | None:
    if x is None or weight is None or len(shape_of(x) or ()) != 2 or weight.shape[1:] != (1,):
        return None
    if bias is not None and bias.size != 1:
        return None
    return _Dense(x, weight, None if bias is None else bias.reshape(1))


def _stored(value: ir.Value | None) -> NDArray[Any] | None:
    """A constant's array."""
    constant = value.const_value if value is not None else None
    return None if constant is None else constant.numpy()
