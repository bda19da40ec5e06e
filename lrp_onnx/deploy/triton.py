"""A model repository for NVIDIA's Triton Inference Server, with a compiled file.

write_repository(model, Path("repository"), name="resnet50")

NAME/config.pbtxt says what the server has to know of the file, NAME/1/model.onnx is the file; where
weights lie in other files, NAME/1/model.onnx is a folder with all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from google.protobuf.text_encoding import CEscape

from lrp_onnx.contract import PREFIX, Contract, Preprocessing
from lrp_onnx.deploy.forms import with_pixels, without_optional_inputs
from lrp_onnx.errors import ContractError, OutputError, RuleError, shown
from lrp_onnx.files.writing import check_folder, check_writable, make_folder, write_bytes

PLATFORM, MODEL, CONFIG, LABELS, VERSION = (
    "onnxruntime_onnx",
    "model.onnx",
    "config.pbtxt",
    "labels.txt",
    "1",
)
MAX_BATCH_SIZE = 8
"""Pictures that the server joins to one batch, unless another number is given."""
QUEUE_DELAY = 100
"""Microseconds that a picture waits for others, unless another number is given."""
KINDS: Mapping[str, str] = {"auto": "KIND_AUTO", "cpu": "KIND_CPU", "gpu": "KIND_GPU"}
"""Where the model runs → Triton's name; ``auto`` is a GPU where the server has one."""
TYPES: Mapping[int, str] = {
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.FLOAT16: "TYPE_FP16",
    onnx.TensorProto.BFLOAT16: "TYPE_BF16",
    onnx.TensorProto.DOUBLE: "TYPE_FP64",
    onnx.TensorProto.BOOL: "TYPE_BOOL",
    onnx.TensorProto.INT8: "TYPE_INT8",
    onnx.TensorProto.INT16: "TYPE_INT16",
    onnx.TensorProto.INT32: "TYPE_INT32",
    onnx.TensorProto.INT64: "TYPE_INT64",
    onnx.TensorProto.UINT8: "TYPE_UINT8",
    onnx.TensorProto.UINT16: "TYPE_UINT16",
    onnx.TensorProto.UINT32: "TYPE_UINT32",
    onnx.TensorProto.UINT64: "TYPE_UINT64",
}
"""ONNX's element type → Triton's."""
NAME = re.compile(r"\w[\w.-]*", re.ASCII)
"""A model's name: it is a folder, and a part of addresses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How the server runs the model.

    Raises:
        RuleError: a number is out of range, or a preferred size is larger than the largest.
    """

    max_batch_size: int | None = None
    """Pictures of the largest batch; 0 for requests that bring their own batch. None for
    `MAX_BATCH_SIZE`, or 0 where the file cannot be run on any number of pictures.
    """
    preferred: tuple[int, ...] = ()
    """Batches that run at once, without waiting for more pictures."""
    queue_delay: int = QUEUE_DELAY
    """Microseconds that a picture waits for others."""
    kind: str = "auto"
    """One of `KINDS`."""
    instances: int = 1
    """Copies of the model that run side by side, on every GPU or on the CPU."""

    def __post_init__(self) -> None:
        largest = MAX_BATCH_SIZE if self.max_batch_size is None else self.max_batch_size
        if self.kind not in KINDS:
            raise RuleError(f"there is no kind {self.kind!r}; there are {', '.join(KINDS)}")
        if largest < 0 or self.queue_delay < 0 or self.instances < 1:
            raise RuleError(
                f"max_batch_size {largest}, queue_delay {self.queue_delay} and instances "
                f"{self.instances} are at least 0, 0 and 1"
            )
        for size in self.preferred:
            if not 1 <= size <= largest:
                raise RuleError(
                    f"a preferred batch of {size} is not within 1 to the largest batch, {largest}: "
                    "raise --max-batch-size, or leave it out"
                )


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output as config.pbtxt declares it."""

    name: str
    type: str
    """Triton's name of the element type."""
    dims: tuple[int, ...]
    """What a request has, without the batch where the server makes batches; -1 is any size."""
    scalar: bool = False
    """Whether the file has no axis for the one size in `dims`: a request must have at least one."""


@dataclass(frozen=True, slots=True)
class Repository:
    """A model in a repository, which was written."""

    folder: Path
    name: str
    max_batch_size: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    sizes: Mapping[str, int]
    """Name of every file, relative to the folder → its bytes."""
    memory: int
    """Bytes of tensors, without weights, that a run of the largest batch needs at once."""
    notes: tuple[str, ...] = field(default=())


