"""Names and nodes: collects what is appended to a graph, in the order of the computation.

Equal expressions are built once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import ArrayLike

from lrp_onnx.contract import INTERNAL
from lrp_onnx.relevance.emission import DEFAULT_EMISSION, EMISSIONS, Emission
from lrp_onnx.relevance.value import Value

__all__ = ["Builder", "Value"]


@dataclass(slots=True, eq=False)
class Builder:
    """Collects the nodes and constants that are added to a graph, in the order of the computation."""

    taken: frozenset[str] = frozenset()
    """Tensor names of the graph that is being extended."""
    other_types: frozenset[str] = frozenset()
    """Which of them are not float32; relevance is computed in float32 whatever the model computes in."""
    emission: Emission = EMISSIONS[DEFAULT_EMISSION]
    batch: str | None = None
    """What the batch of relevance is called, where it is not that of the pictures: one picture's forward pass then
    serves many backward ones, and its tensors, of batch 1, are broadcast.
    """
    nodes: list[gs.Node] = field(default_factory=list)
    _tensors: dict[str, gs.Tensor] = field(default_factory=dict)
    _built: dict[Any, tuple[str, ...]] = field(default_factory=dict)
    _shapes: dict[str, Sequence[int | None]] = field(default_factory=dict)
    _count: int = 0

    def tensor(self, name: str) -> gs.Tensor:
        """The tensor called `name`, created as a variable where it is not there yet."""
        if name not in self._tensors:
            self._tensors[name] = gs.Variable(name)
        return self._tensors[name]

    def value(self, source: Value | float) -> Value:
        """A number as a scalar constant; a Value as it is."""
        if isinstance(source, Value):
            return source
        number = float(source)
        name = self._constant(np.asarray(number, np.float32))
        return Value(self, name, nonnegative=number >= 0, nonpositive=number <= 0, number=number)

    def array(self, values: ArrayLike) -> Value:
        """A constant float32 tensor."""
        data = np.ascontiguousarray(values, np.float32)
        return Value(
            self, self._constant(data), nonnegative=bool((data >= 0).all()), nonpositive=bool((data <= 0).all())
        )

    def integers(self, values: Iterable[int]) -> Value:
        """A constant int64 vector (shapes, axes, indices)."""
        return Value(self, self._constant(np.asarray(tuple(values), np.int64)))

    def integer(self, value: int) -> Value:
        """A constant int64 scalar."""
        return Value(self, self._constant(np.asarray(value, np.int64)))

    def known(self, name: str, *, nonnegative: bool = False) -> Value:
        """A tensor that the forward graph computes or stores, as float32."""
        found = Value(self, name, nonnegative=nonnegative)
        if name not in self.other_types:
            return found
        to = {"to": int(onnx.TensorProto.FLOAT)}
        return self.node("Cast", found, attributes=to, signs=(nonnegative, False))

    def node(
        self,
        op: str,
        *inputs: Value | None,
        attributes: Mapping[str, Any] | None = None,
        signs: tuple[bool, bool] = (False, False),
        output: str | None = None,
    ) -> Value:
        """Append one node of one output; the same node is not built twice unless its output is named."""
        (name,) = self._append(op, inputs, attributes or {}, [output])
        return Value(self, name, nonnegative=signs[0], nonpositive=signs[1])

    def nodes_of(
        self, op: str, *inputs: Value | None, outputs: int, attributes: Mapping[str, Any] | None = None
    ) -> list[Value]:
        """Append one node of several outputs."""
        return [Value(self, name) for name in self._append(op, inputs, attributes or {}, [None] * outputs)]

    def _append(
        self, op: str, inputs: Sequence[Value | None], attributes: Mapping[str, Any], outputs: Sequence[str | None]
    ) -> tuple[str, ...]:
        key = (op, tuple(v.name if v else "" for v in inputs), repr(sorted(attributes.items())), len(outputs))
        named = any(output is not None for output in outputs)
        if not named and key in self._built:
            return self._built[key]
        names = tuple(output or self._fresh() for output in outputs)
        self.nodes.append(
            gs.Node(
                op,
                name=names[0],
                attrs=dict(attributes),
                inputs=[self.tensor(v.name) if v else gs.Variable.empty() for v in inputs],
                outputs=[self.tensor(name) for name in names],
            )
        )
        if not named:
            self._built[key] = names
        return names

    def declare(self, value: Value, shape: Sequence[int | None]) -> None:
        """State a computed tensor's shape, None for the batch.

        Shape inference loses the batch where a start of its own length comes in; runtimes that cannot prove two
        tensors to be of one shape leave their fast layouts.
        """
        if self.emission.declared_shapes and value.number is None and value.name.startswith(INTERNAL):
            self._shapes[value.name] = shape

    def _fresh(self) -> str:
        while True:
            self._count += 1
            name = f"{INTERNAL}{self._count}"
            if name not in self.taken:
                return name

    def _constant(self, data: np.ndarray[Any, Any]) -> str:
        key = (str(data.dtype), data.shape, data.tobytes())
        if key not in self._built:
            name = self._fresh()
            self._tensors[name] = gs.Constant(name, data)
            self._built[key] = (name,)
        return self._built[key][0]

    def extend(
        self,
        proto: onnx.ModelProto,
        inputs: Mapping[str, tuple[str, Sequence[int | str]]],
        defaults: Mapping[str, np.ndarray[Any, Any]],
        outputs: Mapping[str, Sequence[int | str]],
    ) -> onnx.ModelProto:
        """`proto` with the collected nodes after its own, and with optional inputs and further float32 outputs.

        Args:
            proto: the forward model; it is not changed.
            inputs: optional inputs, name → (onnx element type name, shape).
            defaults: their default values.
            outputs: further outputs, name → shape.
        """
        addition = gs.export_onnx(
            gs.Graph(
                nodes=self.nodes,
                inputs=[],
                outputs=[],
                opset=proto.opset_import[0].version,
                ir_version=proto.ir_version,
            ),
            do_type_check=False,
        )
        extended = onnx.ModelProto()
        extended.CopyFrom(proto)
        stored = {tensor.name for tensor in proto.graph.initializer}
        extended.graph.node.extend(addition.graph.node)
        constants = [
            tensor for tensor in self._tensors.values() if isinstance(tensor, gs.Constant) and tensor.name not in stored
        ]
        extended.graph.initializer.extend(onnx.numpy_helper.from_array(c.values, c.name) for c in constants)
        batch = self.batch or proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param or "N"
        extended.graph.value_info.extend(
            onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [batch if d is None else d for d in dims])
            for n, dims in self._shapes.items()
        )
        for name, (element, shape) in inputs.items():
            extended.graph.input.append(
                onnx.helper.make_tensor_value_info(name, getattr(onnx.TensorProto, element), shape)
            )
            extended.graph.initializer.append(onnx.numpy_helper.from_array(defaults[name], name))
        for name, shape in outputs.items():
            extended.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
        return extended
