"""Overlays, outlines, panels and PNG files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lrp_onnx.errors import OutputError, OutputExistsError
from lrp_onnx.report.colors import ENTRIES, TABLES, Scale, ground
from lrp_onnx.report.render import (
    ENDINGS,
    VIVID,
    RenderStyle,
    colorize,
    grid,
    outline,
    overlay,
    panel,
    write_picture,
    write_png,
)

Picture = NDArray[np.uint8]
MIDDLE = ENTRIES // 2
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


def test_a_map_of_zeros_is_the_colour_of_zero_and_the_ground() -> None:
    zero = np.zeros((5, 5))
    assert (colorize(zero) == TABLES["sequential"][0]).all()
    np.testing.assert_array_equal(overlay(PHOTO, zero), ground(PHOTO))
    np.testing.assert_array_equal(overlay(PHOTO, zero, RenderStyle(ground="photo")), PHOTO)


@pytest.mark.parametrize("kept", ["photo", "dimmed"])
def test_overlay_by_hand(kept: str) -> None:
    """Left: full relevance at opacity 0.9; right: none."""
    style = RenderStyle(interpolation="nearest", percentile=100, ground=kept)
    result = overlay(PHOTO, LEFT, style)
    under = PHOTO if kept == "photo" else ground(PHOTO)
    np.testing.assert_array_equal(result[:, 30:], under[:, 30:])
    expected = np.rint(0.1 * under[:, :30] + 0.9 * TABLES["sequential"][-1])
    assert (
        np.abs(result[:, :30] - expected).max() <= 1
    )  # 0.9 is rounded to float32, and halves with it
    assert (result.shape, result.dtype) == (PHOTO.shape, np.uint8)


def test_overlay_opacity_follows_relevance() -> None:
    black = np.zeros((1, 3, 3), dtype=np.uint8)
    style = RenderStyle(
        percentile=100, opacity=0.8, gamma=0.5, interpolation="nearest", ground="photo"
    )
    result = overlay(black, [[0, 0.25, 1]], style)
    assert not result[0, 0].any()
    place = VIVID[0] + (VIVID[1] - VIVID[0]) * 0.25
    quarter = TABLES["sequential"][round(place * (ENTRIES - 1))]
    np.testing.assert_allclose(result[0, 1], 0.8 * 0.5 * quarter, atol=0.51)  # rounding to 8 bits
    np.testing.assert_allclose(result[0, 2], 0.8 * TABLES["sequential"][-1], atol=0.51)


def test_overlay_of_a_signed_map_tints_blue_and_orange() -> None:
    grey = np.full((1, 3, 3), 128, dtype=np.uint8)
    against, nothing, towards = overlay(grey, [[-1, 0, 1]], NEAREST)[0].astype(int)
    assert against[2] - against[0] > 50
    assert towards[0] - towards[2] > 50
    np.testing.assert_array_equal(nothing, ground(grey)[0, 0])
    # A weak value is a tint, not a dark haze: on a dark ground it is not darker.
    black = np.zeros((1, 2, 3), dtype=np.uint8)
    weak, none = overlay(black, [[0.1, 0]], scale=Scale("diverging", 1.0))[0].astype(int)
    assert weak[0] - weak[2] > 10
    assert weak.sum() > none.sum()


def test_a_shared_scale_makes_a_weaker_map_paler() -> None:
    scale = Scale("sequential", 4.0)
    weak = colorize(LEFT, NEAREST, scale=scale)
    np.testing.assert_array_equal(weak[0, 0], TABLES["sequential"][MIDDLE])
    np.testing.assert_array_equal(
        overlay(PHOTO, LEFT, NEAREST, scale=scale),
        overlay(PHOTO, LEFT / 2, NEAREST, scale=Scale("sequential", 2.0)),
    )
    assert NEAREST.scale([LEFT, LEFT * 2]) == scale


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
    assert result.shape == (
        40,
        3 * 60 + 2 * 2,
        3,
    )  # a gutter of 3 % of 40 would be one pixel, the least is two
    np.testing.assert_array_equal(result[:, :60], PHOTO)
    np.testing.assert_array_equal(result[:, 62:122], colorize(LEFT, NEAREST, shape=(40, 60)))
    np.testing.assert_array_equal(result[:, 124:], overlay(PHOTO, LEFT, NEAREST, mask=LEFT > 0))
    assert (result[:, 60:62] == 255).all()
    assert (result[:, 122:124] == 255).all()


def test_panel_captions() -> None:
    plain = panel(PHOTO, LEFT, height=100)
    width = (plain.shape[1] - 6) // 3
    captioned = panel(
        PHOTO,
        LEFT,
        height=100,
        captions=("photo", "", "a caption that is much wider than its tile, ü, " + 9 * "and on "),
    )
    np.testing.assert_array_equal(captioned[:100], plain)
    strip = captioned[100:]
    assert 3 * 13 < strip.shape[0] < 6 * 13  # three lines
    tiles = [strip[:, :width], strip[:, width + 3 : 2 * width + 3], strip[:, 2 * width + 6 :]]
    ink = [(tile < 128).any() for tile in tiles]
    assert ink == [True, False, True]
    assert (strip[[0, -1]] == 255).all()  # no letter is cut off above or below
    assert (tiles[2][:, [0, -1]] == 255).all()  # nor at the sides


def test_a_narrow_tile_is_widened_for_its_caption() -> None:
    narrow = panel(PHOTO[:, :3], LEFT, captions=("a caption", "", ""))
    assert narrow.shape[1] > 3 * 100
    assert narrow[:40, :45].mean() == 255  # the picture is in the middle of its white tile


def test_grid() -> None:
    tiles = [(PHOTO, "one"), (PHOTO, "a name of three lines, for it is long"), (PHOTO, "three")]
    drawn = grid(tiles, columns=2, height=80)
    np.testing.assert_array_equal(drawn.shape[1], 2 * 120 + 2)
    assert (drawn[:80, 120:122] == 255).all()  # the gutter
    second = grid(tiles[2:], columns=1, height=80)
    rows = drawn.shape[0] - second.shape[0]
    np.testing.assert_array_equal(drawn[rows:, :120], second)  # its own height, not the first's
    assert (drawn[rows:, 122:] == 255).all()
    with pytest.raises(ValueError, match="tiles"):
        grid([], columns=2, height=80)
    with pytest.raises(ValueError, match="one column"):
        grid(tiles, columns=0, height=80)
    assert grid(tiles[:1], columns=5, height=80).shape[1] == 120


def test_panel_height() -> None:
    for height in (20, 80):
        result = panel(PHOTO, LEFT, height=height)
        assert result.shape[0] == height
        assert result.shape[1] == 3 * round(60 * height / 40) + 2 * 2
    with pytest.raises(ValueError, match="height"):
        panel(PHOTO, LEFT, height=0)
    with pytest.raises(ValueError, match="three tiles"):
        panel(PHOTO, LEFT, captions=("a", "b", "c", "d"))


@pytest.mark.parametrize(
    "bad", [PHOTO[..., 0], PHOTO[..., :2], PHOTO / 255, PHOTO.astype(np.int64), PHOTO[:0]]
)
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
        ("ground", "light"),
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


@pytest.mark.parametrize("ending", [*ENDINGS, ".JPG"])
def test_pictures_are_written_as_their_names_say(tmp_path: Path, ending: str) -> None:
    first = {".png": b"\x89PNG", ".webp": b"RIFF"}.get(ending, b"\xff\xd8\xff")
    path = tmp_path / f"a{ending}"
    smooth = cv2.resize(PHOTO, (300, 200), interpolation=cv2.INTER_CUBIC)
    write_picture(path, smooth)
    assert path.read_bytes().startswith(first)
    read = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert read is not None
    off = np.abs(read[:, :, ::-1].astype(int) - smooth).mean()
    assert off == 0 if ending == ".png" else 0 < off < 10
    with pytest.raises(OutputExistsError):
        write_picture(path, smooth)
    write_picture(path, smooth, force=True)


@pytest.mark.parametrize("name", ["a.gif", "a", "a.png.txt", ".png"])
def test_other_kinds_of_pictures_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"a picture's name ends in \.png, \.jpg, \.jpeg, \.webp"):
        write_picture(tmp_path / name, PHOTO)
    assert not list(tmp_path.iterdir())


def test_a_picture_too_large_for_its_format(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"a\.webp cannot be written as \.webp: 16384 x 2 pixels"):
        write_picture(tmp_path / "a.webp", np.zeros((2, 16384, 3), np.uint8))
    assert not list(tmp_path.iterdir())


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
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [
        ("a.png", b"mine")
    ]


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
