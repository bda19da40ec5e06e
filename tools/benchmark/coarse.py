"""What a coarse map loses: python -m tools.benchmark.coarse
MODEL PHOTOS… --resolution 24 12 --json out.json.

For every resolution, the correlation of the coarse map with the full map
averaged down to its size, and how far the blobs that C3 keeps of both overlap
(intersection over union): the median over the photos, and the middle half.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lrp_onnx import compile_model
from lrp_onnx.maps.c3 import c3
from lrp_onnx.relevance.composites.presets import COMPOSITES
from lrp_onnx.runtime.explainer import Explainer
from lrp_onnx.runtime.images import find_images
from tools.benchmark.report import coarse_table

Map = NDArray[np.float32]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", nargs="+", help="files or folders")
    parser.add_argument(
        "--composite", nargs="+", default=["c3-lrp", "lrp-resnet"], choices=list(COMPOSITES)
    )
    parser.add_argument(
        "--resolution", nargs="+", default=["28"], help="sizes, or names of feature maps"
    )
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    photos = find_images(given.photos)
    rows = []
    for composite in given.composite:
        full = maps(given.model, photos, composite=composite)
        for which in given.resolution:
            wanted = (int(which), int(which)) if which.isdecimal() else which
            coarse = maps(given.model, photos, composite=composite, resolution=wanted)
            pairs = list(zip(full, coarse, strict=True))
            rows.append(
                {
                    "composite": composite,
                    "resolution": which,
                    "photos": len(photos),
                    "correlation": quartiles([correlation(*pair) for pair in pairs]),
                    "overlap": quartiles([overlap(*pair) for pair in pairs]),
                }
            )
    print(coarse_table(rows))
    if given.json:
        command = (
            f"python -m tools.benchmark.coarse {given.model.name} "
            f"… --resolution {' '.join(given.resolution)}"
        )
        given.json.write_text(json.dumps({"command": command, "coarse": rows}, indent=1) + "\n")
    return 0


def maps(model: Path, photos: list[Path], **choices: Any) -> list[Map]:
    """Every photo's map, for the predicted class."""
    explainer = Explainer(
        compile_model(model, post="none", **choices).model.SerializeToString(), providers="cpu"
    )
    return [found.heatmap for found in explainer.explain_images(photos)]


def correlation(full: Map, coarse: Map) -> float:
    """Pearson's, of the coarse map with the full one averaged down to its size."""
    small = cv2.resize(full, coarse.shape[::-1], interpolation=cv2.INTER_AREA)
    return float(np.corrcoef(small.ravel(), coarse.ravel())[0, 1])


def overlap(full: Map, coarse: Map) -> float:
    """Intersection over union of what C3 keeps."""
    kept = c3(full).map > 0
    other = (
        cv2.resize(
            (c3(coarse).map > 0).astype(np.uint8), kept.shape[::-1], interpolation=cv2.INTER_NEAREST
        )
        > 0
    )
    return float((kept & other).sum() / max((kept | other).sum(), 1))


def quartiles(values: list[float]) -> list[float]:
    """[first quartile, median, third quartile]"""
    return [round(float(q), 3) for q in np.quantile(values, (0.25, 0.5, 0.75))]


if __name__ == "__main__":
    sys.exit(main())
