"""Where what is explained of an output lies in a picture: a mask, pixels, a detector's box."""

from __future__ import annotations

import cv2
import numpy as np

from lrp_onnx.report.render import outline
from lrp_onnx.report.text import INK, WHITE
from lrp_onnx.runtime.explanation import Explanation
from lrp_onnx.runtime.images import Picture
from lrp_onnx.runtime.preprocess import Box


def with_marks(photo: Picture, box: Box, explanation: Explanation) -> Picture:
    """The photo with a line around the mask that is explained, and a box around the pixels or the
    detection, at least large enough to see; the photo itself where all of an output is explained.

    Args:
        photo: (H, W, 3) uint8 RGB, the explanation's photo at any size.
        box: the part of it that the model sees.
        explanation: what is explained.
    """
    if explanation.mask is not None:
        photo, seen = photo.copy(), np.ascontiguousarray(box.cut(photo))
        box.cut(photo)[:] = outline(seen, explanation.mask)
    if explanation.marked is None:
        return photo
    top, left, bottom, right = explanation.marked
    line = max(1, round(min(photo.shape[:2]) / 200))
    centre = (box.top + box.height * (top + bottom) / 2, box.left + box.width * (left + right) / 2)
    sides = (box.height * (bottom - top), box.width * (right - left))
    half = [max(side / 2, 4 * line) for side in sides]
    first = round(centre[1] - half[1]), round(centre[0] - half[0])
    last = round(centre[1] + half[1]), round(centre[0] + half[0])
    drawn = photo.copy()
    cv2.rectangle(drawn, first, last, INK, 3 * line)
    cv2.rectangle(drawn, first, last, WHITE, line)
    return drawn
