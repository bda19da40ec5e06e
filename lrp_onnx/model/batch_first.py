"""A graph whose tensors all have the batch first, for the readers of operators.

Attention moves the batch inside, as in q, k and v of (3, N, heads, T, d), or merges it with windows
and heads, as in (N·windows, T, C). In the graph that is made here, such a tensor has its `View`'s
shape, (N, 3, heads, T, d) or (N, windows, T, C), and every operator on the way means the same on
views. The model's own graph stays as it is: `relevance` takes the view of its tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lrp_onnx.model.graph import Graph, name_of, shape_of
from lrp_onnx.model.readers.pointwise import WITH_NUMBERS, WITHOUT_NUMBERS
from lrp_onnx.model.readers.reading import Unreadable, attribute, axis_of, data_inputs
from lrp_onnx.plan.kinds import Shape, View

RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
POINTWISE = (
    *(*WITHOUT_NUMBERS, *WITH_NUMBERS, "Gelu", "Neg", "Reciprocal"),
    *("Pow", "Clip", "Cast", "Identity", "Dropout"),
)
"""Operators that mean the same whatever the order of the axes."""
BEFORE, BATCH, AFTER = "before", "batch", "after"
"""Axes of a view that are parts of one axis of the tensor; others are numbers of its axes."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor has the batch: its axis `axis` is (before, batch, after), merged."""

    axis: int = 0
    before: int = 1
    after: int = 1

    def axes(self, rank: int) -> list[str | int]:
        """What the axes of the view of a tensor of `rank` axes are, the batch first."""
        parts = [BEFORE] * (self.before > 1) + [AFTER] * (self.after > 1)
        return [BATCH, *range(self.axis), *parts, *range(self.axis + 1, rank)]

    def sizes(self, shape: Shape) -> tuple[int, ...]:
        """One sample's shape in the view."""
        sizes = {BEFORE: self.before, AFTER: self.after} | dict(enumerate(shape))
        return tuple(sizes[axis] or 0 for axis in self.axes(len(shape))[1:])

    def view(self, shape: Shape) -> View:
        """How a tensor of `shape` becomes one with the batch first."""
        rank, at = len(shape), self.axis
        inner = [self.before] * (self.before > 1) + [-1] + [self.after] * (self.after > 1)
        whole = tuple(size or 0 for size in shape)
        split = (*whole[:at], *inner, *whole[at + 1 :]) if len(inner) > 1 else ()
        order = list(range(rank + len(inner) - 1))
        first = at + (self.before > 1)
        return View(split, (first, *order[:first], *order[first + 1 :]))


FIRST = Place()


@dataclass(slots=True, eq=False)
class _Walk:
    """A walk over the nodes of a copied graph, in the order of the computation."""

    graph: Graph
    batch: int | None
    """The picture's batch; None for any."""
    places: dict[str, Place] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    """Shapes of the model's own tensors."""

    def place(self, value: ir.Value | None) -> Place:
        return FIRST if value is None else self.places.get(name_of(value), FIRST)

    def shape(self, value: ir.Value | None) -> Shape:
        """The shape of the model's own tensor."""
        assert value is not None
        shape = self.shapes.get(name_of(value), shape_of(value))
        if shape is None:
            raise Unreadable("the shape of one of its tensors is not known")
        return shape

    def axis(self, value: ir.Value | None, axis: int) -> int:
        """The axis of the view that is an axis of the tensor, which is not the batch's."""
        rank, place = len(self.shape(value)), self.place(value)
        own = axis_of(axis, rank)
        if own == place.axis:
            raise Unreadable("it works along the batch: this cannot be explained")
        return place.axes(rank).index(own)


def batch_first(
    graph: Graph, path: Sequence[ir.Node]
) -> tuple[Graph, list[ir.Node], dict[str, View], dict[str, str]]:
    """The graph with the batch first.

    Args:
        graph: a normalised model.
        path: its nodes between picture and logits, in the order of the computation.

    Returns:
        The graph, for readers alone (it does not run); the path's nodes in it; tensor → view, for
        the tensors that it has in another form than `graph`; node → what cannot be read of it.
    """
    (picture, *_) = graph.inputs
    shape = shape_of(picture)
    walk = _Walk(graph, shape[0] if shape else None)
    if not any(_place_behind(walk, node) != FIRST for node in path):
        return graph, list(path), {}, {}
    model = graph.model.clone()
    copy = replace(graph, model=model)
    by_name = {node.name: node for node in model.graph}
    walk, views, faults = _Walk(copy, walk.batch), dict[str, View](), dict[str, str]()
    nodes = [by_name[node.name] for node in path]
    for node in nodes:
        try:
            _rewrite(walk, node, views)
        except Unreadable as error:
            faults[str(node.name)] = str(error)
    return replace(copy), nodes, views, faults


