"""Names and metadata of a compiled file: all that the compile half and the run half share.

A compiled file is plain ONNX. Its metadata keys all begin with
``lrp_onnx.``; values are JSON, so any language can read them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lrp_onnx.errors import ContractError

HEATMAP = "heatmap"
"""Graph output (N, H, W) float32: relevance at the input, summed over channels."""
RELEVANCE = "relevance"
"""Graph output, the input's shape, float32: relevance at every input element."""
ATTENTION = "attention"
"""Graph output (N, H, W) float32: the attention map that
the model itself computes, where it has one.
"""
TARGET = "target"
"""Optional graph input (N,) or (1,) int64: the class to
explain, -1 for the predicted one (the default).
"""
START = "start"
"""Optional graph input (N, classes) or (1, classes) float32:
the relevance to start from; all zeros mean "use `target`".
"""
TARGETS = "targets"
"""The dimension of `target`; in a file for many targets, of
everything that is computed for each of them.
"""
PREDICTED = -1
INTERNAL = "lrp/"
"""Every name that the compiler adds inside the graph begins with this."""


ADDED = (HEATMAP, RELEVANCE, ATTENTION, TARGET, START)


def is_added(name: str) -> bool:
    """Whether a tensor's name is one that the compiler gives, not the original model."""
    return name.startswith((INTERNAL, f"{RELEVANCE}/", f"{ATTENTION}/")) or name in ADDED


FORMAT = 1
KEYS = (
    "format",
    "input",
    "outputs",
    "explained",
    "layout",
    "classes",
    "composite",
    "start_value",
    "versions",
    "rules",
    "blocks",
    "ledger",
    "many_targets",
    "resolution",
    "optimized_for",
    "randomized",
    "memory_fixed",
    "memory_each",
)
"""Fields of `Contract` that every compiled file's metadata holds."""
PREFIX = "lrp_onnx."


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How a picture becomes the model's input.

    An 8-bit RGB picture is resized, cropped, divided by `divisor`, normalised to
    ``(value - mean) / std`` per channel, put in `channels` order and `layout`. `mean` and `std` are
    in the order of `channels`, in units after the division.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    divisor: float = 255.0
    channels: str = "RGB"
    """``RGB``, ``BGR`` or ``GRAY``."""
    layout: str = "NCHW"
    """``NCHW`` or ``NHWC``."""
    resize: str = "crop"
    """``crop``: the shorter side becomes size / crop_fraction,
    then the centre is cut out; ``stretch``: to size, aspect lost.
    """
    crop_fraction: float = 1.0
    interpolation: str = "bilinear"
    """``bilinear``, ``area``, ``cubic`` or ``nearest``;
    ``bilinear`` without antialiasing, half-pixel centres.
    """

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        """Read what `to_json` wrote; raises ContractError
        where a key is unknown or a value does not fit.
        """
        try:
            values = json.loads(text)
            values |= {
                key: tuple(map(float, values[key])) for key in ("mean", "std") if key in values
            }
            return cls(**values)
        except (ValueError, TypeError) as error:
            raise ContractError(
                f"the preprocessing {text!r} cannot be read ({error}); give --preprocess instead"
            ) from error

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Contract:
    """What a compiled file says of itself."""

    input: str
    """Name of the picture input."""
    outputs: Mapping[str, str]
    """Every original output's name and what it holds: ``logits``,
    ``probabilities``, ``log-probabilities`` or ``other``.
    """
    explained: str
    """Name of the tensor that relevance starts from (the logits), as in the original graph."""
    classes: int
    """Number of classes."""
    composite: str
    start_value: str
    """``logit``, ``probability``, ``one`` or ``contrastive``."""
    versions: Mapping[str, str]
    """Versions of lrp-onnx and of the libraries that made the file."""
    rules: Mapping[str, str]
    """Every layer's node name and the text form of its rule."""
    layout: str = "NCHW"
    """``NCHW`` or ``NHWC``: the picture input's order of axes; `relevance` has the same."""
    blocks: tuple[Mapping[str, Any], ...] = ()
    """The residual blocks: fork, output, and the steps of every branch by role."""
    ledger: tuple[Mapping[str, Any], ...] = ()
    """What each rule received, passed on and absorbed, as
    tensor names (`relevance.verify` reads it).
    """
    many_targets: bool = False
    """Whether a run takes one picture and any number of
    targets, -k being the class of the k-th largest logit.
    """
    resolution: Sequence[int] | None = None
    """(height, width) of the maps where they are coarser than the picture."""
    optimized_for: str = "cpu"
    """The runtime whose fast operators were chosen."""
    randomized: int = 0
    """Layers whose weights are shuffled, for a sanity test
    of maps: the file's predictions mean nothing then.
    """
    memory_fixed: int = 0
    memory_each: int = 0
    """Bytes of tensors that a run holds at once at most, weights apart: in any case, and for every
    picture (every target, in a file of many) of a batch.
    """
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] = ()
    """Class names in the order of the logits, or empty."""
    format: int = FORMAT

    def to_metadata(self) -> dict[str, str]:
        """ONNX metadata properties: key → JSON text."""
        values = {name: getattr(self, name) for name in KEYS}
        metadata = {
            PREFIX + name: json.dumps(value, default=dict, separators=(",", ":"))
            for name, value in values.items()
        }
        return metadata | describe(self.preprocessing, self.labels)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Contract:
        """Read a compiled file's metadata; raises ContractError where
        it is not a compiled file's.
        """
        if not is_compiled(metadata):
            raise ContractError(
                "this is not a compiled file: it has no lrp_onnx.* metadata; "
                "run `lrp-onnx compile` on it first"
            )
        values = {}
        for name in KEYS:
            try:
                values[name] = json.loads(metadata[PREFIX + name])
            except (KeyError, ValueError) as error:
                raise ContractError(
                    f"the compiled file's metadata key {PREFIX + name} is missing or damaged; "
                    "compile it again"
                ) from error
        if values["format"] > FORMAT:
            raise ContractError(
                f"the compiled file is of format {values['format']}, "
                f"this version reads up to {FORMAT}: upgrade lrp-onnx"
            )
        preprocessing, labels = read_description(metadata)
        return cls(
            **values | {"ledger": tuple(values["ledger"]), "blocks": tuple(values["blocks"])},
            preprocessing=preprocessing,
            labels=labels,
        )


def is_compiled(metadata: Mapping[str, str]) -> bool:
    """Whether metadata properties are those of a compiled file."""
    return PREFIX + "ledger" in metadata and PREFIX + "composite" in metadata


def describe(preprocessing: Preprocessing | None, labels: tuple[str, ...]) -> dict[str, str]:
    """Metadata that any model, compiled or not, may carry: its
    preprocessing and its class names.
    """
    metadata = {}
    if preprocessing is not None:
        metadata[PREFIX + "preprocessing"] = preprocessing.to_json()
    if labels:
        metadata[PREFIX + "labels"] = json.dumps(list(labels))
    return metadata


def read_description(metadata: Mapping[str, str]) -> tuple[Preprocessing | None, tuple[str, ...]]:
    """The inverse of `describe`."""
    text = metadata.get(PREFIX + "preprocessing")
    try:
        labels = tuple(map(str, json.loads(metadata.get(PREFIX + "labels", "[]"))))
    except ValueError as error:
        raise ContractError(f"the metadata key {PREFIX}labels is damaged ({error})") from error
    return (Preprocessing.from_json(text) if text is not None else None), labels
