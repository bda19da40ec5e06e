"""The `verify` command's work: a compiled file, run and audited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from lrp_onnx.compiled.conservation import expose, tensors_of
from lrp_onnx.compiled.runner import Outputs, Runner
from lrp_onnx.compiled.verify import Audit, audit, random_picture
from lrp_onnx.contract import OUTPUTS, Contract, Preprocessing, is_added, is_compiled
from lrp_onnx.errors import ChoiceError, ContractError, ImageError, UnsupportedModelError
from lrp_onnx.files.budget import Footprint
from lrp_onnx.files.compiled import CompiledFile, checked
from lrp_onnx.files.models import load_proto
from lrp_onnx.files.originals import check_original
from lrp_onnx.model.gate import faults_of
from lrp_onnx.model.normalize.padded_pools import runnable
from lrp_onnx.runtime.batches import as_input, from_array, from_picture
from lrp_onnx.runtime.preprocess import input_size
from lrp_onnx.runtime.reading import Reading
from lrp_onnx.runtime.session import Session, open_session
from lrp_onnx.runtime.stated import check_outputs, check_texts

PICTURES = 2
"""Random pictures to verify with where none are given: the fewest that make a batch."""


def runner_on(provider: str | None, threads: int | None = None) -> Runner:
    """A function that runs a serialized model on one provider: feeds → every output by name.

    Without optimisations it runs on the CPU, where equal nodes give equal bits. The last model that
    ran stays loaded.
    """
    last: dict[str, tuple[bytes, Session]] = {}

    def run(
        model: bytes, feeds: Mapping[str, NDArray[np.generic]], *, optimize: bool = True
    ) -> Outputs:
        where = provider if optimize else "cpu"
        key = f"{where} {optimize}"
        if key not in last or last[key][0] is not model:
            last.clear()
            last[key] = (
                model,
                open_session(model, providers=where, threads=threads, optimize=optimize),
            )
        return dict(last[key][1].run(None, feeds))

    return run


def run_once(
    model: bytes, feeds: Mapping[str, NDArray[np.generic]], *, optimize: bool = True
) -> Outputs:
    """All outputs of one run on the CPU."""
    return runner_on("cpu")(model, feeds, optimize=optimize)


def verify_file(
    compiled: Path,
    *,
    original: Path | None,
    images: Sequence[Path],
    provider: str | None,
    threads: int | None = None,
    max_memory: float | None = None,
) -> Audit:
    """Run and audit the file `compiled`.

    Args:
        compiled: a compiled file.
        original: the model it was compiled from; None for its own forward part.
        images: pictures to run; empty for `PICTURES` of random noise.
        provider: ``cpu`` or ``cuda``; None for CUDA if it is available.
        threads: CPU threads; None for all cores.
        max_memory: bytes that a run may take; None for half of the machine's.

    Raises:
        ModelFileError, ContractError, ImageError, ProviderError: a file cannot be read or run.
        ChoiceError: `original` has other inputs or outputs.
    """
    model = load_proto(compiled, max_memory=max_memory)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if not is_compiled(metadata):
        raise ContractError(
            f"{compiled} is not a compiled file: it has no lrp_onnx.* metadata; run lrp-onnx "
            f"compile {compiled} first, and verify what that writes"
        )
    file = checked(
        model,
        str(compiled),
        folder=compiled.parent,
        max_memory=max_memory,
        ledger=True,
    )
    contract = file.contract
    check_texts(contract)
    pictures = _pictures(model, contract, images)
    # The ledger's tensors are kept until all are there.
    kept = expose(model, tensors_of(contract))
    footprint = Footprint.of(kept, str(compiled), max_memory)
    footprint.check(sizes={contract.input: pictures.shape})
    reference = None
    if original is not None:
        reference = _reference(original, contract, pictures.shape, max_memory)
    found = audit(
        model,
        contract,
        _stating(runner_on(provider, threads), contract),
        pictures=pictures,
        original=reference,
    )
    return _with_origin(found, file, original)


def _reference(
    path: Path, contract: Contract, shape: Sequence[int], max_memory: float | None
) -> onnx.ModelProto:
    """The original at `path`, checked as before a compilation, for pictures of this shape."""
    proto = load_proto(path, max_memory=max_memory)
    explained = min(contract.outputs, key=lambda name: OUTPUTS.index(contract.outputs[name]))
    if faults := faults_of(proto, explained):
        raise UnsupportedModelError(f"{path} is not run:", faults)
    sizes = {contract.input: shape}
    check_original(proto, str(path), path.parent, sizes=sizes, max_memory=max_memory)
    original = runnable(proto)
    _check_interface(original, contract, path)
    return original


def _with_origin(found: Audit, file: CompiledFile, original: Path | None) -> Audit:
    """The audit, with whether the part that predicts is the one that was compiled: a fault where it
    is not and its outputs were compared with themselves alone.
    """
    if not file.contract.forward:
        note = (
            "the file does not state a hash of the part that predicts, as those of early versions: "
            "whether it was changed since is not known"
        )
        return replace(found, notes=(*found.notes, note))
    if file.changed and original is not None:
        note = f"{file.changed}; its outputs were compared with those of {original}"
        return replace(found, notes=(*found.notes, note))
    faults = (f"{file.changed}: give --original MODEL to compare them, or compile it again",)
    check = ("the part that predicts is as it was compiled", faults if file.changed else ())
    return replace(found, checks=(check, *found.checks))


def _stating(run: Runner, contract: Contract) -> Runner:
    """`run`, whose outputs are checked against the contract where they are those of its file."""

    def run_checked(
        model: bytes, feeds: Mapping[str, NDArray[np.generic]], *, optimize: bool = True
    ) -> Outputs:
        outputs = dict(run(model, feeds, optimize=optimize))
        if any(map(is_added, outputs)):
            pictures = len(feeds[contract.input])
            check_outputs(outputs, contract, pictures=pictures, targets=1)
            Reading(contract).scores(outputs, 0)
        return outputs

    return run_checked


def _check_interface(original: onnx.ModelProto, contract: Contract, path: Path | None) -> None:
    weights = {tensor.name for tensor in original.graph.initializer}
    inputs = {value.name for value in original.graph.input} - weights
    outputs = {value.name for value in original.graph.output}
    if inputs != {contract.input} or outputs != set(contract.outputs):
        raise ChoiceError(
            "the original is not the model that was compiled:",
            [
                f"{path} has inputs {sorted(inputs)} and outputs {sorted(outputs)}, but the "
                f"compiled file was made from a model with input '{contract.input}' and outputs "
                f"{sorted(contract.outputs)}: name that model, or leave --original out"
            ],
        )


def _pictures(model: onnx.ModelProto, contract: Contract, images: Sequence[Path]) -> NDArray[Any]:
    if not images:
        return random_picture(model, contract.input, batch=PICTURES)
    value = next(v for v in model.graph.input if v.name == contract.input)
    shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    if contract.takes_pictures:
        spec = (contract.preprocessing or Preprocessing()).for_layout(contract.layout)
        size = input_size(shape, spec)
        ready = [from_picture(path, spec, size) for path in images]
    else:
        ready = [from_array(path, tuple(shape[1:]), contract.layout) for path in images]
    pictures = np.stack([one.tensor for one in ready])
    element = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    batch = value.type.tensor_type.shape.dim[0].dim_value or len(pictures)
    if len(pictures) > batch:
        raise ImageError(
            f"there are {len(pictures)} pictures, but the compiled file takes {batch} per run: "
            f"give {batch} at most"
        )
    filled = np.resize(pictures, (batch, *pictures.shape[1:]))  # again from the first picture
    return as_input(filled, element)
