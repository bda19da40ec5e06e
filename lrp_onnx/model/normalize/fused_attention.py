"""Attention as one operator: of opsets 23 to 25, and as ONNX Runtime's optimisers write it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import onnx_ir as ir

from lrp_onnx.model.normalize.fused_activations import biased
from lrp_onnx.model.normalize.fused_rotary import rotated
from lrp_onnx.model.normalize.parts import Parts, Unsplittable, splits

MASKED, HALF_MASKED = -1e9, -6e4
"""What is added to a score so that its softmax is 0, and the same in float16."""
MOST_SCORES = 1 << 24
"""Largest mask that is stored: 4,096 × 4,096 positions."""
HEADS_FIRST = (0, 2, 1, 3)
"""From (N, T, heads, d) to (N, heads, T, d), and back."""


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """How products of queries and keys become the input of the softmax."""

    scale: float
    biases: Sequence[ir.Value]
    """What is added to them; each broadcasts to (N, heads, T, S)."""
    softcap: float = 0.0
    """``softcap · tanh(score / softcap)``; 0 for none."""
    softmax_type: int = 0
    """Element type of the softmax; 0 for the model's."""


def attend(
    parts: Parts, qkv: Sequence[ir.Value], scores: Scores
) -> tuple[ir.Value, list[ir.Value]]:
    """Scaled dot-product attention of queries, keys and values (N, heads, T, d).

    Returns:
        The attended values (N, heads, T, d), and the scores (N, heads, T, S) in four states: as
        they are, capped, with biases, as probabilities.
    """
    query, key, value = qkv
    if scores.scale != 1.0:
        query = parts("Mul", query, scores.scale)
    raw = parts("MatMul", query, parts("Transpose", key, perm=(0, 1, 3, 2)))
    capped = raw
    if scores.softcap:
        bounded = parts("Tanh", parts("Div", raw, scores.softcap))
        capped = parts("Mul", bounded, scores.softcap)
    shifted = capped
    for bias in scores.biases:
        shifted = parts("Add", shifted, bias)
    if scores.softmax_type in (0, parts.dtype):
        weights = parts("Softmax", shifted, axis=-1)
    else:
        cast = parts("Cast", shifted, to=scores.softmax_type)
        weights = parts("Cast", parts("Softmax", cast, axis=-1), to=int(parts.dtype))
    return parts("MatMul", weights, value), [raw, capped, shifted, weights]


def heads_apart(parts: Parts, x: ir.Value, heads: int) -> ir.Value:
    """(N, T, heads · d) as (N, heads, T, d)."""
    return parts("Transpose", parts("Reshape", x, [0, 0, heads, -1]), perm=HEADS_FIRST)


def heads_together(parts: Parts, x: ir.Value) -> ir.Value:
    """(N, heads, T, d) as (N, T, heads · d)."""
    return parts("Reshape", parts("Transpose", x, perm=HEADS_FIRST), [0, 0, -1])


