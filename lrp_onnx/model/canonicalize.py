"""Canonicalization: from nodes to steps of few kinds.

The forward graph stays unchanged. Steps describe it, and folding changes only the steps'
parameters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lrp_onnx.errors import UnsupportedModelError
from lrp_onnx.model.batch_first import batch_first
from lrp_onnx.model.graph import Graph, label, name_of, shape_of
from lrp_onnx.model.readers import attention, linear, movements, pointwise  # noqa: F401 (they register their readers)
from lrp_onnx.model.readers.reading import READERS, Unreadable, data_inputs
from lrp_onnx.model.written_norms import normalizations_together
from lrp_onnx.model.written_out import write_together
from lrp_onnx.plan import kinds
from lrp_onnx.plan.kinds import Step, View

NO_READER = "this operator cannot be explained yet"


def canonicalize(
    graph: Graph, logits: str, *, source: str = "the model", fold_batch_norm: bool = True
) -> list[Step]:
    """The layers between the input and `logits`, in the order of the computation.

    Args:
        graph: a normalised model.
        logits: name of the tensor where relevance starts.
        source: name of the model in errors.
        fold_batch_norm: whether a per-channel affine is merged into the convolution or dense layer
            before it.

    Raises:
        UnsupportedModelError: the model has nodes that cannot be explained; all are listed.
    """
    steps: list[Step] = []
    faults: list[str] = []
    graph, path, views, moved = batch_first(graph, _path(graph, logits))
    for node in path:
        try:
            if str(node.name) in moved:
                raise Unreadable(moved[str(node.name)])
            steps += _read(graph, node, views)
        except Unreadable as error:
            faults.append(f"{label(node)}: {error}")
    steps = simplify(steps, fold_batch_norm=fold_batch_norm)
    if faults:
        hint = ""
        if any(NO_READER in fault for fault in faults):
            hint = f" (supported operators: {', '.join(sorted(READERS))})"
        summary = f"{source} has {len(faults)} node(s) that cannot be explained{hint}:"
        raise UnsupportedModelError(summary, faults)
    return steps


def _path(graph: Graph, logits: str) -> list[ir.Node]:
    """Nodes that depend on the input and that `logits` depends on, in the order of the graph."""
    reached, todo = set(), [logits]
    producers = {name_of(value): node for node in graph.nodes for value in node.outputs}
    while todo:
        node = producers.get(todo.pop())
        if node is not None and node not in reached:
            reached.add(node)
            todo += [name_of(value) for value in data_inputs(graph, node)]
    return [node for node in graph.nodes if node in reached]


def _read(graph: Graph, node: ir.Node, views: Mapping[str, View]) -> list[Step]:
    """The steps of a node, one for each output that its reader describes."""
    reader = READERS.get(node.op_type)
    if reader is None:
        raise Unreadable(NO_READER)
    inputs = data_inputs(graph, node)
    if not inputs:
        raise Unreadable("none of its inputs depends on the picture")
    result = reader(graph, node)
    layers = [result] if isinstance(result, kinds.Kind) else result
    shape = shape_of(inputs[0])
    if not shape:
        raise Unreadable("the shape of its input is not known, or it has no axes")
    names = tuple(map(name_of, inputs))
    steps = []
    for index, (layer, output) in enumerate(zip(layers, node.outputs, strict=False)):
        name = str(node.name) if len(layers) == 1 else f"{node.name}.{index}"
        output_shape = shape_of(output)
        if isinstance(layer, kinds.Reshape) and (output_shape is None or None in output_shape[1:]):
            output_shape = (shape[0], prod(size for size in shape[1:] if size is not None))
        if output_shape is None:
            raise Unreadable("the shape of its output is not known")
        nodes = (str(node.name),)
        view = views.get(name_of(output))
        steps.append(Step(name, layer, names, name_of(output), shape, output_shape, nodes, view))
    return steps


Rewrite = Callable[[Step, Step], Step | None]
"""Two steps, of which the second alone reads the first → one equivalent step, or None."""


def simplify(steps: Sequence[Step], *, fold_batch_norm: bool = True) -> list[Step]:
    """Merge pairs of steps, of which the first feeds only the second, until nothing changes."""
    rewrites = (
        _merge_reshapes,
        _merge_transposes,
        _merge_subsamples,
        _merge_pad,
        _merge_scale,
        _fold_affine if fold_batch_norm else _fold_bias,
    )
    current = _merge_pool_pads(write_together(steps))
    while (merged := _rewrite_once(current, rewrites)) is not None:
        current = merged
    return normalizations_together(current)


def _rewrite_once(steps: list[Step], rewrites: Iterable[Rewrite]) -> list[Step] | None:
    """The steps with one pair merged, or None if no rewrite applies."""
    uses = Counter(name for step in steps for name in step.inputs)
    producer = {step.output: step for step in steps}
    for second in steps:
        first = producer.get(second.inputs[0]) if len(second.inputs) == 1 else None
        if first is None or uses[first.output] != 1:
            continue
        for rewrite in rewrites:
            merged = rewrite(first, second)
            if merged is not None:
                return [merged if step is second else step for step in steps if step is not first]
    return None


def _joined(first: Step, second: Step, layer: kinds.Kind) -> Step:
    """One step with the given layer, in place of two consecutive ones."""
    return Step(
        first.name,
        layer,
        first.inputs,
        second.output,
        first.input_shape,
        second.output_shape,
        first.nodes + second.nodes,
        second.view,
    )


def _merge_reshapes(first: Step, second: Step) -> Step | None:
    both = isinstance(first.kind, kinds.Reshape) and isinstance(second.kind, kinds.Reshape)
    return _joined(first, second, second.kind) if both else None


def _merge_transposes(first: Step, second: Step) -> Step | None:
    """Two transposes are one transpose."""
    a, b = first.kind, second.kind
    if not isinstance(a, kinds.Transpose) or not isinstance(b, kinds.Transpose):
        return None
    return _joined(first, second, kinds.Transpose(tuple(a.order[axis] for axis in b.order)))


def _merge_subsamples(first: Step, second: Step) -> Step | None:
    """A slice of a slice is one slice; exporters write a slice of several axes as several nodes."""
    a, b = first.kind, second.kind
    if not isinstance(a, kinds.Subsample) or not isinstance(b, kinds.Subsample):
        return None
    axes = [
        range(*own)[slice(*other)]
        for own, other in zip(
            zip(a.starts, a.stops, a.steps, strict=True),
            zip(b.starts, b.stops, b.steps, strict=True),
            strict=True,
        )
    ]
    merged = kinds.Subsample(
        starts=tuple(axis.start for axis in axes),
        steps=tuple(axis.step for axis in axes),
        stops=tuple(axis.stop for axis in axes),
    )
    return _joined(first, second, merged)


def _merge_pad(first: Step, second: Step) -> Step | None:
    """Zero padding before a convolution becomes part of the convolution's pads."""
    pad, layer = first.kind, second.kind
    if (
        not isinstance(pad, kinds.ZeroPad)
        or not isinstance(layer, kinds.Convolution)
        or pad.before[0]
        or pad.after[0]
    ):
        return None
    merged = _joined(first, second, replace(layer, pads=_added(layer.pads, first)))
    return replace(merged, name=second.name)


