"""Pictures of relevance maps: the heatmap alone, laid over the photo, and side by side; written as
PNG.

Pictures are (H, W, 3) uint8 RGB throughout; nothing here changes its input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrp_onnx.files.writing import write_bytes
from lrp_onnx.maps.options import check_choice, check_range, check_whole
from lrp_onnx.maps.resample import as_map, resample
from lrp_onnx.report.colors import TABLES, color_scheme, paint, scale_for
from lrp_onnx.runtime.images import Picture

WHITE = (255, 255, 255)
INK = (40, 40, 40)
VIVID = (0.5, 0.8)
"""The part of each half of the diverging scheme that overlays use: neither its white haze nor its
darkest end.
"""
GUTTER = 0.03
"""Of a panel, as a share of its tiles' height; at least 2 pixels."""
FONT = cv2.FONT_HERSHEY_SIMPLEX
CAPTION = 0.055
"""Height of a caption's capital letters, as a share of the tiles' height."""
CAPTION_LEAST = 8
"""... and at least this many pixels, under which the font cannot be read."""


@dataclass(frozen=True, slots=True)
class RenderStyle:
    """How a map is drawn; a value out of range is a ValueError."""

    colors: str = "auto"
    """``diverging`` (signed), ``sequential`` (what is negative counts as zero) or ``auto`` (by the
    map's sign).
    """
    percentile: float = 99.5
    """Of the map's magnitude, above 0 and up to 100: full colour from there on. See
    `heatmap.normalize`.
    """
    opacity: float = 0.9
    """Of the most relevant pixel in an overlay, above 0 and up to 1."""
    gamma: float = 0.7
    """Opacity of a pixel is ``opacity * |scaled relevance| ** gamma``, gamma in 0..4: below 1 shows
    weak relevance more.
    """
    interpolation: str = "bilinear"
    """From the map's size to the picture's: ``bilinear`` or ``nearest`` (shows the map's own
    pixels).
    """

    def __post_init__(self) -> None:
        check_choice("colors", self.colors, ("auto", *TABLES))
        check_range("percentile", self.percentile, above=0, most=100)
        check_range("opacity", self.opacity, above=0, most=1)
        check_range("gamma", self.gamma, above=0, most=4)
        check_choice("interpolation", self.interpolation, ("bilinear", "nearest"))


STYLE = RenderStyle()


def colorize(relevance: ArrayLike, style: RenderStyle = STYLE, *, shape: tuple[int, int] | None = None) -> Picture:
    """Draw a map alone.

    Args:
        relevance: (H, W), finite, any scale.
        style: colours and scale.
        shape: (h, w) of the result; None for (H, W).

    Returns:
        (h, w, 3) uint8 RGB; a map of zeros is all in the colour of zero.

    Raises:
        ValueError: not a finite map.
    """
    scaled, scheme = _scaled(relevance, style, shape)
    return paint(scaled, scheme)


def overlay(
    picture: Picture, relevance: ArrayLike, style: RenderStyle = STYLE, *, mask: ArrayLike | None = None
) -> Picture:
    """Lay a map over the picture that it explains: the more relevant a pixel, the more its colour
    covers the picture.

    ``out = (1 - alpha) * picture + alpha * colour`` with
    ``alpha = opacity * |scaled relevance| ** gamma``, so pixels without relevance are the picture's.

    Args:
        picture: (H, W, 3) uint8 RGB.
        relevance: (h, w), finite; stretched to the picture's size.
        style: colours, scale and opacity.
        mask: (a, b) bool, of any size: its outline is drawn (see `outline`), as of `C3Result.mask`.

    Returns:
        (H, W, 3) uint8 RGB, a new array.

    Raises:
        ValueError: the picture, the map or the mask is not one.
    """
    check_picture(picture)
    scaled, scheme = _scaled(relevance, style, picture.shape[:2])
    alpha = (style.opacity * np.abs(scaled) ** style.gamma)[..., None]
    tint = paint(_vivid(scaled) if scheme == "diverging" else scaled, scheme)
    mixed = np.rint((1 - alpha) * picture + alpha * tint).astype(np.uint8)
    return mixed if mask is None else outline(mixed, mask)


def outline(picture: Picture, mask: ArrayLike) -> Picture:
    """Draw the outlines of a mask, holes included, as a white line with a dark rim, so that it
    shows on any ground.

    Args:
        picture: (H, W, 3) uint8 RGB.
        mask: (h, w) bool, of any size; stretched to the picture's, its steps rounded off.

    Returns:
        (H, W, 3) uint8 RGB, a new array; the line is about 1/150 of the picture's shorter side
        wide.

    Raises:
        ValueError: the picture or the mask is not one.
    """
    check_picture(picture)
    height, width = picture.shape[:2]
    inside = resample(np.asarray(mask, dtype=np.bool_), (height, width), method="bilinear") > 0.5
    outlines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    line = max(1, round(min(height, width) / 150))
    drawn = picture.copy()
    cv2.drawContours(drawn, outlines, -1, INK, 3 * line, cv2.LINE_AA)
    cv2.drawContours(drawn, outlines, -1, WHITE, line, cv2.LINE_AA)
    return drawn