def write_repository(
    model: onnx.ModelProto,
    folder: Path,
    *,
    name: str,
    serving: Serving = Serving(),
    target: bool | None = None,
    pixels: Preprocessing | None = None,
    labels: Sequence[str] = (),
    weights: Mapping[str, Path] | None = None,
    force: bool = False,
) -> Repository:
    """Write a compiled file as the server wants it, and what the server has to know of it.

    Args:
        model: a compiled file. Optional inputs become required ones or constants.
        folder: the repository; it is made if it is missing, and may hold other models.
        name: the model's name.
        serving: how the server runs it.
        target: whether requests say the class to explain; None for what the file has.
        pixels: how a picture becomes the model's input, for a file that prepares pixels itself;
            None for one that takes what it took.
        labels: class names; empty for those in the file.
        weights: name → path of the files that hold weights, where `model` refers to such.
        force: whether existing files are overwritten.

    Raises:
        ContractError: the file cannot be served so, or the class names do not fit.
        RuleError: the name cannot be a model's, or the file does not take any number of pictures
            and `serving` asks for batches.
        OutputExistsError: a file exists and `force` is not set.
        OutputError: the folder or a file cannot be written.
    """
    check_repository(folder, name, weights=bool(weights), force=force)
    contract = contract_of(model)
    served = without_optional_inputs(model, contract, target=target)
    if pixels is not None:
        near = next((path.parent for path in (weights or {}).values()), None)
        served = with_pixels(served, contract_of(served), pixels, near)
    contract = contract_of(served)
    fault = batch_fault(served)
    if fault and serving.max_batch_size:
        raise RuleError(f"{fault}: leave --max-batch-size out, or compile a model without that")
    largest = 0 if fault else serving.max_batch_size
    largest = MAX_BATCH_SIZE if largest is None else largest
    inputs, outputs = (
        tuple(tensor_of(value, batched=largest > 0) for value in values)
        for values in (served.graph.input, served.graph.output)
    )
    classes = tuple(labels) or contract.labels
    if classes and len(classes) != contract.classes:
        raise ContractError(
            f"there are {len(classes)} class names and the model has {contract.classes} classes: "
            "give one name per class"
        )
    labelled = [t.name for t in outputs if classes and _is_of_classes(t, contract)]
    text = config(name, largest, serving, inputs, outputs, labelled, contract)
    contents: dict[str, bytes | Path] = {f"{name}/{CONFIG}": text.encode()}
    if labelled:
        contents[f"{name}/{LABELS}"] = "".join(f"{shown(one)}\n" for one in classes).encode()
    place = f"{name}/{VERSION}/{MODEL}"
    for file, path in (weights or {}).items():
        contents[f"{place}/{file}"] = path
    # The model comes last: the server does not load it with a config of its own.
    contents[f"{place}/{MODEL}" if weights else place] = served.SerializeToString()
    sizes = {}
    for file, data in contents.items():
        make_folder((folder / file).parent)
        data = data if isinstance(data, bytes) else data.read_bytes()
        write_bytes(folder / file, data, force=force)
        sizes[file] = len(data)
    notes = (f"{fault}, so max_batch_size is 0",) if fault else ()
    memory = contract.memory_fixed + contract.memory_each * max(largest, 1)
    return Repository(folder, name, largest, inputs, outputs, sizes, memory, notes)


def contract_of(model: onnx.ModelProto) -> Contract:
    """What a compiled file says of itself."""
    return Contract.from_metadata({entry.key: entry.value for entry in model.metadata_props})


def check_repository(folder: Path, name: str, *, weights: bool, force: bool) -> None:
    """Check that a model of this name can be written.

    Raises:
        RuleError: the name cannot be a model's.
        OutputExistsError: a file exists and `force` is not set.
        OutputError: the folder is none, or a file has the place of a folder.
    """
    if not NAME.fullmatch(name):
        raise RuleError(
            f"{shown(name)!r} cannot be a model's name: write letters, digits, '_', '-' and '.', "
            "as in --name resnet50"
        )
    check_folder(folder)
    model = folder / name / VERSION / MODEL
    if weights and model.is_file():
        raise OutputError(
            f"{model} is a file, and this model needs a folder there for its weights: remove it, "
            "or give another --name"
        )
    paths = (folder / name / CONFIG, folder / name / LABELS, model / MODEL if weights else model)
    for path in paths:
        if path.exists() or path.is_symlink():
            check_writable(path, force=force)


