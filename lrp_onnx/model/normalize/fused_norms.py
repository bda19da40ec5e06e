"""Normalisations that ONNX Runtime fuses with residual sums, or that opsets above 20 have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from lrp_onnx.model.normalize.fused_activations import biased
from lrp_onnx.model.normalize.parts import Parts, Unsplittable, splits

SKIP_EPSILON = 1e-12
"""Default of the operators with a residual sum."""


@splits("com.microsoft.LayerNormalization")
def _layer_norm(parts: Parts) -> Sequence[ir.Value]:
    """The operator as ONNX Runtime writes it into files of opsets that do not have it."""
    operands = [parts.needed(0), parts.needed(1), parts.input(2)]
    return parts.several(
        "LayerNormalization",
        len(parts.fused.outputs),
        *operands[: 2 if operands[2] is None else 3],
        axis=parts.whole("axis", -1),
        epsilon=parts.number("epsilon", 1e-5),
    )


@splits("com.microsoft.SkipLayerNormalization")
def _skip_layer_norm(parts: Parts) -> Sequence[ir.Value | None]:
    total, scale, bias = _residual(parts, 4), parts.needed(2), parts.input(3)
    made = parts(
        "LayerNormalization",
        *(total, scale, *([] if bias is None else [bias])),
        axis=-1,
        epsilon=parts.number("epsilon", SKIP_EPSILON),
    )
    return [made, None, None, total]


@splits("com.microsoft.SkipSimplifiedLayerNormalization")
def _skip_rms_norm(parts: Parts) -> Sequence[ir.Value | None]:
    total = _residual(parts, 3)
    made = _rms(parts, total, [-1], parts.number("epsilon", SKIP_EPSILON), parts.needed(2))
    return [made, None, None, total]


def _residual(parts: Parts, bias: int) -> ir.Value:
    """The sum that is normalised. Its bias is one of the matrix product that makes one of the
    summands: optimisers take it from there.
    """
    parts.only_outputs(0, 3)
    terms = [parts.needed(0), parts.needed(1)]
    products = [slot for slot, term in enumerate(terms) if _is_product(term)]
    slot = products[0] if len(products) == 1 else 0
    terms[slot] = biased(parts, terms[slot], bias)
    return parts("Add", *terms)


def _is_product(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.op_type in ("Gemm", "MatMul")


@splits("com.microsoft.SimplifiedLayerNormalization")
def _simplified(parts: Parts) -> Sequence[ir.Value | None]:
    return _rms_norm(parts)


@splits("RMSNormalization", since=23)
def _rms_norm(parts: Parts) -> Sequence[ir.Value | None]:
    parts.only_outputs(0)
    x, axis, axes = parts.needed(0), parts.whole("axis", -1), [-1]
    if axis != -1:
        rank = len(parts.shape(x))
        if not -rank <= axis < rank:
            raise Unsplittable(f"its axis {axis} does not exist in a tensor of {rank} axes")
        axes = list(range(axis % rank, rank))
    return [_rms(parts, x, axes, parts.number("epsilon", 1e-5), parts.needed(1)), None]


def _rms(
    parts: Parts, x: ir.Value, axes: Sequence[int], epsilon: float, scale: ir.Value
) -> ir.Value:
    """``scale · x / √(mean(x²) + epsilon)``."""
    mean = parts("ReduceMean", parts("Pow", x, 2.0), axes, keepdims=1)
    root = parts("Sqrt", parts("Add", mean, epsilon))
    return parts("Mul", parts("Div", x, root), scale)


@splits("GroupNormalization", since=21)
def _group_norm(parts: Parts) -> Sequence[ir.Value]:
    """With a scale for every channel, where opset 20 has one for every group."""
    x, groups = parts.needed(0), parts.whole("num_groups")
    (channels,) = parts.sizes(parts.needed(1), -1)
    if groups < 1 or channels % groups:
        raise Unsplittable(f"its {channels} channels do not make {groups} groups")
    shape = parts.shape(x)
    flat = parts("Reshape", x, [0, groups, -1])
    ones = parts.constant(np.ones(groups))
    zeros = parts.constant(np.zeros(groups))
    epsilon = parts.number("epsilon", 1e-5)
    normed = parts("InstanceNormalization", flat, ones, zeros, epsilon=epsilon)
    whole: ir.Value | list[int] = parts("Shape", x)
    known = [size for size in shape[1:] if size is not None]
    if len(known) == len(shape) - 1:
        whole = [0, *known]
    by_channel = [-1] + [1] * (len(shape) - 2)
    scale, bias = (parts("Reshape", parts.needed(slot), by_channel) for slot in (1, 2))
    return [parts("Add", parts("Mul", parts("Reshape", normed, whole), scale), bias)]
