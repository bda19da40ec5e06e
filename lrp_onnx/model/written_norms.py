"""Normalisations that exporters write out: ``(x − mean) / √(variance + epsilon)`` in eight nodes.

Each becomes one step, as if the file had a LayerNormalization.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lrp_onnx.plan import kinds
from lrp_onnx.plan.kinds import Step


def normalizations_together(steps: Sequence[Step]) -> list[Step]:
    """The steps, with every written-out normalisation by the picture's own mean and variance as one
    step, its scale and bias included.
    """
    current = list(steps)
    for last in steps:
        if not isinstance(last.kind, kinds.Quotient | kinds.Product):
            continue
        found = _Reader({step.output: step for step in current}).read(last)
        if found is not None:
            current = _collapsed(current, *found)
    return current


@dataclass(slots=True)
class _Reader:
    """Reads backwards from the quotient."""

    producer: Mapping[str, Step]

    def read(self, last: Step) -> tuple[list[Step], kinds.Normalization] | None:
        """The steps that make up a normalisation of which `last` is the quotient, and what they
        compute; None if they do not.
        """
        members = [last]
        signal, divisor = self._divided(last, members)
        root = self._past(divisor, kinds.Expand, members)
        shifted = self._taken(root, members) if _is_root(root) else None
        if shifted is None or not isinstance(shifted.kind, kinds.Affine):
            return None
        variance = self._taken(shifted, members)
        if variance is None or not isinstance(variance.kind, kinds.GlobalAverage):
            return None
        square, mean, epsilon = self._taken(variance, members), variance.kind, shifted.kind.bias
        if square is None or not _is_square(square) or square.inputs != (signal,):
            return None
        centred = self._taken(square, members)
        x = self._centred(centred, mean.axes, members)
        if centred is None or x is None or mean.factor != 1.0 or epsilon.size != 1:
            return None
        if (shifted.kind.scale != 1.0).any() or not mean.keepdims:
            return None
        members += [root, shifted, variance, square, centred]  # type: ignore[list-item]
        sizes = tuple(size for size in centred.output_shape[1:] if size is not None)
        one = np.ones(1)
        norm = kinds.Normalization(sizes, mean.axes, float(epsilon.flat[0]), one, one * 0)
        return members, norm

    def _divided(self, last: Step, members: list[Step]) -> tuple[str, Step | None]:
        """The signal and what makes the divisor, of a quotient or a product with a reciprocal."""
        kind = last.kind
        if isinstance(kind, kinds.Quotient):
            return last.inputs[0], self.producer.get(last.inputs[1])
        if not isinstance(kind, kinds.Product) or kind.signal is None:
            return "", None
        inverse = self.producer.get(last.inputs[1 - kind.signal])
        inverse = self._past(inverse, kinds.Expand, members)
        if inverse is None or not _is_function(inverse, "Reciprocal", 1.0):
            return "", None
        members.append(inverse)
        return last.inputs[kind.signal], self.producer.get(inverse.inputs[0])

    def _past(self, step: Step | None, kind: type[kinds.Kind], members: list[Step]) -> Step | None:
        """The step before `step` if that is of `kind`, else `step` itself."""
        if step is None or not isinstance(step.kind, kind):
            return step
        members.append(step)
        return self.producer.get(step.inputs[0])

    def _taken(self, step: Step | None, members: list[Step]) -> Step | None:
        """The step that makes the one input of `step`."""
        return self.producer.get(step.inputs[0]) if step is not None else None

    def _centred(self, join: Step | None, axes: tuple[int, ...], members: list[Step]) -> str | None:
        """The tensor x, if `join` is x minus its mean over `axes`."""
        if join is None or not isinstance(join.kind, kinds.Join) or len(join.inputs) != 2:
            return None
        for x, other in (join.inputs, join.inputs[::-1]):
            between: list[Step] = []
            step = self._past(self.producer.get(other), kinds.Expand, between)
            sign = 1.0
            if step is not None and isinstance(step.kind, kinds.Affine):
                sign = step.kind.uniform or 0.0
                step = self._past(step, kinds.Affine, between)
            kind = step.kind if step is not None else None
            if step is None or not isinstance(kind, kinds.GlobalAverage):
                continue
            if step.inputs == (x,) and kind.axes == axes and sign * kind.factor == -1.0:
                members += [*between, step]
                return x
        return None


def _is_function(step: Step, name: str, *parameters: float) -> bool:
    kind = step.kind
    return isinstance(kind, kinds.Activation) and (kind.function, kind.parameters) == (
        name,
        parameters,
    )


def _is_root(step: Step | None) -> bool:
    return step is not None and (_is_function(step, "Sqrt") or _is_function(step, "Pow", 0.5))


def _is_square(step: Step) -> bool:
    """Whether it is ``x²`` or ``x · x``."""
    if _is_function(step, "Pow", 2.0):
        return True
    kind = step.kind
    return (
        isinstance(kind, kinds.Composed)
        and len(kind.steps) == 1
        and isinstance(kind.steps[0].kind, kinds.Product)
        and len(set(kind.steps[0].inputs)) == 1
    )


def _collapsed(steps: list[Step], members: list[Step], norm: kinds.Normalization) -> list[Step]:
    """The steps with `members`, of which the first is the quotient, as one; as they are where
    another step reads one of the tensors between.
    """
    last, inner = members[0], {step.output for step in members[1:]}
    outside = [step for step in steps if step not in members]
    if any(inner.intersection(step.inputs) for step in outside):
        return steps
    (x,) = {name for step in members for name in step.inputs if name not in inner}
    made = Step(
        last.name,
        norm,
        (x,),
        last.output,
        last.output_shape,
        last.output_shape,
        tuple(name for step in reversed(members) for name in step.nodes),
        last.view,
    )
    readers = [step for step in outside if last.output in step.inputs]
    replaced = {last.output: made}
    while len(readers) == 1 and isinstance(affine := readers[0].kind, kinds.Affine):
        kind = made.kind
        assert isinstance(kind, kinds.Normalization)
        scaled = replace(
            kind, scale=kind.scale * affine.scale, bias=kind.bias * affine.scale + affine.bias
        )
        nodes = (*made.nodes, *readers[0].nodes)
        replaced = {
            readers[0].output: replace(
                made, kind=scaled, output=readers[0].output, nodes=nodes, view=readers[0].view
            )
        }
        made = replaced[readers[0].output]
        outside = [step for step in outside if step is not readers[0]]
        readers = [step for step in outside if made.output in step.inputs]
    kept = [step for step in steps if step in outside or step.output in replaced]
    return [replaced.get(step.output, step) for step in kept]
