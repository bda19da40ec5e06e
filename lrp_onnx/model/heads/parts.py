"""Outputs with more axes than a classifier's: some of their elements, or all of them."""

from __future__ import annotations

from math import prod

import onnx_ir as ir

from lrp_onnx.contract import EXPLAINED
from lrp_onnx.errors import ChoiceError
from lrp_onnx.model.graph import Graph, name_of, shape_of
from lrp_onnx.model.heads.head import MEANINGS, NORMALISERS, Head, check_axes, refused
from lrp_onnx.selection import Range, Selection, example

MOST_ELEMENTS = 1 << 20
"""Largest number of an output's elements that are classes of their own."""


def find_part(graph: Graph, picture: str, name: str, indices: str, source: str) -> Head:
    """The head of which some elements of an output are explained, see `Selection`.

    Relevance starts before the softmax or sigmoid of these elements, also where other elements
    come from other layers.

    Raises:
        ChoiceError: there is no such output, or it has no such elements.
        UnsupportedModelError: these elements cannot be explained.
    """
    value = next((v for v in graph.outputs if name_of(v) == name), None)
    if value is None:
        listed = ", ".join(name_of(v) for v in graph.outputs)
        raise ChoiceError(
            f"{source} cannot be explained:", [f"no output is called {name!r}; there are {listed}"]
        )
    try:
        selection = Selection.of(indices, shape_of(value) or ())
    except ValueError as error:
        raise ChoiceError(
            f"{source} cannot be explained:", [f"the output '{name}': {error}"]
        ) from None
    value, taken, nodes = _origin(value, selection)
    kinds = [node.op_type for node in nodes]
    check_axes(nodes, source, taken.axis)
    if selection.largest and set(kinds) - {"Sigmoid"}:
        raise refused(
            source,
            f"the output '{name}' is a softmax's: the largest probability is not that of the "
            "largest logit; give an index or mean in the place of max",
        )
    raw = "features" if len(selection.ranges) == 3 else "scores"
    holds = MEANINGS.get(("logits", kinds[0]), "other") if kinds else raw
    one = selection.classes == 1
    if one:
        holds = "probability" if holds in ("sigmoids", "probabilities") else "logit"
    ranked = (
        bool(nodes)
        and not selection.largest
        and (selection.several or (one and "Softmax" in kinds))
    )
    return Head(
        picture,
        name,
        EXPLAINED,
        holds,
        ((name_of(value), 1.0),),
        selection,
        taken,
        is_ranked=ranked and (not one or holds == "probability"),
    )


def _origin(value: ir.Value, selection: Selection) -> tuple[ir.Value, Selection, list[ir.Node]]:
    """The tensor that a part of `value` comes from, the part there, and the softmax or sigmoid that
    made probabilities of it.

    Way back it goes through what only brings elements together or permutes axes.
    """
    nodes: list[ir.Node] = []
    while (node := value.producer()) is not None:
        before: ir.Value | None = None
        if node.op_type in ("Identity", "Dropout", "Cast"):
            before, part = node.inputs[0], selection
        elif node.op_type in NORMALISERS and not nodes:
            before, part = node.inputs[0], selection
            nodes.append(node)
        elif node.op_type == "Concat":
            before, part = _operand(node, selection)
        elif node.op_type == "Transpose":
            before, part = _turned(node, selection)
        if before is None or None in (shape_of(before) or (None, None))[1:]:
            break
        value, selection = before, part
    return value, selection, nodes


def _operand(node: ir.Node, selection: Selection) -> tuple[ir.Value | None, Selection]:
    """The operand of a Concat that the part lies in, and the part there; None for several."""
    rank = len(selection.ranges) + 1
    axis = node.attributes["axis"].as_int() % rank
    if axis == 0:
        return None, selection
    low, high = selection.ranges[axis - 1]
    start = 0
    for value in node.inputs:
        size = (shape_of(value) or (None,) * rank)[axis] if value is not None else None
        if size is None:
            break
        if start <= low and high <= start + size and value is not None:
            ranges = [*selection.ranges]
            ranges[axis - 1] = (low - start, high - start)
            return value, Selection(tuple(ranges), selection.axis, selection.largest)
        start += size
    return None, selection


def _turned(node: ir.Node, selection: Selection) -> tuple[ir.Value | None, Selection]:
    """The input of a Transpose, and the part there; None where the batch moves."""
    rank = len(selection.ranges) + 1
    stated = node.attributes.get("perm")
    order = list(stated.as_ints()) if stated is not None else list(range(rank))[::-1]
    if order[0] != 0 or len(order) != rank:
        return None, selection
    ranges: list[Range] = [(0, 0)] * (rank - 1)
    for to, from_ in enumerate(order[1:]):
        ranges[from_ - 1] = selection.ranges[to]
    axis = order[selection.axis]
    return node.inputs[0], Selection(tuple(ranges), axis, selection.largest)


def is_feature_map(value: ir.Value, graph: Graph) -> bool:
    """Whether the value has as many axes as the model's input, (N, C, H, W) for pictures, with two
    pixels at least.
    """
    shape, picture = shape_of(value) or (), shape_of(graph.inputs[0]) or ()
    return is_table(value) and len(shape) == len(picture) and set(shape[2:]) != {1}


def is_table(value: ir.Value) -> bool:
    """Whether the value has three axes or more, of known sizes."""
    shape = shape_of(value) or ()
    return len(shape) >= 3 and None not in shape[1:]


def find_whole(graph: Graph, picture: str, value: ir.Value, source: str) -> Head:
    """The head of which a whole output of three axes or more is explained.

    Of a feature map (N, C, H, W) the classes are its channels, through their mean over the pixels;
    of other outputs every element is a class. A start has the shape of the output.

    Raises:
        UnsupportedModelError: the output has too many elements, or is a softmax's over another axis
            than that of the classes.
    """
    name, shape = name_of(value), shape_of(value) or ()
    sizes = tuple(size or 0 for size in shape[1:])
    is_map = is_feature_map(value, graph)
    if not is_map and prod(sizes) > MOST_ELEMENTS:
        raise refused(
            source,
            f"the output '{name}' has shape {shape}, {prod(sizes):,} elements: say which of them "
            f"with --output-name '{name}{example(shape)}'",
        )
    node = value.producer()
    allowed = NORMALISERS if is_map else ("Sigmoid",)
    if node is not None and node.op_type in NORMALISERS and node.op_type not in allowed:
        raise refused(
            source,
            f"the output '{name}' {shape} is a {node.op_type}'s: say which of its elements with "
            f"--output-name '{name}{example(shape)}'",
        )
    holds, before = "features" if is_map else "scores", value
    normalised = node is not None and node.op_type in allowed and node.inputs[0] is not None
    if node is not None and normalised:
        check_axes([node], source)
        holds, before = MEANINGS[("logits", node.op_type)], node.inputs[0] or value
    if sizes[0] == 1 and is_map:
        holds = "probability" if normalised else "logit"
    return Head(
        picture,
        name,
        EXPLAINED,
        holds,
        ((name_of(before), 1.0),),
        start=sizes,
        is_ranked=normalised and is_map,
    )
