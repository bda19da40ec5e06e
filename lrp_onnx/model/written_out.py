"""Activations that exporters write out in several nodes:
SiLU, GELU, hard swish become one step each.
"""

from __future__ import annotations

from collections.abc import Sequence

from lrp_onnx.plan import kinds
from lrp_onnx.plan.kinds import Step


def write_together(steps: Sequence[Step]) -> list[Step]:
    """`steps` with every product of a tensor and a function
    of that tensor, element by element, as one step.
    """
    current = list(steps)
    for product in steps:
        if isinstance(product.kind, kinds.Product) and not product.kind.axes:
            members = _members(current, product)
            if members is not None:
                current = _collapsed(current, members)
    return current


def _members(steps: Sequence[Step], product: Step) -> list[Step] | None:
    """The steps from the one tensor that all of the product
    is made of to the product, or None if there is none.
    """
    producer = {step.output: step for step in steps}
    order = {step.output: index for index, step in enumerate(steps)}
    reached = [_behind(producer, name, product) for name in product.inputs]
    common = set.intersection(*reached)
    if not common:
        return None
    fork = max(common, key=lambda name: order.get(name, -1))
    inside = [
        s
        for s in steps
        if s.output in set.union(*reached) and order[s.output] > order.get(fork, -1)
    ]
    members = [s for s in inside if fork in _behind(producer, s.output, product)]
    made = {s.output for s in members}
    closed = all({fork, *made}.issuperset(s.inputs) for s in [*members, product])
    leaks = any(made.intersection(s.inputs) for s in steps if s not in members and s is not product)
    return None if leaks or not closed else [*members, product]


def _behind(producer: dict[str, Step], name: str, product: Step) -> set[str]:
    """Tensors of the product's shape that `name` is made of,
    element by element, itself among them.
    """
    names, todo = set(), [name]
    while todo:
        here = todo.pop()
        if here in names:
            continue
        names.add(here)
        step = producer.get(here)
        if step is not None and _is_pointwise(step, product):
            todo += step.inputs
    return names


def _is_pointwise(step: Step, product: Step) -> bool:
    if (
        step.output_shape[1:] != product.output_shape[1:]
        or step.input_shape[1:] != product.output_shape[1:]
    ):
        return False
    if isinstance(step.kind, kinds.Affine):
        return bool((step.kind.scale == step.kind.scale.flat[0]).all() and step.kind.bias.size == 1)
    return step.kind.pointwise


def _collapsed(steps: Sequence[Step], members: Sequence[Step]) -> list[Step]:
    product, made = members[-1], {step.output for step in members}
    (fork,) = {name for step in members for name in step.inputs if name not in made}
    flat: list[Step] = []
    for member in members:
        flat += member.kind.steps if isinstance(member.kind, kinds.Composed) else [member]
    whole = Step(
        product.name,
        kinds.Composed(tuple(flat)),
        (fork,),
        product.output,
        product.output_shape,
        product.output_shape,
        tuple(name for member in members for name in member.nodes),
    )
    return [whole if step is product else step for step in steps if step not in members[:-1]]
