"""The ends of a classifier: its picture input, and the logits where relevance starts."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from lrp_onnx.contract import EXPLAINED
from lrp_onnx.errors import ChoiceError, UnsupportedModelError
from lrp_onnx.model.graph import Graph, label, name_of, shape_of
from lrp_onnx.model.heads.ensemble import ensemble, members_of
from lrp_onnx.model.heads.head import (
    MEANINGS,
    MOVES,
    NORMALISERS,
    Head,
    check_axes,
    is_by_a_positive_number,
    refused,
)
from lrp_onnx.model.heads.parts import find_part, find_whole, is_feature_map, is_table
from lrp_onnx.plan.kinds import MOST_AXES
from lrp_onnx.selection import example, selected

AFTER = ("Log", "Exp", "Mul", "Div", "Clip")
"""Operators that may follow them: a logarithm or its inverse, a positive number, and bounds."""
ROUNDING = ("QuantizeLinear", "DequantizeLinear")
PICTURES = (
    ir.DataType.FLOAT,
    ir.DataType.FLOAT16,
    ir.DataType.BFLOAT16,
    ir.DataType.UINT8,
    ir.DataType.INT8,
)
"""Element types of a picture input."""


def find_head(graph: Graph, *, source: str, output: str | None = None) -> Head:
    """The head of a normalised model.

    Args:
        graph: a normalised model.
        source: name of the model in errors.
        output: name of the graph output to explain; needed only if several can be explained. A
            feature map is explained through its mean over height and width: its channels are the
            classes; ``NAME[:, :, 12, 30:40]`` names some of its pixels, see `Selection`.

    Raises:
        UnsupportedModelError: there is not exactly one picture input, or not exactly one output
            that can be explained.
    """
    picture = name_of(_find_input(graph, source))
    name, indices = selected(output or "")
    if indices and output not in {name_of(value) for value in graph.outputs}:
        return find_part(graph, picture, name, indices, source)
    value = _find_output(graph, source, output)
    if is_feature_map(value, graph) or (_classes_of(value) is None and is_table(value)):
        return find_whole(graph, picture, value, source)
    if members := members_of(value):
        check_axes([member.node for member in members], source)
        return ensemble(picture, value, members)
    chain = list(_tail(value))
    first = max((i for i, node in enumerate(chain) if node.op_type in NORMALISERS), default=-1)
    if first < 0:
        chain = _rounding(value)
        first = len(chain) - 1
    before = chain[first].inputs[0] if chain else value
    assert before is not None
    if moves := _moves(before):
        before = moves[-1].inputs[0]
        assert before is not None
    check_axes(chain[: first + 1], source)
    one = _classes_of(before) == 1
    holds = "logit" if one else "logits"
    for node in reversed(chain[: first + 1]):
        if node.op_type not in (*MOVES, "Clip"):
            holds = MEANINGS.get((holds, node.op_type), "other")
    if one and holds not in ("logit", "probability"):
        which = ", which is always 1" if chain[0].op_type == "Softmax" else ""
        raise refused(
            source,
            f"its output '{name_of(value)}' is one number, made by {label(chain[0])}{which}: one "
            "logit, or the sigmoid of one, can be explained",
        )
    is_plain = not one and len(shape_of(before) or ()) == 2
    own, shape = name_of(before), shape_of(value) or ()
    return Head(
        picture,
        name_of(value),
        own if is_plain else EXPLAINED,
        holds,
        () if is_plain else ((own, 1.0),),
        start=tuple(size or 0 for size in shape[1:]) if len(shape) > 2 and not one else (),
        is_ranked=bool(chain),
    )


def _find_output(graph: Graph, source: str, output: str | None) -> ir.Value:
    """The output to explain: the one that is named, else the only one of scores of several classes,
    else the only one of a single number.
    """
    many: list[ir.Value] = []
    names = [name_of(v) for v in graph.outputs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise refused(
            source,
            f"two of its outputs are called '{twice[0]}': export it with a name for each",
        )
    if output is not None:
        candidates = [v for v in graph.outputs if name_of(v) == output]
        reason = f"none is called {output!r}"
        if candidates:
            reason = f"'{output}' has no elements of a known number"
        candidates = [v for v in candidates if _classes_of(v) or is_table(v)]
    else:
        many = [v for v in graph.outputs if (_classes_of(v) or 0) >= 2]
        candidates = many or [v for v in graph.outputs if _classes_of(v) == 1]
        reason = "exactly one of shape (N, classes), (N, 1) or (N) is needed"
    if len(candidates) == 1:
        return candidates[0]
    listed = ", ".join(f"'{name_of(v)}' {shape_of(v)}" for v in graph.outputs) or "none"
    larger = next((v for v in graph.outputs if len(shape_of(v) or ()) > 2), None)
    remedy = "name the output to explain with --output-name, or export the classifier with its head"
    if output is None and larger is not None:
        name, indices = name_of(larger), example(shape_of(larger) or ())
        remedy = (
            f"name another one, or some of its elements: --output-name '{name}', or "
            f"--output-name '{name}{indices}'"
        )
    apart = output is None and not many and larger is None
    wrong = UnsupportedModelError if apart else ChoiceError
    raise wrong(
        f"{source} cannot be explained:",
        [f"its outputs are {listed}: {reason}; {remedy}"],
    )


def _tail(value: ir.Value) -> Iterator[ir.Node]:
    """The nodes before an output, from it backwards, as long as they are such as may follow logits
    and read one tensor that is not constant.
    """
    node = value.producer()
    while node is not None and node.op_type in (*NORMALISERS, *AFTER, *MOVES, *ROUNDING):
        if node.op_type in ("Mul", "Div") and not is_by_a_positive_number(node):
            return
        yield node
        (before, *_) = node.inputs
        node = before.producer() if before is not None else None


def _rounding(value: ir.Value) -> list[ir.Node]:
    """The node that makes an integer output of logits."""
    node = value.producer()
    return [node] if node is not None and node.op_type == "QuantizeLinear" else []


def _moves(value: ir.Value) -> list[ir.Node]:
    """The nodes before an output that only change the shape of scores, back to one of (N, classes);
    none where it has that shape, or none before it has.
    """
    nodes: list[ir.Node] = []
    node, shape = value.producer(), shape_of(value)
    while len(shape or ()) != 2 and node is not None and node.op_type in MOVES:
        before = node.inputs[0]
        if before is None or _classes_of(before) is None:
            break
        nodes.append(node)
        node, shape = before.producer(), shape_of(before)
    return nodes


def _find_input(graph: Graph, source: str) -> ir.Value:
    """The picture input.

    Raises:
        UnsupportedModelError: there is not exactly one input, or it is not a picture.
    """
    inputs = graph.inputs
    if len(inputs) != 1:
        listed = ", ".join(f"'{name_of(v)}' {shape_of(v)}" for v in inputs) or "none"
        raise UnsupportedModelError(
            f"{source} cannot be explained:",
            [
                f"it has {len(inputs)} inputs ({listed}): only models with one picture input can "
                "be explained; replace the others by constants before the export"
            ],
        )
    if inputs[0].dtype not in PICTURES:
        name = inputs[0].dtype.name.lower() if inputs[0].dtype else "unknown"
        raise UnsupportedModelError(
            f"{source} cannot be explained:",
            [
                f"the input '{name_of(inputs[0])}' is of type {name}: float32, float16, bfloat16, "
                "uint8 and int8 can be explained; export it in float32"
            ],
        )
    shape = shape_of(inputs[0])
    where = f"the input '{name_of(inputs[0])}' has shape {shape}"
    if shape is None or not 3 <= len(shape) <= 2 + MOST_AXES:
        raise UnsupportedModelError(
            f"{source} cannot be explained:",
            [
                f"{where}: only pictures (N, C, H, W), signals (N, C, L) and volumes "
                "(N, C, D, H, W) can be explained"
            ],
        )
    if None in shape[1:]:
        sizes = {3: "its length", 4: "height and width", 5: "its sizes"}[len(shape)]
        raise UnsupportedModelError(
            f"{source} cannot be explained:",
            [
                f"{where}: only the batch may be symbolic; "
                f"give {sizes} by --input-size, or export it with a fixed size"
            ],
        )
    return inputs[0]


def _classes_of(value: ir.Value) -> int | None:
    """The number of scores of a value of shape (N, classes), (N, classes, 1, …) or (N); None of any
    other. An open number is that of the tensor before an operator that keeps it.
    """
    shape = shape_of(value)
    node = value.producer()
    if shape is not None and len(shape) == 1:
        return 1 if node is not None and node.op_type in (*MOVES, *NORMALISERS) else None
    if shape is None or len(shape) < 2 or any(size != 1 for size in shape[2:]):
        return None
    if shape[1] is None and node is not None and node.op_type in NORMALISERS:
        before = node.inputs[0]
        return _classes_of(before) if before is not None else None
    return shape[1]