def repeated(parts: Parts, x: ir.Value, heads: int, kv_heads: int, depth: int) -> ir.Value:
    """(N, kv_heads, S, depth) as (N, heads, S, depth), where queries share keys and values."""
    if heads == kv_heads:
        return x
    if heads % kv_heads:
        raise Unsplittable(f"{heads} heads do not share {kv_heads}: the file is damaged")
    copies = parts("Expand", parts("Unsqueeze", x, [2]), [1, 1, heads // kv_heads, 1, 1])
    return parts("Reshape", copies, [0, heads, -1, depth])


def _scale(parts: Parts, depth: int) -> float:
    """The stated scale; if there is none, or it is 0 as ONNX Runtime has it then, 1/√depth."""
    if depth < 1:
        raise Unsplittable(f"its heads have {depth} channels: the file is damaged")
    return parts.number("scale", 0.0) or 1.0 / sqrt(depth)


def only_before(parts: Parts, queries: int, keys: int) -> ir.Value:
    """The bias (T, S) of causal attention: position t attends to positions 0 to t."""
    if queries * keys > MOST_SCORES:
        raise Unsplittable(f"its mask of {queries} × {keys} positions is too large")
    return parts.constant(np.triu(np.full((queries, keys), _masked(parts)), 1))


def kept(parts: Parts, mask: ir.Value) -> ir.Value:
    """The bias of a mask: 0 where it is true."""
    return parts("Where", mask, 0.0, _masked(parts))


def _masked(parts: Parts) -> float:
    return HALF_MASKED if parts.dtype == ir.DataType.FLOAT16 else MASKED


@splits("Attention", since=23)
def _attention(parts: Parts) -> Sequence[ir.Value | None]:
    """The operator of ONNX, without past keys and values."""
    parts.without(past_key=4, past_value=5, nonpad_kv_seqlen=6)
    query, key, value = (parts.needed(slot) for slot in range(3))
    rank = len(parts.shape(query))
    if rank == 3:
        heads, kv_heads = parts.heads("q_num_heads"), parts.heads("kv_num_heads")
        depth, value_depth = (parts.sizes(x, -1)[0] // kv_heads for x in (key, value))
        query = heads_apart(parts, query, heads)
        key, value = (heads_apart(parts, x, kv_heads) for x in (key, value))
    else:
        (heads,), (kv_heads, depth), (value_depth,) = (
            parts.sizes(query, -3),
            parts.sizes(key, -3, -1),
            parts.sizes(value, -1),
        )
    scores = Scores(
        _scale(parts, depth),
        [*_standard_mask(parts), *_causal(parts, "is_causal")],
        parts.number("softcap", 0.0),
        parts.whole("softmax_precision"),
    )
    every = repeated(parts, key, heads, kv_heads, depth)
    values = repeated(parts, value, heads, kv_heads, value_depth)
    made, states = attend(parts, (query, every, values), scores)
    if rank == 3:
        made = heads_together(parts, made)
    mode = parts.whole("qk_matmul_output_mode")
    if not 0 <= mode < len(states):
        raise Unsplittable(f"its qk_matmul_output_mode is {mode}: the file is damaged")
    if len(parts.fused.outputs) == 1:
        return [made]
    return [made, *(parts("Identity", x) for x in (key, value, states[mode]))]


def _standard_mask(parts: Parts) -> list[ir.Value]:
    """The bias of the mask, of truth values or numbers, that the operator of ONNX may have."""
    mask = parts.input(3)
    if mask is None:
        return []
    (masked,), (keys,) = parts.sizes(mask, -1), parts.sizes(parts.needed(1), -2)
    if masked not in (1, keys):
        raise Unsplittable(f"its mask is for {masked} of {keys} keys")
    return [kept(parts, mask) if mask.dtype == ir.DataType.BOOL else mask]


def _causal(parts: Parts, attribute: str, default: int = 0) -> list[ir.Value]:
    """The bias of causal attention if the attribute asks for it; keys are the node's input 1, where
    it has them.
    """
    if not parts.whole(attribute, default):
        return []
    query, key = parts.needed(0), parts.input(1)
    queries = parts.sizes(query, -2)[0]
    return [only_before(parts, queries, queries if key is None else parts.sizes(key, -2)[0])]


@splits("com.microsoft.Attention")
def _packed_attention(parts: Parts) -> Sequence[ir.Value | None]:
    """Attention with the projection to queries, keys and values, whose weights are packed."""
    parts.without(past=4, past_sequence_length=6)
    parts.only_outputs(0)
    if parts.whole("do_rotary"):
        raise Unsplittable("its do_rotary is 1, for which its positions are not stated")
    x, weights, heads = parts.needed(0), parts.needed(1), parts.heads()
    (packed,) = parts.sizes(weights, -1)
    widths = parts.stated("qkv_hidden_sizes", ir.AttributeType.INTS, None) or [packed // 3] * 3
    if len(widths) != 3 or sum(widths) != packed or any(width % heads for width in widths):
        raise Unsplittable(f"its weights for {packed} channels do not fit {heads} heads")
    biases = [*_number_mask(parts, 3), *_added(parts, 5)]
    if parts.whole("unidirectional"):
        (length,) = parts.sizes(x, -2)
        biases.append(only_before(parts, length, length))
    scale = _scale(parts, widths[0] // heads)
    projected = biased(parts, parts("MatMul", x, weights), 2)
    packed_parts = parts.several("Split", 3, projected, [int(w) for w in widths], axis=-1)
    each = [heads_apart(parts, part, heads) for part in packed_parts]
    made, _ = attend(parts, each, Scores(scale, biases))
    return [heads_together(parts, made)]


@splits("com.microsoft.MultiHeadAttention")
def _multi_head_attention(parts: Parts) -> Sequence[ir.Value | None]:
    """Attention of projected queries, keys and values, which may be packed."""
    parts.without(past_key=6, past_value=7, past_sequence_length=8, cache_indirection=9)
    heads, query, key, value = parts.heads(), parts.needed(0), parts.input(1), parts.input(2)
    if key is None:
        (depth,) = parts.sizes(query, -1)
        if parts.input(3) is not None:
            raise Unsplittable("its queries, keys and values are packed and have a bias")
        each = [_unpacked(parts, query, index) for index in range(3)]
        length = parts.sizes(query, -4)[0]
        lengths = length, length
    else:
        depth = parts.sizes(query, -1)[0] // heads
        each, keys = _separate(parts, query, key, value, heads)
        lengths = parts.sizes(query, -2)[0], keys
    biases = [*_number_mask(parts, 4), *_added(parts, 5)]
    if parts.whole("unidirectional"):
        biases.append(only_before(parts, *lengths))
    scale = _scale(parts, depth)
    made, states = attend(parts, each, Scores(scale, biases))
    parts.only_outputs(0, 3)
    return [heads_together(parts, made), None, None, states[3]]


def _separate(
    parts: Parts, query: ir.Value, key: ir.Value, value: ir.Value | None, heads: int
) -> tuple[list[ir.Value], int]:
    """Queries, keys and values (N, heads, T, d), their biases added, and the number of keys."""
    if value is None:
        both = [_unpacked(parts, key, index) for index in range(2)]
        return [_projected(parts, query, heads, 0), *both], parts.sizes(key, -4)[0]
    if len(parts.shape(key)) == 4:
        return [_projected(parts, query, heads, 0), key, value], parts.sizes(key, -2)[0]
    width = parts.sizes(query, -1)[0]
    each = [
        _projected(parts, x, heads, start)
        for x, start in ((query, 0), (key, width), (value, 2 * width))
    ]
    return each, parts.sizes(key, -2)[0]


def _projected(parts: Parts, x: ir.Value, heads: int, start: int) -> ir.Value:
    """(N, T, heads · d) plus its part of the common bias, as (N, heads, T, d)."""
    bias = parts.input(3)
    if bias is not None:
        (width,) = parts.sizes(x, -1)
        x = parts("Add", x, parts("Slice", bias, [start], [start + width], [0]))
    return heads_apart(parts, x, heads)


def _unpacked(parts: Parts, packed: ir.Value, index: int) -> ir.Value:
    """One of the tensors in (N, T, heads, 2 or 3, d), as (N, heads, T, d)."""
    position = parts.constant(np.array(index, np.int64))
    return parts("Transpose", parts("Gather", packed, position, axis=3), perm=HEADS_FIRST)


def _number_mask(parts: Parts, slot: int) -> list[ir.Value]:
    """The bias of a mask of 1 for kept keys and 0 for others, (N, S) or (N, T, S)."""
    mask = parts.input(slot)
    if mask is None:
        return []
    axes = {2: [1, 2], 3: [1]}.get(len(parts.shape(mask)))
    if axes is None:
        raise Unsplittable(
            f"its mask has the shape {parts.shape(mask)}: only those of 1 and 0 for keys are read"
        )
    left_out = parts("Sub", 1.0, parts("Cast", mask, to=int(parts.dtype)))
    filtered = parts("Mul", left_out, parts.number("mask_filter_value", -10000.0))
    return [parts("Unsqueeze", filtered, axes)]


def _added(parts: Parts, slot: int) -> list[ir.Value]:
    bias = parts.input(slot)
    return [] if bias is None else [bias]


@splits("com.microsoft.GroupQueryAttention")
def _group_query_attention(parts: Parts) -> Sequence[ir.Value | None]:
    """Causal attention in which several heads share keys and values, of one run over all tokens."""
    parts.without(past_key=3, past_value=4, position_ids=9, head_sink=11, k_scale=12, v_scale=13)
    parts.without(q_norm_weight=14, k_norm_weight=15)
    for name, plain in (("smooth_softmax", (-1, 0)), ("local_window_size", (-1,))):
        if parts.whole(name, plain[0]) not in plain:
            raise Unsplittable(f"its {name} is {parts.whole(name)}, which cannot be explained")
    heads, kv_heads = parts.heads(), parts.heads("kv_num_heads")
    query, key, value = parts.needed(0), parts.input(1), parts.input(2)
    length, width = parts.sizes(query, -2, -1)
    depth = width // (heads if key is not None else heads + 2 * kv_heads)
    if key is None or value is None:
        shares = [heads * depth, kv_heads * depth, kv_heads * depth]
        query, key, value = parts.several("Split", 3, query, shares, axis=-1)
    each = [
        heads_apart(parts, x, own)
        for x, own in ((query, heads), (key, kv_heads), (value, kv_heads))
    ]
    if parts.whole("do_rotary"):
        angles = _first_rows(parts, 7, length), _first_rows(parts, 8, length)
        pairs = bool(parts.whole("rotary_interleaved"))
        each[:2] = [rotated(parts, x, angles, depth, interleaved=pairs) for x in each[:2]]
    biases = _added(parts, 10)
    if parts.whole("causal", 1):
        biases.append(only_before(parts, length, length))
    scale = _scale(parts, depth)
    scores = Scores(scale, biases, parts.number("softcap", 0.0))
    every, values = (repeated(parts, x, heads, kv_heads, depth) for x in each[1:])
    made, _ = attend(parts, (each[0], every, values), scores)
    outputs = [heads_together(parts, made), *(parts("Identity", x) for x in each[1:])]
    parts.only_outputs(0, 1, 2)
    return outputs


def _first_rows(parts: Parts, slot: int, length: int) -> ir.Value:
    """A table of angles for the positions 0 to `length` − 1, as (length, d/2)."""
    return parts("Slice", parts.needed(slot), [0], [length], [0])
