"""The `triton` command: a model repository for Triton and other servers of its protocol."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from lrp_onnx.cli.given import IMAGENET_IS_ASSUMED, refuse_settled
from lrp_onnx.cli.verify import runner_on
from lrp_onnx.compiler import Options, compile_model, runtime_notes
from lrp_onnx.contract import Preprocessing, is_compiled
from lrp_onnx.deploy.triton import (
    Repository,
    Serving,
    Tensor,
    check_repository,
    contract_of,
    write_repository,
)
from lrp_onnx.errors import ModelFileError
from lrp_onnx.files.models import SIZE_LIMIT, checked_external, metadata_of, parse, read_bytes
from lrp_onnx.runtime.preprocess import assumed

IMAGE = "nvcr.io/nvidia/tritonserver:26.09-py3"
"""Triton's container image in what is printed."""


def make_repository(
    model: Path,
    folder: Path,
    *,
    name: str | None,
    options: Options,
    serving: Serving,
    target: bool | None = None,
    pixels: bool = False,
    settled: Sequence[str] = (),
    force: bool = False,
) -> tuple[Repository, list[str]]:
    """Compile `model` for servers, unless it is compiled, and write it into a repository.

    Args:
        model: an ONNX file, compiled or not.
        folder: the repository.
        name: the model's name; None for that of its file.
        options: how a model that is not compiled is compiled.
        serving: how the server runs it.
        target: whether requests say the class to explain; None for a file that is compiled as it
            is, and True for others.
        pixels: whether the file takes pixels and prepares them itself.
        settled: options of a compilation that were given, which a compiled file cannot follow.
        force: whether existing files are overwritten.

    Returns:
        The repository, and notes for whoever made it.

    Raises:
        RuleError: the file is compiled and `settled` is not empty.
        What `compile_model` and `write_repository` raise.
    """
    metadata = metadata_of(model)  # a model that cannot be read is told before anything else
    name = name_of(model) if name is None else name
    check_repository(folder, name, weights=False, force=force)
    notes: list[str] = []
    weights: dict[str, Path] = {}
    if is_compiled(metadata):
        refuse_settled(model, settled)
        proto, weights = _as_it_lies(model, options.max_memory)
    else:
        inputs = "none" if target is False else "target"
        compiled = compile_model(model, replace(options, inputs=inputs), runner=runner_on("cpu"))
        proto, told = compiled.model, list(runtime_notes(options))
        notes = [note for note in compiled.plan.notes if note not in told]
        if told:
            notes.append(
                "the file is for ONNX Runtime, on the CPU and on CUDA; OpenVINO Model Server needs "
                "--optimize-for openvino"
            )
        if proto.ByteSize() > SIZE_LIMIT:
            raise ModelFileError(
                f"{model} has {proto.ByteSize():,} bytes when it is compiled; files have at most "
                f"{SIZE_LIMIT:,}: take a smaller model"
            )
    written = write_repository(
        proto,
        folder,
        name=name,
        serving=serving,
        target=target,
        pixels=_preparation(proto, options.preprocessing, notes) if pixels else None,
        labels=options.labels,
        weights=weights,
        force=force,
    )
    return written, [*notes, *written.notes]


def _preparation(
    model: onnx.ModelProto, given: Preprocessing | None, notes: list[str]
) -> Preprocessing:
    """How a picture becomes a compiled model's input; a note is added where that is not known."""
    contract = contract_of(model)
    stated = given or contract.preprocessing
    if stated is None:
        value = next(one for one in model.graph.input if one.name == contract.input)
        channels = value.type.tensor_type.shape.dim[contract.layout.index("C")].dim_value
        stated = assumed(channels)
        notes.append(IMAGENET_IS_ASSUMED)
    return stated.for_layout(contract.layout)


def name_of(model: Path) -> str:
    """The name of a model's file as a server can have it."""
    stem = model.stem.removesuffix(".lrp")
    return re.sub(r"[^\w.-]|^[.-]", "_", stem, flags=re.ASCII)


def _as_it_lies(model: Path, max_memory: float | None) -> tuple[onnx.ModelProto, dict[str, Path]]:
    """A model without the weights that lie in other files, and those files: name → path."""
    proto = parse(read_bytes(model), str(model))
    names = {
        entry.value
        for tensor in checked_external(proto, model, max_memory)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return proto, {file: model.parent / file for file in sorted(names)}


def repository_json(repository: Repository, notes: Sequence[str]) -> dict[str, Any]:
    """What was written, as JSON-ready data."""

    def tensors(those: Sequence[Tensor]) -> list[dict[str, Any]]:
        return [{"name": t.name, "type": t.type, "dims": list(t.dims)} for t in those]

    return {
        "output": str(repository.folder),
        "name": repository.name,
        "max_batch_size": repository.max_batch_size,
        "inputs": tensors(repository.inputs),
        "outputs": tensors(repository.outputs),
        "files": dict(repository.sizes),
        "memory": repository.memory,
        "notes": list(notes),
    }


def repository_lines(repository: Repository) -> Iterator[str]:
    """What was written, and how to serve it."""
    batches = (
        f"batches of up to {repository.max_batch_size}"
        if repository.max_batch_size
        else "no batches by the server"
    )
    size = sum(repository.sizes.values()) / 1e6
    memory = f"{repository.memory / 1e6:,.0f} MB of memory for one run"
    yield f"{repository.folder / repository.name}: {size:.1f} MB, {batches}, {memory}"
    for what, tensors in (("in", repository.inputs), ("out", repository.outputs)):
        yield f"{what}: {', '.join(map(_written, tensors))}"
    folder = shlex.quote(str(repository.folder.absolute()))
    yield (
        f"serve it: docker run --rm -p 8000:8000 -v {folder}:/models {IMAGE} tritonserver "
        "--model-repository=/models"
    )


def _written(tensor: Tensor) -> str:
    dims = ", ".join(map(str, tensor.dims))
    return f"{tensor.name} {tensor.type.removeprefix('TYPE_')} [{dims}]"
