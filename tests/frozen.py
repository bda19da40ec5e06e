"""LRP-0 of transformers as Gradient × Input of another network: what rules take for a constant is
one there. It shares no code with the rules, and float64 decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from float64 import run_float64
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[np.float64]


def frozen(model: onnx.ModelProto, x: Array, *, attention: bool) -> onnx.ModelProto:
    """The network whose gradient at `x`, times `x`, is the relevance of the network's output.

    - Deviations, GELU's and SiLU's factor, and ``f(u)/u`` of other activations are constants.
    - A product of two tensors, or of their elements, is the mean of two: each with the other
      factor as a constant.
    - Of a gate only the signal counts, and attention is constant; with `attention` neither.
    """
    names = [name for node in model.graph.node for name in node.output]
    return _Freezer(model, run_float64(model, {"x": x}, names), attention).run()


@dataclass
class _Freezer:
    model: onnx.ModelProto
    values: Mapping[str, Array]
    attention: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    moving: set[str] = field(default_factory=lambda: {"x"})
    """Tensors that depend on the picture still."""

    def run(self) -> onnx.ModelProto:
        readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.model.graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        for node in self.model.graph.node:
            if not self.moving.intersection(node.input) or node.op_type == "Shape":
                self.nodes.append(node)
                continue
            self._freeze(node, readers.get(node.output[0], []))
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        del model.graph.node[:]
        model.graph.node.extend(self.nodes)
        model.graph.initializer.extend(self.constants)
        return model

    def _freeze(self, node: onnx.NodeProto, readers: list[onnx.NodeProto]) -> None:
        op, u, out = node.op_type, node.input[0], node.output[0]
        of_silu = op == "Sigmoid" and any(u in reader.input for reader in readers)
        gates = op == "Sigmoid" and not of_silu
        if op in ("Sqrt", "Erf") or of_silu or (not self.attention and (gates or op == "Softmax")):
            self.constants.append(numpy_helper.from_array(self.values[out], out))
            return
        self.moving.update(node.output)
        if op in ("Relu", "Tanh") or gates:
            before, after = self.values[u], self.values[out]
            slope = np.where(before == 0, 0, after / np.where(before == 0, 1, before))
            self._node("Mul", [u, self._constant(f"{out}/slope", slope)], out)
        elif op == "LayerNormalization":
            self._normalise(node)
        elif op in ("Mul", "MatMul") and self.moving.issuperset(node.input):
            self._halve(node)
        else:
            self.nodes.append(node)

    def _normalise(self, node: onnx.NodeProto) -> None:
        u, scale, shift = node.input
        out = node.output[0]
        deviation = np.sqrt(self.values[u].var(-1, keepdims=True) + 1e-5)
        axis = self._constant(f"{out}/axis", np.array([-1]))
        self._node("ReduceMean", [u, axis], f"{out}/mean")
        self._node("Sub", [u, f"{out}/mean"], f"{out}/centred")
        self._node("Div", [f"{out}/centred", self._constant(f"{out}/s", deviation)], f"{out}/unit")
        self._node("Mul", [f"{out}/unit", scale], f"{out}/scaled")
        self._node("Add", [f"{out}/scaled", shift], out)

    def _halve(self, node: onnx.NodeProto) -> None:
        out = node.output[0]
        for slot, name in enumerate(node.input):
            factors = list(node.input)
            factors[slot] = self._constant(f"{out}/{slot}/fixed", self.values[name])
            self._node(node.op_type, factors, f"{out}/{slot}")
        self._node("Add", [f"{out}/0", f"{out}/1"], f"{out}/both")
        self._node("Mul", [f"{out}/both", self._constant(f"{out}/half", np.array(0.5))], out)

    def _constant(self, name: str, values: NDArray[np.generic]) -> str:
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def _node(self, op: str, inputs: list[str], output: str) -> None:
        self.nodes.append(helper.make_node(op, inputs, [output]))
