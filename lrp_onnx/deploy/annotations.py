"""Findings in the files of programs where people look at data: COCO, Label Studio, FiftyOne.

Every function yields the parts of one JSON file, photo after photo.
"""

from __future__ import annotations

import base64
import io
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.deploy.findings import Finding
from lrp_onnx.deploy.rle import Mask, brush_rle, coco_rle
from lrp_onnx.errors import OutputError, shown

LOCAL_FILES = "/data/local-files/?d="
"""Where Label Studio serves the files of its computer."""


def coco(findings: Iterable[Finding], folder: Path, *, images: str = "") -> Iterator[bytes]:
    """C3 regions as COCO's annotations: ``images``, ``annotations``, ``categories``.

    Args:
        findings: those of one photo follow each other.
        folder: the absolute path of a folder that all photos lie in (see `common_folder`).
        images: what the names of files begin with, which are relative to `folder`.

    Raises:
        OutputError: a finding has no region.
    """
    photos: list[Mapping[str, Any]] = []
    annotations: list[Mapping[str, Any]] = []
    categories: dict[int, str] = {}
    for number, (path, group) in enumerate(groupby(findings, lambda one: one.path), 1):
        for finding in group:
            mask = _mask(finding)
            code = {"image_id": number, "category_id": finding.target}
            annotations.append({"id": len(annotations) + 1, **code, **_coco_region(finding, mask)})
            categories[finding.target] = finding.name
        height, width = finding.size
        name = images + _relative(path, folder)
        photos.append({"id": number, "file_name": name, "width": width, "height": height})
    yield _json(
        {
            "images": photos,
            "annotations": annotations,
            "categories": [{"id": one, "name": categories[one]} for one in sorted(categories)],
        }
    )


def label_studio(
    findings: Iterable[Finding], folder: Path, *, images: str = LOCAL_FILES
) -> Iterator[bytes]:
    """C3 regions as Label Studio's tasks, with brush predictions of the tag ``region``.

    The arguments are those of `coco`; `images` with a file's name is its address.

    Raises:
        OutputError: a finding has no region.
    """

    def task(path: Path, group: Sequence[Finding]) -> Mapping[str, Any]:
        return {
            "data": {"image": images + _relative(path, folder)},
            "predictions": [
                {
                    "model_version": f"lrp-onnx {finding.composite}".strip(),
                    "score": finding.probability,
                    "result": [_brush(finding, _mask(finding))],
                }
                for finding in group
            ],
        }

    return _list("[", findings, task, "]")


def fiftyone(findings: Iterable[Finding], folder: Path, *, images: str = "") -> Iterator[bytes]:
    """Heatmaps, C3 regions and predictions as FiftyOne's samples.

    The fields are ``prediction``, ``heatmap`` with a `range` that is the same for and against the
    class, ``c3`` where it is known; of a photo's further classes ``heatmap_2``, ``c3_2`` and so on.
    Their tag is the class. The arguments are those of `coco`; without `images` paths are absolute.
    """

    def sample(path: Path, group: Sequence[Finding]) -> Mapping[str, Any]:
        where = images + _relative(path, folder) if images else str(path.absolute())
        best = {"label": group[0].predicted, "confidence": group[0].confidence}
        fields: dict[str, Any] = {"prediction": {"_cls": "Classification", **best}}
        for number, finding in enumerate(group, 1):
            suffix = f"_{number}" if number > 1 else ""
            whole, tags = finding.whole, [finding.name]
            most = float(np.abs(whole).max()) or 1.0
            label = {"_cls": "Heatmap", "tags": tags, "range": [-most, most]}
            fields[f"heatmap{suffix}"] = {**label, "map": _binary(whole)}
            if (mask := finding.mask) is not None:
                code = _binary(mask.astype(np.uint8))
                fields[f"c3{suffix}"] = {"_cls": "Segmentation", "tags": tags, "mask": code}
        return {"filepath": where, "tags": [], "_media_type": "image", **fields}

    return _list('{"samples": [', findings, sample, "]}")


FORMATS: Mapping[str, Callable[..., Iterator[bytes]]] = {
    "coco": coco,
    "label-studio": label_studio,
    "fiftyone": fiftyone,
}
"""Name → function (findings, folder, images)."""


def common_folder(paths: Iterable[Path]) -> Path:
    """The absolute path of the folder that all photos lie in."""
    return Path(os.path.commonpath([path.absolute().parent for path in paths]))


def _mask(finding: Finding) -> Mask:
    mask = finding.mask
    if mask is None:
        raise OutputError(
            f"the results of {shown(finding.path)} have no region of C3: explain with "
            "--composite residual-c3 or --post c3, or export --to fiftyone, which has heatmaps"
        )
    return mask


def _coco_region(finding: Finding, mask: Mask) -> Mapping[str, Any]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = [0, 0, 0, 0]
    if rows.size:
        left, top = int(columns[0]), int(rows[0])
        box = [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]
    return {
        "segmentation": coco_rle(mask),
        "area": int(mask.sum()),
        "bbox": box,
        "iscrowd": 0,
        "score": finding.probability,
    }


def _brush(finding: Finding, mask: Mask) -> Mapping[str, Any]:
    height, width = finding.size
    return {
        "id": f"c3-{finding.target}",
        "type": "brushlabels",
        "from_name": "region",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": brush_rle(mask), "brushlabels": [finding.name]},
    }


def _binary(values: NDArray[Any]) -> Mapping[str, Any]:
    """An array as FiftyOne stores it: NumPy's file format, deflated."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    code = base64.b64encode(zlib.compress(buffer.getvalue())).decode()
    return {"$binary": {"base64": code, "subType": "00"}}


def _relative(path: Path, folder: Path) -> str:
    return PurePath(path.absolute()).relative_to(folder).as_posix()


def _list(
    begin: str,
    findings: Iterable[Finding],
    entry: Callable[[Path, Sequence[Finding]], Mapping[str, Any]],
    end: str,
) -> Iterator[bytes]:
    """A list in JSON with an entry a photo."""
    yield begin.encode()
    before = "\n"
    for path, group in groupby(findings, lambda finding: finding.path):
        yield before.encode() + _json(entry(path, list(group)))
        before = ",\n"
    yield f"\n{end}\n".encode()


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()  # in ASCII: a name may be no Unicode