def batch_fault(model: onnx.ModelProto) -> str:
    """Why the server cannot join requests to batches for this file; empty where it can."""
    for value in (*model.graph.input, *model.graph.output):
        sizes = value.type.tensor_type.shape.dim
        what = "input" if value in model.graph.input else "output"
        if not sizes:
            return f"the {what} '{shown(value.name)}' has no axis for the batch"
        if sizes[0].HasField("dim_value"):
            size = sizes[0].dim_value
            return f"the {what} '{shown(value.name)}' has {size} in place of any number of pictures"
    return ""


def tensor_of(value: onnx.ValueInfoProto, *, batched: bool) -> Tensor:
    """An input or output of a file as config.pbtxt declares it."""
    kind = value.type.tensor_type
    if kind.elem_type not in TYPES or not kind.HasField("shape"):
        element = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
        raise ContractError(
            f"'{shown(value.name)}' is {element}, or its shape is not stated: the server takes "
            "neither; export the model with a shape for every output"
        )
    sizes = [size.dim_value if size.HasField("dim_value") else -1 for size in kind.shape.dim]
    dims = tuple(sizes[1:] if batched else sizes)
    return Tensor(value.name, TYPES[kind.elem_type], dims or (1,), scalar=not dims)


def _is_of_classes(tensor: Tensor, contract: Contract) -> bool:
    """Whether an output has one value for every class, of one picture."""
    scores = contract.outputs.get(tensor.name) in ("logits", "probabilities", "log-probabilities")
    return scores and tensor.dims in ((contract.classes,), (1, contract.classes))


def config(
    name: str,
    max_batch_size: int,
    serving: Serving,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    labelled: Sequence[str],
    contract: Contract,
) -> str:
    """The text of config.pbtxt: a ``ModelConfig`` of Triton's, in protobuf's text format."""
    lines = [
        f"name: {_quoted(name)}",
        f"platform: {_quoted(PLATFORM)}",
        f"max_batch_size: {max_batch_size}",
    ]
    for tensor in inputs:
        lines += ["input {", *_tensor_lines(tensor), "}"]
    for tensor in outputs:
        label = [f"  label_filename: {_quoted(LABELS)}"] if tensor.name in labelled else []
        lines += ["output {", *_tensor_lines(tensor), *label, "}"]
    count = f"count: {serving.instances}"
    lines += [f"instance_group {{ kind: {KINDS[serving.kind]} {count} }}"]
    if max_batch_size > 1:
        lines += ["dynamic_batching {"]
        lines += [f"  preferred_batch_size: {size}" for size in serving.preferred]
        lines += [f"  max_queue_delay_microseconds: {serving.queue_delay}", "}"]
    parameters = dict(_parameters(contract))
    if max_batch_size > 1 or any(-1 in tensor.dims for tensor in inputs):
        # Memory is planned for one shape, and is held beside that of the first run.
        parameters["enable_mem_pattern"] = "0"
    for key, value in parameters.items():
        entry = f"key: {_quoted(key)} value {{ string_value: {_quoted(value)} }}"
        lines += [f"parameters {{ {entry} }}"]
    return "\n".join(lines) + "\n"


def _tensor_lines(tensor: Tensor) -> Iterator[str]:
    yield f"  name: {_quoted(tensor.name)}"
    yield f"  data_type: {tensor.type}"
    yield f"  dims: [ {', '.join(map(str, tensor.dims))} ]"
    if tensor.scalar:
        yield "  reshape { shape: [ ] }"


def _parameters(contract: Contract) -> Iterator[tuple[str, str]]:
    """What clients may want to know, which the server tells them at /v2/models/NAME/config."""
    yield f"{PREFIX}composite", contract.composite
    yield f"{PREFIX}post", contract.post
    if contract.preprocessing is not None:
        yield f"{PREFIX}preprocessing", contract.preprocessing.to_json()


def _quoted(text: str) -> str:
    """A text as protobuf's text format has it."""
    letters = (
        CEscape(one, as_utf8=True) if shown(one) == one else CEscape(one.encode(), as_utf8=False)
        for one in text
    )
    return f'"{"".join(letters)}"'