def _place_behind(walk: _Walk, node: ir.Node) -> Place:
    """Where a node whose input has the batch first has it in its output."""
    try:
        if node.op_type == "Transpose":
            return _transposed(walk, node)
        if node.op_type in RESHAPES:
            return _reshaped(walk, node)
    except Unreadable:
        pass
    return FIRST


def _rewrite(walk: _Walk, node: ir.Node, views: dict[str, View]) -> None:
    """Let a node mean on views what it means on the model's tensors; note its outputs' places."""
    inputs = data_inputs(walk.graph, node)
    moved = [value for value in inputs if walk.place(value) != FIRST]
    if not moved and _place_behind(walk, node) == FIRST:
        return
    if node.op_type not in REWRITES:
        raise Unreadable("its batch is merged with other axes, or inside: this cannot be explained")
    if len({walk.place(value) for value in inputs}) > 1:
        raise Unreadable("its inputs have the batch at different places: this cannot be explained")
    place = REWRITES[node.op_type](walk, node)
    for output in node.outputs:
        shape = shape_of(output)
        if shape is None:
            raise Unreadable("the shape of its output is not known")
        name = name_of(output)
        walk.places[name], walk.shapes[name] = place, shape
        if place != FIRST:
            views[name] = place.view(shape)
        batch = walk.batch if walk.batch is not None else ir.SymbolicDim("N")
        output.shape = ir.Shape([batch, *place.sizes(shape)])


def _same(walk: _Walk, node: ir.Node) -> Place:
    (value, *_) = data_inputs(walk.graph, node)
    return walk.place(value)


def _expanded(walk: _Walk, node: ir.Node) -> Place:
    """An Expand that keeps the number of axes and the batch's axis."""
    if len(shape_of(node.outputs[0]) or ()) != len(walk.shape(node.inputs[0])):
        raise Unreadable("it adds axes where the batch is not first: this cannot be explained")
    return walk.place(node.inputs[0])


def _transposed(walk: _Walk, node: ir.Node) -> Place:
    """Where a Transpose puts the batch."""
    place, rank = walk.place(node.inputs[0]), len(walk.shape(node.inputs[0]))
    order = tuple(attribute(node, "perm", range(rank - 1, -1, -1)))
    if sorted(order) != list(range(rank)):
        raise Unreadable(f"its order {order} does not permute {rank} axes: the file is damaged")
    return replace(place, axis=order.index(place.axis))


def _transpose(walk: _Walk, node: ir.Node) -> Place:
    place, rank = walk.place(node.inputs[0]), len(walk.shape(node.inputs[0]))
    order = tuple(attribute(node, "perm", range(rank - 1, -1, -1)))
    behind = _transposed(walk, node)
    before = place.axes(rank)
    after = [order[axis] if isinstance(axis, int) else axis for axis in behind.axes(rank)]
    perm = [before.index(axis) for axis in after]
    node.attributes["perm"] = ir.AttrInt64s("perm", perm)
    return behind


def _reshaped(walk: _Walk, node: ir.Node) -> Place:
    """Where a Reshape leaves the batch: as many elements of a sample stand before and behind it."""
    shape, place = walk.shape(node.inputs[0]), walk.place(node.inputs[0])
    after = shape_of(node.outputs[0])
    known = [size for size in (*shape[: place.axis], *shape[place.axis + 1 :]) if size is not None]
    if after is None or len(known) != len(shape) - 1 or 0 in known or after.count(None) > 1:
        return FIRST
    leading = prod(size or 0 for size in shape[: place.axis]) * place.before
    trailing = prod(size or 0 for size in shape[place.axis + 1 :]) * place.after
    fitting = []
    for axis, size in enumerate(after):
        if size is None or (walk.batch is not None and None not in after):
            ahead, left_ahead = divmod(leading, prod(n or 1 for n in after[:axis]) or 1)
            behind, left_behind = divmod(trailing, prod(n or 1 for n in after[axis + 1 :]) or 1)
            merged = None if walk.batch is None else ahead * walk.batch * behind
            if not left_ahead and not left_behind and size in (None, merged):
                fitting.append(Place(axis, ahead, behind))
    if not fitting:
        raise Unreadable(f"it reshapes {shape} to {after}, which mixes the batch with the rest")
    return min(fitting, key=lambda place: place.before * place.after)


