"""What the operators that runtimes fuse have in common: a table, and how their parts are built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lrp_onnx.model.graph import Graph, name_of
from lrp_onnx.model.shapes import Shape, shape_of

FLOATING = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)
MICROSOFT = "com.microsoft"

Operand = ir.Value | Sequence[int] | float | None
"""An input of a node: a tensor, a list of integers, a number of the model's type, or nothing."""


class Unsplittable(Exception):
    """A fused operator cannot be split; the message says what was found."""


class Unknown(Exception):
    """A shape or an element type is needed and not known yet."""


@dataclass(slots=True, eq=False)
class Parts:
    """Builds the standard nodes that compute what one fused node does."""

    graph: Graph
    fused: ir.Node
    nodes: list[ir.Node] = field(default_factory=list)

    def __call__(self, operator: str, *operands: Operand, **attributes: Any) -> ir.Value:
        """The output of a new standard node."""
        (made,) = self.several(operator, 1, *operands, **attributes)
        return made

    def several(
        self, operator: str, outputs: int, *operands: Operand, **attributes: Any
    ) -> Sequence[ir.Value]:
        """The outputs of a new standard node."""
        inputs = [
            value if value is None or isinstance(value, ir.Value) else self.constant(value)
            for value in operands
        ]
        label = f"{self.label}.{len(self.nodes)}.{operator}"
        node = ir.node(operator, inputs, attributes=attributes, num_outputs=outputs, name=label)
        for index, value in enumerate(node.outputs):
            value.name = f"{label}.{index}"
        self.nodes.append(node)
        return node.outputs

    @property
    def label(self) -> str:
        """What the names of its nodes begin with."""
        return f"{self.fused.name}.{name_of(self.fused.outputs[0])}"

    def constant(self, values: Sequence[int] | float | NDArray[np.generic]) -> ir.Value:
        """A new initializer: integers as int64, a number or floats in the node's element type."""
        array = np.asarray(values)
        if array.dtype.kind != "i" or isinstance(values, float | int):
            array = array.astype(self.dtype.numpy())
        name = f"{self.label}.{len(self.graph.model.graph.initializers)}.constant"
        stored = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        stored.shape, stored.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
        self.graph.model.graph.register_initializer(stored)
        return stored

    @property
    def dtype(self) -> ir.DataType:
        """The element type of the node's floating inputs."""
        for value in self.fused.inputs:
            if value is not None and value.dtype in FLOATING:
                return value.dtype
        raise Unknown

    def input(self, slot: int) -> ir.Value | None:
        """An optional input."""
        return self.fused.inputs[slot] if slot < len(self.fused.inputs) else None

    def needed(self, slot: int) -> ir.Value:
        """An input that the operator cannot be without."""
        value = self.input(slot)
        if value is None:
            raise Unsplittable(f"its input {slot} is missing: the file is damaged")
        return value

    def without(self, **slots: int) -> None:
        """Refuse optional inputs, by what they are."""
        for what, slot in slots.items():
            if self.input(slot) is not None:
                raise Unsplittable(f"its input {what} cannot be explained")

    def only_outputs(self, *slots: int) -> None:
        """Refuse a node of whose outputs others are used than those in `slots`."""
        for slot, value in enumerate(self.fused.outputs):
            if slot not in slots and (value.uses() or value.is_graph_output()):
                raise Unsplittable(f"its output {slot} is used, which cannot be explained")

    def shape(self, value: ir.Value) -> Shape:
        """The shape of a tensor of the model."""
        shape = shape_of(value)
        if shape is None:
            raise Unknown
        return shape

    def sizes(self, value: ir.Value, *axes: int) -> tuple[int, ...]:
        """Sizes of a tensor of the model along axes that count from its end (−1, −2, …)."""
        shape = self.shape(value)
        if len(shape) < max(-axis for axis in axes):
            raise Unsplittable(f"its input has the shape {shape}: the file is damaged")
        found = [shape[axis] for axis in axes]
        known = [size for size in found if size is not None]
        if len(known) != len(found):
            raise Unknown
        return tuple(known)

    def stated(self, name: str, kind: ir.AttributeType, default: Any) -> Any:
        """An attribute's value, or `default`."""
        attribute = self.fused.attributes.get(name)
        if attribute is None:
            return default
        if attribute.type != kind:
            raise Unsplittable(f"its {name} is of the type {attribute.type.name.lower()}")
        return attribute.value

    def whole(self, name: str, default: int = 0) -> int:
        """An attribute that is an integer."""
        return int(self.stated(name, ir.AttributeType.INT, default))

    def number(self, name: str, default: float) -> float:
        """An attribute that is a number."""
        return float(self.stated(name, ir.AttributeType.FLOAT, default))

    def heads(self, name: str = "num_heads") -> int:
        """A number of heads, which must be stated."""
        number = self.whole(name)
        if number < 1:
            raise Unsplittable(f"its {name} is {number}: the file is damaged")
        return number


Split = Callable[[Parts], Sequence[ir.Value | None]]
"""Builds the parts of a fused node and returns its outputs, None for one that nothing uses."""
SPLITS: dict[str, tuple[Split, int]] = {}
"""Operator, with its domain → what splits it, and the opset of the file from which on it is split.
"""


def splits(*operators: str, since: int = 0) -> Callable[[Split], Split]:
    """Register what splits operators, which are named with their domains."""

    def register(split: Split) -> Split:
        for operator in operators:
            assert operator not in SPLITS, operator
            SPLITS[operator] = split, since
        return split

    return register


def called(node: ir.Node) -> str:
    """A node's operator as `SPLITS` names it."""
    standard = node.domain in ("", "ai.onnx")
    return node.op_type if standard else f"{node.domain}.{node.op_type}"
