"""Speed without change of meaning: what the emission itself does not already avoid."""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from lrp_onnx.contract import START, TARGET, is_added


def drop_unused(model: onnx.ModelProto, *, keep: frozenset[str] = frozenset()) -> onnx.ModelProto:
    """Remove, in place, what the compiler added and nobody reads, but for constants in `keep`."""
    graph = model.graph
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.isdisjoint(node.output) and all(map(is_added, node.output)):
            continue
        needed.update(node.input)
        kept.append(node)
    needed |= keep
    _replace(graph.node, reversed(kept))
    _replace(
        graph.initializer,
        [t for t in graph.initializer if t.name in needed or not is_added(t.name)],
    )
    return model


def relevance_last(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put, in place, what depends on the target behind
    everything that does not; the order is otherwise kept.

    ONNX Runtime walks back from the outputs and, of two inputs, computes first the one that stands
    later in the file: so it goes to the logits first, and computes a layer's denominator when
    relevance reaches that layer, not on the way there. For a ResNet-50 and `lrp-resnet` peak memory
    at batch 8 falls from 1,790 MB to 1,170.
    """
    depends = {TARGET, START}
    first, last = [], []
    for node in model.graph.node:
        if depends.isdisjoint(node.input):
            first.append(node)
        else:
            depends.update(node.output)
            last.append(node)
    _replace(model.graph.node, [*first, *last])
    return model


def _replace(repeated: object, values: Iterable[object]) -> None:
    listed = list(values)
    del repeated[:]  # type: ignore[attr-defined]
    repeated.extend(listed)  # type: ignore[attr-defined]
