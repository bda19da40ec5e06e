"""What the first bytes of a picture file tell: its format, its size, and why it cannot be read.

Callers ask before they decode, because a file of a few kilobytes can decode to gigabytes.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Mapping

from lrp_onnx.files.first_bytes import looks_like

REMEDY = "convert it to PNG or JPEG"
AGAIN = "copy or download it again"
HAS_NO_END = "is truncated"
TOLD = {
    b"\x00\x00\x00\x0cJXL ": "a JPEG XL picture",
    b"\xff\x0a": "a JPEG XL picture",
    b"8BPS": "a Photoshop document",
    b"#?R": "a Radiance HDR picture",
    b"\x76\x2f\x31\x01": "an OpenEXR picture",
    b"\x00\x00\x01\x00": "an icon file",
    b"II*\x00\x10\x00\x00\x00CR": "a camera's raw file",
    b"FUJIFILM": "a camera's raw file",
    b"\x1aE\xdf\xa3": "a video file",
    b"P7\n": "a PAM picture",
    b"PF\n": "a picture of floating-point values",
    b"Pf\n": "a picture of floating-point values",
}
"""First bytes → a format that is not read."""
_GAP = rb"(?:\s|#[^\n]*\n)+"
_PNM = re.compile(rb"P([1-6])" + (_GAP + rb"(\d{1,9})") * 2 + rb"(?:" + _GAP + rb"(\d{1,9}))?")
_PNM_MOST = (None, b"255", b"65535")
_PNG_START = b"\x89PNG\r\n\x1a\n"
_CODESTREAM = b"\xff\x4f\xff\x51"
_WIDTH, _HEIGHT, _KIND, _DNG = 256, 257, 254, 0xC612
"""Tags of a TIFF."""

Size = tuple[int, int] | None
"""(width, height) in pixels; None where the header does not tell it."""


def picture_fault(data: bytes) -> str:
    """Why `data` is no picture that can be decoded, and what to do, as a clause; empty where
    nothing speaks against it.
    """
    kind = picture_format(data)
    if not kind:
        other = _other_format(data)
        if other:
            return f"it is {other}: {REMEDY}"
        return f"{looks_like(data) or 'it is of an unknown format, or damaged'}; use PNG or JPEG"
    if picture_size(data) is None:
        return f"it begins like a {kind} file and is damaged: {AGAIN}"
    if damage := _damage(kind, data):
        return f"it is a {kind} file that {damage}: {AGAIN}"
    if kind == "PNM" and (header := _PNM.match(data)) and header[4] not in _PNM_MOST:
        return f"its values go up to {header[4].decode()}, not 255 or 65535: {REMEDY}"
    if kind == "TIFF" and (_tags(data).get(_KIND, 0) & 1 or _DNG in _tags(data)):
        return f"it is a camera's raw file, or a TIFF file that begins with a preview: {REMEDY}"
    return ""


def picture_format(data: bytes) -> str:
    """The format of a picture, one of `SIZES`; empty for any other."""
    if data.startswith(_PNG_START):
        return "PNG"
    if data.startswith(b"\xff\xd8"):
        return "JPEG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP"
    if data.startswith(b"BM"):
        return "BMP"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")) and data[8:10] != b"CR":
        return "TIFF"
    if _PNM.match(data):
        return "PNM"
    if data.startswith((b"\0\0\0\x0cjP  \r\n\x87\n", _CODESTREAM)):
        return "JPEG 2000"
    if data[4:8] == b"ftyp" and {b"avif", b"avis"} & _brands(data):
        return "AVIF"
    return ""


def _other_format(data: bytes) -> str:
    """A format that is not read, with its article."""
    if data[4:8] == b"ftyp":
        heif = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"} & _brands(data)
        return "an HEIC picture" if heif else "a video file"
    if data.startswith(b"RIFF") and data[8:12] == b"AVI ":
        return "a video file"
    if data[128:132] == b"DICM":
        return "a DICOM file"
    if b"<svg" in data[:4096].lower():
        return "an SVG drawing"
    return next((name for start, name in TOLD.items() if data.startswith(start)), "")


def _brands(data: bytes) -> set[bytes]:
    """The brands in the first box of an ISO media file: the main one and the compatible ones."""
    end = min(int.from_bytes(data[:4], "big"), 512)
    return {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}


def picture_size(data: bytes) -> Size:
    """(width, height) in pixels as the header of a picture states it.

    None for formats that are not in `SIZES`, and for damaged headers.
    """
    kind = picture_format(data)
    try:
        return SIZES[kind](data) if kind else None
    except (struct.error, IndexError, OverflowError):
        return None


def _png_size(data: bytes) -> Size:
    width, height = struct.unpack_from(">II", data, 16)
    return (width, height) if data[12:16] == b"IHDR" else None


def _bmp_size(data: bytes) -> Size:
    is_os2 = data[14] == 12  # OS/2's header has 16-bit sizes
    width, height = struct.unpack_from("<HH" if is_os2 else "<ii", data, 18)
    return abs(width), abs(height)


def _gif_size(data: bytes) -> Size:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _pnm_size(data: bytes) -> Size:
    header = _PNM.match(data)
    return (int(header[2]), int(header[3])) if header else None


def _jpeg_size(data: bytes) -> Size:
    """The size in the frame header (SOF0 to SOF15 without DHT, JPG and DAC)."""
    for marker, offset in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, offset + 3)
            return width, height
    return None


def _jpeg_segments(data: bytes) -> list[tuple[int, int]]:
    """(marker, offset of what follows it) of every segment up to the first scan."""
    found, offset = [], 2
    while (offset := data.find(b"\xff", offset)) >= 0 and offset + 4 <= len(data):
        marker = data[offset + 1]
        if marker in (0x00, 0xFF):  # a stuffed byte, a fill byte
            offset += 1
            continue
        found.append((marker, offset + 2))
        if marker == 0xDA:
            break
        has_length = marker != 0x01 and not 0xD0 <= marker <= 0xD9
        offset += 2 + (struct.unpack_from(">H", data, offset + 2)[0] if has_length else 0)
    return found


def _webp_size(data: bytes) -> Size:
    """The size in the first chunk, which is extended, lossless or lossy."""
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _tiff_size(data: bytes) -> Size:
    tags = _tags(data)
    return (tags[_WIDTH], tags[_HEIGHT]) if {_WIDTH, _HEIGHT} <= tags.keys() else None


def _tags(data: bytes) -> dict[int, int]:
    """The tags of a TIFF's first picture that hold one whole number."""
    order = "<" if data.startswith(b"II") else ">"
    large = b"+" in data[2:4]
    count, entry, value = ("Q", 20, 12) if large else ("H", 12, 8)
    start = struct.unpack_from(order + ("Q" if large else "I"), data, 8 if large else 4)[0]
    entries = struct.unpack_from(order + count, data, start)[0]
    first = start + struct.calcsize(order + count)
    tags = {}
    for at in range(first, first + entry * min(entries, 4096), entry):
        tag, kind = struct.unpack_from(order + "HH", data, at)
        if kind in (1, 3, 4, 16):
            form = {1: "B", 3: "H", 4: "I", 16: "Q"}[kind]
            tags[tag] = struct.unpack_from(order + form, data, at + value)[0]
    return tags


