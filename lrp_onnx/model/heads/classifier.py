"""The ends of a classifier: its picture input, and the logits where relevance starts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from lrp_onnx.contract import EXPLAINED, Selection, selected
from lrp_onnx.errors import ChoiceError, UnsupportedModelError
from lrp_onnx.model.graph import Graph, label, name_of, shape_of
from lrp_onnx.plan.kinds import MOST_AXES

NORMALISERS = ("Softmax", "LogSoftmax", "Sigmoid")
"""Operators that make probabilities of logits; relevance starts before the first of them."""
AFTER = ("Log", "Exp", "Mul", "Div")
"""Operators that may follow them: a logarithm or its inverse, and a positive number."""
MOVES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast", "Dropout")
"""Operators that may stand between them and change no value."""
ROUNDING = ("QuantizeLinear", "DequantizeLinear")
MEANINGS = {
    ("logits", "Softmax"): "probabilities",
    ("logits", "LogSoftmax"): "log-probabilities",
    ("probabilities", "Log"): "log-probabilities",
    ("log-probabilities", "Exp"): "probabilities",
    ("logit", "Sigmoid"): "probability",
}
"""What an operator makes of what it is given; anything else is ``other``."""
PICTURES = (
    ir.DataType.FLOAT,
    ir.DataType.FLOAT16,
    ir.DataType.BFLOAT16,
    ir.DataType.UINT8,
    ir.DataType.INT8,
)
"""Element types of a picture input."""


@dataclass(frozen=True, slots=True)
class Head:
    """The ends of a classifier, as names of tensors."""

    picture: str
    """The picture input."""
    output: str
    """The graph output that is explained."""
    logits: str
    """The tensor that relevance starts from, (N, classes)."""
    holds: str
    """Meaning of the output: ``logits``, ``probabilities``, ``log-probabilities``, ``features``,
    ``logit``, ``probability`` or ``other``. The last but one two are of a model with one number,
    whose sign decides between two classes.
    """
    source: str | None = None
    """The model's own tensor that `logits`, which `append_logits` then adds, is made of: a feature
    map, whose mean over height and width it is; or one logit, for which it is that logit's negative
    and the logit itself, the classes no and yes. None where the model has such a tensor.
    """
    selection: Selection | None = None
    """The part of `source` that is explained; None for all of it."""


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
        return _selected(graph, picture, name, indices, source)
    value = _find_output(graph, source, output)
    if _is_feature_map(value, graph):
        return Head(picture, name_of(value), EXPLAINED, "features", name_of(value))
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
    _check_axes(chain[: first + 1], source)
    one = _classes_of(before) == 1
    holds = "logit" if one else "logits"
    for node in reversed(chain[: first + 1]):
        if node.op_type not in MOVES:
            holds = MEANINGS.get((holds, node.op_type), "other")
    if one and holds not in ("logit", "probability"):
        raise UnsupportedModelError(
            f"{source} cannot be explained:",
            [
                f"its output '{name_of(value)}' is one number, made by "
                f"{label(chain[0])}: one logit, or the sigmoid of one, can be explained"
            ],
        )
    is_plain = not one and len(shape_of(before) or ()) == 2
    own = name_of(before)
    return Head(
        picture, name_of(value), own if is_plain else EXPLAINED, holds, None if is_plain else own
    )


def _selected(graph: Graph, picture: str, name: str, indices: str, source: str) -> Head:
    """The head of which some pixels of an output (N, C, H, W) are explained."""
    value = next((v for v in graph.outputs if name_of(v) == name), None)
    if value is None:
        listed = ", ".join(name_of(v) for v in graph.outputs)
        raise UnsupportedModelError(
            f"{source} cannot be explained:", [f"no output is called {name!r}; there are {listed}"]
        )
    try:
        selection = Selection.of(indices, shape_of(value) or ())
    except ValueError as error:
        raise UnsupportedModelError(
            f"{source} cannot be explained:", [f"the output '{name}': {error}"]
        ) from None
    node, holds = value.producer(), "features"
    if node is not None and node.op_type in NORMALISERS and node.inputs[0] is not None:
        _check_axes([node], source)
        value, holds = node.inputs[0], MEANINGS.get(("logits", node.op_type), "other")
    if selection.classes == 1:
        single = node is not None and node.op_type == "Sigmoid"
        holds = "probability" if single else "logit"
    return Head(picture, name, EXPLAINED, holds, name_of(value), selection)


def _find_output(graph: Graph, source: str, output: str | None) -> ir.Value:
    """The output to explain: the one that is named, else the only one of scores of several classes,
    else the only one of a single number.
    """
    many: list[ir.Value] = []
    if output is not None:
        candidates = [v for v in graph.outputs if name_of(v) == output]
        reason = f"none is called {output!r}"
        if candidates:
            reason = f"'{output}' is neither scores nor a feature map"
        candidates = [v for v in candidates if _classes_of(v) or _is_feature_map(v, graph)]
    else:
        many = [v for v in graph.outputs if (_classes_of(v) or 0) >= 2]
        candidates = many or [v for v in graph.outputs if _classes_of(v) == 1]
        reason = "exactly one of shape (N, classes), (N, 1) or (N) is needed"
    if len(candidates) == 1:
        return candidates[0]
    listed = ", ".join(f"'{name_of(v)}' {shape_of(v)}" for v in graph.outputs)
    wrong = UnsupportedModelError if output is None and not many else ChoiceError
    raise wrong(
        f"{source} cannot be explained:",
        [
            f"its outputs are {listed}: {reason}; name the output to explain "
            "with --output-name, or export the classifier with its head"
        ],
    )


def _tail(value: ir.Value) -> Iterator[ir.Node]:
    """The nodes before an output, from it backwards, as long as they are such as may follow logits
    and read one tensor that is not constant.
    """
    node = value.producer()
    while node is not None and node.op_type in (*NORMALISERS, *AFTER, *MOVES, *ROUNDING):
        if node.op_type in ("Mul", "Div") and not _is_by_a_positive_number(node):
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


def _is_by_a_positive_number(node: ir.Node) -> bool:
    """Whether a node multiplies or divides its first input by one positive number."""
    factor = node.inputs[1]
    constant = factor.const_value if factor is not None else None
    return constant is not None and constant.size == 1 and constant.numpy().item() > 0


def _check_axes(chain: list[ir.Node], source: str) -> None:
    """Raise UnsupportedModelError where a normaliser does not go over the classes."""
    faults = []
    for node in chain:
        if node.op_type not in ("Softmax", "LogSoftmax"):
            continue
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
        rank = len(shape_of(node.inputs[0]) or ()) if node.inputs[0] is not None else 0
        if (axis + rank if axis < 0 else axis) != 1:
            faults.append(f"{label(node)} normalises over axis {axis}, not over the classes")
    if faults:
        raise UnsupportedModelError(f"{source} cannot be explained:", faults)


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


def _is_feature_map(value: ir.Value, graph: Graph) -> bool:
    """Whether the value has the shape (N, C, H, W), or another with as many axes as the input, with
    two channels and two pixels at least.
    """
    shape, picture = shape_of(value), shape_of(graph.inputs[0])
    return (
        shape is not None
        and picture is not None
        and len(shape) == len(picture)
        and None not in shape[1:]
        and (shape[1] or 0) >= 2
        and set(shape[2:]) != {1}
    )


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
