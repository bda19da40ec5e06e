"""What the checks of a compiled model ask of a runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

Outputs = dict[str, NDArray[np.generic]]


class Runner(Protocol):
    """Runs a serialized model on named inputs."""

    def __call__(
        self, model: bytes, feeds: Mapping[str, NDArray[np.generic]], *, optimize: bool = True
    ) -> Outputs:
        """Every output of the model: name → values.

        `optimize` says whether the runtime may change the graph. If it may not, every node is
        computed as it stands, so that equal nodes give equal bits.

        Raises:
            LrpOnnxError: the runtime cannot run the model.
        """


def fixed_batch(model: onnx.ModelProto, name: str) -> int | None:
    """The batch size that the input `name` states; None if it is symbolic, as -1 is to some."""
    value = next(v for v in model.graph.input if v.name == name)
    size = value.type.tensor_type.shape.dim[0].dim_value
    return size if size > 0 else None


def in_batches(
    runner: Runner,
    model: bytes,
    name: str,
    pictures: NDArray[np.generic],
    size: int | None,
    *,
    optimize: bool,
) -> Outputs:
    """Every output of `model` for all of `pictures`, which it takes `size` at a time.

    The last batch is filled up with copies of its last picture; their results are left out.

    Args:
        runner: runs the model.
        model: a serialized model.
        name: its picture input.
        pictures: (N, …).
        size: pictures per run; None for all at once. If it is not N, every output begins with the
            batch.
        optimize: as for `Runner`.
    """
    if size is None or size == len(pictures):
        return runner(model, {name: pictures}, optimize=optimize)
    parts = []
    for first in range(0, len(pictures), size):
        part = pictures[first : first + size]
        filled = np.concatenate([part, np.repeat(part[-1:], size - len(part), 0)])
        found = runner(model, {name: filled}, optimize=optimize)
        parts.append({output: values[: len(part)] for output, values in found.items()})
    return {output: np.concatenate([part[output] for part in parts]) for output in parts[0]}
