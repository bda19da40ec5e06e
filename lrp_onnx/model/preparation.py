"""How pictures become a model's input, as far as the compiler has to know."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lrp_onnx.contract import Preprocessing
from lrp_onnx.model.graph import Graph, name_of
from lrp_onnx.plan.kinds import Affine
from lrp_onnx.plan.plan import Plan

IMAGENET = Preprocessing()
"""Assumed for the z-box rule's bounds where nobody says how pictures are prepared."""


def integer_pictures(graph: Graph, plan: Plan) -> Preprocessing | None:
    """What a model that takes integers needs: pixels as
    they are stored, minus 128 where they are signed.
    """
    picture = next(v for v in graph.inputs if name_of(v) == plan.input)
    offsets = {ir.DataType.UINT8: 0.0, ir.DataType.INT8: 128.0}
    if picture.dtype not in offsets:
        return None
    gray = plan.input_shape[plan.channel_axis] == 1
    channels = "GRAY" if gray else "RGB"
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
    """Lowest and highest value that a pixel can have at the
    first layer, in the units and channels that it sees.

    None where that is not one value a channel.
    """
    channels = plan.input_shape[plan.channel_axis]
    mean, std = np.asarray(preprocessing.mean), np.asarray(preprocessing.std)
    if len(mean) not in (1, channels):
        return None
    ends = [(np.array([0.0]) - mean) / std, (255.0 / preprocessing.divisor - mean) / std]
    for step in plan.preparation:
        if isinstance(step.kind, Affine):
            if {step.kind.scale.size, step.kind.bias.size} - {1, channels}:
                return None
            ends = [end * step.kind.scale.reshape(-1) + step.kind.bias.reshape(-1) for end in ends]
    return tuple(map(float, np.minimum(*ends))), tuple(map(float, np.maximum(*ends)))