def _reshape(walk: _Walk, node: ir.Node) -> Place:
    place = _reshaped(walk, node)
    node.op_type = "Reshape"
    node.resize_inputs(1)
    return place


def _along(walk: _Walk, node: ir.Node) -> Place:
    """An operator with an attribute ``axis`` that keeps all axes."""
    default = {"Split": 0, "Concat": 0}.get(node.op_type, -1)
    if node.op_type == "Concat" and len(data_inputs(walk.graph, node)) != len(node.inputs):
        raise Unreadable("it joins constants where the batch is not first: not supported yet")
    (value, *_) = data_inputs(walk.graph, node)
    axis = walk.axis(value, int(attribute(node, "axis", default)))
    node.attributes["axis"] = ir.AttrInt64("axis", axis)
    return walk.place(value)


def _quantized(walk: _Walk, node: ir.Node) -> Place:
    """QuantizeLinear and DequantizeLinear with one scale for the whole tensor."""
    if any(size != 1 for size in walk.shape(node.inputs[1])):
        raise Unreadable("it has several scales where the batch is not first: not supported yet")
    return _same(walk, node)


def _per_channel(walk: _Walk, node: ir.Node) -> Place:
    """A BatchNormalization, whose reader learns where the view has the channels."""
    axis = walk.axis(node.inputs[0], 1)
    node.attributes["axis"] = ir.AttrInt64("axis", axis)
    return walk.place(node.inputs[0])


def _gather(walk: _Walk, node: ir.Node) -> Place:
    value, indices = node.inputs[0], walk.graph.constant(node.inputs[1])
    own = axis_of(int(attribute(node, "axis", 0)), len(walk.shape(value)))
    node.attributes["axis"] = ir.AttrInt64("axis", walk.axis(value, own))
    place = walk.place(value)
    drops = indices is not None and indices.ndim == 0 and own < place.axis
    return replace(place, axis=place.axis - drops)


def _slice(walk: _Walk, node: ir.Node) -> Place:
    value = node.inputs[0]
    starts = walk.graph.constant(node.inputs[1])
    if starts is None:
        raise Unreadable("its list of starts is not a constant of the file")
    axes = list(range(starts.size))
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        stated = walk.graph.constant(node.inputs[3])
        if stated is None:
            raise Unreadable("its list of axes is not a constant of the file")
        axes = [int(axis) for axis in stated.reshape(-1)]
    views = [walk.axis(value, axis) for axis in axes]
    constant = _constant(walk, f"{node.name}.axes.view", np.array(views, np.int64))
    if len(node.inputs) < 4:
        node.resize_inputs(4)
    node.replace_input_with(3, constant)
    return walk.place(value)


