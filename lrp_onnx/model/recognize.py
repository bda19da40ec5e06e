"""From a canonical graph to a plan: heads by their shape,
residual blocks by data flow, never by names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lrp_onnx.errors import UnsupportedModelError
from lrp_onnx.model.canonicalize import canonicalize, negative_scales
from lrp_onnx.model.graph import Graph, name_of, shape_of
from lrp_onnx.model.heads.classifier import Head
from lrp_onnx.model.normalize.padded_pools import needs_indices, padded_pools
from lrp_onnx.plan import kinds
from lrp_onnx.plan.kinds import Role, Step
from lrp_onnx.plan.plan import Block, Branch, Plan


def recognize(
    graph: Graph, head: Head, *, source: str = "the model", fold_batch_norm: bool = True
) -> Plan:
    """The plan of a normalised model; the graph is only read.

    Args:
        graph: a normalised model.
        head: its two ends; the graph holds the mean that `append_mean` makes, where one is needed.
        source: how errors name the model.
        fold_batch_norm: whether batch normalisation is read as part of the layer before it.

    Raises:
        UnsupportedModelError: with every reason why the model cannot be explained.
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
    )


def group(steps: Sequence[Step]) -> list[Step | Block]:
    """Group steps into residual blocks: from each join back
    to the nearest common ancestor of its operands (the fork).

    A join inside another block's branch stays a plain step of that branch.
    A join whose branches leak (something outside reads a tensor inside) is
    left as a plain step too: per-layer rules serve it, a block rule cannot.
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
    inside = {step.output: index for index, block in enumerate(blocks) for step in block.steps}
    items: list[Step | Block] = []
    for step in steps:
        if step.output not in inside:
            items.append(step)
        elif step.output == blocks[inside[step.output]].output:
            items.append(_named(blocks[inside[step.output]], inside[step.output]))
    return items


def _named(block: Block, index: int) -> Block:
    return Block(
        f"block{index + 1}", block.fork, block.branches, block.join, block.tail, block.steps
    )


def _ancestors(steps: Sequence[Step]) -> dict[str, frozenset[str]]:
    """Every tensor and all tensors that it is computed from, itself included."""
    ancestors: dict[str, frozenset[str]] = {}
    for step in steps:
        for name in step.inputs:
            ancestors.setdefault(name, frozenset({name}))
        ancestors[step.output] = frozenset({step.output}).union(
            *(ancestors[name] for name in step.inputs)
        )
    return ancestors


def _block(
    join: Step, steps: Sequence[Step], order: dict[str, int], ancestors: dict[str, frozenset[str]]
) -> Block | None:
    common = frozenset.intersection(*(ancestors[name] for name in join.inputs))
    fork = max(common, key=lambda name: order.get(name, -1))
    members = [
        [s for s in steps if s.output in ancestors[name] - ancestors[fork]] for name in join.inputs
    ]
    tail = [s for s in steps if join.output in s.inputs]
    tail = tail if len(tail) == 1 and tail[0].kind.category == "activation" else []
    everything = [s for s in steps if any(s in branch for branch in members)] + [join, *tail]
    inner = {s.output for s in everything[: len(everything) - 1]}
    outside = [s for s in steps if s not in everything]
    leaks = any(inner.intersection(s.inputs) for s in outside) or any(
        not {fork, *inner}.issuperset(s.inputs) for s in everything
    )
    overlap = sum(map(len, members)) != len(everything) - 1 - len(tail)
    if leaks or overlap:
        return None
    branches = tuple(_branches(members))
    closing = replace(join, kind=kinds.Join(tuple(branch.role for branch in branches)))
    steps_ = tuple(closing if step is join else step for step in everything)
    return Block("", fork, branches, closing, tuple(tail), steps_)


def _branches(members: Sequence[list[Step]]) -> list[Branch]:
    """Roles: an empty branch is the identity; of the others
    the one with most linear layers is the main branch.
    """
    weighted = [sum(isinstance(s.kind, kinds.Weighted) for s in branch) for branch in members]
    depth = [(weighted[i], len(branch)) for i, branch in enumerate(members)]
    main = depth.index(max(depth))
    branches = []
    for index, branch in enumerate(members):
        if not branch:
            branches.append(Branch(Role.IDENTITY, (), "the fork itself is an operand of the join"))
        elif all(s.kind.moves for s in branch):
            branches.append(
                Branch(
                    Role.IDENTITY, tuple(branch), "the fork, its elements only moved or left out"
                )
            )
        elif index == main:
            branches.append(
                Branch(
                    Role.MAIN,
                    tuple(branch),
                    f"the longest way from fork to join: {weighted[index]} convolution(s)",
                )
            )
        else:
            branches.append(
                Branch(
                    Role.PROJECTION,
                    tuple(branch),
                    f"a shorter way from fork to join: {weighted[index]} convolution(s)",
                )
            )
    return branches


def _notes(graph: Graph, steps: Sequence[Step]) -> list[str]:
    notes = []
    if pools := padded_pools(graph):
        note = (
            f"{len(pools)} MaxPool behind an explicit Pad: ONNX Runtime computes the original "
            'wrongly at the border unless its optimiser "Pad_Fusion" is disabled; '
            "the compiled file is guarded against that"
        )
        if open_ := ", ".join(f"'{node.name}'" for node in pools if needs_indices(node)):
            note += (
                f", but for {open_} in files for tensorrt, web and portable: disable it there too"
            )
        notes.append(note)
    kept = sum(node.op_type == "BatchNormalization" for node in graph.nodes)
    if not kept:
        return [
            *notes,
            "no BatchNormalization nodes: "
            "the exporter had already folded them (or there were none)",
        ]
    notes.append(f"{kept} BatchNormalization nodes in the file")
    if negative := negative_scales(steps):
        notes.append(
            f"{negative} channels have a negative batch-norm scale: "
            "folded, their positive and negative weights change places"
        )
    return notes
