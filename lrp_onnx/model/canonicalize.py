"""From nodes to few kinds of steps. The forward graph stays as
it is: steps are a reading of it, and folding is done in numbers.
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
from lrp_onnx.model.graph import Graph, label, name_of, shape_of
from lrp_onnx.model.readers import linear, movements, pointwise  # noqa: F401 (they register their readers)
from lrp_onnx.model.readers.reading import READERS, Unreadable, data_inputs
from lrp_onnx.model.written_out import write_together
from lrp_onnx.plan import kinds
from lrp_onnx.plan.kinds import Step

NO_READER = "this operator cannot be explained yet"


def canonicalize(
    graph: Graph, logits: str, *, source: str = "the model", fold_batch_norm: bool = True
) -> list[Step]:
    """Every layer between the input and `logits`, in the
    order of the computation, in as few kinds as possible.

    Args:
        graph: a normalised model.
        logits: name of the tensor where relevance will start.
        source: how errors name the model.
        fold_batch_norm: whether a per-channel affine is merged
            into the convolution or dense layer before it.

    Raises:
        UnsupportedModelError: with every node on the way that cannot be explained.
    """
    steps: list[Step] = []
    faults: list[str] = []
    for node in _path(graph, logits):
        try:
            steps += _read(graph, node)
        except Unreadable as fault:
            faults.append(f"{label(node)}: {fault}")
    steps = simplify(steps, fold_batch_norm=fold_batch_norm)
    faults += [
        f"{step.op} '{step.name}': it multiplies two tensors of one shape {step.output_shape}: "
        "which one is the gate cannot be told"
        for step in steps
        if isinstance(step.kind, kinds.Product) and step.kind.signal is None
    ]
    if faults:
        supported = ", ".join(sorted(READERS))
        hint = (
            f" (operators that can be: {supported})"
            if any(NO_READER in fault for fault in faults)
            else ""
        )
        summary = f"{source} has {len(faults)} node(s) that cannot be explained{hint}:"
        raise UnsupportedModelError(summary, faults)
    return steps


def _path(graph: Graph, logits: str) -> list[ir.Node]:
    """Nodes that both depend on the input and feed `logits` through data, sorted."""
    reached, todo = set(), [logits]
    producers = {name_of(value): node for node in graph.nodes for value in node.outputs}
    while todo:
        node = producers.get(todo.pop())
        if node is not None and node not in reached:
            reached.add(node)
            todo += [name_of(value) for value in data_inputs(graph, node)]
    return [node for node in graph.nodes if node in reached]


def _read(graph: Graph, node: ir.Node) -> list[Step]:
    """The node's step; for a node of several outputs a step for each."""
    reader = READERS.get(node.op_type)
    if reader is None:
        raise Unreadable(NO_READER)
    inputs = data_inputs(graph, node)
    if not inputs:
        raise Unreadable("none of its inputs depends on the picture")
    read = reader(graph, node)
    layers = [read] if isinstance(read, kinds.Kind) else read
    shape = shape_of(inputs[0])
    if not shape:
        raise Unreadable("the shape of its input is not known, or it has no axes")
    steps = []
    for index, (layer, output) in enumerate(zip(layers, node.outputs, strict=False)):
        name = str(node.name) if len(layers) == 1 else f"{node.name}.{index}"
        after = shape_of(output)
        if isinstance(layer, kinds.Reshape) and (after is None or None in after[1:]):
            after = (shape[0], prod(size for size in shape[1:] if size is not None))
        if after is None:
            raise Unreadable("the shape of its output is not known")
        names = tuple(map(name_of, inputs))
        steps.append(Step(name, layer, names, name_of(output), shape, after, (str(node.name),)))
    return steps


Rewrite = Callable[[Step, Step], Step | None]
"""Two steps, the second the only consumer of the first → the one step that does the same, or None."""


def simplify(steps: Sequence[Step], *, fold_batch_norm: bool = True) -> list[Step]:
    """Apply the rewrites wherever one step feeds only the next, until nothing changes."""
    rewrites = (
        _merge_reshapes,
        _merge_transposes,
        _merge_subsamples,
        _merge_pad,
        _merge_scale,
        *((_fold_affine,) if fold_batch_norm else (_fold_bias,)),
    )
    current = _merge_pool_pads(write_together(steps))
    while (merged := _rewrite_once(current, rewrites)) is not None:
        current = merged
    return current


def _rewrite_once(steps: list[Step], rewrites: Iterable[Rewrite]) -> list[Step] | None:
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
    return Step(
        first.name,
        layer,
        first.inputs,
        second.output,
        first.input_shape,
        second.output_shape,
        first.nodes + second.nodes,
    )


def _merge_reshapes(first: Step, second: Step) -> Step | None:
    both = isinstance(first.kind, kinds.Reshape) and isinstance(second.kind, kinds.Reshape)
    return _joined(first, second, second.kind) if both else None


