"""Runs of one shape whose inputs and outputs stay where they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.runtime.installation import onnx_runtime
from lrp_onnx.runtime.session import Arrays, Session


class Bound:
    """A session with inputs and outputs bound to buffers on its device, for runs of the shapes of
    `feeds`.

    Nothing is allocated between runs, and on a GPU nothing but the pictures and the results is
    copied; CUDA graphs need it.

    Args:
        session: where to run.
        feeds: every input that runs will give; shapes and types stay what they are.
        outputs: names; None for all.

    Raises:
        ProviderError, ModelFileError: as `Session.run` does.
    """

    def __init__(self, session: Session, feeds: Mapping[str, NDArray[Any]], outputs: list[str] | None = None) -> None:
        self._session, self._names = session, outputs if outputs is not None else session.outputs
        self._kinds = _kinds(feeds)
        make = onnx_runtime().OrtValue.ortvalue_from_numpy
        self._binding = session.runtime.io_binding()
        with session.faults(feeds):
            # A copy: on the CPU the value would be the caller's own memory, which later runs overwrite.
            self._inputs = {name: make(np.array(x, order="C"), session.provider, 0) for name, x in feeds.items()}
            for name, value in self._inputs.items():
                self._binding.bind_ortvalue_input(name, value)
        for name in self._names:  # allocated by the first run; later ones write into the same buffers
            self._binding.bind_output(name, session.provider)
        self._outputs: dict[str, Any] = {}

    def fits(self, feeds: Mapping[str, NDArray[Any]]) -> bool:
        """Whether `feeds` are of the inputs, shapes and types that this was made for."""
        return self._kinds == _kinds(feeds)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run once; the arrays are the caller's own.

        Raises:
            ValueError: `feeds` do not fit.
            ProviderError, ModelFileError: as `Session.run` does.
        """
        if not self.fits(feeds):
            raise ValueError(f"runs were bound to {self._kinds}, and this is {_kinds(feeds)}")
        with self._session.faults(feeds):
            for name, value in self._inputs.items():
                value.update_inplace(np.ascontiguousarray(feeds[name]))
            self._session.runtime.run_with_iobinding(self._binding)
        if not self._outputs:
            self._outputs = dict(zip(self._names, self._binding.get_outputs(), strict=True))
            for name, value in self._outputs.items():
                self._binding.bind_ortvalue_output(name, value)
        return {name: np.array(value.numpy()) for name, value in self._outputs.items()}


def _kinds(feeds: Mapping[str, NDArray[Any]]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (str(x.dtype), x.shape) for name, x in feeds.items()}
