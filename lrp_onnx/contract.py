"""Names and metadata of a compiled file: everything that compiling and running share.

A compiled file is plain ONNX. Its metadata keys begin with ``lrp_onnx.``. The values are JSON, so
that any language can read them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lrp_onnx.errors import ContractError
from lrp_onnx.values import (
    Check,
    flag,
    listed,
    mapped,
    number,
    optional,
    real,
    record,
    text,
    whole,
)

HEATMAP = "heatmap"
"""Graph output (N, H, W) float32: relevance at the input, summed over channels and post-processed
as `Contract.post` says.
"""
HEATMAP_RAW = "heatmap_raw"
"""Graph output (N, H, W) float32: relevance at the input, summed over channels."""
C3_REGION = "c3"
"""Graph output (N, size, size) float32: 1 in the region that C3 keeps, 0 elsewhere."""
RELEVANCE = "relevance"
"""Graph output of the input's shape, float32: relevance at every input element."""
ATTENTION = "attention"
"""Graph output (N, H, W) float32: the attention map that the model computes, if it has one."""
TARGET = "target"
"""Graph input int64: the class to explain; -1 is the predicted class.

(N,) or (1,) where it is optional, (N,) where it is required; -1 is its default.
"""
START = "start"
"""Graph input float32: the relevance to start from; a row of zeros means "use `target`".

It has the shape of what is explained: (N, classes), or that of the explained output where this has
more axes and all of it is explained. N may be 1 where it is optional; zeros are its default.
"""
INPUTS = ("optional", "target", "target,start", "none")
"""Forms of a compiled file's inputs beside the picture: `target` and `start` with defaults, which
only ONNX Runtime's Python, C and C++ interfaces let be given; `target` required; both required;
or neither, and the predicted class is explained.
"""
TARGETS = "targets"
"""Name of `target`'s dimension.

In a file for many targets, everything that is computed per target has this dimension.
"""
PREDICTED = -1
"""The value of `target` that means the predicted class."""
INTERNAL = "lrp/"
"""Prefix of every name that the compiler adds inside the graph."""
SINGLE = ("logit", "probability")
"""Kinds of an output of one number: a logit whose sign decides between two classes, or its sigmoid.
"""
EXPLAINED = f"{INTERNAL}explained"
"""Name of the logits where the model has no such tensor and the compiler makes it."""
RANKED = f"{INTERNAL}ranked"
"""Name of the classes' values that decide what the predicted class is, where the logits do not."""
ADDED = (HEATMAP, HEATMAP_RAW, C3_REGION, RELEVANCE, ATTENTION, TARGET, START)
"""Names of the graph inputs and outputs that the compiler adds."""


def is_added(name: str) -> bool:
    """Whether the compiler, not the original model, gave a tensor this name."""
    return name.startswith((INTERNAL, f"{RELEVANCE}/", f"{ATTENTION}/")) or name in ADDED


