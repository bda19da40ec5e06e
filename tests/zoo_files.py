"""The model zoo as the tests see it: files, families, and the pictures that each file takes."""

from __future__ import annotations

import json
import lzma
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

FOLDER = Path(__file__).parent / "zoo"
PRECISIONS = {
    "core-fp16": "float16",
    "core-fp16-io32": "float16",
    "core-bf16": "bfloat16",
    "core-qdq": "int8",
}
PRECISIONS |= {"core-qdq-channels": "int8", "core-int8-tflite": "int8", "core-qoperator": "int8"}
"""Families that hold the core network in fewer bits: their
maps are near the core's, not equal to it.
"""
EXPLAINED = {"abn": "logits"}
"""Families with several outputs of scores, and the one that is explained."""

REFUSED = {
    "core-nchwc": "optimised for one processor",
    "core-training": r"model\.eval\(\)",
}
"""Families that cannot be compiled, and why."""


@dataclass(frozen=True)
class ZooFile:
    """One entry of the manifest."""

    name: str
    family: str
    exporter: str
    architecture: str
    layout: str
    tools: dict[str, str]
    bytes: int
    sha256: str

    @property
    def packed(self) -> Path:
        return FOLDER / f"{self.name}.onnx.xz"

    @property
    def data(self) -> bytes:
        return lzma.decompress(self.packed.read_bytes())

    @property
    def model(self) -> onnx.ModelProto:
        return onnx.load_from_string(self.data)

    @property
    def options(self) -> dict[str, Any]:
        found: dict[str, Any] = (
            {"explain": EXPLAINED[self.family]} if self.family in EXPLAINED else {}
        )
        return found | ({"input_size": (32, 32)} if "any-size" in self.exporter else {})

    def save(self, folder: Path) -> Path:
        path = folder / f"{self.name}.onnx"
        if not path.exists():
            path.write_bytes(self.data)
        return path


@cache
def manifest() -> tuple[ZooFile, ...]:
    entries = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
    return tuple(ZooFile(**entry) for entry in entries)


def families() -> dict[str, list[ZooFile]]:
    found: dict[str, list[ZooFile]] = {}
    for file in manifest():
        found.setdefault(file.family, []).append(file)
    return found


def input_of(model: onnx.ModelProto) -> tuple[str, int, int | None]:
    """(name, element type, fixed batch or None) of the picture input."""
    stored = {tensor.name for tensor in model.graph.initializer}
    value = next(v for v in model.graph.input if v.name not in stored)
    return (
        value.name,
        value.type.tensor_type.elem_type,
        value.type.tensor_type.shape.dim[0].dim_value or None,
    )


def _noise(model: onnx.ModelProto, nudge: float) -> dict[str, NDArray[Any]]:
    """The same two signals or volumes for every file."""
    name, _, _ = input_of(model)
    value = next(v for v in model.graph.input if v.name == name)
    sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]]
    x = np.random.default_rng(11).normal(size=(2, *sizes)) * (1 + nudge)
    return {name: x.astype(np.float32)}


MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def feeds(file: ZooFile, model: onnx.ModelProto, *, nudge: float = 0.0) -> dict[str, NDArray[Any]]:
    """The same two pictures for every file: pixels where it
    takes integers, else prepared as ImageNet models do.

    `nudge` multiplies the prepared pictures by 1 + nudge.
    """
    if "H" not in file.layout or "D" in file.layout:
        return _noise(model, nudge)
    pixels = np.random.default_rng(11).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    name, element, batch = input_of(model)
    if element == onnx.TensorProto.UINT8:
        x: NDArray[Any] = pixels
    else:
        x = ((pixels / np.float32(255) - MEAN) / STD * (1 + nudge)).astype(
            onnx.helper.tensor_dtype_to_np_dtype(element)
        )
    x = x if file.layout == "NHWC" else x.transpose(0, 3, 1, 2)
    return {name: np.ascontiguousarray(x[:batch])}
