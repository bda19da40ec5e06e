"""Proving a compiled model: valid standard ONNX, original outputs unchanged, batches consistent, relevance accounted for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from lrp_onnx.contract import Contract
from lrp_onnx.errors import VerificationError

Arrays = dict[str, NDArray[np.generic]]
SAME_OUTPUT = 1e-5
"""Largest change of an original output, relative to its largest magnitude: float32 rounding where fusions differ."""


class Runner(Protocol):
    """Runs a serialized model: feeds → every output."""

    def __call__(self, model: bytes, feeds: Mapping[str, NDArray[np.generic]]) -> Arrays:
        """All outputs by name."""


def check_compiled(model: onnx.ModelProto, original: onnx.ModelProto, promise: Contract, runner: Runner | None) -> None:
    """Raise VerificationError unless `model` is valid and, where it can be run, predicts what `original` does."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker's C++ half raises several types
        raise VerificationError(
            "the compiled model is not valid ONNX; please report this with the model:", [str(error)]
        ) from error
    if runner is None:
        return
    feeds = {promise.input: random_picture(model, promise.input, batch=2)}
    before = runner(original.SerializeToString(), feeds)
    after = runner(model.SerializeToString(), feeds)
    faults = changed_outputs(before, after)
    faults += non_finite(after)
    if faults:
        raise VerificationError("the compiled model failed its checks:", faults)


def changed_outputs(before: Arrays, after: Arrays) -> list[str]:
    """One line for every original output that is missing or differs."""
    faults = []
    for name, expected in before.items():
        if name not in after:
            faults.append(f"the output '{name}' is gone")
            continue
        scale = float(np.abs(expected).max(initial=1e-30))
        change = float(np.abs(after[name].astype(np.float64) - expected.astype(np.float64)).max(initial=0.0)) / scale
        if not change <= SAME_OUTPUT:
            faults.append(
                f"the output '{name}' changed by {change:.1e} of its largest value; {SAME_OUTPUT:.0e} is rounding"
            )
    return faults


def random_picture(model: onnx.ModelProto, name: str, *, batch: int, seed: int = 0) -> NDArray[np.float32]:
    """A batch of smooth random input of the model's size, values about −2 to 2."""
    value = next(v for v in model.graph.input if v.name == name)
    sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    shape = (sizes[0] or batch, *sizes[1:])
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


SAME_MAP = 1e-4
"""Largest difference between a map computed alone and in a batch, relative to its maximum: kernels differ with the batch size."""


def batch_faults(
    model: bytes, promise: Contract, runner: Runner, pictures: NDArray[np.float32], outputs: Sequence[str]
) -> list[str]:
    """One line for every output of `outputs` where a batch of N does not equal N single runs."""
    together = runner(model, {promise.input: pictures})
    alone = [runner(model, {promise.input: pictures[i : i + 1]}) for i in range(len(pictures))]
    faults = []
    for name in outputs:
        single = np.concatenate([run[name] for run in alone]).astype(np.float64)
        change = np.abs(together[name].astype(np.float64) - single).reshape(len(single), -1).max(1)
        scale = np.abs(single).reshape(len(single), -1).max(1) + 1e-30
        worst = float((change / scale).max())
        if not worst <= SAME_MAP:
            faults.append(
                f"the output '{name}' of a batch of {len(single)} differs from single runs by {worst:.1e} of its maximum"
            )
    return faults


def non_finite(values: Arrays) -> list[str]:
    """One line for every array with NaN or infinity."""
    return [
        f"'{name}' holds NaN or infinity"
        for name, value in values.items()
        if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all()
    ]
