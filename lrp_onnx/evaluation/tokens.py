"""Where methods of other authors look in a model: the last feature map, in tokens too, and what
attention layers weigh.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.plan import kinds
from lrp_onnx.plan.kinds import Step, View
from lrp_onnx.plan.layouts import Layout
from lrp_onnx.plan.plan import Block, Plan


@dataclass(frozen=True, slots=True)
class FeatureMap:
    """A tensor of the model as a feature map."""

    name: str
    layout: Layout
    start: int = 0
    """How many tokens (of class, or registers) come before those of the picture."""
    length: int = 0
    """The number of tokens, those included; 0 where the tensor is no tokens."""
    passed: bool = False
    """Whether a shortcut passes it by."""

    @property
    def whole(self) -> bool:
        """Whether the map is all that the layers behind it read."""
        tokens = self.layout.size[0] * self.layout.size[1]
        return not self.passed and self.length in (0, tokens)

    def of(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The tensor (N, …) as (N, C, h, w), without tokens that are not the picture's."""
        height, width = self.layout.size
        maps = np.moveaxis(values, self.layout.channels, 1)
        if self.layout.tokens:
            maps = maps[:, :, self.start : self.start + height * width]
        return maps.reshape(*maps.shape[:2], height, width)

    def tensor(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, C, h, w) as the tensor, of which the map is all."""
        flat = maps.reshape(*maps.shape[:2], -1) if self.layout.tokens else maps
        return np.moveaxis(flat, 1, self.layout.channels)


def last_feature_map(plan: Plan) -> FeatureMap | None:
    """The last feature map of more than one pixel that every path passes through; None where there
    is none.

    Where attention over tokens comes after the last one that is no tokens, it is what enters the
    last block with attention, normalised where the block begins so, as users of pytorch-grad-cam
    take it: behind it, tokens that the class is not read from may hold nothing.
    """
    layouts = plan.layouts
    maps = [n for n, s in plan.cut_points.items() if min(s) > 1 and not layouts[n].tokens]
    behind = plan.behind(maps[-1]) if maps else plan.items
    known = _tokens(plan)
    entering = [
        block
        for block in plan.blocks
        if block in behind and block.fork in known and any(map(kinds.attends, block.steps))
    ]
    if entering:
        return _entering(entering[-1], known)
    return FeatureMap(maps[-1], layouts[maps[-1]]) if maps else None


def _entering(block: Block, known: Mapping[str, FeatureMap]) -> FeatureMap:
    """What the first layer of a block gives where it is a normalisation, else what enters it."""
    first = next(step for step in block.steps if block.fork in step.inputs)
    if first.kind.category == "normalization" and first.output in known:
        return replace(known[first.output], passed=True)
    return known[block.fork]


@dataclass(frozen=True, slots=True)
class AttentionLayers:
    """The attention of a transformer whose every layer attends to all tokens of the picture."""

    names: tuple[str, ...]
    """Tensors of the layers' weights (N, heads, tokens, tokens), from the picture to the logits."""
    views: tuple[View | None, ...]
    """How each becomes one with the batch first."""
    tokens: FeatureMap
    read: int | None
    """Index of the token that the classes are read from; None where it is their average."""


def attention_layers(plan: Plan) -> AttentionLayers | None:
    """The model's attention layers; None where it has none, or one over other tokens."""
    layers = [step for step in plan.steps if kinds.attends(step)]
    known = _tokens(plan)
    made = {step.output: step for step in plan.steps}
    inside = [b.fork for b in plan.blocks if any(step in layers for step in b.steps)]
    if not layers or any(fork not in known for fork in inside) or not inside:
        return None
    tokens = known[inside[-1]]
    weights = [made.get(step.inputs[step.kind.attention or 0]) for step in layers]  # type: ignore[attr-defined]
    square = (tokens.length, tokens.length)
    found = [step for step in weights if step is not None and step.output_shape[-2:] == square]
    if len(found) != len(layers):
        return None
    names = tuple(step.output for step in found)
    return AttentionLayers(names, tuple(step.view for step in found), tokens, _read(plan, tokens))


def _tokens(plan: Plan) -> dict[str, FeatureMap]:
    """Tensors of three axes that are a feature map's tokens, and others' behind a class token."""
    layouts = plan.layouts
    known: dict[str, FeatureMap] = {}
    for step in plan.steps:
        layout = layouts.get(step.output)
        if layout is not None:
            if layout.tokens:
                count = layout.size[0] * layout.size[1]
                known[step.output] = FeatureMap(step.output, layout, 0, count)
            continue
        before = next((known[name] for name in step.inputs if name in known), None)
        if before is not None and (after := _behind(step, before)) is not None:
            known[step.output] = after
    return {name: one for name, one in known.items() if name not in plan.views}


def _behind(step: Step, before: FeatureMap) -> FeatureMap | None:
    """A step's output, its input being tokens."""
    axis, start, length = 3 - before.layout.channels, before.start, before.length
    kind = step.kind
    if isinstance(kind, kinds.Concat) and kind.axis == axis:
        places = [n for n, name in enumerate(step.inputs) if name == before.name]
        start += kind.starts[places[0]] if kind.starts else sum(kind.sizes[: places[0]])
        length = kind.length or sum(kind.sizes)
    layout = before.layout
    if isinstance(kind, kinds.Transpose) and len(step.output_shape) == 3:
        layout = Layout(3 - layout.channels, layout.size, tokens=True)
        axis = 3 - layout.channels
    if len(step.output_shape) != 3 or step.output_shape[axis] != length:
        return None
    return FeatureMap(step.output, layout, start, length)


def _read(plan: Plan, tokens: FeatureMap) -> int | None:
    """The token that the last step which takes one of all takes."""
    selects = [_selected(step, tokens) for step in plan.steps]
    found = [index for index in selects if index is not None]
    return found[-1] if found else None


def _selected(step: Step, tokens: FeatureMap) -> int | None:
    """The one token that a step keeps."""
    axis = 3 - tokens.layout.channels
    if len(step.input_shape) != 3 or step.input_shape[axis] != tokens.length:
        return None
    kind = step.kind
    if isinstance(kind, kinds.Select) and kind.axis == axis and len(kind.indices) == 1:
        return kind.indices[0]
    if isinstance(kind, kinds.Subsample) and step.output_shape[axis] == 1:
        return kind.starts[axis - 1]
    return None


def rolled_out(weights: Iterator[NDArray[np.float32]]) -> NDArray[np.float64]:
    """``Π ½(Aₗ + I)`` with Aₗ the mean of a layer's heads, rows scaled to sum 1 (Abnar and Zuidema
    2020): (N, tokens, tokens), how much of each token of the picture is in each at the end.

    Args:
        weights: (N, heads, tokens, tokens) of every layer, from the picture to the logits.
    """
    whole: NDArray[np.float64] | None = None
    for layer in weights:
        mean = layer.astype(np.float64).mean(1) + np.eye(layer.shape[-1])
        mean /= mean.sum(-1, keepdims=True)
        whole = mean if whole is None else mean @ whole
    assert whole is not None
    return whole
