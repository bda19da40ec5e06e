"""How pictures become a model's input, as far as the compiler needs it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lrp_onnx.contract import Preprocessing
from lrp_onnx.model.graph import Graph, name_of
from lrp_onnx.plan.kinds import Affine
from lrp_onnx.plan.plan import Plan

IMAGENET = Preprocessing()
"""Assumed for the bounds of the z-box rule if no preprocessing is stated."""


def integer_pictures(graph: Graph, plan: Plan) -> Preprocessing | None:
    """The preprocessing of a model with an integer input; None for other models.

    Pixels stay as they are stored for uint8; 128 is subtracted for int8.
    """
    picture = next(v for v in graph.inputs if name_of(v) == plan.input)
    offsets = {ir.DataType.UINT8: 0.0, ir.DataType.INT8: 128.0}
    if picture.dtype not in offsets:
        return None
    channels = "GRAY" if plan.input_shape[plan.channel_axis] == 1 else "RGB"
    return Preprocessing(
        mean=(offsets[picture.dtype],),
        std=(1.0,),
        divisor=1.0,
        layout=plan.layout,
        channels=channels,
    )


def from_graph(graph: Graph, plan: Plan) -> tuple[Preprocessing, str] | None:
    """What the graph itself says of its pictures, and why; None where it says nothing.

    An integer input takes stored pixels. A model that scales its pictures before its first layer
    takes pixels of 0 to 255, or of 0 to 1, as its factors and offsets show. A learnt normalisation
    of pictures that are normalised already has factors near 1: it says nothing.
    """
    stored = integer_pictures(graph, plan)
    if stored is not None:
        return stored, "the graph: its input is of integers"
    channels = plan.input_shape[plan.channel_axis]
    scale, bias = np.ones(1), np.zeros(1)
    for step in plan.preparation:
        if isinstance(step.kind, Affine):
            if {step.kind.scale.size, step.kind.bias.size} - {1, channels}:
                return None
            factor, offset = step.kind.scale.reshape(-1), step.kind.bias.reshape(-1)
            scale, bias = scale * factor, bias * factor + offset
    largest = float(np.abs(scale).max())
    centred = bias.max() <= -CENTRED and (scale + bias).min() >= CENTRED
    if (0 < largest <= SMALL_FACTOR) or bias.min() <= -LARGE_OFFSET:
        divisor, why = 1.0, "the graph: it scales pixels of 0 to 255 itself"
    elif largest >= LARGE_FACTOR and centred:
        divisor, why = 255.0, "the graph: it normalises pixels of 0 to 1 itself"
    else:
        return None
    mean = -bias / scale / (255.0 / divisor)
    order = "GRAY" if channels == 1 else "RGB"
    if mean.size == 3 and np.allclose(mean, IMAGENET.mean[::-1], atol=0.005):
        order = "BGR"
    spec = Preprocessing(
        mean=(0.0,), std=(1.0,), divisor=divisor, layout=plan.layout, channels=order
    )
    return spec, why


SMALL_FACTOR, LARGE_FACTOR = 0.05, 1.5
"""A factor below the first brings 0 to 255 to a small range; one above the second, 0 to 1."""
LARGE_OFFSET = 30.0
"""An offset beyond this is a mean of pixels of 0 to 255."""
CENTRED = 0.4
"""How far black and white lie from zero, at least, once a picture is normalised."""


def pixel_box(
    preprocessing: Preprocessing, plan: Plan
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """The lowest and the highest value of a pixel at the first layer, for every channel.

    Both are in the units of that layer's input, after the preparation inside the model. Each has
    one value per channel, or one value for all. None if a bound differs between pixels.
    """
    channels = plan.input_shape[plan.channel_axis]
    mean, std = np.asarray(preprocessing.mean), np.asarray(preprocessing.std)
    if len(mean) not in (1, channels):
        return None
    black, white = (0.0 - mean) / std, (255.0 / preprocessing.divisor - mean) / std
    for step in plan.preparation:
        if isinstance(step.kind, Affine):
            if {step.kind.scale.size, step.kind.bias.size} - {1, channels}:
                return None
            scale, bias = step.kind.scale.reshape(-1), step.kind.bias.reshape(-1)
            black, white = black * scale + bias, white * scale + bias
    low, high = np.minimum(black, white), np.maximum(black, white)
    return tuple(map(float, low)), tuple(map(float, high))
