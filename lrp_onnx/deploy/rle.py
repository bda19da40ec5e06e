"""Masks as runs of equal pixels, in the codes of COCO and of Label Studio."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
"""(H, W) bool."""

SIZES = (3, 4, 8, 16)
"""Bits of a run's length in Label Studio's code; every run takes the first that is enough."""
CHANNELS = 4
"""Label Studio codes red, green, blue and alpha of every pixel, which are the same in a mask."""


def coco_rle(mask: Mask, *, compressed: bool = True) -> dict[str, Any]:
    """A mask in COCO's run-length code, as `pycocotools.mask.decode` reads it.

    Args:
        mask: (H, W) bool.
        compressed: whether the runs are a text; else they are a list of numbers, which
            `pycocotools.mask.frPyObjects` reads.

    Returns:
        ``size``, height and width, and ``counts``: lengths of runs of zeros and ones in turn, down
        the columns, zeros first.
    """
    lengths = _lengths(mask.ravel(order="F"))
    if mask.size and mask[0, 0]:
        lengths = [0, *lengths]
    height, width = mask.shape
    return {"size": [height, width], "counts": _text(lengths) if compressed else lengths}


def brush_rle(mask: Mask) -> list[int]:
    """A mask in Label Studio's run-length code: bytes, as `label_studio_sdk.converter.brush` reads
    them.

    After the number of values (32 bits), the bits of a value less one (5) and those of each of four
    lengths less one (4 each) come the runs along the rows: 1, the kind of length (2), the length
    less one, and the value, 0 or 255 (8).
    """
    head = f"{CHANNELS * mask.size:032b}{8 - 1:05b}" + "".join(f"{bits - 1:04b}" for bits in SIZES)
    pixels = mask.ravel()
    bits, value = [head], bool(mask.size and pixels[0])
    for length in _lengths(pixels):
        bits += _runs(CHANNELS * length, 255 * value)
        value = not value
    digits = np.frombuffer("".join(bits).encode(), np.uint8) - ord("0")
    return [int(one) for one in np.packbits(digits)]


def _lengths(pixels: NDArray[np.bool_]) -> list[int]:
    """The lengths of the runs of equal values."""
    ends = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    return [int(one) for one in np.diff(ends, prepend=0, append=pixels.size)]


def _text(lengths: list[int]) -> str:
    """COCO's compressed runs: from the fourth on, each less the one two before it; five bits a
    letter, the lowest first, the sixth says that more follow.
    """
    letters = []
    for i, length in enumerate(lengths):
        left = length - lengths[i - 2] if i > 2 else length
        more = True
        while more:
            low, left = left & 31, left >> 5
            more = left != (-1 if low & 16 else 0)
            letters.append(chr(48 + low + 32 * more))
    return "".join(letters)


def _runs(length: int, value: int) -> list[str]:
    """One run of Label Studio's code, or several where it is longer than `SIZES` can say."""
    longest = 1 << SIZES[-1]
    runs = []
    while length:
        part = min(length, longest)
        kind = next(i for i, bits in enumerate(SIZES) if part <= 1 << bits)
        runs.append(f"1{kind:02b}{part - 1:0{SIZES[kind]}b}{value:08b}")
        length -= part
    return runs
