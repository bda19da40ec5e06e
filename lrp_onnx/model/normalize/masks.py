"""Masks of minus infinity in front of a softmax, as large finite numbers: no relevance can be
computed of infinity, and what the softmax makes of either is 0, to the last bit.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from lrp_onnx.model.graph import Graph

MOVES = ("Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""Operators that may lie between the sum and the softmax."""
LOWEST, LOWEST_OF_HALVES = -1e30, -3e4
"""What stands for minus infinity, in float16 the second: far below scores, and finite if doubled.
"""


def finite_masks(graph: Graph) -> Graph:
    """The graph with finite numbers in every constant of minus infinities that is added to scores
    of a softmax. A row without any score that counts, which is NaN, stays out of it.
    """
    for node in list(graph.nodes):
        if node.op_type != "Add" or not _softmax_follows(node):
            continue
        for slot, value in enumerate(node.inputs):
            mask = graph.constant(value)
            if value is None or mask is None or not np.issubdtype(mask.dtype, np.floating):
                continue
            hidden = mask == -np.inf
            if not hidden.any() or hidden.all(-1).any():
                continue
            lowest = LOWEST_OF_HALVES if mask.dtype == np.float16 else LOWEST
            finite = np.where(hidden, lowest, mask).astype(mask.dtype)
            name = f"{node.name}.{slot}.finite"
            stored = ir.Value(name=name, const_value=ir.tensor(finite, name=name))
            stored.shape, stored.type = ir.Shape(finite.shape), value.type
            graph.model.graph.register_initializer(stored)
            node.replace_input_with(slot, stored)
    return replace(graph)  # which of its tensors are constant is found anew


def _softmax_follows(node: ir.Node) -> bool:
    """Whether all that reads the sum is one softmax, behind moves and further sums."""
    found: ir.Node | None = node
    while found is not None and found.op_type in ("Add", *MOVES):
        readers = list(found.outputs[0].consumers())
        found = readers[0] if len(readers) == 1 else None
    return found is not None and found.op_type == "Softmax"
