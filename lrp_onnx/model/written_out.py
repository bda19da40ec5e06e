"""Activations that exporters write out in several nodes, such as SiLU, GELU and hard swish.

Each becomes one step.
"""

from __future__ import annotations

from collections.abc import Sequence

from lrp_onnx.plan import kinds
from lrp_onnx.plan.kinds import Step


def write_together(steps: Sequence[Step]) -> list[Step]:
    """The steps, with every product of a tensor and an elementwise function of it as one step."""
    current = list(steps)
    for product in steps:
        if isinstance(product.kind, kinds.Product) and not product.kind.axes:
            members = _members(current, product)
            if members is not None:
                current = _collapsed(current, members)
    return current


def _members(steps: Sequence[Step], product: Step) -> list[Step] | None:
    """The steps from the one tensor that the product is a function of up to the product, or None if
    there is no such tensor.
    """
    producer = {step.output: step for step in steps}
    order = {step.output: index for index, step in enumerate(steps)}
    reached = [_pointwise_ancestors(producer, name, product) for name in product.inputs]
    common = set.intersection(*reached)
    if not common:
        return None
    fork = max(common, key=lambda name: order.get(name, -1))
    members = [
        step
        for step in steps
        if step.output in set.union(*reached)
        and order[step.output] > order.get(fork, -1)
        and fork in _pointwise_ancestors(producer, step.output, product)
    ]
    inner = {step.output for step in members}
    closed = all({fork, *inner}.issuperset(step.inputs) for step in [*members, product])
    outside = [step for step in steps if step not in members and step is not product]
    leaks = any(inner.intersection(step.inputs) for step in outside)
    return None if leaks or not closed else [*members, product]


def _pointwise_ancestors(producer: dict[str, Step], name: str, product: Step) -> set[str]:
    """The tensor `name` and all that it is computed from elementwise, in the product's shape."""
    names: set[str] = set()
    todo = [name]
    while todo:
        current = todo.pop()
        if current in names:
            continue
        names.add(current)
        step = producer.get(current)
        if step is not None and _is_pointwise(step, product):
            todo += step.inputs
    return names


def _is_pointwise(step: Step, product: Step) -> bool:
    """Whether the step is an elementwise function, the same for all elements, in the product's
    shape.
    """
    if (
        step.output_shape[1:] != product.output_shape[1:]
        or step.input_shape[1:] != product.output_shape[1:]
    ):
        return False
    if isinstance(step.kind, kinds.Affine):
        return bool((step.kind.scale == step.kind.scale.flat[0]).all() and step.kind.bias.size == 1)
    return step.kind.pointwise


def _collapsed(steps: Sequence[Step], members: Sequence[Step]) -> list[Step]:
    """The steps with `members`, of which the last is the product, as one `Composed` step."""
    product, inner = members[-1], {step.output for step in members}
    (fork,) = {name for step in members for name in step.inputs if name not in inner}
    flat: list[Step] = []
    for member in members:
        flat += member.kind.steps if isinstance(member.kind, kinds.Composed) else [member]
    composed = Step(
        product.name,
        kinds.Composed(tuple(flat)),
        (fork,),
        product.output,
        product.output_shape,
        product.output_shape,
        tuple(name for member in members for name in member.nodes),
        product.view,
    )
    return [composed if step is product else step for step in steps if step not in members[:-1]]
