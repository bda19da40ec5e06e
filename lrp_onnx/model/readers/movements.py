"""Readers of operators that only move elements: reshape, slice, pad, concatenate, transpose."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lrp_onnx.model.graph import Graph, shape_of
from lrp_onnx.model.readers.interpolation import (
    COORDINATES,
    MODES,
    Interpolation,
    interpolation,
)
from lrp_onnx.model.readers.reading import (
    Unreadable,
    attribute,
    axis_of,
    has_input,
    known_sizes,
    need_spatial,
    needed_constant,
    needed_integers,
    reads,
)
from lrp_onnx.plan import kinds


@reads("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout")
def _reshape(graph: Graph, node: ir.Node) -> kinds.Reshape:
    assert node.inputs[0] is not None
    before, after = shape_of(node.inputs[0]), shape_of(node.outputs[0])
    if not before or any(size is None for size in before[1:]):
        raise Unreadable(
            f"it reshapes a tensor of shape {before}: all sizes but the batch must be known"
        )
    if node.op_type == "Flatten" and attribute(node, "axis", 1) not in (1, 1 - len(before)):
        raise Unreadable("it flattens the batch with the rest: only axis=1 can be explained")
    if after is not None and after and before[0] is not None and after[0] not in (None, before[0]):
        raise Unreadable(f"it reshapes {before} to {after}, which mixes the batch with the rest")
    return kinds.Reshape()


@reads("Slice")
def _slice(graph: Graph, node: ir.Node) -> kinds.Subsample | kinds.Select:
    sizes = known_sizes(node.inputs[0], "its input")
    starts = needed_integers(graph, node, 1, "list of starts")
    ends = needed_integers(graph, node, 2, "list of ends")
    axes = _optional_integers(graph, node, 3, "list of axes", range(len(starts)))
    steps = _optional_integers(graph, node, 4, "list of steps", (1,) * len(starts))
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise Unreadable(
            f"its starts {starts}, ends {ends}, axes {axes} and steps {steps} differ in number: "
            "the file is damaged"
        )
    sample_starts, sample_steps, sample_stops = [0] * len(sizes), [1] * len(sizes), list(sizes)
    for start, end, axis_or_negative, step in zip(starts, ends, axes, steps, strict=True):
        axis = axis_of(axis_or_negative, len(sizes) + 1)
        if axis == 0 or step == 0 or (step < 0 and len(axes) > 1):
            raise Unreadable(
                "it slices the batch, or runs backwards along one of several axes: only forward "
                "slices of one picture, and one mirrored axis, can be explained"
            )
        taken = range(sizes[axis - 1])[start:end:step]
        if step < 0:
            return kinds.Select(axis, tuple(taken))
        sample_starts[axis - 1] = taken.start
        sample_steps[axis - 1] = step
        sample_stops[axis - 1] = taken.stop
    return kinds.Subsample(tuple(sample_starts), tuple(sample_steps), tuple(sample_stops))


@reads("Pad")
def _pad(graph: Graph, node: ir.Node) -> kinds.ZeroPad | kinds.Concat | kinds.Resample:
    mode = str(attribute(node, "mode", "constant"))
    before, after = _borders(graph, node)
    if mode == "constant":
        return _constant_border(graph, node, before, after)
    sizes = need_spatial(node)
    if before[0] or after[0]:
        raise Unreadable(f"its mode {mode} adds channels: this cannot be explained")
    if mode not in NUMPY_MODES or 0 in sizes:
        raise Unreadable(
            f"its mode is {mode}: {', '.join(NUMPY_MODES)} and constant can be explained"
        )
    # The size of every output was checked against the limit. If the pads agree with the output,
    # they are within the limit too.
    padded = tuple(map(sum, zip(sizes, before, after, strict=True)))
    if known_sizes(node.outputs[0], "its output") != padded:
        raise Unreadable(
            f"its pads {before} and {after} contradict the size of its output: the file is damaged"
        )
    return kinds.Resample(
        tuple(
            np.pad(np.eye(sizes[i]), ((before[i], after[i]), (0, 0)), NUMPY_MODES[mode])
            for i in range(1, len(sizes))
        )
    )


def _constant_border(
    graph: Graph, node: ir.Node, before: tuple[int, ...], after: tuple[int, ...]
) -> kinds.ZeroPad | kinds.Concat:
    """Zeros around a tensor; another number before or behind it, along one axis, stands beside it
    as a constant in a concatenation does.
    """
    value: NDArray[np.generic] = np.zeros(1)
    if has_input(node, 2):
        value = np.asarray(needed_constant(graph, node, 2, "value"))
    if not value.any():
        return kinds.ZeroPad(before, after)
    axes = [axis for axis in range(len(before)) if before[axis] or after[axis]]
    if len(axes) != 1:
        raise Unreadable(
            f"it pads {len(axes)} axes with {value.reshape(-1)[0]}: only zeros, mirrored borders "
            "and a number along one axis can be explained"
        )
    (axis,) = axes
    size = known_sizes(node.inputs[0], "its input")[axis]
    length = before[axis] + size + after[axis]
    return kinds.Concat(axis + 1, (size,), (before[axis],), length)


def _borders(graph: Graph, node: ir.Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The number of elements that a Pad adds before and after each axis but the batch."""
    shape = known_sizes(node.inputs[0], "its input")
    pads = needed_integers(graph, node, 1, "list of pads")
    stated = _optional_integers(graph, node, 3, "list of axes", range(len(pads) // 2))
    axes = [axis_of(axis, len(shape) + 1) for axis in stated]
    if not pads or len(pads) != 2 * len(axes):
        raise Unreadable(f"it has {len(pads)} pads for {len(axes)} axes: the file is damaged")
    if min(pads) < 0 or any(
        pads[i] + pads[i + len(axes)] for i, axis in enumerate(axes) if axis == 0
    ):
        raise Unreadable("its pads are negative, or pad the batch: this cannot be explained")
    before, after = [0] * (1 + len(shape)), [0] * (1 + len(shape))
    for i, axis in enumerate(axes):
        before[axis], after[axis] = pads[i], pads[i + len(axes)]
    return tuple(before[1:]), tuple(after[1:])


NUMPY_MODES: dict[str, Any] = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}
"""Mode of a Pad → NumPy's mode, for padding with the picture's own elements."""


LARGEST_MATRIX = 1 << 24
"""Most old × new rows, or columns, of a Resize: 4,096 × 4,096."""


@reads("Resize")
def _resize(graph: Graph, node: ir.Node) -> kinds.Resample:
    before, after = need_spatial(node), known_sizes(node.outputs[0], "its output")
    axes = range(1, len(before))
    if after[0] != before[0]:
        raise Unreadable("it resizes channels: only the axes behind them can be explained")
    if 0 in before or max(before[i] * after[i] for i in axes) > LARGEST_MATRIX:
        raise Unreadable(f"it resizes {before} to {after}: that is nothing, or too large")
    mode = str(attribute(node, "mode", "nearest"))
    coordinates = str(attribute(node, "coordinate_transformation_mode", "half_pixel"))
    if attribute(node, "antialias", 0) or mode not in MODES or coordinates not in COORDINATES:
        raise Unreadable(
            f"its mode is {mode} of {coordinates}: {', '.join(MODES)} without antialias, and "
            f"{', '.join(COORDINATES)} can be explained"
        )
    scales = [after[i] / before[i] for i in axes]
    if has_input(node, 2):
        stated = np.asarray(needed_constant(graph, node, 2, "list of scales")).reshape(-1)
        if stated.size >= len(scales):  # of all axes, or of those behind the channels alone
            scales = [float(scale) for scale in stated[-len(scales) :]]
    if not all(0 < scale < inf for scale in scales):
        raise Unreadable(f"its scales are {scales}: they must be positive")
    options = Interpolation(
        mode,
        coordinates,
        str(attribute(node, "nearest_mode", "round_prefer_floor")),
        float(attribute(node, "cubic_coeff_a", -0.75)),
        bool(attribute(node, "exclude_outside", 0)),
    )
    return kinds.Resample(
        tuple(interpolation(before[i], after[i], scales[i - 1], options) for i in axes)
    )


@reads("Concat")
def _concat(graph: Graph, node: ir.Node) -> kinds.Concat:
    sizes = [known_sizes(value, "one of its inputs") for value in node.inputs]
    if any(len(size) != len(sizes[0]) for size in sizes):
        raise Unreadable(f"it joins tensors of shapes {sizes}: their ranks must be equal")
    axis = axis_of(int(attribute(node, "axis", 1)), len(sizes[0]) + 1)
    if axis == 0:
        raise Unreadable("it joins along the batch: this cannot be explained")
    lengths = [size[axis - 1] for size in sizes]
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    data = [i for i, value in enumerate(node.inputs) if not graph.is_constant(value)]
    if len(data) == len(lengths):
        return kinds.Concat(axis, tuple(lengths))
    return kinds.Concat(
        axis, tuple(lengths[i] for i in data), tuple(starts[i] for i in data), sum(lengths)
    )


@reads("Split")
def _split(graph: Graph, node: ir.Node) -> list[kinds.Subsample]:
    sizes = known_sizes(node.inputs[0], "its input")
    axis = axis_of(int(attribute(node, "axis", 0)), len(sizes) + 1)
    if axis == 0:
        raise Unreadable("it splits the batch: this cannot be explained")
    shapes = [known_sizes(value, "one of its outputs") for value in node.outputs]
    lengths = [part[axis - 1] for part in shapes if len(part) == len(sizes)]
    ends = np.cumsum(lengths)
    if len(lengths) != len(shapes) or sum(lengths) != sizes[axis - 1]:
        raise Unreadable(
            f"its parts {lengths} do not sum to the {sizes[axis - 1]} elements that it splits: "
            "the file is damaged"
        )
    parts: list[kinds.Subsample] = []
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        first, last = [0] * len(sizes), list(sizes)
        first[axis - 1], last[axis - 1] = int(start), int(end)
        parts.append(kinds.Subsample(tuple(first), (1,) * len(sizes), tuple(last)))
    return parts


@reads("Gather")
def _gather(graph: Graph, node: ir.Node) -> kinds.Select | kinds.Pick:
    sizes = known_sizes(node.inputs[0], "its input")
    indices = np.asarray(needed_constant(graph, node, 1, "list of indices"))
    axis = axis_of(int(attribute(node, "axis", 0)), len(sizes) + 1)
    if axis == 0 or indices.dtype.kind not in "iu":
        raise Unreadable(
            f"it takes indices {indices.dtype} along axis {axis}: integers along an axis that is "
            "not the batch's can be explained"
        )
    length = sizes[axis - 1]
    taken = [int(index) for index in indices.reshape(-1)]
    if not all(-length <= index < length for index in taken):
        raise Unreadable(f"its indices go beyond the {length} elements: the file is damaged")
    positions = tuple(index % length for index in taken)
    if indices.ndim > 1 or len(set(positions)) < len(positions):
        if length * len(positions) > LARGEST_MATRIX:
            raise Unreadable(f"it takes {len(positions)} of {length} elements: that is too large")
        return kinds.Pick(axis, positions, indices.shape)
    return kinds.Select(axis, positions, drops=indices.ndim == 0)


@reads("Expand")
def _expand(graph: Graph, node: ir.Node) -> kinds.Expand:
    before = known_sizes(node.inputs[0], "its input")
    after = known_sizes(node.outputs[0], "its output")
    if len(before) != len(after):
        raise Unreadable(f"it expands {before} to {after}: the ranks must be equal")
    return kinds.Expand(tuple(i + 1 for i in range(len(before)) if before[i] != after[i]))


@reads("Transpose")
def _transpose(graph: Graph, node: ir.Node) -> kinds.Transpose:
    assert node.inputs[0] is not None
    shape = shape_of(node.inputs[0])
    if shape is None or any(size is None for size in shape[1:]):
        raise Unreadable(
            f"it transposes a tensor of shape {shape}: all sizes but the batch must be known"
        )
    order = tuple(attribute(node, "perm", range(len(shape) - 1, -1, -1)))
    if sorted(order) != list(range(len(shape))):
        raise Unreadable(
            f"its order {order} does not permute {len(shape)} axes: the file is damaged"
        )
    if not order or order[0] != 0:
        raise Unreadable(f"its order {order} moves the batch: this cannot be explained")
    return kinds.Transpose(order)


def _optional_integers(
    graph: Graph, node: ir.Node, slot: int, what: str, default: Sequence[int]
) -> list[int]:
    return needed_integers(graph, node, slot, what) if has_input(node, slot) else list(default)
