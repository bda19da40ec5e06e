"""Whether a compiled model predicts what its original does, and how far a runtime moves both.

With the runtime's optimisations off, equal nodes give equal bits: the outputs are unchanged only if
they are equal bit for bit. With optimisations on, a runtime fuses other nodes of the compiled model
than of the original and rounds elsewhere. What this moves is measured, beside what the runtime
moves in the original, and is never a fault of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from lrp_onnx.compiled.order import drop_unused
from lrp_onnx.compiled.runner import Outputs, Runner, fixed_batch, in_batches
from lrp_onnx.contract import Contract, is_added
from lrp_onnx.errors import LrpOnnxError
from lrp_onnx.files.structure import STANDARD, opset_of

SAME_OUTPUT = 1e-5
"""Largest movement of an output, relative to its largest magnitude, that is mere rounding in
float32.
"""
SAME_HALF = {"float16": 4e-3, "bfloat16": 3e-2}
"""The same for 16-bit outputs, by element type: four times the unit of rounding."""
ONE_STEP = 0.05
"""The same for quantised models: rounding may move a value by one step of its quantiser."""
HALF_INSIDE = 2e-3
"""The same for float32 outputs of 16-bit models: runtimes differ in where they round."""
_HALF_UNITS = {onnx.TensorProto.FLOAT16: 2.0**-11, onnx.TensorProto.BFLOAT16: 2.0**-8}
"""Element type → unit of rounding."""
SPLIT_STANDARD = {
    "Attention": 23,
    "GroupNormalization": 21,
    "QLinearConv": 0,
    "QLinearMatMul": 0,
    "RMSNormalization": 23,
    "RotaryEmbedding": 23,
    "Swish": 24,
}
"""Standard operators that the compiler splits → the opset from which on."""


@dataclass(frozen=True, slots=True)
class Movement:
    """How far the runtime's optimisations move an output, relative to its largest magnitude.

    The differences are from the original's output without optimisations, unless they say otherwise.
    """

    output: str
    """Name of the output."""
    compiled: float
    """The compiled model's output with optimisations."""
    original: float | None = None
    """The original's output with optimisations; None if it was not measured."""
    between: float | None = None
    """The compiled model's output with optimisations, from the original's with optimisations; None
    if it was not measured.
    """
    nudged: float | None = None
    """The original's output without optimisations where every number of the picture is the next
    larger one; None if it was not measured, or for integer pictures.
    """
    pictures: int = 0
    """Pictures that were run."""
    predictions: int | None = None
    """Of these, pictures for which the largest scores of both models with optimisations are of
    different classes; None for an output that is no table of scores, or if it was not measured.
    """

    def __str__(self) -> str:
        """One sentence for users."""
        text = (
            f"the runtime's optimisations move the output '{self.output}' by {self.compiled:.1e} "
            "of its largest value in the compiled file"
        )
        if self.original is not None:
            text += f" and by {self.original:.1e} in the original"
        if self.between is not None:
            text += f"; with them the two differ by {self.between:.1e}"
        if self.predictions is not None:
            text += f" ({self.predictions or 'no'} prediction of {self.pictures} changes)"
        if self.nudged is not None:
            text += (
                f"; one unit in the last place of its input moves the original by {self.nudged:.1e}"
            )
        return text


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of `compare`."""

    faults: tuple[str, ...]
    """One message for every original output that is missing or changed."""
    notes: tuple[str, ...]
    """What a user should know of the outputs under the runtime's optimisations."""
    movements: tuple[Movement, ...]
    """Every original output's movement."""


