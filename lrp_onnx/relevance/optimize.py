"""Speed without change of meaning: what the emission itself does not already avoid."""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from lrp_onnx.contract import is_added


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
    _replace(graph.initializer, [t for t in graph.initializer if t.name in needed or not is_added(t.name)])
    return model


def _replace(repeated: object, values: Iterable[object]) -> None:
    listed = list(values)
    del repeated[:]  # type: ignore[attr-defined]
    repeated.extend(listed)  # type: ignore[attr-defined]
