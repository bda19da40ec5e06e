"""Overlays, outlines, panels and PNG files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lrp_onnx.errors import OutputError, OutputExistsError
from lrp_onnx.report.colors import ENTRIES, TABLES
from lrp_onnx.report.render import RenderStyle, colorize, outline, overlay, panel, write_png

Picture = NDArray[np.uint8]
PHOTO = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
PHOTO.flags.writeable = False
NEAREST = RenderStyle(interpolation="nearest", percentile=100)
LEFT = np.zeros((4, 6), dtype=np.float32)
LEFT[:, :3] = 2
LEFT.flags.writeable = False


def test_colorize_spans_the_scheme() -> None:
    drawn = colorize([[-2, 0, 2, 1]], RenderStyle(percentile=100))
    table, middle = TABLES["diverging"], ENTRIES // 2
    np.testing.assert_array_equal(drawn[0], table[[0, middle, -1, middle + middle // 2]])
    forced = colorize([[-2, 0, 2]], RenderStyle(colors="sequential", percentile=100))
    np.testing.assert_array_equal(forced[0], TABLES["sequential"][[0, 0, -1]])


def test_colorize_at_another_size() -> None:
    small = colorize(LEFT, NEAREST)
    assert small.shape == (4, 6, 3)
    large = colorize(LEFT, NEAREST, shape=(8, 12))
    np.testing.assert_array_equal(large, small.repeat(2, axis=0).repeat(2, axis=1))
    smooth = colorize(LEFT, RenderStyle(), shape=(8, 12))
    assert len(np.unique(smooth[0], axis=0)) == 4  # two ends and, at the edge, 3/4 and 1/4


def test_a_map_of_zeros_is_the_colour_of_zero_and_an_untouched_photo() -> None:
    zero = np.zeros((5, 5))
    assert (colorize(zero) == TABLES["sequential"][0]).all()
    np.testing.assert_array_equal(overlay(PHOTO, zero), PHOTO)


def test_overlay_by_hand() -> None:
    """Left: full relevance at opacity 0.9; right: none."""
    result = overlay(PHOTO, LEFT, NEAREST)
    np.testing.assert_array_equal(result[:, 30:], PHOTO[:, 30:])
    expected = np.rint(0.1 * PHOTO[:, :30] + 0.9 * TABLES["sequential"][-1])
    assert np.abs(result[:, :30] - expected).max() <= 1  # 0.9 is rounded to float32, and halves with it
    assert (result.shape, result.dtype) == (PHOTO.shape, np.uint8)


def test_overlay_opacity_follows_relevance() -> None:
    black = np.zeros((1, 3, 3), dtype=np.uint8)
    style = RenderStyle(percentile=100, opacity=0.8, gamma=0.5, interpolation="nearest")
    result = overlay(black, [[0, 0.25, 1]], style)
    assert not result[0, 0].any()
    quarter = TABLES["sequential"][round(0.25 * (ENTRIES - 1))]
    np.testing.assert_allclose(result[0, 1], 0.8 * 0.5 * quarter, atol=0.51)  # rounding to 8 bits
    np.testing.assert_allclose(result[0, 2], 0.8 * TABLES["sequential"][-1], atol=0.51)


def test_overlay_of_a_signed_map_tints_red_and_blue() -> None:
    grey = np.full((1, 3, 3), 128, dtype=np.uint8)
    against, nothing, towards = overlay(grey, [[-1, 0, 1]], NEAREST)[0].astype(int)
    assert against[2] - against[0] > 100
    assert towards[0] - towards[2] > 100
    np.testing.assert_array_equal(nothing, [128] * 3)
    # A weak value is a faint tint, not white haze: on white it may only darken.
    white = np.full((1, 2, 3), 255, dtype=np.uint8)
    weak = overlay(white, [[0.1, 1]], RenderStyle(colors="diverging", percentile=100))[0, 0].astype(int)
    assert weak[0] - weak[2] > 20


def test_overlay_with_a_mask_is_an_outlined_overlay() -> None:
    mask = LEFT > 0
    both = overlay(PHOTO, LEFT, mask=mask)
    np.testing.assert_array_equal(both, outline(overlay(PHOTO, LEFT), mask))
    assert not np.array_equal(both, overlay(PHOTO, LEFT))


def test_outline_lies_on_the_border_of_the_mask() -> None:
    grey = np.full((100, 100, 3), 128, dtype=np.uint8)
    mask = np.zeros((10, 10), dtype=np.bool_)
    mask[2:8, 2:8] = True
    drawn = outline(grey, mask)
    changed = (drawn != 128).any(axis=2)
    ring = np.zeros((100, 100), dtype=np.bool_)
    ring[16:84, 16:84] = True
    ring[26:74, 26:74] = False  # the corners are rounded
    assert not changed[~ring].any()
    assert (drawn[50] > 200).all(axis=-1).sum() == 2  # white, left and right
    assert (drawn[50] < 60).all(axis=-1).any()  # and a dark rim
    assert (grey == 128).all()
    hole = mask.copy()
    hole[4:6, 4:6] = False
    assert (outline(grey, hole) != drawn).any()


@pytest.mark.parametrize("value", [False, True])
def test_outline_of_nothing_and_everything(value: bool) -> None:
    drawn = outline(PHOTO, np.full((28, 28), value))
    np.testing.assert_array_equal(drawn[8:-8, 8:-8], PHOTO[8:-8, 8:-8])
    assert np.array_equal(drawn, PHOTO) != value


def test_panel_is_photo_heatmap_overlay() -> None:
    result = panel(PHOTO, LEFT, NEAREST, mask=LEFT > 0)
    assert result.shape == (40, 3 * 60 + 2 * 2, 3)  # a gutter of 3 % of 40 would be one pixel, the least is two
    np.testing.assert_array_equal(result[:, :60], PHOTO)
    np.testing.assert_array_equal(result[:, 62:122], colorize(LEFT, NEAREST, shape=(40, 60)))
    np.testing.assert_array_equal(result[:, 124:], overlay(PHOTO, LEFT, NEAREST, mask=LEFT > 0))
    assert (result[:, 60:62] == 255).all()
    assert (result[:, 122:124] == 255).all()


def test_panel_captions() -> None:
    plain = panel(PHOTO, LEFT, height=100)
    width = (plain.shape[1] - 6) // 3
    captioned = panel(PHOTO, LEFT, height=100, captions=("photo", "", "a caption that is much wider than its tile ü"))
    np.testing.assert_array_equal(captioned[:100], plain)
    strip = captioned[100:]
    assert 15 < strip.shape[0] < 40
    tiles = [strip[:, :width], strip[:, width + 3 : 2 * width + 3], strip[:, 2 * width + 6 :]]
    ink = [(tile < 128).any() for tile in tiles]
    assert ink == [True, False, True]
    assert (strip[[0, -1]] == 255).all()  # no letter is cut off above or below
    assert (tiles[2][:, 0] == 255).all()  # cut at its end, not at both


def test_panel_height() -> None:
    for height in (20, 80):
        result = panel(PHOTO, LEFT, height=height)
        assert result.shape[0] == height
        assert result.shape[1] == 3 * round(60 * height / 40) + 2 * 2
    with pytest.raises(ValueError, match="height"):
        panel(PHOTO, LEFT, height=0)
    with pytest.raises(ValueError, match="three tiles"):
        panel(PHOTO, LEFT, captions=("a", "b", "c", "d"))


@pytest.mark.parametrize("bad", [PHOTO[..., 0], PHOTO[..., :2], PHOTO / 255, PHOTO.astype(np.int64), PHOTO[:0]])
def test_what_is_no_picture(bad: Picture, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a picture"):
        overlay(bad, LEFT)
    with pytest.raises(ValueError, match="a picture"):
        panel(bad, LEFT, height=10)
    with pytest.raises(ValueError, match="a picture"):
        write_png(tmp_path / "a.png", bad)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("colors", "jet"),
        ("percentile", 0),
        ("percentile", 100.5),
        ("opacity", 0),
        ("opacity", 1.01),
        ("gamma", 0),
        ("gamma", float("nan")),
        ("interpolation", "cubic"),
    ],
)
def test_styles_are_checked(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        RenderStyle(**{field: value})  # type: ignore[arg-type]


def test_png_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_png(path, PHOTO)
    read = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert read is not None
    np.testing.assert_array_equal(read[:, :, ::-1], PHOTO)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_png_is_not_overwritten_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match=r"a\.png exists"):
        write_png(path, PHOTO)
    assert path.read_bytes() == b"mine"
    write_png(str(path), PHOTO, force=True)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 1


def test_png_fails_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"mine")

    def fail(self: Path, target: Path) -> Path:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OutputError, match=r"a\.png cannot be written: disk full"):
        write_png(path, PHOTO, force=True)
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("a.png", b"mine")]


def test_where_no_png_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"the folder .*missing does not exist: create it"):
        write_png(tmp_path / "missing" / "a.png", PHOTO)
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"cannot be written: .*file is a file, not a folder"):
        write_png(tmp_path / "file" / "a.png", PHOTO, force=True)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError, match=r"folder\.png is a folder: name a file"):
        write_png(tmp_path / "folder.png", PHOTO, force=True)
    assert {entry.name for entry in tmp_path.iterdir()} == {"file", "folder.png"}
