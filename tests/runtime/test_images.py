"""Finding and reading pictures; what is none gets a clear error."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from lrp_onnx.errors import ImageError
from lrp_onnx.runtime.images import find_images, read_classes, read_image, read_labels

COLOUR = np.array([200, 100, 30], np.uint8)


def write(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    assert cv2.imwrite(str(path), pixels)
    return path


def solid(*shape: int) -> np.ndarray:
    return np.tile(COLOUR[::-1], (*shape, 1))


def test_colours_are_rgb(tmp_path: Path) -> None:
    found = read_image(write(tmp_path / "a.png", solid(4, 5)))
    assert found.shape == (4, 5, 3) and (found == COLOUR).all()


def test_other_depths_and_channels(tmp_path: Path) -> None:
    grey = read_image(write(tmp_path / "grey.png", np.full((3, 3), 77, np.uint8)))
    assert grey.shape == (3, 3, 3) and (grey == 77).all()
    deep = read_image(write(tmp_path / "deep.png", (solid(3, 3).astype(np.uint16)) * 257))
    assert (deep == COLOUR).all()
    alpha = np.dstack([solid(2, 2), np.array([[255, 0], [255, 0]], np.uint8)])
    clear = read_image(write(tmp_path / "clear.png", alpha))
    assert (clear[:, 0] == COLOUR).all() and (clear[:, 1] == 255).all()


def test_exif_turns_the_picture(tmp_path: Path) -> None:
    """Orientation 6: the camera was turned; what is stored as 4×2 is shown as 2×4."""
    data = write(tmp_path / "a.jpg", solid(2, 4)).read_bytes()
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    turned = tmp_path / "turned.jpg"
    turned.write_bytes(
        data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]
    )
    assert read_image(turned).shape == (4, 2, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b"hello, I am text", "it is text that begins 'hello"),
        (b"version https://git-lfs.github.com", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "it is a web page"),
        (b"\0\0\0\x18ftypheic" + bytes(30), "HEIC"),
        (b"\x89PNG\r\n\x1a\n" + bytes(30), "damaged"),
    ],
)
def test_what_is_no_picture(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=message) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.png", "a.JPG", "sub/c.png", "note.txt", ".hidden.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    assert [p.name for p in find_images([tmp_path])] == ["a.JPG", "b.png"]
    assert [p.name for p in find_images([tmp_path / "*" / "*.png"])] == ["c.png"]
    assert [p.name for p in find_images([tmp_path / "b.png", tmp_path])] == ["b.png", "a.JPG"]
    monkeypatch.chdir(tmp_path)
    assert [str(p) for p in find_images(["**/*.png"])] == [".hidden.png", "b.png", "sub/c.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError) as caught:
        find_images(["nothing.png", "a**b", tmp_path / "empty", tmp_path / "b.png"])
    assert "a**b matches nothing" in str(caught.value)
    assert "nothing.png" in str(caught.value) and "holds no picture" in str(caught.value)


def test_labels_and_classes(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("file,label,name\nx/a.png,3,cat\nb.png,0,dog\n")
    assert read_labels(table) == {"a.png": 3, "b.png": 0}
    table.write_text("\ufefffile,label\na.png,3\n", encoding="utf-8")
    assert read_labels(table) == {"a.png": 3}
    table.write_text("name,class\na,b\n")
    with pytest.raises(ImageError, match="file,label"):
        read_labels(table)
    names = tmp_path / "classes.txt"
    names.write_text("cat\n dog \n\n")
    assert read_classes(names) == ("cat", "dog")
    names.write_text("\ufeffcat\r\ndog\r\n", encoding="utf-8")
    assert read_classes(names) == ("cat", "dog")
    names.write_text("\n")
    with pytest.raises(ImageError, match="no class names"):
        read_classes(names)


def test_subfolders(tmp_path: Path) -> None:
    """Sorted, without hidden ones; links that lead in circles, or twice to a folder, end."""
    names = ("b.png", "a.png", "sub/d.png", "sub/c.png", "sub/deep/e.png", ".git/f.png", "t/g.txt")
    for name in names:
        path = tmp_path / "all" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"x")
    folder = tmp_path / "all"
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "zz").symlink_to(folder / "sub")
    (folder / "circle.png").symlink_to(folder / "circle.png")
    (folder / "folder.png").mkdir()
    found = find_images([folder], recursive=True)
    assert [str(p.relative_to(folder)) for p in found] == [
        "a.png",
        "b.png",
        "circle.png",
        "sub/c.png",
        "sub/d.png",
        "sub/deep/e.png",
    ]
    assert [p.name for p in find_images([folder])] == ["a.png", "b.png", "circle.png"]
    with pytest.raises(ImageError, match="holds no picture"):
        find_images([folder / "t"], recursive=True)