def _jpeg_2000_size(data: bytes) -> Size:
    start = data.index(_CODESTREAM) if _CODESTREAM in data else len(data)
    right, bottom, left, top = struct.unpack_from(">IIII", data, start + 8)
    return (right - left, bottom - top) if right >= left and bottom >= top else None


def _avif_size(data: bytes) -> Size:
    """The largest size among those of the picture, its tiles and its thumbnail."""
    places = [match.end() for match in re.finditer(b"ispe", data[: 1 << 16])]
    sizes: list[tuple[int, int]] = [struct.unpack_from(">II", data, place + 4) for place in places]
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


SIZES: Mapping[str, Callable[[bytes], Size]] = {
    "PNG": _png_size,
    "JPEG": _jpeg_size,
    "WebP": _webp_size,
    "BMP": _bmp_size,
    "GIF": _gif_size,
    "TIFF": _tiff_size,
    "PNM": _pnm_size,
    "JPEG 2000": _jpeg_2000_size,
    "AVIF": _avif_size,
}
"""Every format that is read → the size that its header states."""


def _damage(kind: str, data: bytes) -> str:
    """What is plainly wrong with a file, before anything is decoded; empty where nothing is."""
    ends = True
    if kind == "JPEG":
        ends = data.find(b"\xff\xd9", _jpeg_segments(data)[-1][1]) >= 0
    elif kind == "WebP":
        ends = int.from_bytes(data[4:8], "little") <= len(data) - 8
    elif kind == "PNG":
        return _png_damage(data)
    return "" if ends else HAS_NO_END


def _png_damage(data: bytes) -> str:
    """The same of a PNG. Its chunks have checksums, all of which count but those of remarks."""
    offset = len(_PNG_START)
    while offset + 12 <= len(data):
        end = offset + 12 + int.from_bytes(data[offset : offset + 4], "big")
        kind, checksum = data[offset + 4 : offset + 8], data[end - 4 : end]
        if end > len(data):
            break
        if kind[:1].isupper() and zlib.crc32(data[offset + 4 : end - 4]) != int.from_bytes(
            checksum, "big"
        ):
            return "is damaged"
        if kind == b"IEND":
            return ""
        offset = end
    return HAS_NO_END
