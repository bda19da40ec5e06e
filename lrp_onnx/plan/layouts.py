"""Where pixels and channels lie in a tensor: channels first, channels last, or tokens."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from lrp_onnx.plan import kinds
from lrp_onnx.plan.kinds import Step


def channels_last(axes: int) -> tuple[int, ...]:
    """The order of a Transpose from channels first to last, before `axes` axes: NCHW to NHWC."""
    return 0, *range(2, axes + 2), 1


def channels_first(axes: int) -> tuple[int, ...]:
    """The order of a Transpose from channels last to first, of `axes` axes: NHWC to NCHW."""
    return 0, axes + 1, *range(1, axes + 1)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a feature map lies in a tensor."""

    channels: int
    """The axis of the channels."""
    size: tuple[int, ...]
    """(height, width) of pictures, (length,) of signals, (depth, height, width) of volumes."""
    tokens: bool = False
    """Whether the axes of `size` are one, row by row."""


def layout_of(step: Step, before: Layout | None, axes: int) -> Layout | None:
    """The layout of a step's output.

    Args:
        step: a layer.
        before: the layout of its input, or of the first of its inputs that has one.
        axes: the number of the input's axes behind the channels: 2 for pictures.

    Returns:
        None where the output is no feature map, or it is not known how it became one.
    """
    sizes = [size or 0 for size in step.output_shape]
    if len(sizes) == axes + 2:
        if before is None and not isinstance(step.kind, kinds.Convolution):
            return None  # heads of attention, behind a class token for example
        channels = _channels(step, before, axes)
        size = tuple(size for axis, size in enumerate(sizes) if axis not in (0, channels))
        if before is not None and before.tokens and size != before.size:
            return None
        return Layout(channels, size)
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


def _channels(step: Step, before: Layout | None, axes: int) -> int:
    """The axis of the channels of an output with as many axes as the input."""
    kind, last = step.kind, axes + 1
    if isinstance(kind, kinds.Transpose):
        # Of signals, both orders are the same.
        if before is not None and before.channels == last and kind.order == channels_first(axes):
            return 1
        return last if kind.order == channels_last(axes) else 1
    if before is None:
        return 1
    if isinstance(kind, kinds.Reshape) and len(step.input_shape) != last + 1 and not before.tokens:
        return 1
    return last if before.channels == (2 if before.tokens else last) else 1
