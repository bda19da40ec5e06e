"""Rotary position embedding as one operator: of opset 23, and of ONNX Runtime's optimisers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from lrp_onnx.model.normalize.parts import Parts, Unsplittable, splits

HEADS_FIRST = (0, 2, 1, 3)


def rotated(
    parts: Parts,
    x: ir.Value,
    angles: tuple[ir.Value, ir.Value],
    depth: int,
    *,
    interleaved: bool,
    turned: int = 0,
) -> ir.Value:
    """Tokens (N, heads, T, depth) with pairs of their channels turned by the angle of their
    position.

    Args:
        parts: builds the nodes.
        x: the tokens.
        angles: their cosines and sines, which broadcast to (N, heads, T, turned/2).
        depth: the number of channels.
        interleaved: whether the channels of a pair are neighbours, else half of the turned channels
            lies between them.
        turned: how many of the channels are turned; 0 for all.
    """
    (cos, sin), turned = angles, turned or depth
    if turned % 2 or not 0 < turned <= depth:
        raise Unsplittable(f"it turns {turned} of {depth} channels: the file is damaged")
    half = turned // 2
    first, second = ([0, turned, 2], [1, turned, 2])
    if not interleaved:
        first, second = [0, half, 1], [half, turned, 1]
    a, b = (_channels(parts, x, *bounds) for bounds in (first, second))
    real = parts("Sub", parts("Mul", a, cos), parts("Mul", b, sin))
    imaginary = parts("Add", parts("Mul", a, sin), parts("Mul", b, cos))
    if interleaved:
        pairs = [parts("Unsqueeze", value, [-1]) for value in (real, imaginary)]
        pieces = [parts("Reshape", parts("Concat", *pairs, axis=-1), [0, 0, 0, turned])]
    else:
        pieces = [real, imaginary]
    if turned < depth:
        pieces.append(_channels(parts, x, turned, depth, 1))
    return parts("Concat", *pieces, axis=-1) if len(pieces) > 1 else pieces[0]


def _channels(parts: Parts, x: ir.Value, start: int, stop: int, step: int) -> ir.Value:
    return parts("Slice", x, [start], [stop], [-1], [step])


@splits("RotaryEmbedding", since=23)
def _rotary(parts: Parts) -> Sequence[ir.Value]:
    return [_embedded(parts, cos=1, positions=3)]


@splits("com.microsoft.RotaryEmbedding")
def _fused_rotary(parts: Parts) -> Sequence[ir.Value]:
    scale = parts.number("scale", 1.0)
    if parts.whole("is_packed_batching") or scale != 1.0:
        raise Unsplittable("its tokens are packed or scaled, which cannot be explained")
    return [_embedded(parts, cos=2, positions=1)]


def _embedded(parts: Parts, *, cos: int, positions: int) -> ir.Value:
    """The operator on tokens (N, T, heads · d) or (N, heads, T, d); `cos` and `positions` are slots
    of its inputs, and the sines follow the cosines.
    """
    x, turned = parts.needed(0), parts.whole("rotary_embedding_dim")
    flat = len(parts.shape(x)) == 3
    angles = _angles(parts, cos, positions), _angles(parts, cos + 1, positions)
    if not flat:
        (depth,) = parts.sizes(x, -1)
        return _turn(parts, x, angles, depth, turned)
    heads, (width,) = parts.whole("num_heads"), parts.sizes(x, -1)
    (half,) = parts.sizes(parts.needed(cos), -1)
    if not heads and half:  # of ONNX Runtime, whose tables then are for all channels of a head
        heads = width // (2 * half)
    if heads < 1:
        raise Unsplittable(f"it has {heads} heads: the file is damaged")
    apart = parts("Transpose", parts("Reshape", x, [0, 0, heads, -1]), perm=HEADS_FIRST)
    made = _turn(parts, apart, angles, width // heads, turned)
    return parts("Reshape", parts("Transpose", made, perm=HEADS_FIRST), [0, 0, width])


def _turn(
    parts: Parts, x: ir.Value, angles: tuple[ir.Value, ir.Value], depth: int, turned: int
) -> ir.Value:
    pairs = bool(parts.whole("interleaved"))
    return rotated(parts, x, angles, depth, interleaved=pairs, turned=turned)


def _angles(parts: Parts, slot: int, positions: int) -> ir.Value:
    """Cosines or sines as (N, 1, T, half)."""
    table, at = parts.needed(slot), parts.input(positions)
    if at is None:
        return parts("Unsqueeze", table, [1])
    if len(parts.shape(at)) == 1:  # the position of the first token
        length, rows = parts.sizes(parts.needed(0), -2)[0], parts.sizes(table, -2)[0]
        if length > rows:
            raise Unsplittable(f"it has {length} positions and angles of {rows}")
        at = parts("Unsqueeze", parts("Add", at, parts.constant(np.arange(length))), [0])
    return parts("Unsqueeze", parts("Gather", table, at, axis=0), [1])
