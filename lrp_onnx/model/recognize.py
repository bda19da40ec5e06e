"""From a canonical graph to a plan.

Residual blocks are recognised by data flow, never by names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from lrp_onnx.contract import RANKED, SINGLE
from lrp_onnx.errors import UnsupportedModelError
from lrp_onnx.model.canonicalize import canonicalize, negative_scales
from lrp_onnx.model.graph import Graph, name_of, shape_of
from lrp_onnx.model.heads.head import Head
from lrp_onnx.model.normalize.padded_pools import needs_indices, padded_pools
from lrp_onnx.plan import kinds
from lrp_onnx.plan.kinds import Role, Step
from lrp_onnx.plan.plan import Block, Branch, Plan


def recognize(
    graph: Graph, head: Head, *, source: str = "the model", fold_batch_norm: bool = True
) -> Plan:
    """The plan of a normalised model; the graph is not changed.

    Args:
        graph: a normalised model, after `append_logits`.
        head: the model's picture input and logits.
        source: name of the model in errors.
        fold_batch_norm: whether batch normalisation becomes a part of the layer before it.

    Raises:
        UnsupportedModelError: the model cannot be explained; every reason is listed.
    """
    steps = canonicalize(graph, head.logits, source=source, fold_batch_norm=fold_batch_norm)
    if not steps or head.picture not in {name for step in steps for name in step.inputs}:
        raise UnsupportedModelError(
            f"{source} cannot be explained:",
            [f"the output '{head.output}' does not depend on the input '{head.picture}'"],
        )
    (picture,) = graph.inputs
    shape, classes = shape_of(picture), steps[-1].output_shape[1]
    assert shape is not None and classes is not None
    names = map(name_of, graph.outputs)
    return Plan(
        input=head.picture,
        input_shape=shape,
        logits=head.logits,
        classes=classes,
        outputs={name: head.holds if name == head.output else "other" for name in names},
        items=tuple(group(steps)),
        notes=(*graph.notes, *_notes(graph, steps)),
        selection=str(head.selection or ""),
        start=head.start,
        ranked=RANKED if head.is_ranked else "",
        single=head.holds in SINGLE,
    )


def group(steps: Sequence[Step]) -> list[Step | Block]:
    """Group steps into residual blocks.

    A block goes from a join back to the nearest common ancestor of its operands, the fork. A join
    inside another block's branch stays a plain step of that branch. A join stays a plain step, too,
    if a step outside its branches reads a tensor inside them: a block rule cannot be applied to
    such branches, but the rules of the single layers can.
    """
    order = {step.output: index for index, step in enumerate(steps)}
    ancestors = _ancestors(steps)
    blocks: list[Block] = []
    for step in reversed(steps):
        if isinstance(step.kind, kinds.Join) and not any(step in block.steps for block in blocks):
            block = _block(step, steps, order, ancestors)
            if block is not None:
                blocks.append(block)
    blocks.reverse()
    blocks = [replace(block, name=f"block{number}") for number, block in enumerate(blocks, start=1)]
    block_of = {step.output: block for block in blocks for step in block.steps}
    items: list[Step | Block] = []
    for step in steps:
        block = block_of.get(step.output)
        if block is None:
            items.append(step)
        elif step.output == block.output:
            items.append(block)
    return items


def _ancestors(steps: Sequence[Step]) -> dict[str, frozenset[str]]:
    """Tensor → the tensors that it is computed from, and itself."""
    ancestors: dict[str, frozenset[str]] = {}
    for step in steps:
        for name in step.inputs:
            ancestors.setdefault(name, frozenset({name}))
        of_inputs = [ancestors[name] for name in step.inputs]
        ancestors[step.output] = frozenset({step.output}).union(*of_inputs)
    return ancestors


def _block(
    join: Step, steps: Sequence[Step], order: dict[str, int], ancestors: dict[str, frozenset[str]]
) -> Block | None:
    """The nameless block that `join` closes, or None if its branches overlap or leak."""
    common = frozenset.intersection(*(ancestors[name] for name in join.inputs))
    fork = max(common, key=lambda name: order.get(name, -1))
    members = [
        [s for s in steps if s.output in ancestors[name] - ancestors[fork]] for name in join.inputs
    ]
    tail = [s for s in steps if join.output in s.inputs]
    if len(tail) != 1 or tail[0].kind.category != "activation":
        tail = []
    in_branches = [s for s in steps if any(s in branch for branch in members)]
    block_steps = [*in_branches, join, *tail]
    inner = {s.output for s in block_steps[:-1]}
    outside = [s for s in steps if s not in block_steps]
    read_outside = any(inner.intersection(s.inputs) for s in outside)
    reads_outside = any(not {fork, *inner}.issuperset(s.inputs) for s in block_steps)
    overlap = sum(map(len, members)) != len(in_branches)
    if read_outside or reads_outside or overlap:
        return None
    branches = tuple(_branches(members))
    closing = replace(join, kind=kinds.Join(tuple(branch.role for branch in branches)))
    return Block("", fork, branches, closing, tuple(tail), (*in_branches, closing, *tail))


def _branches(members: Sequence[list[Step]]) -> list[Branch]:
    """The branches with their roles.

    A branch that is empty or only moves elements is the identity. Of the others, the one with the
    most linear layers is the main branch; of several such, the one with the most steps, then with
    the most weights: the order of a join's operands is the exporter's.
    """
    linear = [[s.kind for s in branch if isinstance(s.kind, kinds.Weighted)] for branch in members]
    weighted = list(map(len, linear))
    weights = [sum(prod(kind.weight.shape) for kind in branch) for branch in linear]
    depth = list(zip(weighted, map(len, members), weights, strict=True))
    main = depth.index(max(depth))
    branches = []
    for index, branch in enumerate(members):
        if not branch:
            role, why = Role.IDENTITY, "the fork itself is an operand of the join"
        elif all(s.kind.moves for s in branch):
            role, why = Role.IDENTITY, "the fork, its elements only moved or left out"
        elif index == main:
            role = Role.MAIN
            why = f"the longest way from fork to join: {weighted[index]} convolution(s)"
        else:
            role = Role.PROJECTION
            why = f"a shorter way from fork to join: {weighted[index]} convolution(s)"
        branches.append(Branch(role, tuple(branch), why))
    return branches


def _notes(graph: Graph, steps: Sequence[Step]) -> list[str]:
    """Notes on padded pools and batch normalisation for the readers of the plan."""
    notes = []
    if pools := padded_pools(graph):
        note = (
            f"{len(pools)} MaxPool behind an explicit Pad: ONNX Runtime computes the original "
            'wrongly at the border unless its optimiser "Pad_Fusion" is disabled; '
            "the compiled file is guarded against that"
        )
        unguarded = ", ".join(f"'{node.name}'" for node in pools if needs_indices(node))
        if unguarded:
            note += (
                f", except for {unguarded} in files for tensorrt, web and portable: "
                "disable it there too"
            )
        notes.append(note)
    count = sum(node.op_type == "BatchNormalization" for node in graph.nodes)
    if not count:
        return [
            *notes,
            "no BatchNormalization nodes: "
            "the exporter had already folded them (or there were none)",
        ]
    notes.append(f"{count} BatchNormalization nodes in the file")
    if negative := negative_scales(steps):
        notes.append(
            f"{negative} channels have a negative batch-norm scale: "
            "folded, their positive and negative weights change places"
        )
    return notes