FORMAT = 1
"""Version of the metadata's format."""
OUTPUTS = (
    "logits",
    "probabilities",
    "log-probabilities",
    "sigmoids",
    *SINGLE,
    "features",
    "scores",
    "other",
)
"""What an output may hold, best first: of several outputs the first of these is read."""
LAYOUTS = ("NCHW", "NHWC", "NCL", "NLC", "NCDHW", "NDHWC")
"""Orders of axes of the input."""
STARTS = ("logit", "probability", "one", "contrastive")
"""What relevance may start from."""
_NAMES = listed(text())
_FACTORS = listed(text(), least=1)
_LEDGER = record(
    {
        "step": text(),
        "received": _FACTORS,
        "passed": listed(_FACTORS),
        "terms": listed(
            record({"s": text(), "z": text(), "b": text(), "factor": number}, {"e": number})
        ),
    },
    {
        "views": mapped(
            record({"of": text(), "shape": listed(whole(-1)), "order": listed(whole(0, 63))})
        ),
        "casts": mapped(text()),
    },
)
VALUES: Mapping[str, Check] = {
    "format": whole(1),
    "input": text(),
    "outputs": mapped(text(*OUTPUTS), least=1),
    "explained": text(),
    "layout": text(*LAYOUTS),
    "classes": whole(1, 2**31),
    "composite": text(),
    "start_value": text(*STARTS),
    "post": text(),
    "versions": mapped(text()),
    "rules": mapped(text()),
    "blocks": listed(
        record({"block": text(), "fork": text(), "output": text(), "branches": listed(_NAMES)})
    ),
    "ledger": listed(_LEDGER),
    "constants": mapped(record({"shape": listed(whole(0)), "float32": text()})),
    "inputs": text(*INPUTS),
    "many_targets": flag,
    "resolution": optional(listed(whole(1), 1, 3)),
    "optimized_for": text(),
    "purpose": text(),
    "randomized": whole(0),
    "memory_fixed": whole(0),
    "memory_each": whole(0),
}
"""Fields of `Contract` that every compiled file's metadata holds → what their values may be."""
KEYS = tuple(VALUES)
LARGEST, SMALLEST = 1e6, 1e-6
"""Bounds of numbers that can be a preprocessing's."""
_PREPROCESSING: Mapping[str, Check] = {
    "mean": listed(real(-LARGEST, LARGEST), 1, 3),
    "std": listed(real(SMALLEST, LARGEST), 1, 3),
    "divisor": real(SMALLEST, LARGEST),
    "channels": text(),
    "layout": text(),
    "resize": text(),
    "crop_fraction": real(SMALLEST, 1.0),
    "interpolation": text(),
}
PREFIX = "lrp_onnx."
"""Prefix of every metadata key."""
SELECTION = f"{PREFIX}selection"
"""Metadata key of `Contract.selection`, where there is one."""
START_SHAPE = f"{PREFIX}start_shape"
"""Metadata key of `Contract.start_shape`, where that is not (classes,)."""
BOXES = f"{PREFIX}boxes"
"""Metadata key of `Contract.boxes`, where they are known."""
FORWARD = f"{PREFIX}forward"
"""Metadata key of `Contract.forward`, which files of early versions lack."""
SOURCES = f"{PREFIX}sources"
"""Metadata key of `Contract.sources`, which files without preprocessing and names lack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How a picture becomes the model's input.

    An 8-bit RGB picture is resized and cropped, divided by `divisor`, normalised to
    ``(value - mean) / std`` per channel, and put in the order of `channels` and `layout`. `mean`
    and `std` are in the order of `channels` and in the units after the division.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    divisor: float = 255.0
    channels: str = "RGB"
    """``RGB``, ``BGR`` or ``GRAY``."""
    layout: str = "auto"
    """``NCHW`` or ``NHWC``; ``auto`` for that of the model's input, and NCHW without a model."""
    resize: str = "crop"
    """``crop``: the shorter side becomes size / crop_fraction. ``stretch``: both sides do, and the
    aspect ratio is lost. Then the centre is cut out.
    """
    crop_fraction: float = 1.0
    """The part of the resized picture's sides (with ``crop``: of its shorter side) that is cut out,
    up to 1.
    """
    interpolation: str = "bilinear"
    """``bilinear`` (no antialiasing, half-pixel centres), ``area``, ``cubic`` or ``nearest``."""

    def for_layout(self, layout: str) -> Preprocessing:
        """This preprocessing for a model whose input has `layout`, unless it states a layout."""
        return replace(self, layout=layout) if self.layout == "auto" else self

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        """Read what `to_json` wrote.

        Raises:
            ContractError: a key is unknown, or a value has a wrong type.
        """
        values, faults = _parsed(text, record({}, _PREPROCESSING), "it")
        if isinstance(values, dict) and (unknown := [k for k in values if k not in _PREPROCESSING]):
            faults = [*faults, f"it has the unknown {', '.join(map(repr, unknown))}"]
        if faults:
            raise ContractError(
                f"the preprocessing {_cut(text)!r} cannot be read ({'; '.join(faults)}); give "
                "--preprocess instead"
            )
        values |= {key: tuple(map(float, values[key])) for key in ("mean", "std") if key in values}
        values |= {k: float(values[k]) for k in ("divisor", "crop_fraction") if k in values}
        return cls(**values)

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Contract:
    """What a compiled file states about itself."""

    input: str
    """Name of the picture input."""
    outputs: Mapping[str, str]
    """Name of every original output → ``logits``, ``probabilities``, ``log-probabilities``,
    ``sigmoids`` (a probability of each class for itself), ``logit`` or ``probability`` (one number,
    see `SINGLE`), ``features`` (a feature map that is explained through its mean), ``scores`` (a
    table of values that are no probabilities) or ``other``.
    """
    explained: str
    """Name of the tensor in the original graph that relevance starts from: the logits."""
    classes: int
    """Number of classes."""
    composite: str
    """Name of the composite."""
    start_value: str
    """``logit``, ``probability``, ``one`` or ``contrastive``."""
    versions: Mapping[str, str]
    """Library → version: lrp-onnx and the libraries that made the file."""
    rules: Mapping[str, str]
    """Node name of every layer → its rule as text."""
    post: str = "none"
    """The post-processing of `heatmap` as text (see `maps.chain`); ``none`` for none."""
    layout: str = "NCHW"
    """``NCHW`` or ``NHWC``: the order of axes of the picture input and of `relevance`; ``NCL``,
    ``NLC``, ``NCDHW`` or ``NDHWC`` where it is a signal or a volume.
    """
    blocks: tuple[Mapping[str, Any], ...] = ()
    """The residual blocks: fork, output, and the steps of every branch by role."""
    ledger: tuple[Mapping[str, Any], ...] = ()
    """The tensors that hold what each rule received, passed on and absorbed, by name;
    `compiled.conservation` reads it.
    """
    constants: Mapping[str, Any] = field(default_factory=dict)
    """Tensors of the ledger that no node reads: name → shape, and little-endian float32 values in
    base64.
    """
    inputs: str = "optional"
    """One of `INPUTS`: how the class to explain is given."""
    many_targets: bool = False
    """Whether a run takes one picture and any number of targets. In such a file the target -k is
    the class of the k-th largest logit.
    """
    resolution: Sequence[int] | None = None
    """(height, width) of the maps if they are coarser than the picture, else None; as many sizes as
    the input has axes behind the channels.
    """
    optimized_for: str = "cpu"
    """Name of the runtime that operators are chosen for."""
    purpose: str = ""
    """The same in words."""
    randomized: int = 0
    """Number of layers with shuffled weights, for a sanity test of maps. If it is not 0, the
    file's predictions mean nothing.
    """
    memory_fixed: int = 0
    """Bytes of tensors, without weights, that a run needs whatever the batch."""
    memory_each: int = 0
    """Further bytes for every picture of a batch, or for every target in a file for many."""
    preprocessing: Preprocessing | None = None
    """How a picture becomes the model's input; None if that is not stated."""
    labels: tuple[str, ...] = ()
    """Class names in the order of the logits, or empty."""
    selection: str = ""
    """The part of the explained output that is explained, as `Selection` writes it; empty for all
    of it.
    """
    start_shape: tuple[int, ...] = ()
    """The shape of a start without its batch."""
    boxes: str = ""
    """Where the boxes lie that detections belong to, as `runtime.boxes` reads it, or empty."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """``preprocessing`` and ``labels`` → what said them, where they are known."""
    forward: str = ""
    """Hash of the part that predicts, as `files.forward.hash_of` computes it; empty in files of
    early versions.
    """
    format: int = FORMAT
    """Version of the metadata's format."""

    @property
    def takes_pictures(self) -> bool:
        """Whether the input is a picture, not a signal or a volume."""
        return len(self.layout) == len("NCHW")

    def to_metadata(self) -> dict[str, str]:
        """ONNX metadata properties: key → JSON text."""
        values = {name: getattr(self, name) for name in KEYS}
        metadata = {
            PREFIX + name: json.dumps(value, default=dict, separators=(",", ":"))
            for name, value in values.items()
        }
        if self.selection:
            metadata[SELECTION] = self.selection
        if self.start_shape not in ((), (self.classes,)):
            metadata[START_SHAPE] = json.dumps(self.start_shape)
        if self.boxes:
            metadata[BOXES] = self.boxes
        if self.sources:
            metadata[SOURCES] = json.dumps(dict(self.sources))
        if self.forward:
            metadata[FORWARD] = self.forward
        return metadata | describe(self.preprocessing, self.labels)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Contract:
        """Read a compiled file's metadata properties.

        Raises:
            ContractError: the file is not compiled, a key is missing or damaged, or the format is
                newer than this version reads.
        """
        if not is_compiled(metadata):
            raise ContractError(
                "this is not a compiled file: it has no lrp_onnx.* metadata; "
                "run `lrp-onnx compile` on it first"
            )
        newer, faults = _parsed(metadata.get(f"{PREFIX}format", "1"), whole(1), "")
        if not faults and newer > FORMAT:
            raise ContractError(
                f"the compiled file has format {newer}, "
                f"this version reads up to {FORMAT}: upgrade lrp-onnx"
            )
        values, faults = {}, []
        checks = {PREFIX + name: check for name, check in VALUES.items()}
        for key, check in {**checks, START_SHAPE: _START_SHAPE, SOURCES: mapped(text())}.items():
            if key in metadata:
                values[key], wrong = _parsed(metadata[key], check, key)
                faults += wrong
            elif key in checks:
                faults.append(f"{key} is missing")
        try:
            preprocessing, labels = read_description(metadata)
        except ContractError as error:
            faults.append(str(error))
        if faults:
            raise ContractError(_damaged(faults))
        named = {name: values[PREFIX + name] for name in KEYS}
        return cls(
            **named | {"ledger": tuple(named["ledger"]), "blocks": tuple(named["blocks"])},
            preprocessing=preprocessing,
            labels=labels,
            selection=metadata.get(SELECTION, ""),
            start_shape=tuple(values.get(START_SHAPE) or (named["classes"],)),
            boxes=metadata.get(BOXES, ""),
            sources=values.get(SOURCES, {}),
            forward=metadata.get(FORWARD, ""),
        )