def _merge_pool_pads(steps: Sequence[Step]) -> list[Step]:
    """Zero padding of a nonnegative tensor before max pooling becomes the pooling's own border.

    The two forms differ only in windows without a positive value: they may select different zeros.
    No zero receives relevance.
    """
    uses = Counter(name for step in steps for name in step.inputs)
    producer = {step.output: step for step in steps}
    merged, dropped = {}, set()
    for step in steps:
        pad = producer.get(step.inputs[0])
        if not isinstance(step.kind, kinds.MaxPool) or pad is None or uses[pad.output] != 1:
            continue
        if not isinstance(pad.kind, kinds.ZeroPad) or pad.kind.before[0] or pad.kind.after[0]:
            continue
        if _cannot_be_negative(producer.get(pad.inputs[0]), producer):
            pads = _added(step.kind.pads, pad)
            merged[step.output] = replace(
                _joined(pad, step, replace(step.kind, pads=pads)), name=step.name
            )
            dropped.add(pad.output)
    return [merged.get(step.output, step) for step in steps if step.output not in dropped]


def _cannot_be_negative(step: Step | None, producer: Mapping[str, Step]) -> bool:
    """Whether the step's output, looked at through moves of elements, is never negative."""
    while step is not None and step.kind.moves and step.kind.one_to_one:
        step = producer.get(step.inputs[0])
    return step is not None and step.kind.nonnegative