def compare(
    model: onnx.ModelProto,
    original: onnx.ModelProto,
    contract: Contract,
    runner: Runner,
    *,
    pictures: NDArray[np.generic],
    optimised: Outputs,
    measure: bool,
) -> Comparison:
    """Compare a compiled model's outputs with its original's.

    The original runs in batches of its own size if its batch is fixed; without optimisations, the
    compiled model runs in the same batches, since kernels differ with the batch.

    Args:
        model: the compiled model.
        original: the model it was compiled from.
        contract: the compiled model's metadata.
        runner: runs a model.
        pictures: (N, …) with N ≥ 1, in the units of the model's input.
        optimised: the outputs of `model` for `pictures` with optimisations.
        measure: whether the original's own movements are measured even if those of `model` are mere
            rounding. Those of a quantised model always are.

    Raises:
        LrpOnnxError: the runner cannot run one of the models.
    """
    size = fixed_batch(original, contract.input)
    data = original.SerializeToString()

    def run(x: NDArray[np.generic], *, optimize: bool) -> Outputs:
        return in_batches(runner, data, contract.input, x, size, optimize=optimize)

    def nudged() -> Outputs | None:
        if pictures.dtype.kind != "f":
            return None
        return run(np.nextafter(pictures, np.array(np.inf, pictures.dtype)), optimize=False)

    tolerance, measure = rounding_of(model), measure or is_quantised(model)
    reason = _not_comparable(original)
    exact = near = None
    try:
        exact = run(pictures, optimize=False)
        near = nudged() if measure else None  # now, while the original is loaded
    except LrpOnnxError as error:
        reason = f"the runtime cannot run the original without optimisations ({error})"
    if exact is None:
        before = run(pictures, optimize=True)
        faults = changed_outputs(before, optimised, tolerance=tolerance)
        return Comparison(tuple(faults), (_tolerated(reason, tolerance),), ())
    own_size = fixed_batch(model, contract.input)
    if own_size is not None and own_size != size and size is not None:
        reason = f"the original takes {size} pictures, the compiled model {own_size}"
    plain = _unoptimised(model, contract).SerializeToString()
    after = in_batches(runner, plain, contract.input, pictures, own_size or size, optimize=False)
    faults = changed_outputs(exact, after, tolerance=tolerance if reason else None)
    notes = [_tolerated(reason, tolerance)] if reason else []
    movements = tuple(_movements(exact, optimised))
    if is_quantised(model):
        tolerance = SAME_OUTPUT
    if measure or any(_is_notable(m, exact, tolerance) for m in movements):
        near = near if measure else nudged()
        both = run(pictures, optimize=True)
        movements = tuple(_movements(exact, optimised, original=both, nudged=near))
    exactly = "" if reason or faults else "; without them the outputs are equal bit for bit"
    notes += [f"{m}{exactly}" for m in movements if _is_notable(m, exact, tolerance)]
    return Comparison(tuple(faults), tuple(notes), movements)


def changed_outputs(
    before: Outputs, after: Outputs, *, tolerance: float | None = None
) -> list[str]:
    """One message for every output of `before` that `after` does not have, or has changed.

    Args:
        before: the original's outputs.
        after: the compiled model's.
        tolerance: how much an output may change, relative to its largest magnitude; 16-bit outputs
            have at least the tolerance of `SAME_HALF`. None if it may not change at all.
    """
    faults = []
    for name, expected in before.items():
        if name not in after:
            faults.append(f"the output '{name}' is missing")
            continue
        change, allowed = _difference(after[name], expected), "no change is allowed"
        same = _equal(after[name], expected)
        if tolerance is not None:
            limit = max(tolerance, SAME_HALF.get(str(expected.dtype), 0.0))
            same, allowed = change <= limit, f"{limit:.0e} is rounding"
        if not same:
            faults.append(
                f"the output '{name}' changed by {change:.1e} of its largest value; {allowed}"
            )
    return faults


def rounding_of(model: onnx.ModelProto) -> float:
    """How much an output of `model` may move, relative to its largest magnitude, when a runtime
    fuses its nodes differently.
    """
    if _has_16_bits(model):
        return HALF_INSIDE
    return ONE_STEP if is_quantised(model) else SAME_OUTPUT


