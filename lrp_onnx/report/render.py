"""Pictures of relevance maps: the heatmap alone, over the photo, side by side, and as PNG.

All pictures are (H, W, 3) uint8 RGB. No function changes its input.
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
"""The part of each half of the diverging scheme that overlays use: without its white and its
darkest colours.
"""
GUTTER = 0.03
"""Width of the space between tiles, as a share of their height; at least 2 pixels."""
FONT = cv2.FONT_HERSHEY_SIMPLEX
CAPTION = 0.055
"""Height of a caption's capital letters, as a share of the tiles' height."""
CAPTION_LEAST = 8
"""The smallest height of capital letters in pixels: smaller ones cannot be read."""


@dataclass(frozen=True, slots=True)
class RenderStyle:
    """How a map is drawn; a value out of range raises ValueError."""

    colors: str = "auto"
    """``diverging`` (signed), ``sequential`` (negative values count as zero) or ``auto`` (by the
    map's sign).
    """
    percentile: float = 99.5
    """Percentile of the map's magnitude that gets the full colour, above 0 and up to 100. See
    `heatmap.normalize`.
    """
    opacity: float = 0.9
    """Opacity of the most relevant pixel in an overlay, above 0 and up to 1."""
    gamma: float = 0.7
    """Exponent in the opacity of a pixel, ``opacity * |scaled relevance| ** gamma``, above 0 and up
    to 4. Below 1 it shows weak relevance more clearly.
    """
    interpolation: str = "bilinear"
    """How a map is resized to a picture: ``bilinear``, or ``nearest`` to show the map's pixels."""

    def __post_init__(self) -> None:
        check_choice("colors", self.colors, ("auto", *TABLES))
        check_range("percentile", self.percentile, above=0, most=100)
        check_range("opacity", self.opacity, above=0, most=1)
        check_range("gamma", self.gamma, above=0, most=4)
        check_choice("interpolation", self.interpolation, ("bilinear", "nearest"))


STYLE = RenderStyle()


def colorize(
    relevance: ArrayLike, style: RenderStyle = STYLE, *, shape: tuple[int, int] | None = None
) -> Picture:
    """Draw a map alone.

    Args:
        relevance: (H, W), finite, any scale.
        style: colours and scale.
        shape: (h, w) of the result; None for (H, W).

    Returns:
        (h, w, 3) uint8 RGB; a map of zeros has the colour of zero everywhere.

    Raises:
        ValueError: not a finite map.
    """
    scaled, scheme = _scaled(relevance, style, shape)
    return paint(scaled, scheme)


def overlay(
    picture: Picture,
    relevance: ArrayLike,
    style: RenderStyle = STYLE,
    *,
    mask: ArrayLike | None = None,
) -> Picture:
    """Draw a map over the picture that it explains.

    ``out = (1 - alpha) * picture + alpha * colour`` with
    ``alpha = opacity * |scaled relevance| ** gamma``: the more relevant a pixel, the more its
    colour covers the picture. Pixels without relevance do not change.

    Args:
        picture: (H, W, 3) uint8 RGB.
        relevance: (h, w), finite; resized to the picture's size.
        style: colours, scale and opacity.
        mask: (a, b) bool of any size, e.g. `C3Result.mask`: its outline is drawn, see `outline`.

    Returns:
        (H, W, 3) uint8 RGB, a new array.

    Raises:
        ValueError: the picture, the map or the mask is not a valid array.
    """
    check_picture(picture)
    scaled, scheme = _scaled(relevance, style, picture.shape[:2])
    alpha = (style.opacity * np.abs(scaled) ** style.gamma)[..., None]
    tint = paint(_vivid(scaled) if scheme == "diverging" else scaled, scheme)
    mixed = np.rint((1 - alpha) * picture + alpha * tint).astype(np.uint8)
    return mixed if mask is None else outline(mixed, mask)


def outline(picture: Picture, mask: ArrayLike) -> Picture:
    """Draw the outlines of a mask and its holes: a white line with a dark border, visible on any
    picture.

    Args:
        picture: (H, W, 3) uint8 RGB.
        mask: (h, w) bool of any size; resized to the picture's size, with smooth outlines.

    Returns:
        (H, W, 3) uint8 RGB, a new array. The line's width is about 1/150 of the picture's shorter
        side.

    Raises:
        ValueError: the picture or the mask is not a valid array.
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
    """Put picture, heatmap and overlay side by side on white, with captions below.

    Args:
        picture: (H, W, 3) uint8 RGB.
        relevance: (h, w), finite.
        style: colours, scale and opacity.
        mask: its outline is drawn in the overlay, see `overlay`.
        captions: up to three, from the left; empty for no captions. A caption that is too wide for
            its tile is shortened. Characters that are not ASCII are drawn as ``?``.
        height: height of the tiles in pixels, with the picture's aspect ratio; None for the
            picture's height.

    Returns:
        (height + captions, 3 * width + 2 * gutter, 3) uint8 RGB.

    Raises:
        ValueError: picture, map or mask is not a valid array, there are more than three captions,
            or the height is below 1.
    """
    if len(captions) > 3:
        raise ValueError(f"a panel has three tiles; got {len(captions)} captions")
    photo = picture if height is None else _with_height(picture, height)
    rows, columns = photo.shape[:2]
    heatmap = colorize(relevance, style, shape=(rows, columns))
    tiles = [photo, heatmap, overlay(photo, relevance, style, mask=mask)]
    if captions:
        texts = [*captions, *[""] * (3 - len(captions))]
        strips = [_caption(text, rows, columns) for text in texts]
        tiles = [np.vstack([tile, strip]) for tile, strip in zip(tiles, strips, strict=True)]
    gutter = np.full((tiles[0].shape[0], max(2, round(GUTTER * rows)), 3), WHITE, dtype=np.uint8)
    return np.hstack([tiles[0], gutter, tiles[1], gutter, tiles[2]])


def grid(tiles: Sequence[tuple[Picture, str]], *, columns: int, height: int) -> Picture:
    """Put pictures in rows of `columns` on white, each with its caption below.

    Args:
        tiles: pictures, (H, W, 3) uint8 RGB with the same aspect ratio, and captions as for
            `panel`.
        columns: pictures per row.
        height: height of every picture in pixels.

    Returns:
        (H', W', 3) uint8 RGB.

    Raises:
        ValueError: there are no tiles, or `columns` or `height` is below 1.
    """
    if not tiles or columns < 1:
        raise ValueError(
            f"a grid needs tiles and at least one column; got {len(tiles)} and {columns}"
        )
    captioned = []
    for picture, caption in tiles:
        resized = _with_height(picture, height)
        captioned.append(np.vstack([resized, _caption(caption, *resized.shape[:2])]))
    captioned += [np.full_like(captioned[0], WHITE)] * (-len(captioned) % columns)
    gutter = max(2, round(GUTTER * height))
    border = ((0, gutter), (0, gutter), (0, 0))
    framed = [np.pad(tile, border, constant_values=255) for tile in captioned]
    rows = [np.hstack(framed[first : first + columns]) for first in range(0, len(framed), columns)]
    return np.ascontiguousarray(np.vstack(rows)[:, :-gutter])


def png(rgb: Picture) -> bytes:
    """The bytes of a PNG file.

    Args:
        rgb: (H, W, 3) uint8 RGB.

    Raises:
        ValueError: the array is not a picture.
    """
    check_picture(rgb)
    encodes, encoded = cv2.imencode(".png", np.ascontiguousarray(rgb[:, :, ::-1]))
    if not encodes:
        raise ValueError(f"a picture of shape {rgb.shape} cannot be written as PNG")
    return encoded.tobytes()


def write_png(path: str | Path, rgb: Picture, *, force: bool = False) -> None:
    """Write a picture as a PNG file; where that fails, no partial file is left.

    Raises:
        OutputExistsError: the file exists and `force` is not set.
        OutputError: its folder is missing, or it cannot be written.
        ValueError: the array is not a picture.
    """
    write_bytes(Path(path), png(rgb), force=force)


def check_picture(picture: Picture) -> None:
    """Raise ValueError unless `picture` is a non-empty (H, W, 3) uint8 array."""
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0 or picture.dtype != np.uint8:
        raise ValueError(
            f"a picture is (H, W, 3) uint8 RGB; got {picture.dtype} of shape {picture.shape}"
        )


def _scaled(
    relevance: ArrayLike, style: RenderStyle, shape: tuple[int, int] | None
) -> tuple[NDArray[np.float32], str]:
    """Return the map scaled for its colours, then resampled, and the scheme's name."""
    values = as_map(relevance)
    scheme = color_scheme(values) if style.colors == "auto" else style.colors
    scaled = scale_for(values, scheme, percentile=style.percentile)
    return (resample(scaled, shape, method=style.interpolation) if shape else scaled), scheme


def _vivid(scaled: NDArray[np.float32]) -> NDArray[np.float32]:
    """Move signed values away from the scheme's white middle.

    Over a photo, opacity alone shows how strong relevance is.
    """
    return np.asarray(
        np.sign(scaled) * (VIVID[0] + (VIVID[1] - VIVID[0]) * np.abs(scaled)), dtype=np.float32
    )


def _with_height(picture: Picture, height: int) -> Picture:
    """Return the picture resized to `height`, with the same aspect ratio."""
    check_picture(picture)
    check_whole("height", height, least=1)
    rows, columns = picture.shape[:2]
    width = max(1, round(columns * height / rows))
    method = cv2.INTER_AREA if height < rows else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (width, height), interpolation=method), dtype=np.uint8)


def _caption(text: str, rows: int, columns: int) -> Picture:
    """Return a white strip as wide as a tile with the text in its centre.

    A text that is too wide loses its middle: ``abc..xyz``.
    """
    letters = max(CAPTION_LEAST, round(CAPTION * rows))
    strip = np.full((round(2.4 * letters), columns, 3), WHITE, dtype=np.uint8)
    thickness = max(1, round(letters / 12))
    scale = float(cv2.getFontScaleFromHeight(FONT, letters, thickness))
    full = text.encode("ascii", errors="replace").decode()
    caption, length = full, len(full)
    while length > 0 and cv2.getTextSize(caption, FONT, scale, thickness)[0][0] > columns - letters:
        length -= 1
        head, tail = length - length // 2, length // 2
        caption = f"{full[:head]}..{full[len(full) - tail :]}" if length else ""
    width = cv2.getTextSize(caption, FONT, scale, thickness)[0][0]
    origin = ((columns - width) // 2, round(1.7 * letters))
    cv2.putText(strip, caption, origin, FONT, scale, INK, thickness, cv2.LINE_AA)
    return strip
