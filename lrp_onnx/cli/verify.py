"""The `verify` command's work: a compiled file, run and audited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from lrp_onnx.compiled.verify import Audit, Outputs, Runner, audit, random_picture
from lrp_onnx.contract import Contract, Preprocessing
from lrp_onnx.errors import UnsupportedModelError
from lrp_onnx.files.models import load_proto
from lrp_onnx.model.normalize.padded_pools import runnable
from lrp_onnx.runtime.images import read_image
from lrp_onnx.runtime.preprocess import input_size, preprocess
from lrp_onnx.runtime.session import open_session

PICTURES = 2
"""Random pictures to verify with where none are given: the fewest that make a batch."""


def runner_on(provider: str | None) -> Runner:
    """A function that runs a serialized model on one provider: feeds → every output by name."""

    def run(model: bytes, feeds: Mapping[str, NDArray[np.generic]]) -> Outputs:
        return dict(open_session(model, providers=provider).run(None, feeds))

    return run


def run_once(model: bytes, feeds: Mapping[str, NDArray[np.generic]]) -> Outputs:
    """All outputs of one run on the CPU."""
    return runner_on("cpu")(model, feeds)


def verify_file(
    compiled: Path, *, original: Path | None, images: Sequence[Path], provider: str | None
) -> Audit:
    """Run and audit the file `compiled`.

    Args:
        compiled: a compiled file.
        original: the model it was compiled from; None for its own forward part.
        images: pictures to run; empty for `PICTURES` of random noise.
        provider: ``cpu`` or ``cuda``; None for CUDA if it is available.

    Raises:
        ModelFileError, ContractError, ImageError, ProviderError: a file cannot be read or run.
        UnsupportedModelError: `original` has other inputs or outputs.
    """
    model = load_proto(compiled)
    contract = Contract.from_metadata({entry.key: entry.value for entry in model.metadata_props})
    reference = runnable(load_proto(original)) if original is not None else None
    if reference is not None:
        _check_interface(reference, contract, original)
    return audit(
        model,
        contract,
        runner_on(provider),
        pictures=_pictures(model, contract, images),
        original=reference,
    )


def _check_interface(original: onnx.ModelProto, contract: Contract, path: Path | None) -> None:
    weights = {tensor.name for tensor in original.graph.initializer}
    inputs = {value.name for value in original.graph.input} - weights
    outputs = {value.name for value in original.graph.output}
    if inputs != {contract.input} or outputs != set(contract.outputs):
        raise UnsupportedModelError(
            "the original is not the model that was compiled:",
            [
                f"{path} has inputs {sorted(inputs)} and outputs {sorted(outputs)}, but the "
                f"compiled file was made from a model with input '{contract.input}' and outputs "
                f"{sorted(contract.outputs)}"
            ],
        )


def _pictures(model: onnx.ModelProto, contract: Contract, images: Sequence[Path]) -> NDArray[Any]:
    if not images:
        return random_picture(model, contract.input, batch=PICTURES)
    spec = contract.preprocessing or Preprocessing(layout=contract.layout)
    value = next(v for v in model.graph.input if v.name == contract.input)
    size = input_size([dim.dim_value for dim in value.type.tensor_type.shape.dim], spec)
    return np.stack([preprocess(read_image(path), spec, *size).tensor for path in images])