_START_SHAPE = listed(whole(1, 2**31), most=8)
MOST_FAULTS = 8
"""Faults that a message lists."""


def _damaged(faults: Sequence[str]) -> str:
    """What to say of metadata with faults."""
    more = len(faults) - MOST_FAULTS
    listed_faults = "; ".join(faults[:MOST_FAULTS]) + (f"; and {more} more" if more > 0 else "")
    return f"the compiled file's metadata is damaged: {listed_faults}; compile it again"


def _parsed(json_text: str, check: Check, where: str) -> tuple[Any, list[str]]:
    """A value in JSON, and one message for everything in it that `check` does not take."""
    try:
        value = json.loads(json_text)
    except RecursionError:
        return None, [f"{where} is nested too deeply"]
    except ValueError as error:
        return None, [f"{where} is not JSON ({error})"]
    return value, list(check(value, where))


def _cut(long_text: str, most: int = 200) -> str:
    return long_text if len(long_text) <= most else f"{long_text[:most]}…"


def is_compiled(metadata: Mapping[str, str]) -> bool:
    """Whether metadata properties are those of a compiled file."""
    return PREFIX + "ledger" in metadata and PREFIX + "composite" in metadata


def describe(preprocessing: Preprocessing | None, labels: tuple[str, ...]) -> dict[str, str]:
    """Metadata that any model may have, compiled or not: its preprocessing and class names."""
    metadata = {}
    if preprocessing is not None:
        metadata[PREFIX + "preprocessing"] = preprocessing.to_json()
    if labels:
        metadata[PREFIX + "labels"] = json.dumps(list(labels))
    return metadata


def read_description(metadata: Mapping[str, str]) -> tuple[Preprocessing | None, tuple[str, ...]]:
    """The inverse of `describe`: preprocessing or None, and class names or an empty tuple.

    Raises:
        ContractError: a value is damaged.
    """
    stated = metadata.get(PREFIX + "preprocessing")
    key = f"{PREFIX}labels"
    labels, faults = _parsed(metadata.get(key, "[]"), listed(_label), "")
    if faults:
        raise ContractError(
            f"the metadata key {key} is damaged ({faults[0].strip()}): write class names as a list "
            "in JSON"
        )
    names = tuple(map(str, labels))
    return (Preprocessing.from_json(stated) if stated is not None else None), names


def _label(value: Any, where: str) -> Iterator[str]:
    """A class name: a text or a number."""
    if isinstance(value, dict | list) or value is None:
        yield f"{where} is not a name"
