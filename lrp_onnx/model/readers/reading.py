"""What the readers of operators share: their table, attributes, constants, checks of shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lrp_onnx.errors import few
from lrp_onnx.model.graph import Graph, shape_of
from lrp_onnx.plan import kinds


class Unreadable(Exception):
    """A node cannot be explained; the message says what was found and what to do."""


Reader = Callable[[Graph, ir.Node], kinds.Kind | Sequence[kinds.Kind]]
"""Returns a node's layer, or one layer per output for a node of several outputs."""
READERS: dict[str, Reader] = {}
"""Operator → its reader."""


def reads(*operators: str) -> Callable[[Reader], Reader]:
    """Register a reader for operators of the standard domain."""

    def register(reader: Reader) -> Reader:
        for operator in operators:
            assert operator not in READERS, operator
            READERS[operator] = reader
        return reader

    return register


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """An attribute's value as plain Python, or `default` if the node does not state it."""
    stated = node.attributes.get(name)
    if stated is None:
        return default
    value = stated.value
    return tuple(value) if isinstance(value, list | tuple) else value


SEVERAL = ("Add", "Sum", "Mul", "Sub", "Div", "Max", "Min", "Concat", "MatMul")
"""Operators of which any input may depend on the picture; of others it is the first."""


def data_inputs(graph: Graph, node: ir.Node) -> list[ir.Value]:
    """The inputs of a node that depend on the picture; weights, shapes and axes do not."""
    slots = node.inputs if node.op_type in SEVERAL else node.inputs[:1]
    if node.op_type == "DequantizeLinear" and (quantize := quantizer(node)) is not None:
        slots = quantize.inputs[:1]
    return [value for value in slots if value is not None and not graph.is_constant(value)]


def quantizer(node: ir.Node) -> ir.Node | None:
    """The QuantizeLinear whose result a DequantizeLinear reads, or None."""
    producer = node.inputs[0].producer() if node.inputs[0] is not None else None
    return producer if producer is not None and producer.op_type == "QuantizeLinear" else None


def along_axes(node: ir.Node, name: str, rank: int) -> tuple[int, ...]:
    """An attribute with a number for each of `rank` axes; 1 for each where it is not stated."""
    values = attribute(node, name, (1,) * rank)
    if len(values) != rank:
        raise Unreadable(
            f"its {name} has {len(values)} entries for {rank} axes: the file is damaged"
        )
    return tuple(int(value) for value in values)


def pads(node: ir.Node, kernel: tuple[int, ...]) -> tuple[int, ...]:
    """A window's pads: before every axis, then after every axis; ``auto_pad`` SAME uses the
    input's size.
    """
    automatic = attribute(node, "auto_pad", "NOTSET")
    none = (0,) * (2 * len(kernel))
    if automatic == "VALID":
        return none
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        return _same(node, kernel, upper=automatic == "SAME_UPPER")
    stated = tuple(int(p) for p in attribute(node, "pads", none))
    if len(stated) != len(none) or automatic not in ("", "NOTSET"):
        raise Unreadable(
            f"its pads are {few(stated)} and its auto_pad is {automatic!r}: the file is damaged"
        )
    return stated


