"""The `verify` command's work: a compiled file, run and audited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from lrp_onnx.compiled.verify import Arrays, Audit, audit, random_picture
from lrp_onnx.contract import Contract, Preprocessing
from lrp_onnx.errors import UnsupportedModelError
from lrp_onnx.files.models import load_proto
from lrp_onnx.model.normalize.rewrite import runnable
from lrp_onnx.runtime.images import read_image
from lrp_onnx.runtime.preprocess import preprocess
from lrp_onnx.runtime.session import open_session

BATCH = 2
"""Random pictures to verify with where no pictures are named: the fewest that are a batch."""


@dataclass(frozen=True, slots=True)
class SessionRunner:
    """Runs serialized models on one provider."""

    provider: str | None = None

    def __call__(self, model: bytes, feeds: Mapping[str, NDArray[np.generic]]) -> Arrays:
        """Name → output."""
        return dict(open_session(model, providers=self.provider).run(None, feeds))


def run_once(model: bytes, feeds: Mapping[str, NDArray[np.generic]]) -> Arrays:
    """Name → output, of one run on the CPU."""
    return SessionRunner("cpu")(model, feeds)


def verify_file(compiled: Path, *, original: Path | None, images: Sequence[Path], provider: str | None) -> Audit:
    """What an audit of the file `compiled` found.

    Raises:
        ModelFileError, ContractError, UnsupportedModelError, ImageError, ProviderError: it cannot
            be audited.
    """
    model = load_proto(compiled)
    contract = Contract.from_metadata({entry.key: entry.value for entry in model.metadata_props})
    reference = runnable(load_proto(original)) if original is not None else None
    if reference is not None:
        _same_interface(model, reference, contract, original)
    pictures = _pictures(model, contract, images)
    return audit(model, contract, SessionRunner(provider), pictures=pictures, original=reference)


def _same_interface(model: onnx.ModelProto, reference: onnx.ModelProto, contract: Contract, path: Path | None) -> None:
    inputs = {value.name for value in reference.graph.input} - {tensor.name for tensor in reference.graph.initializer}
    outputs = {value.name for value in reference.graph.output}
    if inputs != {contract.input} or outputs != set(contract.outputs):
        raise UnsupportedModelError(
            "these two files cannot be compared:",
            [
                f"{path} has inputs {sorted(inputs)} and outputs {sorted(outputs)}, the compiled "
                f"file was made from one with input '{contract.input}' and outputs "
                f"{sorted(contract.outputs)}"
            ],
        )


def _pictures(model: onnx.ModelProto, contract: Contract, images: Sequence[Path]) -> NDArray[Any]:
    if not images:
        return random_picture(model, contract.input, batch=BATCH)
    spec = contract.preprocessing or Preprocessing(layout=contract.layout)
    value = next(v for v in model.graph.input if v.name == contract.input)
    sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    height, width = sizes[2:] if spec.layout == "NCHW" else sizes[1:3]
    return np.stack([preprocess(read_image(path), spec, height, width).tensor for path in images])