def _padded(walk: _Walk, node: ir.Node) -> Place:
    """A Pad that leaves the batch as it is."""
    value, stated = node.inputs[0], walk.graph.constant(node.inputs[1])
    if stated is None:
        raise Unreadable("its list of pads is not a constant of the file")
    pads, axes = stated.reshape(-1), list(range(stated.size // 2))
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        listed = walk.graph.constant(node.inputs[3])
        axes = [] if listed is None else [int(axis) for axis in listed.reshape(-1)]
    if len(pads) != 2 * len(axes):
        raise Unreadable(f"it has {len(pads)} pads for {len(axes)} axes")
    own = [i for i in range(len(axes)) if pads[i] or pads[i + len(axes)]]
    views = [walk.axis(value, axes[i]) for i in own]
    kept = [int(pads[i + end]) for end in (0, len(axes)) for i in own]
    if len(node.inputs) < 4:
        node.resize_inputs(4)
    for slot, name, numbers in ((1, "pads", kept), (3, "axes", views)):
        array = np.array(numbers, np.int64)
        node.replace_input_with(slot, _constant(walk, f"{node.name}.{name}.view", array))
    return walk.place(value)


def _normalized(walk: _Walk, node: ir.Node) -> Place:
    """A LayerNormalization over the last axes."""
    rank, place = len(walk.shape(node.inputs[0])), walk.place(node.inputs[0])
    first = axis_of(int(attribute(node, "axis", -1)), rank)
    if first <= place.axis:
        raise Unreadable("it normalises over the batch: this cannot be explained")
    node.attributes["axis"] = ir.AttrInt64("axis", first - rank)
    return place


def _reduced(walk: _Walk, node: ir.Node) -> Place:
    value, axes = node.inputs[0], attribute(node, "axes", None)
    if axes is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        stated = walk.graph.constant(node.inputs[1])
        axes = None if stated is None else stated.reshape(-1)
    if axes is None:
        raise Unreadable("its list of axes is not a constant of the file")
    rank, place = len(walk.shape(value)), walk.place(value)
    own = [axis_of(int(axis), rank) for axis in axes]
    node.attributes["axes"] = ir.AttrInt64s("axes", [walk.axis(value, axis) for axis in own])
    node.resize_inputs(1)
    gone = 0 if attribute(node, "keepdims", 1) else sum(axis < place.axis for axis in own)
    return replace(place, axis=place.axis - gone)


def _arithmetic(walk: _Walk, node: ir.Node) -> Place:
    """Operands of one rank; a constant is reshaped to the view."""
    (value, *others) = data_inputs(walk.graph, node)
    shape, place = walk.shape(value), walk.place(value)
    if any(len(walk.shape(other)) != len(shape) for other in others):
        raise Unreadable("its operands have different ranks: this cannot be explained")
    for slot, other in enumerate(node.inputs):
        if not walk.graph.is_constant(other):
            continue
        array = walk.graph.constant(other)
        if array is None or array.ndim > len(shape):
            raise Unreadable("its constant operand cannot be read")
        node.replace_input_with(
            slot, _constant(walk, f"{node.name}.{slot}.view", _viewed(array, shape, place))
        )
    return place


def _viewed(array: NDArray[np.generic], shape: Shape, place: Place) -> NDArray[np.generic]:
    """A constant that broadcasts to a tensor of `shape`, as one that broadcasts to its view."""
    whole = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    size = whole.shape[place.axis]
    if size not in (1, place.before * place.after):
        raise Unreadable("its constant differs from sample to sample: this cannot be explained")
    parts = {BEFORE: place.before, AFTER: place.after} if size > 1 else {}
    sizes = {BATCH: 1, BEFORE: 1, AFTER: 1} | parts | dict(enumerate(whole.shape))
    own = (
        whole.shape[: place.axis]
        + tuple(sizes[axis] for axis in (BEFORE, BATCH, AFTER))
        + whole.shape[place.axis + 1 :]
    )
    order = (place.axis + 1, *(i for i in range(len(own)) if i != place.axis + 1))
    return (
        whole.reshape(own)
        .transpose(order)
        .reshape([sizes[axis] for axis in place.axes(len(shape))])
    )


def _product(walk: _Walk, node: ir.Node) -> Place:
    """A product of matrices: the batch is not one of the two axes of the matrices."""
    operands = data_inputs(walk.graph, node)
    place, shape = walk.place(operands[0]), walk.shape(operands[0])
    matrices = 1 if len(operands) == 1 else 2
    same_rank = all(len(walk.shape(value)) == len(shape) for value in operands)
    if not same_rank or place.axis >= len(shape) - matrices or operands[0] is not node.inputs[0]:
        raise Unreadable("it multiplies along the batch: this cannot be explained")
    return place


REWRITES: Mapping[str, Callable[[_Walk, ir.Node], Place]] = (
    dict.fromkeys(POINTWISE, _same)
    | dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), _quantized)
    | dict.fromkeys(RESHAPES, _reshape)
    | dict.fromkeys(("Split", "Concat", "Softmax"), _along)
    | dict.fromkeys(("Add", "Sum", "Sub", "Mul", "Div"), _arithmetic)
    | dict.fromkeys(("MatMul", "Gemm"), _product)
    | dict.fromkeys(("ReduceL2", "ReduceMax", "ReduceMean", "ReduceSum"), _reduced)
    | {
        "BatchNormalization": _per_channel,
        "Expand": _expanded,
        "Transpose": _transpose,
        "Gather": _gather,
        "Slice": _slice,
        "LayerNormalization": _normalized,
        "Pad": _padded,
    }
)
"""Operator → what rewrites a node of it, and tells where its outputs have the batch."""


def _constant(walk: _Walk, name: str, array: NDArray[np.generic]) -> ir.Value:
    """A stored constant of the copied graph."""
    tensor = ir.tensor(np.ascontiguousarray(array), name=name)
    value = ir.Value(name=name, const_value=tensor)
    value.shape, value.dtype = ir.Shape(array.shape), tensor.dtype
    walk.graph.model.graph.register_initializer(value)
    return value
