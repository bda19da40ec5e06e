"""Runs of one input shape, with inputs and outputs in buffers that are allocated once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.runtime.installation import onnx_runtime
from lrp_onnx.runtime.session import Arrays, Session


class Bound:
    """A session whose inputs and outputs are bound to buffers on its device.

    Nothing is allocated between runs, and on a GPU only pictures and results are copied. CUDA
    graphs need such a session.

    Args:
        session: where to run.
        feeds: an example of every input; all runs have its names, shapes and types.
        outputs: names; None for all.

    Raises:
        ProviderError, ModelFileError: as `Session.run` does.
    """

    def __init__(
        self, session: Session, feeds: Mapping[str, NDArray[Any]], outputs: list[str] | None = None
    ) -> None:
        self._session, self._names = session, outputs if outputs is not None else session.outputs
        self._kinds = _kinds(feeds)
        feeds = session.completed(feeds)
        make = onnx_runtime().OrtValue.ortvalue_from_numpy
        self._binding = session.runtime.io_binding()
        with session.faults(feeds):
            # A copy: on the CPU the value would share the caller's memory, and the next run would
            # overwrite it.
            self._inputs = {
                name: make(np.array(x, order="C"), session.provider, 0) for name, x in feeds.items()
            }
            for name, value in self._inputs.items():
                self._binding.bind_ortvalue_input(name, value)
        # The first run allocates the outputs; later runs write into the same buffers.
        for name in self._names:
            self._binding.bind_output(name, session.provider)
        self._outputs: dict[str, Any] = {}

    def fits(self, feeds: Mapping[str, NDArray[Any]]) -> bool:
        """Whether `feeds` have the names, shapes and types that this session is bound to."""
        return self._kinds == _kinds(feeds)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run once. The returned arrays, by output name, are copies.

        Raises:
            ValueError: `feeds` do not fit (see `fits`).
            ProviderError, ModelFileError: as `Session.run` does.
        """
        if not self.fits(feeds):
            raise ValueError(f"runs were bound to {self._kinds}; got {_kinds(feeds)}")
        with self._session.faults(feeds):
            for name, value in self._inputs.items():
                if name in feeds:  # else it keeps its default
                    value.update_inplace(np.ascontiguousarray(feeds[name]))
            self._session.runtime.run_with_iobinding(self._binding)
        if not self._outputs:
            self._outputs = dict(zip(self._names, self._binding.get_outputs(), strict=True))
            for name, value in self._outputs.items():
                self._binding.bind_ortvalue_output(name, value)
        return {name: np.array(value.numpy()) for name, value in self._outputs.items()}


def _kinds(feeds: Mapping[str, NDArray[Any]]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (str(x.dtype), x.shape) for name, x in feeds.items()}