def _merge_transposes(first: Step, second: Step) -> Step | None:
    """One order after another is one order."""
    a, b = first.kind, second.kind
    if not isinstance(a, kinds.Transpose) or not isinstance(b, kinds.Transpose):
        return None
    return _joined(first, second, kinds.Transpose(tuple(a.order[axis] for axis in b.order)))


def _merge_subsamples(first: Step, second: Step) -> Step | None:
    """A slice of a slice is a slice, which is how exporters write one over several axes."""
    a, b = first.kind, second.kind
    if not isinstance(a, kinds.Subsample) or not isinstance(b, kinds.Subsample):
        return None
    axes = range(3)
    taken = [
        range(a.starts[i], a.stops[i], a.steps[i])[b.starts[i] : b.stops[i] : b.steps[i]]
        for i in axes
    ]
    starts, steps, stops = (tuple(getattr(r, k) for r in taken) for k in ("start", "step", "stop"))
    return _joined(first, second, kinds.Subsample(starts, steps, stops))


def _merge_pad(first: Step, second: Step) -> Step | None:
    """Zeros around the picture before a convolution are the convolution's own pads."""
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
    """Zeros around a tensor that cannot be negative, before
    max pooling: the same as the pooling's own border.

    Where a window holds nothing above zero the pools differ
    in which of its zeros they name, and none has relevance.
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
    while step is not None and step.kind.moves and step.kind.one_to_one:
        step = producer.get(step.inputs[0])
    return step is not None and step.kind.nonnegative


def _added(pads: tuple[int, int, int, int], border: Step) -> tuple[int, int, int, int]:
    """A window's pads and the zeros of `border` before it: top, left, bottom, right."""
    assert isinstance(border.kind, kinds.ZeroPad)
    before, after = border.kind.before[1:], border.kind.after[1:]
    if len(border.input_shape) == 3:  # (N, C, L) counts as one row
        before, after = (0, before[0]), (0, after[0])
    more = (*before, *after)
    top, left, bottom, right = (own + zeros for own, zeros in zip(pads, more, strict=True))
    return top, left, bottom, right


def _merge_scale(first: Step, second: Step) -> Step | None:
    """A number times a mean is a mean, as in ReduceSum and
    Div; times a written-out activation, a part of that.
    """
    number = second.kind.uniform if isinstance(second.kind, kinds.Affine) else None
    if number is None:
        return None
    if isinstance(first.kind, kinds.GlobalAverage):
        return _joined(first, second, replace(first.kind, factor=first.kind.factor * number))
    if isinstance(first.kind, kinds.Composed):
        return _joined(first, second, kinds.Composed((*first.kind.steps, second)))
    return None


def _fold_affine(first: Step, second: Step) -> Step | None:
    """``a·(scale·Wx + b) + c  =  (a·scale)·Wx + (a·b + c)``."""
    affine = second.kind
    if not isinstance(affine, kinds.Affine):
        return None
    if isinstance(first.kind, kinds.Affine):
        return _joined(
            first,
            second,
            kinds.Affine(
                first.kind.scale * affine.scale, first.kind.bias * affine.scale + affine.bias
            ),
        )
    if not isinstance(first.kind, kinds.Convolution | kinds.Dense):
        return None
    scales, shifts = _by_channel(affine.scale, second), _by_channel(affine.bias, second)
    if scales is None or shifts is None:
        return None
    weight = first.kind.weight
    identity = bool((scales == 1.0).all())
    scale = weight.scale if identity else scales if weight.scale is None else weight.scale * scales
    bias = shifts if weight.bias is None else weight.bias * scales + shifts
    return _joined(
        first, second, replace(first.kind, weight=replace(weight, scale=scale, bias=bias))
    )


def _by_channel(values: NDArray[np.float64], step: Step) -> NDArray[np.float64] | None:
    """An affine's array as (channels,), or None where it varies along other axes too."""
    channels = step.output_shape[1]
    if channels is None or not (values.size == 1 or values.shape[0] == values.size == channels):
        return None
    return np.broadcast_to(values.reshape(-1), (channels,)).astype(np.float64)


def _fold_bias(first: Step, second: Step) -> Step | None:
    """Without folding batch normalisation: an addition
    alone (MatMul + Add) is still the layer's own bias.
    """
    affine = second.kind
    bias_only = (
        isinstance(affine, kinds.Affine)
        and isinstance(first.kind, kinds.Dense)
        and bool((affine.scale == 1.0).all())
    )
    return _fold_affine(first, second) if bias_only else None


def negative_scales(steps: Iterable[Step]) -> int:
    """How many channels carry a negative folded scale: there,
    folding swaps the positive and the negative weights.
    """
    weights = [step.kind.weight for step in steps if isinstance(step.kind, kinds.Weighted)]
    return sum(
        int(np.count_nonzero(weight.scale < 0)) for weight in weights if weight.scale is not None
    )