def _same(node: ir.Node, kernel: tuple[int, ...], *, upper: bool) -> tuple[int, ...]:
    """The pads that make ⌈size / stride⌉ windows, as ONNX defines ``auto_pad`` SAME.

    The larger half of an odd number goes after the input if `upper`, else before it.
    """
    sizes, rank = need_spatial(node)[1:], len(kernel)
    strides, dilations = (along_axes(node, name, rank) for name in ("strides", "dilations"))
    before, after = [], []
    for axis in range(rank):
        windows = -(-sizes[axis] // strides[axis])  # rounded up
        extent = dilations[axis] * (kernel[axis] - 1) + 1
        total = max((windows - 1) * strides[axis] + extent - sizes[axis], 0)
        halves = total // 2, total - total // 2
        smaller, larger = halves if upper else halves[::-1]
        before.append(smaller)
        after.append(larger)
    return *before, *after


def need_spatial(node: ir.Node) -> tuple[int, ...]:
    """(C, …) of a node's input: the channels and one to three further sizes."""
    shape = shape_of(node.inputs[0]) if node.inputs[0] is not None else None
    if shape is None or not 3 <= len(shape) <= 2 + kinds.MOST_AXES:
        raise Unreadable(
            f"its input has shape {shape}: only (N, C, L), (N, C, H, W) and (N, C, D, H, W) can "
            "be explained"
        )
    if None in shape[1:]:
        raise Unreadable(f"its input has symbolic sizes {shape}: export the model for fixed sizes")
    return tuple(size for size in shape[1:] if size is not None)


def axis_of(axis: int, rank: int) -> int:
    """The axis counted from the start, 0 to rank − 1; `axis` may count from the end."""
    if not -rank <= axis < rank:
        raise Unreadable(
            f"its axis {axis} does not exist in a tensor of {rank} axes: the file is damaged"
        )
    return axis % rank


def fits(shape: tuple[int, ...], sizes: tuple[int, ...]) -> bool:
    """Whether a constant of `shape` broadcasts to a sample of shape `sizes`."""
    own = sizes[len(sizes) - len(shape) :]
    return len(shape) <= len(sizes) and all(
        size in (1, whole) for size, whole in zip(shape, own, strict=True)
    )


def one_sample(constant: NDArray[np.float64], sizes: tuple[int, ...]) -> NDArray[np.float64]:
    """A constant operand with the rank of one sample of shape `sizes`, to which it broadcasts."""
    rank = len(sizes) + 1
    padded = constant.reshape((1,) * max(rank - constant.ndim, 0) + constant.shape)
    if (
        padded.ndim != rank
        or padded.shape[0] != 1
        or any(size not in (1, whole) for size, whole in zip(padded.shape[1:], sizes, strict=True))
    ):
        raise Unreadable(
            f"its constant has shape {constant.shape}, which does not fit one picture's {sizes}"
        )
    return np.asarray(padded[0], np.float64)


def known_sizes(value: ir.Value | None, what: str) -> tuple[int, ...]:
    """One sample's shape; `what` names the tensor in the error if it is not known."""
    shape = shape_of(value) if value is not None else None
    sizes = None if shape is None else [size for size in shape[1:] if size is not None]
    if shape is None or sizes is None or len(sizes) != len(shape) - 1:
        raise Unreadable(f"{what} has shape {shape}: all sizes but the batch must be known")
    return tuple(sizes)


def needed_constant(graph: Graph, node: ir.Node, slot: int, what: str) -> NDArray[np.generic]:
    """The constant in an input slot; `what` names it in the error if it is not a constant."""
    value = node.inputs[slot] if slot < len(node.inputs) else None
    constant = graph.constant(value)
    if constant is None:
        problem = "not a constant of the file"
        if graph.is_constant(value):
            problem = "computed in a way that cannot be read"
        raise Unreadable(
            f"its {what} is {problem}: export the model with its weights stored, not computed"
        )
    return constant


def needed_number(graph: Graph, node: ir.Node, slot: int, what: str) -> float:
    """The one number in an input slot."""
    values = np.asarray(needed_constant(graph, node, slot, what), np.float64)
    if values.size != 1:
        raise Unreadable(f"its {what} has shape {values.shape}: one number is needed")
    return float(values.reshape(()))


def needed_integers(graph: Graph, node: ir.Node, slot: int, what: str) -> list[int]:
    """The list of integers in an input slot."""
    values = np.asarray(needed_constant(graph, node, slot, what))
    if values.ndim > 1 or values.dtype.kind not in "iu":
        raise Unreadable(
            f"its {what} has shape {values.shape} of {values.dtype}: a list of integers is needed"
        )
    return [int(value) for value in values.reshape(-1)]


def has_input(node: ir.Node, slot: int) -> bool:
    """Whether a node has an optional input."""
    return slot < len(node.inputs) and node.inputs[slot] is not None


def stored_bias(graph: Graph, node: ir.Node, slot: int) -> NDArray[np.float64] | None:
    """The bias in an input slot, or None if the node has none."""
    if not has_input(node, slot):
        return None
    return np.asarray(needed_constant(graph, node, slot, "bias"), np.float64)
