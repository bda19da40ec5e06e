"""Pictures that OpenCV does not write, made byte by byte."""

from __future__ import annotations

import struct
import zlib

PNG_START = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
"""Kinds of colour of a PNG."""


def chunk(kind: bytes, body: bytes) -> bytes:
    """One part of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(rows: list[bytes], width: int, *, kind: int, depth: int = 8, before: bytes = b"") -> bytes:
    """A PNG of these rows; `before` are chunks that stand before the pixels."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        PNG_START + chunk(b"IHDR", header) + before + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def animated_png(first: bytes, second: bytes) -> bytes:
    """An APNG of two pictures of one RGB pixel."""
    control = [
        chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, 1, 1, 0, 0, 1, 10, 0, 0))
        for number in (0, 1)
    ]
    return (
        PNG_START
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, RGB, 0, 0, 0))
        + chunk(b"acTL", struct.pack(">II", 2, 0))
        + control[0]
        + chunk(b"IDAT", zlib.compress(b"\0" + first))
        + control[1]
        + chunk(b"fdAT", struct.pack(">I", 2) + zlib.compress(b"\0" + second))
        + chunk(b"IEND", b"")
    )


def exif(orientation: int) -> bytes:
    """EXIF data that says how the camera was held."""
    return (
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + struct.pack("<I", orientation) + bytes(4)
    )


def turned_jpeg(data: bytes, orientation: int) -> bytes:
    """A JPEG with EXIF data in front."""
    body = b"Exif\0\0" + exif(orientation)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def cmyk_jpeg(inks: tuple[int, int, int, int]) -> bytes:
    """A JPEG of 8 × 8 pixels of one colour in CMYK as Adobe's programs write it: 255 is no ink.

    Every block has one coefficient, its mean, with a table of codes that has one code per length.
    """

    def segment(marker: int, body: bytes) -> bytes:
        return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body

    bits = ""
    for ink in inks:
        value = (ink - 128) * 8  # the quantisation is 1
        size = abs(value).bit_length()
        bits += "1" * size + "0"  # the code of `size`: so many ones, then a zero
        if size:
            bits += format(value if value > 0 else value + (1 << size) - 1, f"0{size}b")
        bits += "0"  # the end of the block
    bits += "1" * (-len(bits) % 8)
    scan = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))
    lengths = bytes([1] * 12 + [0] * 4)
    components = b"".join(bytes((number, 0x11, 0)) for number in range(1, 5))
    return (
        b"\xff\xd8"
        + segment(0xEE, b"Adobe\0\x64\0\0\0\0\0")
        + segment(0xDB, b"\0" + b"\1" * 64)
        + segment(0xC0, struct.pack(">BHHB", 8, 8, 8, 4) + components)
        + segment(0xC4, b"\x00" + lengths + bytes(range(12)))
        + segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\0")
        + segment(0xDA, b"\4" + b"".join(bytes((n, 0)) for n in range(1, 5)) + b"\0\x3f\0")
        + scan.replace(b"\xff", b"\xff\0")
        + b"\xff\xd9"
    )


def huge(kind: str, side: int) -> bytes:
    """The header of a picture of `side` × `side` pixels, with little or nothing behind it."""
    big = struct.pack(">II", side, side)
    if kind == "png":
        return PNG_START + chunk(b"IHDR", big + b"\1\0\0\0\0") + chunk(b"IEND", b"")
    if kind == "jpeg":
        frame = struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0"
        return b"\xff\xd8\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xd9"
    if kind == "webp":
        size = (side - 1).to_bytes(3, "little") * 2
        return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X\x0a\0\0\0\0\0\0\0" + size
    if kind == "bmp":
        return b"BM" + bytes(12) + struct.pack("<IiiHH", 40, side, side, 1, 24) + bytes(24)
    if kind == "gif":
        return b"GIF89a" + struct.pack("<HH", side, side) + b"\0\0\0;"
    if kind in ("tiff", "tiff-big-endian"):
        order, start = ("<", b"II*\0") if kind == "tiff" else (">", b"MM\0*")
        entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, side) for tag in (256, 257))
        return start + struct.pack(order + "IH", 8, 2) + entries + bytes(4)
    if kind == "bigtiff":
        entries = b"".join(struct.pack("<HHQQ", tag, 4, 1, side) for tag in (256, 257))
        return b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2) + entries + bytes(8)
    if kind == "ppm":
        return b"P6\n# a remark\n%d %d\n255\n" % (side, side)
    if kind == "jp2":
        return b"\0\0\0\x0cjP  \r\n\x87\n\xff\x4f\xff\x51\0\x29\0\0" + big + bytes(8)
    box = b"\0\0\0\x14ispe" + bytes(4) + big
    return b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + b"\0\0\1\0meta" + box


HUGE = (
    *("png", "jpeg", "webp", "bmp", "gif", "ppm", "jp2", "avif"),
    *("tiff", "tiff-big-endian", "bigtiff"),
)
"""The kinds that `huge` makes."""
