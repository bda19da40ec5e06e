"""Where pixels and channels lie in a tensor: channels first, channels last, or tokens."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from lrp_onnx.plan import kinds
from lrp_onnx.plan.kinds import Step

TO_NHWC, TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
"""Orders of a Transpose."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a feature map lies in a tensor."""

    channels: int
    """The axis of the channels."""
    size: tuple[int, int]
    """(height, width)"""
    tokens: bool = False
    """Whether height and width are one axis, row by row."""


def layout_of(step: Step, before: Layout | None) -> Layout | None:
    """The layout of a step's output.

    Args:
        step: a layer.
        before: the layout of its input, or of the first of its inputs that has one.

    Returns:
        None where the output is no feature map, or it is not known how it became one.
    """
    sizes = [size or 0 for size in step.output_shape]
    if len(sizes) == 4:
        if before is None and not isinstance(step.kind, kinds.Convolution):
            return None  # heads of attention, behind a class token for example
        channels = _channels(step, before)
        height, width = (size for axis, size in enumerate(sizes) if axis not in (0, channels))
        if before is not None and before.tokens and (height, width) != before.size:
            return None
        return Layout(channels, (height, width))
    if len(sizes) != 3 or before is None:
        return None
    layout = before
    if isinstance(step.kind, kinds.Transpose):
        layout = Layout(3 - before.channels, before.size, tokens=True) if before.tokens else before
    elif not before.tokens:
        if not isinstance(step.kind, kinds.Reshape):
            return None
        layout = Layout(1 if before.channels == 1 else 2, before.size, tokens=True)
    return layout if sizes[3 - layout.channels] == prod(layout.size) else None


def _channels(step: Step, before: Layout | None) -> int:
    """The axis of the channels of a four-dimensional output."""
    kind = step.kind
    if isinstance(kind, kinds.Transpose):
        return 3 if kind.order == TO_NHWC else 1
    if before is None:
        return 1
    last = 2 if before.tokens else 3
    if isinstance(kind, kinds.Reshape) and len(step.input_shape) != 4 and not before.tokens:
        return 1
    return 3 if before.channels == last else 1
