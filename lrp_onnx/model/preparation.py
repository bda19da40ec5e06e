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
