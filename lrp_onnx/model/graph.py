"""A model as a graph: inputs, nodes, outputs, constants; a thin layer over onnx-ir."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lrp_onnx.model.normalize.fold import DERIVED, MOST_DERIVED, evaluate_all
from lrp_onnx.model.shapes import name_of, shape_of
from lrp_onnx.plan.kinds import Shape

__all__ = ["Graph", "Shape", "label", "name_of", "shape_of"]

SIZES = "Shape"
"""The operator whose result is the same for every picture, whatever its input holds."""


@dataclass(frozen=True, eq=False)
class Graph:
    """A normalised model: every node named, sorted, constants as initializers, shapes inferred."""

    model: ir.Model
    notes: tuple[str, ...] = ()
    """Changes that the normalisation made and that a reader should know."""
    opset: int = 0
    """Opset of the file; that of `model` may be another."""
    _values: dict[str, NDArray[np.generic]] = field(default_factory=dict, init=False)

    @property
    def inputs(self) -> list[ir.Value]:
        """Graph inputs that are not weights."""
        return inputs_of(self.model)

    @property
    def outputs(self) -> list[ir.Value]:
        """Graph outputs."""
        return list(self.model.graph.outputs)

    @property
    def nodes(self) -> Iterator[ir.Node]:
        """Nodes in the order of the computation."""
        return iter(self.model.graph)

    @cached_property
    def _constants(self) -> frozenset[str]:
        """Names of tensors that do not depend on the picture: weights, the sizes of tensors, and
        what is computed from these alone.
        """
        constant = set(self.model.graph.initializers)
        for node in self.nodes:
            names = [name_of(value) for value in _operands(node) if value is not None]
            if node.op_type == SIZES or (names and constant.issuperset(names)):
                constant.update(name_of(value) for value in node.outputs)
        return frozenset(constant)

    def is_constant(self, value: ir.Value | None) -> bool:
        """Whether `value` is not None and is the same for every picture."""
        return value is not None and name_of(value) in self._constants

    def constant(self, value: ir.Value | None) -> NDArray[np.generic] | None:
        """A constant tensor's values; None if it is absent, depends on the picture, or cannot be
        computed.

        A file may compute weights from stored ones (dequantise, standardise, cast); this method
        does the same computation. What a file repeats for every picture (a class token) is computed
        for one.
        """
        if value is None or not self.is_constant(value):
            return None
        name = name_of(value)
        if name not in self._values:
            computed = self._compute(value)
            if computed is None or computed.dtype.kind in "OSU":  # text is no weight
                return None
            self._values[name] = computed
        return self._values[name]

    def _compute(self, target: ir.Value) -> NDArray[np.generic] | None:
        """A constant tensor's values, stored or computed; None if they cannot be computed."""
        stored = self.model.graph.initializers
        if name_of(target) in stored:
            tensor = stored[name_of(target)].const_value
            return None if tensor is None else tensor.numpy()
        needed: set[ir.Node] = set()
        todo = [target.producer()]
        while todo:
            node = todo.pop()
            if node is not None and node not in needed:
                needed.add(node)
                operands = () if node.op_type == SIZES else _operands(node)
                todo += [value.producer() for value in operands if value is not None]
        values: dict[str, NDArray[np.generic]] = {}
        for node in self.nodes:
            if node not in needed:
                continue
            if node.domain or node.op_type not in DERIVED:
                return None
            inputs = [self._stored_or(values, value) for value in node.inputs]
            results = _evaluated(node, inputs)
            if results is None:
                return None
            values |= zip(map(name_of, node.outputs), results, strict=True)
        return values[name_of(target)]

    def _stored_or(
        self, values: dict[str, NDArray[np.generic]], value: ir.Value | None
    ) -> NDArray[np.generic] | None:
        """The values of an initializer, or else those in `values`; None for a missing input."""
        if value is None:
            return None
        tensor = value.const_value if name_of(value) in self.model.graph.initializers else None
        return values.get(name_of(value)) if tensor is None else tensor.numpy()


def _evaluated(
    node: ir.Node, inputs: list[NDArray[np.generic] | None]
) -> list[NDArray[np.generic]] | None:
    """A constant node's outputs for one picture; None if they are too large, or cannot be known
    beforehand.
    """
    if node.op_type == SIZES:
        sizes = _of_one_picture(node.inputs[0])
        start = node.attributes.get_int("start", default=0)
        end = node.attributes.get_int("end", default=None)
        return None if sizes is None else [np.array(sizes[start:end], np.int64)]
    if node.op_type == "Expand" and inputs[1] is None:
        sizes = _of_one_picture(node.outputs[0])
        inputs = [inputs[0], None if sizes is None else np.array(sizes, np.int64)]
    known = [array for array in inputs if array is not None]
    if len(known) != sum(value is not None for value in node.inputs):
        return None
    return evaluate_all(node, inputs, MOST_DERIVED)


def _of_one_picture(value: ir.Value | None) -> list[int] | None:
    """A tensor's sizes for a batch of one picture; None if others than the batch are symbolic."""
    sizes = shape_of(value) if value is not None else None
    if sizes is None or None in sizes[1:]:
        return None
    return [1 if size is None else size for size in sizes]


def _operands(node: ir.Node) -> Sequence[ir.Value | None]:
    """The inputs of a node that its output's values come from; the shape of an Expand is none."""
    return node.inputs[:1] if node.op_type == "Expand" else node.inputs


def inputs_of(model: ir.Model) -> list[ir.Value]:
    """A model's inputs that are not weights: old exporters list weights as inputs too."""
    return [value for value in model.graph.inputs if value.name not in model.graph.initializers]


def label(node: ir.Node) -> str:
    """The name of a node in errors, such as ``Conv '/layer1/conv1/Conv'``."""
    domain = f"{node.domain}." if node.domain else ""
    return f"{domain}{node.op_type} '{node.name}'"
