"""Masks in the codes of COCO and of Label Studio, decoded by the codes' definitions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lrp_onnx.deploy.rle import brush_rle, coco_rle

Mask = NDArray[np.bool_]


def disc(height: int, width: int) -> Mask:
    y, x = np.indices((height, width))
    return np.asarray(np.hypot(y - height / 2, x - width / 3) < height / 3)


def noise(height: int, width: int, share: float) -> Mask:
    rng = np.random.default_rng(height * width)
    return np.asarray(rng.random((height, width)) < share)


MASKS = {
    "nothing": np.zeros((5, 7), np.bool_),
    "everything": np.ones((5, 7), np.bool_),
    "one pixel, of one": np.ones((1, 1), np.bool_),
    "a corner": np.pad(np.ones((1, 1), np.bool_), ((0, 8), (0, 2))),
    "the other corner": np.pad(np.ones((1, 1), np.bool_), ((8, 0), (2, 0))),
    "a disc": disc(48, 64),
    "noise": noise(37, 41, 0.5),
    "rare pixels": noise(300, 200, 0.001),
    "runs longer than 16 bits": disc(700, 400),
    "nothing for long": np.zeros((400, 300), np.bool_),
}


def counts_of(text: str) -> list[int]:
    """The numbers in COCO's text: five bits a letter, signed, differences from the fourth on."""
    counts: list[int] = []
    bits = ""
    for letter in text:
        value = ord(letter) - 48
        bits = f"{value & 31:05b}" + bits
        if not value & 32:
            number = int(bits, 2) - (1 << len(bits) if bits[0] == "1" else 0)
            counts.append(number + (counts[-2] if len(counts) > 2 else 0))
            bits = ""
    assert not bits
    return counts


def coco_mask(size: list[int], counts: list[int]) -> Mask:
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return values.reshape(size, order="F")


def brush_mask(code: list[int], shape: tuple[int, ...]) -> Mask:
    """The mask in Label Studio's bytes; every channel of a pixel is the same."""
    bits = "".join(f"{byte:08b}" for byte in code)
    at = 0

    def read(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    number, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < number:
        is_run, length = read(1), read(sizes[read(2)]) + 1
        if is_run:
            values += [read(word)] * length
        else:
            values += [read(word) for _ in range(length)]
    assert len(values) == number and len(bits) - at < 8
    pixels = np.array(values).reshape(*shape, 4)
    assert set(np.unique(pixels)) <= {0, 255} and (pixels == pixels[..., :1]).all()
    return np.asarray(pixels[..., 3] > 0)


@pytest.mark.parametrize("name", MASKS)
def test_codes_are_the_mask(name: str) -> None:
    mask = MASKS[name]
    plain, packed = coco_rle(mask, compressed=False), coco_rle(mask)
    assert plain["size"] == packed["size"] == list(mask.shape)
    assert sum(plain["counts"]) == mask.size and min(plain["counts"][1:], default=1) > 0
    assert counts_of(packed["counts"]) == plain["counts"]
    assert np.array_equal(coco_mask(plain["size"], plain["counts"]), mask)
    assert np.array_equal(brush_mask(brush_rle(mask), mask.shape), mask)


def test_a_code_known_by_hand() -> None:
    """Columns first: two zeros, then ones to the end; rows first: one zero, two ones, …."""
    mask = np.array([[0, 1, 1], [0, 1, 1]], np.bool_)
    assert coco_rle(mask, compressed=False) == {"size": [2, 3], "counts": [2, 4]}
    assert coco_rle(mask) == {"size": [2, 3], "counts": "24"}
