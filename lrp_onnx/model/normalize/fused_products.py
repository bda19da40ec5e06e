"""Products of matrices and convolutions that ONNX Runtime fuses with what stands around them."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from lrp_onnx.model.normalize.fused_activations import activated
from lrp_onnx.model.normalize.parts import Parts, Unsplittable, splits

CHANNELS_FIRST, CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


@splits("com.microsoft.FusedGemm")
def _gemm(parts: Parts) -> Sequence[ir.Value]:
    operands = [parts.needed(0), parts.needed(1), parts.input(2)]
    made = parts(
        "Gemm",
        *operands[: 2 if operands[2] is None else 3],
        alpha=parts.number("alpha", 1.0),
        beta=parts.number("beta", 1.0),
        transA=parts.whole("transA"),
        transB=parts.whole("transB"),
    )
    return [activated(parts, made)]


@splits(
    "com.microsoft.FusedMatMul",
    "com.microsoft.FusedMatMulActivation",
    "com.microsoft.TransposeMatMul",
)
def _matmul(parts: Parts) -> Sequence[ir.Value]:
    first, second = (_turned(parts, slot, letter) for slot, letter in enumerate("AB"))
    made, alpha = parts("MatMul", first, second), parts.number("alpha", 1.0)
    return [activated(parts, made if alpha == 1.0 else parts("Mul", made, alpha))]


def _turned(parts: Parts, slot: int, letter: str) -> ir.Value:
    """A factor, transposed as the attributes state: ``trans`` exchanges the last two axes,
    ``transBatch`` before that brings the first axis behind those up to the last.
    """
    value = parts.needed(slot)
    matrix, batch = parts.whole(f"trans{letter}"), parts.whole(f"transBatch{letter}")
    if not matrix and not batch:
        return value
    order = list(range(len(parts.shape(value))))
    if len(order) < 2:
        return value
    if batch:
        order = [*order[1:-1], 0, order[-1]]
    if matrix:
        order = [*order[:-2], order[-1], order[-2]]
    return parts("Transpose", value, perm=order)


@splits("com.microsoft.NhwcConv")
def _conv(parts: Parts) -> Sequence[ir.Value]:
    """A convolution of pictures, and with a weight, that have the channels last."""
    if len(parts.shape(parts.needed(1))) != 4:
        raise Unsplittable("its weight is not that of a 2-D convolution")
    operands = [parts("Transpose", parts.needed(slot), perm=CHANNELS_FIRST) for slot in (0, 1)]
    bias = parts.input(2)
    operands += [] if bias is None else [bias]
    made = parts("Conv", *operands, **dict(parts.fused.attributes))
    return [parts("Transpose", made, perm=CHANNELS_LAST)]
