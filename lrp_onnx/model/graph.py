"""A model as a graph: producers, consumers, constants, shapes. A thin reading layer over onnx-ir."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lrp_onnx.plan import Shape


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A normalised model: every node named, sorted, constants as initializers, shapes inferred."""

    model: ir.Model
    notes: tuple[str, ...] = ()
    """What was changed on the way that a reader should know."""
    _constants: dict[str, NDArray[np.generic]] = field(default_factory=dict)

    @property
    def inputs(self) -> list[ir.Value]:
        """Graph inputs that are not weights."""
        return [v for v in self.model.graph.inputs if v.name not in self.model.graph.initializers]

    @property
    def outputs(self) -> list[ir.Value]:
        """Graph outputs."""
        return list(self.model.graph.outputs)

    @property
    def nodes(self) -> Iterator[ir.Node]:
        """Nodes in the order of the computation."""
        return iter(self.model.graph)

    def constant(self, value: ir.Value | None) -> NDArray[np.generic] | None:
        """A constant tensor's values, or None where `value` is absent or computed from the input."""
        if value is None or value.name not in self.model.graph.initializers or value.const_value is None:
            return None
        name = str(value.name)
        if name not in self._constants:
            self._constants[name] = value.const_value.numpy()
        return self._constants[name]


def shape_of(value: ir.Value) -> Shape | None:
    """Sizes of a tensor, None for a symbolic size; None altogether where the rank is not known."""
    if value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else None for dim in value.shape)


def name_of(value: ir.Value) -> str:
    """A tensor's name; normalised graphs have no nameless tensor."""
    assert value.name is not None
    return value.name


def label(node: ir.Node) -> str:
    """How errors name a node: ``Conv '/layer1/conv1/Conv'``."""
    domain = f"{node.domain}." if node.domain else ""
    return f"{domain}{node.op_type} '{node.name}'"
