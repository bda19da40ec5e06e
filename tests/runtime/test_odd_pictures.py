"""Pictures as people have them: each is read, or refused by one line with the file and a remedy."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from odd_pictures import (
    GREY,
    GREY_ALPHA,
    HUGE,
    PALETTE,
    RGBA,
    animated_png,
    chunk,
    cmyk_jpeg,
    exif,
    huge,
    png,
    turned_jpeg,
)

from lrp_onnx.errors import ImageError, shown
from lrp_onnx.runtime import arrays, images
from lrp_onnx.runtime.arrays import read_array
from lrp_onnx.runtime.images import decoded_image, find_images, read_image
from lrp_onnx.runtime.preprocess import Box
from lrp_onnx.runtime.starts import Mask

SMOOTH = cv2.resize(
    np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8),
    (96, 64),
    interpolation=cv2.INTER_CUBIC,
)
PLANE = SMOOTH[:, :, ::-1]
"""The same in RGB."""


def encoded(suffix: str, pixels: np.ndarray = SMOOTH, *choices: int) -> bytes:
    written, data = cv2.imencode(suffix, pixels, choices)
    assert written
    return data.tobytes()


def refusal(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(path)
    message = str(caught.value)
    assert "\n" not in message and shown(message) == message
    return message


@pytest.mark.parametrize(
    ("suffix", "error"),
    [
        (".png", 0),
        (".bmp", 0),
        (".tiff", 0),
        (".ppm", 0),
        (".jp2", 3),
        (".jpg", 12),
        (".webp", 25),
        (".avif", 25),
        (".gif", 140),
    ],
)
def test_every_format_is_read_whole_or_refused(suffix: str, error: int, tmp_path: Path) -> None:
    data = encoded(suffix)
    difference = np.abs(decoded_image(data, "a").astype(int) - PLANE)
    assert difference.max() <= error
    for share in (0.02, 0.3, 0.6, 0.9, 0.99):
        path = tmp_path / f"cut{suffix}"
        path.write_bytes(data[: int(share * len(data))])
        message = refusal(path)
        assert message.startswith(str(path)) and ("PNG or JPEG" in message or "again" in message)


def test_deep_pictures_keep_their_brightness() -> None:
    for suffix in (".png", ".tiff", ".jp2", ".ppm"):
        found = decoded_image(encoded(suffix, SMOOTH.astype(np.uint16) * 257), "a")
        assert np.abs(found.astype(int) - PLANE).max() <= 1, suffix
    deep = encoded(".avif", SMOOTH.astype(np.uint16) * 4, cv2.IMWRITE_AVIF_DEPTH, 10)
    assert np.abs(decoded_image(deep, "a").astype(int) - PLANE).mean() < 5
    grey = png([np.array([0, 257 * 77, 65535], ">u2").tobytes()], 3, kind=GREY, depth=16)
    assert decoded_image(grey, "a")[0, :, 0].tolist() == [0, 77, 255]


@pytest.mark.parametrize("depth", [8, 2])
def test_a_palette_with_transparency(depth: int) -> None:
    table = chunk(b"PLTE", bytes([200, 0, 0, 0, 200, 0, 0, 0, 200]))
    row = bytes([0, 1, 2]) if depth == 8 else bytes([0b00011000])
    plain = decoded_image(png([row], 3, kind=PALETTE, depth=depth, before=table), "a")
    assert plain.tolist() == [[[200, 0, 0], [0, 200, 0], [0, 0, 200]]]
    clear = chunk(b"tRNS", bytes([255, 0, 51]))
    mixed = decoded_image(png([row], 3, kind=PALETTE, depth=depth, before=table + clear), "a")
    assert mixed.tolist() == [[[200, 0, 0], [255, 255, 255], [204, 204, 244]]]


def test_grey_with_transparency_and_deep_transparency() -> None:
    found = decoded_image(png([bytes([0, 255, 100, 0])], 2, kind=GREY_ALPHA), "a")
    assert found.tolist() == [[[0, 0, 0], [255, 255, 255]]]
    deep = np.array([65535, 0, 0, 65535, 0, 65535, 0, 0], ">u2").tobytes()
    found = decoded_image(png([deep], 2, kind=RGBA, depth=16), "a")
    assert found.tolist() == [[[255, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize(
    ("inks", "colour"),
    [
        ((255, 255, 255, 255), (255, 255, 255)),
        ((0, 255, 255, 255), (0, 255, 255)),
        ((255, 255, 255, 0), (0, 0, 0)),
        ((255, 128, 0, 255), (255, 128, 0)),
    ],
)
def test_a_jpeg_for_printing(inks: tuple[int, int, int, int], colour: tuple[int, int, int]) -> None:
    found = decoded_image(cmyk_jpeg(inks), "a")
    assert found.shape == (8, 8, 3) and np.abs(found.astype(int) - colour).max() <= 2


def test_of_an_animation_the_first_picture() -> None:
    assert decoded_image(animated_png(b"\xff\0\0", b"\0\0\xff"), "a").tolist() == [[[255, 0, 0]]]
    film = cv2.Animation()
    film.frames = [np.full((16, 16, 3), colour, np.uint8) for colour in ((0, 0, 255), (255, 0, 0))]
    film.durations = np.array([100, 100])
    for suffix in (".gif", ".webp", ".avif"):
        written, data = cv2.imencodeanimation(suffix, film)
        assert written
        found = decoded_image(data.tobytes(), "a")
        assert found.shape == (16, 16, 3) and (found[..., 0] > 245).all(), suffix
        assert (found[..., 2] < 10).all(), suffix


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_exif_says(orientation: int) -> None:
    """A picture with transparency is turned as one without."""
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:8, :8] = (0, 0, 255)
    pixels[8:, 16:] = (255, 0, 0)
    expected = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(pixels, 1),
    }[orientation][..., ::-1]
    found = decoded_image(turned_jpeg(encoded(".jpg", pixels), orientation), "a")
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 12
    alpha = np.full((16, 24, 1), 255, np.uint8)
    alpha[8:, 16:] = 0
    rows = [row.tobytes() for row in np.dstack([pixels[..., ::-1], alpha])]
    clear = png(rows, 24, kind=RGBA, before=chunk(b"eXIf", exif(orientation)))
    expected = expected.copy()
    expected[(expected == (0, 0, 255)).all(-1)] = 255
    assert np.array_equal(decoded_image(clear, "a"), expected)


def test_one_pixel(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(encoded(".png", np.full((1, 1, 3), 9, np.uint8)))
    assert read_image(path).tolist() == [[[9, 9, 9]]]


@pytest.mark.parametrize("kind", HUGE)
def test_a_huge_picture_is_refused_undecoded(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the picture was decoded")

    monkeypatch.setattr(images.cv2, "imdecode", never)
    path = tmp_path / "huge.png"  # the content counts, not the name
    path.write_bytes(huge(kind, 30_000))
    assert "30000×30000 pixels" in refusal(path) and "smaller" in refusal(path)


def test_formats_without_a_known_header_are_not_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """OpenCV would read some of them, whatever their size."""
    monkeypatch.setattr(images.cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    for data in (
        b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 30000 +X 30000\n",
        b"PF\n30000 30000\n-1\n",
        b"P7\nWIDTH 30000\nHEIGHT 30000\nDEPTH 3\nMAXVAL 255\nENDHDR\n",
        b"Y\xa6j\x95" + bytes(28),
        b"\x76\x2f\x31\x01" + bytes(40),
    ):
        with pytest.raises(ImageError, match="PNG or JPEG"):
            decoded_image(data, "a")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), "an HEIC picture: convert it to PNG"),
        (b"\0\0\0\x18ftypisom\0\0\0\0mp41avc1" + bytes(40), "a video file: convert"),
        (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"%PDF-1.7\n" + bytes(40), "it is a PDF; use PNG or JPEG"),
        (b"\xff\x0a" + bytes(40), "a JPEG XL picture: convert it to PNG or JPEG"),
        (b"8BPS\0\1" + bytes(40), "a Photoshop document"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(40), "a camera's raw file"),
        (bytes(128) + b"DICM" + bytes(40), "a DICOM file"),
        (b"P6\n1 1\n4095\n" + bytes(6), "values go up to 4095"),
        (b"", "it is empty; use PNG or JPEG"),
        (b"\x00" * 100, "unknown format, or damaged"),
    ],
)
def test_other_formats_are_named(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    assert words in refusal(path)


def test_values_of_other_types_are_refused() -> None:
    for kind in (np.float32, np.int16):
        with pytest.raises(ImageError, match=f"values of the type {np.dtype(kind)}"):
            decoded_image(encoded(".tiff", SMOOTH.astype(kind)), "a")
    clear = np.dstack([SMOOTH, SMOOTH[..., :1]]).astype(np.uint16)
    with pytest.raises(ImageError, match="transparency and more than 8 bits"):
        decoded_image(encoded(".avif", clear, cv2.IMWRITE_AVIF_DEPTH, 10), "a")


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    """A pipe that nobody writes to, and a device without end, do not hang."""
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    messages: list[str] = []
    threads = [
        threading.Thread(target=lambda path=path: messages.append(refusal(path)), daemon=True)
        for path in (pipe, Path("/dev/zero"))
    ]
    for thread in threads:
        thread.start()
        thread.join(timeout=20)
    assert len(messages) == 2 and all("a pipe or a device" in message for message in messages)
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    assert "circle.png cannot be read" in refusal(tmp_path / "circle.png")
    assert "is a folder: name the pictures in it" in refusal(tmp_path)
    assert "cannot be read" in refusal(tmp_path / ("x" * 300 + ".png"))
    assert "cannot be read" in refusal(Path("a\0b.png"))


def test_arrays_and_masks_are_regular_files_of_a_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pipe.npy", "pipe.wav"):
        os.mkfifo(tmp_path / name)
    box = Box(top=0, left=0, height=8, width=8)
    photo = np.zeros((8, 8, 3), np.uint8)
    messages: list[str] = []

    def refused(read: Callable[[], object]) -> None:
        with pytest.raises(ImageError) as caught:
            read()
        messages.append(str(caught.value))

    for read in (
        lambda: read_array(tmp_path / "pipe.npy"),
        lambda: read_array(tmp_path / "pipe.wav"),
        lambda: Mask.read(tmp_path / "pipe.npy", photo, box, (8, 8)),
    ):
        thread = threading.Thread(target=refused, args=(read,), daemon=True)
        thread.start()
        thread.join(timeout=5)
    assert len(messages) == 3 and all("a pipe or a device" in message for message in messages)
    np.save(tmp_path / "large.npy", np.zeros((2, 100)))
    assert read_array(tmp_path / "large.npy").shape == (2, 100)
    monkeypatch.setattr(arrays, "MOST_BYTES", 1000)
    with pytest.raises(ImageError, match="at most 1,000 are read"):
        read_array(tmp_path / "large.npy")


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("two\nlines.png", r"two\nlines.png"),
        ("\x1b[31mred\x1b[0m.png", r"\x1b[31mred\x1b[0m.png"),
        ("right\u202egnp.exe.png", r"right\u202egnp.exe.png"),
        ("<script>alert(1)<\u2215script>.png", "<script>alert(1)<\u2215script>.png"),
        (os.fsdecode(b"latin-\xe9.png"), r"latin-\xe9.png"),
        ("été 日本.png", "été 日本.png"),
    ],
)
def test_odd_names(name: str, written: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(encoded(".png"))
    assert np.array_equal(read_image(path), PLANE)
    assert find_images([tmp_path]) == find_images([path]) == [path]
    path.write_bytes(b"")
    assert written in refusal(path)
    path.unlink()
    assert written in refusal(path)
    with pytest.raises(ImageError) as caught:
        find_images([path])
    assert written in str(caught.value)


def test_a_leading_dash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-x.png").write_bytes(encoded(".png"))
    assert find_images(["-x.png"]) == [Path("-x.png")]
    assert np.array_equal(read_image(Path("-x.png")), PLANE)


def test_a_folder_of_pictures_that_are_not_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "IMG_1.HEIC").write_bytes(b"x")
    with pytest.raises(ImageError, match=r"but \.heic: convert it to PNG or JPEG"):
        find_images([tmp_path])
    with pytest.raises(ImageError, match=r"cannot be read|not a file"):
        find_images(["x" * 300 + ".png"])
    with pytest.raises(ImageError, match="an empty text names no picture"):
        find_images([""])


def test_what_a_terminal_sees_is_plain() -> None:
    assert shown("a\tb\r\x07\x7f\x85\u2028\u2066\ufeff") == r"a\tb\r\x07\x7f\x85\u2028\u2066\ufeff"
    assert shown(Path("né 👩\u200d🚀")) == "né 👩\u200d🚀"
    assert shown("a\nb\x1b", lines=True) == "a\nb\\x1b" and shown("a\nb") == r"a\nb"
    assert shown("\udce9\ud800") == r"\xe9\ud800"


def test_damaged_pictures_leave_the_terminal_clean() -> None:
    """Neither OpenCV nor its libraries print; its log says what it said before, afterwards."""
    script = """
import cv2, numpy as np
from lrp_onnx.errors import ImageError
from lrp_onnx.runtime.images import decoded_image
log = getattr(cv2.utils, "logging", cv2)
level = log.getLogLevel()
pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
for suffix in ".png .jpg .webp .bmp .gif .tiff .ppm .avif .jp2".split():
    data = cv2.imencode(suffix, pixels)[1].tobytes()
    for cut in (len(data) // 50, len(data) // 3, len(data) - 9):
        try:
            decoded_image(data[:cut], suffix)
        except ImageError:
            continue
        raise AssertionError(suffix)
assert log.getLogLevel() == level
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
