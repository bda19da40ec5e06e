"""What a compiled file gives beside the original outputs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import log, prod

import onnx

from lrp_onnx.contract import (
    ATTENTION,
    C3_REGION,
    HEATMAP,
    HEATMAP_RAW,
    RELEVANCE,
    START,
    TARGET,
)
from lrp_onnx.errors import ChoiceError, RuleError
from lrp_onnx.maps.chain import Chain
from lrp_onnx.notation import for_axes, size_text
from lrp_onnx.plan.layouts import Layout
from lrp_onnx.plan.plan import Plan
from lrp_onnx.relevance.emit import Backward
from lrp_onnx.relevance.graph.builder import Value
from lrp_onnx.relevance.post.apply import post_processed, region_of
from lrp_onnx.relevance.post.grid import Grid

ON_REQUEST = (HEATMAP_RAW, C3_REGION, ATTENTION)
"""Outputs whose names a model may have for tensors of its own, unless they are asked for."""


def tensor_names(model: onnx.ModelProto) -> frozenset[str]:
    """Every tensor of the model by name."""
    graph = model.graph
    computed = (name for node in graph.node for name in node.output)
    return frozenset(
        [*computed, *(t.name for t in graph.initializer), *(v.name for v in graph.input)]
    )


FULL = "full"
"""The resolution of the picture itself."""
_FRACTION = re.compile(r"1/([1-9][0-9]{0,3})")


def feature_map(plan: Plan, which: tuple[int, ...] | str) -> str | None:
    """Where relevance stops: one of the feature maps that everything passes through, or None for
    the picture.

    Args:
        plan: the model's layers.
        which: the (height, width) of a feature map (or as many sizes as the input has axes); its
            name; ``full``; or a fraction of the picture such as ``1/8``. Of several feature maps of
            a (height, width) it is the one nearest to the picture. A fraction stands for the size
            that is nearest to it, by ratio, the larger of two that are equally near, and of the
            feature maps of that size for the last: where relevance has the fewest layers to cross.

    Raises:
        ChoiceError: no feature map has that size or name.
    """
    if which == FULL:
        return None
    if isinstance(which, str) and (fraction := _FRACTION.fullmatch(which)):
        return _nearest(plan, int(fraction[1]))
    if not isinstance(which, str):
        which = for_axes(which, plan.axes)
    fitting = [name for name, size in plan.cut_points.items() if which in (size, name)]
    if not fitting:
        wanted = which if isinstance(which, str) else f"of {size_text(which)}"
        known = ", ".join(f"{size_text(size)} ('{name}')" for name, size in plan.cut_points.items())
        fault = (
            f"no feature map that all paths pass through is {wanted}; it is full, a fraction of "
            f"the picture such as 1/8, or one of {known}"
        )
        raise ChoiceError("this resolution cannot be had:", [fault])
    return fitting[0]


def _nearest(plan: Plan, divisor: int) -> str | None:
    """The feature map that is nearest to one `divisor`-th of the picture, None for the picture."""
    picture = plan.picture_size
    # A map of one pixel says nothing of where relevance lies, nor does one behind attention.
    ahead = {item.output for item in (plan.before_attention if plan.is_transformer else plan.items)}
    maps = {n: size for n, size in plan.cut_points.items() if max(size) > 1 and n in ahead}

    def distance(size: tuple[int, ...]) -> tuple[float, int]:
        ratios = [log(divisor * new / old) for new, old in zip(size, picture, strict=True)]
        return round(sum(map(abs, ratios)), 6), -prod(size)

    if not maps or distance(picture) < min(map(distance, maps.values())):
        return None
    tokens = {name for name in maps if plan.layouts[name].tokens}
    first = next((name for name in maps if name in tokens), None)
    usable = [name for name in maps if name not in tokens or name == first]
    return min(reversed(usable), key=lambda name: distance(maps[name]))


def check_outputs(
    model: onnx.ModelProto, plan: Plan, requested: Sequence[str], *, coarse: bool = False
) -> None:
    """Raise ChoiceError unless every output in `requested` can be made."""
    names = tensor_names(model)
    faults = [
        f"the model has a tensor called '{name}' already: rename it before compiling"
        for name in (HEATMAP, RELEVANCE, TARGET, START, *(set(ON_REQUEST) & set(requested)))
        if name in names
    ]
    on_the_way = {plan.input, *(step.output for step in plan.steps)}
    faults += [
        f"there is no tensor '{name}' between input and logits: outputs are heatmap, "
        "heatmap_raw, c3, relevance, attention, or names that `lrp-onnx plan` shows"
        for name in requested
        if name not in (HEATMAP, RELEVANCE, *ON_REQUEST) and name not in on_the_way
    ]
    if ATTENTION in requested and not plan.attention:
        faults.append(
            "there is no attention map: no product of a tensor with one value for every pixel"
        )
    if coarse and RELEVANCE in requested:
        faults.append(
            "relevance is that of the picture's elements, "
            "which a coarse map never reaches: ask for heatmap"
        )
    if not requested:
        faults.append(
            "no output was asked for: name heatmap, heatmap_raw, c3, relevance, attention, or "
            "inner tensors"
        )
    if faults:
        raise ChoiceError("these outputs cannot be made:", faults)


def append_outputs(
    backward: Backward,
    requested: Sequence[str],
    *,
    at: str | None,
    times_input: bool,
    chain: Chain,
) -> dict[str, list[int | str]]:
    """Append the output nodes.

    Post-processed maps have the picture's size: a coarse map is expanded first, bilinearly.

    Args:
        backward: the finished backward pass.
        requested: names of outputs.
        at: the feature map where relevance stops, None for the picture.
        times_input: whether relevance is multiplied by the input.
        chain: the post-processing of ``heatmap``.

    Returns:
        Output name → shape.
    """
    plan, builder = backward.plan, backward.builder
    end = at or plan.input
    reached = backward.at[end]
    relevance = builder.known(end) * reached.total if times_input else reached.total
    batch = builder.batch or ("N" if plan.input_shape[0] is None else plan.input_shape[0])
    sizes = [size for size in plan.input_shape[1:] if size is not None]
    layout = plan.layouts[end]
    picture = plan.picture_size
    size = plan.cut_points[at] if at else picture
    shapes: dict[str, list[int | str]] = {}

    wanted = dict.fromkeys(requested)
    # The sum has its output's name where it is an output itself.
    changed = bool(chain.steps) or size != picture
    name_of_sum = HEATMAP_RAW if HEATMAP_RAW in wanted else None if changed else HEATMAP
    raw = _over_channels(relevance, layout, name_of_sum if name_of_sum in wanted else None)
    expanded = raw
    if size != picture:
        exact = any(step.decides for step in chain.steps) and builder.emission.doubles
        expanded = Grid(raw, size).resampled(picture, "bilinear", double=exact).value
    for name in wanted:
        if name == HEATMAP:
            shown = post_processed(expanded, picture, chain)
            if shown.name != HEATMAP:
                builder.node("Identity", shown, output=HEATMAP)
            shapes[HEATMAP] = [batch, *picture]
        elif name == HEATMAP_RAW:
            if raw.name != HEATMAP_RAW:
                builder.node("Identity", raw, output=HEATMAP_RAW)
            shapes[HEATMAP_RAW] = [batch, *size]
        elif name == C3_REGION:
            region, side = region_of(expanded, picture, chain)
            builder.node("Identity", region, output=C3_REGION)
            shapes[C3_REGION] = [batch, side, side]
        elif name == RELEVANCE:
            builder.node("Identity", relevance, output=RELEVANCE)
            shapes[RELEVANCE] = [batch, *sizes]
        elif name == ATTENTION:
            shapes |= _attention(backward, 1 if builder.batch else batch)
        else:
            shapes |= _inner(backward, name, batch)
    return shapes


def _over_channels(relevance: Value, layout: Layout, output: str | None) -> Value:
    """The sum over the channels, (N, H, W), in the tensor `output` where it has a name."""
    builder, axes, keep = relevance.builder, (layout.channels,), {"keepdims": 0}
    if not layout.tokens:
        return builder.node(
            "ReduceSum", relevance, builder.integers(axes), attributes=keep, output=output
        )
    row = builder.node("ReduceSum", relevance, builder.integers(axes), attributes=keep)
    size = builder.integers((-1, *layout.size))
    return builder.node("Reshape", row, size, output=output)


def _inner(backward: Backward, name: str, batch: int | str) -> dict[str, list[int | str]]:
    """The relevance of an inner tensor."""
    plan, inner, output = backward.plan, backward.at.get(name), f"{RELEVANCE}/{name}"
    if inner is None:
        raise RuleError(f"no relevance reaches the tensor '{name}' under these rules")
    backward.builder.node("Identity", inner.total, output=output)
    shape = next((s.output_shape for s in plan.steps if s.output == name), plan.input_shape)
    return {output: [batch, *(size for size in shape[1:] if size is not None)]}


def _attention(backward: Backward, batch: int | str) -> dict[str, list[int | str]]:
    """The model's own attention maps, (N, H, W).

    A single one is called ``attention``; several are called after their tensors.
    """
    shapes: dict[str, list[int | str]] = {}
    gates = backward.plan.attention
    for gate, size in gates.items():
        output = ATTENTION if len(gates) == 1 else f"{ATTENTION}/{gate}"
        builder = backward.builder
        builder.node("Squeeze", builder.known(gate), builder.integers((1,)), output=output)
        shapes[output] = [batch, *size]
    return shapes
