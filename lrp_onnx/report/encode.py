"""Pictures as the bytes of a file."""

from __future__ import annotations

import cv2
import numpy as np

from lrp_onnx.errors import OutputError, shown
from lrp_onnx.report.render import check_picture, png
from lrp_onnx.runtime.images import Picture

JPEG_QUALITY = 92
ENDINGS = (".png", ".jpg", ".jpeg")
"""The endings of files that pictures are written to."""


def encoded(rgb: Picture, ending: str) -> bytes:
    """A picture as the bytes of a PNG or JPEG file.

    Args:
        rgb: (H, W, 3) uint8 RGB.
        ending: one of `ENDINGS`, in any case.

    Raises:
        OutputError: `ending` is another.
        ValueError: the array is not a picture, or too large for a JPEG (65,535 pixels a side).
    """
    if ending.lower() not in ENDINGS:
        raise OutputError(f"pictures are written as {', '.join(ENDINGS)}, not as {shown(ending)!r}")
    if ending.lower() == ".png":
        return png(rgb)
    check_picture(rgb)
    if max(rgb.shape) > 65_535:
        raise ValueError(f"a picture of shape {rgb.shape} cannot be a JPEG: write a PNG")
    choices = (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(rgb[:, :, ::-1]), choices)
    return data.tobytes()


WIDEST = 2048
"""Width in pixels up to which a flat picture is enlarged."""


def height_within(rgb: Picture, height: int) -> int:
    """`height`, or less, at least 1, where the picture would be wider than `WIDEST` with it."""
    rows, columns = rgb.shape[:2]
    widest: int = WIDEST * rows // columns
    return max(1, min(height, widest))


def resized(rgb: Picture, height: int) -> Picture:
    """A picture in another height, at least 1, with the same aspect ratio."""
    rows, columns = rgb.shape[:2]
    width = max(1, round(columns * height / rows))
    method = cv2.INTER_AREA if height < rows else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=method), np.uint8)