def panel(
    picture: Picture,
    relevance: ArrayLike,
    style: RenderStyle = STYLE,
    *,
    mask: ArrayLike | None = None,
    captions: Sequence[str] = (),
    height: int | None = None,
) -> Picture:
    """Set picture, heatmap and overlay side by side on white, with thin gutters and captions
    beneath.

    Args:
        picture: (H, W, 3) uint8 RGB.
        relevance: (h, w), finite.
        style: colours, scale and opacity.
        mask: outlined in the overlay, see `overlay`.
        captions: up to three, from the left; one too wide for its tile is cut. The font is ASCII:
            any other character shows as ``?``. None: no caption strip.
        height: of the tiles in pixels; None for the picture's. The width follows the picture's
            aspect.

    Returns:
        (height + strip, 3 * width + 2 * gutter, 3) uint8 RGB.

    Raises:
        ValueError: picture, map or mask is not one, there are more than three captions, or the
            height is below 1.
    """
    if len(captions) > 3:
        raise ValueError(f"a panel has three tiles; got {len(captions)} captions")
    shown = picture if height is None else _with_height(picture, height)
    rows, columns = shown.shape[:2]
    drawn = colorize(relevance, style, shape=(rows, columns))
    tiles = [shown, drawn, overlay(shown, relevance, style, mask=mask)]
    if captions:
        texts = [*captions, *[""] * (3 - len(captions))]
        strips = [_caption(text, rows, columns) for text in texts]
        tiles = [np.vstack([tile, strip]) for tile, strip in zip(tiles, strips, strict=True)]
    gutter = np.full((tiles[0].shape[0], max(2, round(GUTTER * rows)), 3), WHITE, dtype=np.uint8)
    return np.hstack([tiles[0], gutter, tiles[1], gutter, tiles[2]])


def grid(tiles: Sequence[tuple[Picture, str]], *, columns: int, height: int) -> Picture:
    """Set pictures in rows of `columns` on white, each with its caption beneath (ASCII; shortened
    where too wide).

    Args:
        tiles: pictures (H, W, 3) uint8 RGB of one aspect, and captions.
        columns: how many stand in a row.
        height: of every picture in pixels.

    Returns:
        (H', W', 3) uint8 RGB.

    Raises:
        ValueError: there are no tiles, or `columns` or `height` is below 1.
    """
    if not tiles or columns < 1:
        raise ValueError(f"a grid needs tiles and at least one column; got {len(tiles)} and {columns}")
    drawn = []
    for picture, caption in tiles:
        shown = _with_height(picture, height)
        drawn.append(np.vstack([shown, _caption(caption, *shown.shape[:2])]))
    gutter = max(2, round(GUTTER * height))
    drawn += [np.full_like(drawn[0], WHITE)] * (-len(drawn) % columns)
    framed = [np.pad(tile, ((0, gutter), (0, gutter), (0, 0)), constant_values=255) for tile in drawn]
    rows = [np.hstack(framed[first : first + columns]) for first in range(0, len(framed), columns)]
    return np.ascontiguousarray(np.vstack(rows)[:, :-gutter])


def png(rgb: Picture) -> bytes:
    """A picture as a PNG file's bytes; raises ValueError where it is not a picture."""
    check_picture(rgb)
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(rgb[:, :, ::-1]))
    if not done:
        raise ValueError(f"a picture of shape {rgb.shape} cannot be written as PNG")
    return encoded.tobytes()


def write_png(path: str | Path, rgb: Picture, *, force: bool = False) -> None:
    """Write a picture as PNG, whole or not at all.

    Raises:
        OutputExistsError: the file exists and `force` is not set.
        OutputError: its folder is missing, or it cannot be written.
        ValueError: the array is not a picture.
    """
    write_bytes(Path(path), png(rgb), force=force)


def check_picture(picture: Picture) -> None:
    """Raise ValueError where `picture` is not a non-empty (H, W, 3) uint8 array."""
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0 or picture.dtype != np.uint8:
        raise ValueError(f"a picture is (H, W, 3) uint8 RGB; got {picture.dtype} of shape {picture.shape}")


def _scaled(relevance: ArrayLike, style: RenderStyle, shape: tuple[int, int] | None) -> tuple[NDArray[np.float32], str]:
    """Return the map scaled for its colours, then resampled, and the scheme's name."""
    values = as_map(relevance)
    scheme = color_scheme(values) if style.colors == "auto" else style.colors
    scaled = scale_for(values, scheme, percentile=style.percentile)
    return (resample(scaled, shape, method=style.interpolation) if shape else scaled), scheme


def _vivid(scaled: NDArray[np.float32]) -> NDArray[np.float32]:
    """Move signed values away from the scheme's white middle: over a photo, opacity alone tells
    weak from strong.
    """
    return np.asarray(np.sign(scaled) * (VIVID[0] + (VIVID[1] - VIVID[0]) * np.abs(scaled)), dtype=np.float32)


def _with_height(picture: Picture, height: int) -> Picture:
    """Return the picture with another height and the same aspect."""
    check_picture(picture)
    check_whole("height", height, least=1)
    rows, columns = picture.shape[:2]
    width = max(1, round(columns * height / rows))
    method = cv2.INTER_AREA if height < rows else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (width, height), interpolation=method), dtype=np.uint8)


def _caption(text: str, rows: int, columns: int) -> Picture:
    """Return a white strip, as wide as a tile, with the text centred in it; where it is too wide
    its middle is left out.
    """
    letters = max(CAPTION_LEAST, round(CAPTION * rows))
    strip = np.full((round(2.4 * letters), columns, 3), WHITE, dtype=np.uint8)
    thickness = max(1, round(letters / 12))
    scale = float(cv2.getFontScaleFromHeight(FONT, letters, thickness))
    whole = text.encode("ascii", errors="replace").decode()
    shown, kept = whole, len(whole)
    while kept > 0 and cv2.getTextSize(shown, FONT, scale, thickness)[0][0] > columns - letters:
        kept -= 1
        shown = f"{whole[: kept - kept // 2]}..{whole[len(whole) - kept // 2 :]}" if kept else ""
    width = cv2.getTextSize(shown, FONT, scale, thickness)[0][0]
    origin = ((columns - width) // 2, round(1.7 * letters))
    cv2.putText(strip, shown, origin, FONT, scale, INK, thickness, cv2.LINE_AA)
    return strip
