"""Operators that compute in integers (QOperator), as the layers between quantisers that they are
(QDQ), which differ from them by rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from lrp_onnx.model.normalize.parts import Parts, Unsplittable, splits


def dequantized(parts: Parts, slot: int, axis: int = 0) -> ir.Value:
    """The numbers that the integers in `slot` stand for, with their scale and zero point in the
    slots behind; `axis` is that of several scales.
    """
    scale, zero = parts.needed(slot + 1), parts.input(slot + 2)
    operands = [parts.needed(slot), scale, *([] if zero is None else [zero])]
    return parts("DequantizeLinear", *operands, **_along(parts, scale, axis))


def quantized(parts: Parts, x: ir.Value, slot: int) -> ir.Value:
    """`x` as integers, with the scale in `slot` and the zero point behind it."""
    return parts("QuantizeLinear", x, parts.needed(slot), parts.needed(slot + 1))


def _along(parts: Parts, scale: ir.Value, axis: int) -> dict[str, int]:
    return {"axis": axis} if set(parts.shape(scale)) - {1} else {}


def _bias(parts: Parts, slot: int) -> list[ir.Value]:
    """The bias in `slot`, in steps of both factors' scales, which stand in slots 1 and 4."""
    bias = parts.input(slot)
    if bias is None:
        return []
    scale = parts("Mul", parts.needed(1), parts.needed(4))
    return [parts("DequantizeLinear", bias, scale, **_along(parts, parts.needed(4), 0))]


def _attributes(parts: Parts, *left_out: str) -> dict[str, Any]:
    if parts.whole("channels_last"):
        raise Unsplittable("its channels are last, which cannot be explained in integers")
    without = ("channels_last", *left_out)
    return {name: a for name, a in parts.fused.attributes.items() if name not in without}


@splits("QLinearConv")
def _conv(parts: Parts) -> Sequence[ir.Value]:
    operands = [dequantized(parts, 0), dequantized(parts, 3), *_bias(parts, 8)]
    return [quantized(parts, parts("Conv", *operands, **_attributes(parts)), 6)]


@splits("QLinearMatMul")
def _matmul(parts: Parts) -> Sequence[ir.Value]:
    product = parts("MatMul", dequantized(parts, 0), dequantized(parts, 3, axis=-1))
    return [quantized(parts, product, 6)]


@splits("com.microsoft.QGemm")
def _gemm(parts: Parts) -> Sequence[ir.Value]:
    """Its bias is not scaled by ``alpha``, and without a scale of the output that is no integer."""
    alpha, by_row = parts.number("alpha", 1.0), parts.whole("transB")
    if alpha != 1.0:
        raise Unsplittable(f"its alpha is {alpha}: only 1 is read")
    operands = [dequantized(parts, 0), dequantized(parts, 3, 0 if by_row else 1)]
    made = parts("Gemm", *operands, *_bias(parts, 6), **_attributes(parts, "alpha"))
    return [made if parts.input(7) is None else quantized(parts, made, 7)]


@splits("com.microsoft.QLinearAdd", "com.microsoft.QLinearMul")
def _arithmetic(parts: Parts) -> Sequence[ir.Value]:
    operator = parts.fused.op_type.removeprefix("QLinear")
    return [quantized(parts, parts(operator, dequantized(parts, 0), dequantized(parts, 3)), 6)]


@splits(
    "com.microsoft.QLinearAveragePool",
    "com.microsoft.QLinearGlobalAveragePool",
    "com.microsoft.QLinearLeakyRelu",
    "com.microsoft.QLinearSigmoid",
)
def _of_one(parts: Parts) -> Sequence[ir.Value]:
    """An operator with one input and the attributes of the standard one."""
    operator = parts.fused.op_type.removeprefix("QLinear")
    return [quantized(parts, parts(operator, dequantized(parts, 0), **_attributes(parts)), 3)]


@splits("com.microsoft.QLinearConcat")
def _concat(parts: Parts) -> Sequence[ir.Value]:
    """The scale and zero point of the output come first."""
    operands = [dequantized(parts, slot) for slot in range(2, len(parts.fused.inputs), 3)]
    return [quantized(parts, parts("Concat", *operands, **_attributes(parts)), 0)]