def is_quantised(model: onnx.ModelProto) -> bool:
    """Whether `model` rounds to integers inside (QDQ)."""
    return any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def forward_part(model: onnx.ModelProto, contract: Contract) -> onnx.ModelProto:
    """A copy of `model` without the nodes, inputs and outputs that the compiler added."""
    forward = onnx.ModelProto()
    forward.CopyFrom(model)
    kept = [value for value in forward.graph.output if value.name in contract.outputs]
    del forward.graph.output[:]
    forward.graph.output.extend(kept)
    inputs = [value for value in forward.graph.input if not is_added(value.name)]
    del forward.graph.input[:]
    forward.graph.input.extend(inputs)
    return drop_unused(forward)


def _unoptimised(model: onnx.ModelProto, contract: Contract) -> onnx.ModelProto:
    """The part of `model` to compare bit for bit: all of it, but of 16-bit models the forward part.

    A runtime without 16-bit kernels (ONNX Runtime's CPU provider) computes them in float32 even
    without optimisations, and rounds a tensor or not depending on who else reads it.
    """
    return forward_part(model, contract) if _has_16_bits(model) else model


def half_rounding(model: onnx.ModelProto) -> float:
    """How far rounding to 16 bits moves a number of the model, relative to it; 0 where all its
    weights have more bits.
    """
    types = {tensor.data_type for tensor in model.graph.initializer}
    return max((unit for kind, unit in _HALF_UNITS.items() if kind in types), default=0.0)


def _has_16_bits(model: onnx.ModelProto) -> bool:
    return half_rounding(model) > 0


def _not_comparable(original: onnx.ModelProto) -> str:
    """Why equal bits cannot be expected; empty if they can."""
    domains = sorted({node.domain for node in original.graph.node} - set(STANDARD))
    functions = {function.domain for function in original.functions}
    foreign = [domain for domain in domains if domain not in functions]
    if foreign:
        return f"the original has fused operators of {', '.join(foreign)}, which were taken apart"
    opset = opset_of(original)
    present = {node.op_type for node in original.graph.node if node.domain in STANDARD}
    split = sorted(op for op, since in SPLIT_STANDARD.items() if op in present and opset >= since)
    return f"the original has {', '.join(split)}, which were taken apart" if split else ""


def _tolerated(reason: str, tolerance: float) -> str:
    return (
        f"{reason}: outputs were not compared bit for bit, but to {tolerance:.0e} of their "
        "largest value"
    )


def _movements(
    exact: Outputs,
    optimised: Outputs,
    *,
    original: Outputs | None = None,
    nudged: Outputs | None = None,
) -> Iterator[Movement]:
    for name, expected in exact.items():
        if name not in optimised:
            continue
        found = optimised[name]
        other = original[name] if original is not None else None
        scores = expected.ndim == 2 and expected.shape[1] > 1 and found.shape == expected.shape
        yield Movement(
            output=name,
            compiled=_difference(found, expected),
            original=_difference(other, expected) if other is not None else None,
            between=_difference(found, other) if other is not None else None,
            nudged=_difference(nudged[name], expected) if nudged is not None else None,
            pictures=len(expected),
            predictions=int((found.argmax(1) != other.argmax(1)).sum())
            if scores and other is not None
            else None,
        )


def _is_notable(movement: Movement, exact: Outputs, tolerance: float) -> bool:
    """Whether an output moves by more than rounding, in the compiled model or in the original."""
    half = SAME_HALF.get(str(exact[movement.output].dtype), 0.0)
    if not np.isfinite(exact[movement.output].astype(np.float64)).all():
        return False  # another check says so, and there is nothing to measure
    moved = max(movement.compiled, movement.original or 0.0)
    return not moved <= max(tolerance, half)


def _difference(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference, relative to the largest magnitude expected; infinity for another
    shape.
    """
    if found.shape != expected.shape:
        return float("inf")
    scale = float(np.abs(expected.astype(np.float64)).max(initial=1e-30))
    with np.errstate(invalid="ignore"):  # infinity minus infinity is NaN
        difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    return float(difference.max(initial=0.0)) / scale


def _equal(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    """Whether two arrays have the same type, shape and values; NaN equals NaN."""
    floats = expected.dtype.kind == "f"
    return found.dtype == expected.dtype and np.array_equal(found, expected, equal_nan=floats)
