"""Sizes that headers state, against pictures of known size,
and refusal before anything is decoded.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrp_onnx.errors import ImageError, shown
from lrp_onnx.files.first_bytes import looks_like
from lrp_onnx.files.pictures import picture_fault, picture_size
from lrp_onnx.runtime import images
from lrp_onnx.runtime.images import read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (37, 53, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("suffix", "channels", "options"),
    [
        (".png", 3, ()),
        (".png", 4, ()),
        (".bmp", 3, ()),
        (".bmp", 4, ()),
        (".jpg", 3, ()),
        (".jpg", 3, (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
        (".webp", 3, (cv2.IMWRITE_WEBP_QUALITY, 80)),
        (".webp", 3, (cv2.IMWRITE_WEBP_QUALITY, 101)),
        (".webp", 4, (cv2.IMWRITE_WEBP_QUALITY, 80)),
        (".gif", 3, ()),
        (".tiff", 3, ()),
        (".ppm", 3, ()),
        (".jp2", 3, ()),
        (".avif", 3, ()),
        (".avif", 4, ()),
    ],
)
def test_the_size_in_the_header_is_the_pictures(
    suffix: str, channels: int, options: tuple[int, ...]
) -> None:
    """WebP: a lossy, a lossless and an extended (alpha) first chunk."""
    pixels = np.dstack([PIXELS, PIXELS[:, :, :1]])[:, :, :channels]
    written, data = cv2.imencode(suffix, pixels, options)
    assert written and picture_size(data.tobytes()) == (53, 37)


def test_thumbnails_are_not_taken_for_the_picture() -> None:
    """An APP1 segment that holds a whole smaller JPEG is stepped over."""
    small, large = (
        cv2.imencode(".jpg", pixels)[1].tobytes() for pixels in (PIXELS[:8, :8], PIXELS)
    )
    assert picture_size(
        large[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(small)) + small + large[2:]
    ) == (53, 37)


def test_an_os2_bitmap() -> None:
    assert picture_size(b"BM" + bytes(12) + struct.pack("<IHHHH", 12, 5, 7, 1, 24)) == (5, 7)


def test_a_codestream_that_ends_before_it_begins() -> None:
    assert picture_size(b"\xff\x4f\xff\x51" + bytes(4) + struct.pack(">IIII", 8, 8, 9, 9)) is None


@given(
    st.sampled_from(
        [
            *(b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"\xff\xd8\xff\xc0", b"RIFF1234WEBP", b"BM"),
            *(b"GIF89a", b"II*\0\x08\0\0\0", b"MM\0*", b"II+\0", b"P6 3 3", b"\xff\x4f\xff\x51"),
            *(b"\0\0\0\x1cftypavif", b"\0\0\0\x1cftypavifispe"),
        ]
    ),
    st.binary(max_size=64),
)
def test_no_bytes_make_it_fail(start: bytes, rest: bytes) -> None:
    size = picture_size(start + rest)
    assert size is None or min(size) >= 0
    assert isinstance(looks_like(start + rest), str)
    fault = picture_fault(start + rest)
    assert (size is not None or fault) and shown(fault) == fault


def test_a_small_file_of_a_huge_picture_is_refused_undecoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    def never(*_: object) -> None:
        raise AssertionError("the picture was decoded")

    path = tmp_path / "huge.png"
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header)
    monkeypatch.setattr(images.cv2, "imdecode", never)
    with pytest.raises(ImageError, match="20000×20000 pixels"):
        read_image(path)