def _added(pads: tuple[int, ...], border: Step) -> tuple[int, ...]:
    """The sum of a window's pads and those of `border` before it."""
    assert isinstance(border.kind, kinds.ZeroPad)
    around = (*border.kind.before[1:], *border.kind.after[1:])
    return tuple(map(sum, zip(pads, around, strict=True)))


def _merge_scale(first: Step, second: Step) -> Step | None:
    """A number times a mean becomes the mean's factor, as in ReduceSum and Div; a number times a
    written-out activation becomes a part of the activation.
    """
    number = second.kind.uniform if isinstance(second.kind, kinds.Affine) else None
    if number is None:
        return None
    if isinstance(first.kind, kinds.GlobalAverage):
        return _joined(first, second, replace(first.kind, factor=first.kind.factor * number))
    if isinstance(first.kind, kinds.Composed):
        return _joined(first, second, kinds.Composed((*first.kind.steps, second)))
    return None


FOLDING = kinds.Convolution | kinds.Deconvolution | kinds.Dense | kinds.Linear
"""Layers that take the affine behind them into their weights."""


def _fold_affine(first: Step, second: Step) -> Step | None:
    """``a·(scale·Wx + b) + c  =  (a·scale)·Wx + (a·b + c)``."""
    affine = second.kind
    if not isinstance(affine, kinds.Affine):
        return None
    if isinstance(first.kind, kinds.Affine):
        scale = first.kind.scale * affine.scale
        bias = first.kind.bias * affine.scale + affine.bias
        return _joined(first, second, kinds.Affine(scale, bias))
    if not isinstance(first.kind, FOLDING):
        return None
    axis = -1 if isinstance(first.kind, kinds.Linear) else 1
    scales, shifts = (_by_channel(v, second, axis) for v in (affine.scale, affine.bias))
    if scales is None or shifts is None:
        return None
    weight = first.kind.weight
    folded = replace(weight, bias=shifts if weight.bias is None else weight.bias * scales + shifts)
    if not (scales == 1.0).all():
        folded = replace(folded, scale=scales if weight.scale is None else weight.scale * scales)
    return _joined(first, second, replace(first.kind, weight=folded))


def _by_channel(values: NDArray[np.float64], step: Step, axis: int) -> NDArray[np.float64] | None:
    """An affine's array as (channels,), or None if it also varies along other axes; `axis` is the
    channels'.
    """
    channels = step.output_shape[axis]
    along = values.shape[axis if axis < 0 else axis - 1] if values.ndim else 1
    if channels is None or not (values.size == 1 or along == values.size == channels):
        return None
    return np.broadcast_to(values.reshape(-1), (channels,)).astype(np.float64)


def _fold_bias(first: Step, second: Step) -> Step | None:
    """An addition after a dense layer (MatMul + Add) becomes the layer's bias.

    This replaces `_fold_affine` where batch normalisation is not folded.
    """
    affine = second.kind
    bias_only = (
        isinstance(affine, kinds.Affine)
        and isinstance(first.kind, kinds.Dense | kinds.Linear)
        and bool((affine.scale == 1.0).all())
    )
    return _fold_affine(first, second) if bias_only else None


def negative_scales(steps: Iterable[Step]) -> int:
    """The number of channels with a negative folded scale.

    In these channels, folding swaps the positive and the negative weights.
    """
    weights = [step.kind.weight for step in steps if isinstance(step.kind, kinds.Weighted)]
    return sum(
        int(np.count_nonzero(weight.scale < 0)) for weight in weights if weight.scale is not None
    )
