"""What a bulk run stores of every picture: a row of a table, and the table as Parquet."""

from __future__ import annotations

import importlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.contract import HEATMAP
from lrp_onnx.errors import LrpOnnxError
from lrp_onnx.runtime.explanation import WITHOUT_PROBABILITIES, Explanation, probabilities_of

Row = dict[str, Any]
"""Column → value."""
KEPT = ("float32", "float16", "none")
"""How maps are kept: as they are, in half of the bytes, or not at all."""


def module(name: str) -> Any:
    """A module of the extra ``ray``.

    Raises:
        LrpOnnxError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise LrpOnnxError(
            f"explaining in bulk needs Ray Data, which cannot be imported here ({error}): "
            'pip install "lrp-onnx[ray]"'
        ) from error


def schema() -> Any:
    """The columns of a row, as a ``pyarrow.Schema``."""
    pa = module("pyarrow")
    number, whole = pa.float64(), pa.int32()
    named = {"index": whole, "name": pa.string(), "probability": number, "score": number}
    box = dict.fromkeys(("left", "top", "width", "height"), whole)
    region = dict.fromkeys(("left", "top", "right", "bottom", "share"), number)
    sums = dict.fromkeys(("all", "positive", "negative"), number)

    def record(fields: Mapping[str, Any]) -> Any:
        return pa.struct(list(fields.items()))

    return pa.schema(
        {
            "path": pa.string(),
            "sha256": pa.string(),
            "error": pa.string(),
            "width": whole,
            "height": whole,
            "seen": record(box),
            "top5": pa.list_(record(named)),
            "target": record(named),
            "start_value": number,
            "sums": record(sums),
            "c3": record(region),
            "map": pa.binary(),
        }
    )


def row_of(explanation: Explanation, *, path: str, sha256: str | None, keep: str) -> Row:
    """The row of a picture that is explained.

    Args:
        explanation: of one class.
        path: the picture's file.
        sha256: of the file, in hexadecimal; None where that is not known.
        keep: how the map is kept, one of `KEPT`.

    Returns:
        ``path``, ``sha256``; ``width`` and ``height`` of the picture in pixels; ``seen``, the part
        that the model sees; ``top5``, best first, and ``target``, with names, probabilities (None
        where the model gives none) and scores as the model gives them; ``start_value``, the sum of
        the start relevance; ``sums`` of the relevance before post-processing; ``c3``, the box of
        the region that C3 keeps, in pixels of the picture, and its share of what the model sees;
        ``map``, an .npz file (see `map_of`). None where a file does not tell it.
    """
    known = explanation.kind not in WITHOUT_PROBABILITIES
    values = probabilities_of(explanation.kind, explanation.scores[None])[0]

    def class_(index: int, name: str) -> Row:
        return {
            "index": index,
            "name": name,
            "probability": float(values[index]) if known else None,
            "score": float(explanation.scores[index]),
        }

    height, width = explanation.photo.shape[:2]
    box = explanation.box
    return {
        "path": path,
        "sha256": sha256,
        "width": width,
        "height": height,
        "seen": {"left": box.left, "top": box.top, "width": box.width, "height": box.height},
        "top5": [class_(index, name) for index, name, _ in explanation.top5],
        "target": class_(explanation.target, explanation.target_name),
        "start_value": explanation.start_value,
        "sums": explanation.sums,
        "c3": _region(explanation),
        "map": None if keep == "none" else _packed(explanation.heatmap, keep),
    }


def _region(explanation: Explanation) -> Row | None:
    """The box around the region that C3 keeps, in pixels of the whole picture, and its share."""
    region, box = explanation.region, explanation.box
    if region is None or not region.any():
        return None
    (rows,), (columns,) = (np.nonzero(region.any(axis)) for axis in (1, 0))
    down, across = box.height / region.shape[0], box.width / region.shape[1]
    return {
        "left": box.left + float(columns[0]) * across,
        "top": box.top + float(rows[0]) * down,
        "right": box.left + float(columns[-1] + 1) * across,
        "bottom": box.top + float(rows[-1] + 1) * down,
        "share": float(region.mean()),
    }


def _packed(heatmap: NDArray[np.float32], keep: str) -> bytes:
    arrays: dict[str, Any] = {HEATMAP: heatmap.astype(keep)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def map_of(data: bytes) -> NDArray[np.float32]:
    """The map (H, W) in a row's ``map``, post-processed as the compiled file says."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return np.asarray(arrays[HEATMAP], np.float32)


def table_of(rows: Sequence[Row]) -> Any:
    """Rows as a ``pyarrow.Table`` of `schema`."""
    return module("pyarrow").Table.from_pylist(list(rows), schema=schema())


def parquet_of(table: Any) -> bytes:
    """The Parquet file of a table."""
    buffer = io.BytesIO()
    module("pyarrow.parquet").write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
