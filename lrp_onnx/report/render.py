"""Pictures of relevance maps: the heatmap alone, over the photo, side by side, and as files.

All pictures are (H, W, 3) uint8 RGB. No function changes its input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrp_onnx.errors import OutputError
from lrp_onnx.files.writing import write_bytes
from lrp_onnx.maps.flat import flat
from lrp_onnx.maps.options import check_choice, check_range, check_whole
from lrp_onnx.maps.resample import resample
from lrp_onnx.report.colors import TABLES, Scale, ground, paint
from lrp_onnx.report.text import INK, WHITE, Line, text_block
from lrp_onnx.runtime.images import Picture

VIVID = (0.35, 1.0)
"""The part of each side of the colours that overlays use: without its darkest, which would
hide the ground.
"""
GROUNDS = ("dimmed", "photo")
GUTTER = 0.03
"""Width of the space between tiles, as a share of their height; at least 2 pixels."""
CAPTION = 0.075
"""Size of a caption's letters, as a share of the tiles' height."""
SMALLEST_TEXT = 13
"""The smallest size of letters in pixels: smaller ones cannot be read."""
NARROWEST = 8
"""The smallest width of a tile with a caption, as a multiple of its letters' size."""
ROW = 48
"""Height in pixels of a signal's map that is drawn alone."""
ENDINGS: MappingProxyType[str, tuple[int, ...]] = MappingProxyType(
    {
        ".png": (),
        ".jpg": (cv2.IMWRITE_JPEG_QUALITY, 92),
        ".jpeg": (cv2.IMWRITE_JPEG_QUALITY, 92),
        ".webp": (cv2.IMWRITE_WEBP_QUALITY, 92),
    }
)
"""Ending of a picture file → OpenCV's parameters for its writing."""


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
    ground: str = "dimmed"
    """What is under the map in an overlay: the photo ``dimmed`` to dark greys (see
    `colors.ground`), or the ``photo`` itself, whose colours may look like relevance.
    """

    def __post_init__(self) -> None:
        check_choice("colors", self.colors, ("auto", *TABLES))
        check_range("percentile", self.percentile, above=0, most=100)
        check_range("opacity", self.opacity, above=0, most=1)
        check_range("gamma", self.gamma, above=0, most=4)
        check_choice("interpolation", self.interpolation, ("bilinear", "nearest"))
        check_choice("ground", self.ground, GROUNDS)

    def scale(self, maps: Sequence[ArrayLike]) -> Scale:
        """The scale that some maps (H, W) share, see `Scale.of`."""
        return Scale.of(maps, colors=self.colors, percentile=self.percentile)


STYLE = RenderStyle()


def colorize(
    relevance: ArrayLike,
    style: RenderStyle = STYLE,
    *,
    shape: tuple[int, int] | None = None,
    scale: Scale | None = None,
) -> Picture:
    """Draw a map alone.

    Args:
        relevance: (H, W), or another that `maps.flat.flat` makes one; finite, any scale.
        style: colours and scale.
        shape: (h, w) of the result; None for (H, W), and more rows for the row of a signal.
        scale: a scale that is shared with other maps; None for the map's own.

    Returns:
        (h, w, 3) uint8 RGB; a map of zeros has the colour of zero everywhere.

    Raises:
        ValueError: not a finite map.
    """
    scale = scale or style.scale([relevance])
    return paint(_scaled(relevance, scale, style, shape), scale.scheme)


def overlay(
    picture: Picture,
    relevance: ArrayLike,
    style: RenderStyle = STYLE,
    *,
    mask: ArrayLike | None = None,
    scale: Scale | None = None,
) -> Picture:
    """Draw a map over the picture that it explains.

    ``out = (1 - alpha) * ground + alpha * colour`` with
    ``alpha = opacity * |scaled relevance| ** gamma``: the more relevant a pixel, the more its
    colour covers the ground, which is the picture, dimmed unless the style keeps it.

    Args:
        picture: (H, W, 3) uint8 RGB.
        relevance: (h, w), finite; resized to the picture's size. Or (L,) of a signal, whose plot
            stays visible over the colours, or (d, h, w) of a volume, whose slices are the picture.
        style: colours, scale and opacity.
        mask: (a, b) bool of any size, e.g. `C3Result.mask`: its outline is drawn, see `outline`.
        scale: a scale that is shared with other maps; None for the map's own.

    Returns:
        (H, W, 3) uint8 RGB, a new array.

    Raises:
        ValueError: the picture, the map or the mask is not a valid array.
    """
    check_picture(picture)
    scale = scale or style.scale([relevance])
    scaled = _scaled(relevance, scale, style, picture.shape[:2])
    alpha = (style.opacity * np.abs(scaled) ** style.gamma)[..., None]
    tint = paint(_vivid(scaled), scale.scheme)
    under = ground(picture) if style.ground == "dimmed" else picture
    mixed = (1 - alpha) * under + alpha * tint
    if np.ndim(relevance) == 1:
        mixed = mixed * (picture / 255)
    drawn = np.rint(mixed).astype(np.uint8)
    return drawn if mask is None else outline(drawn, mask)


def outline(picture: Picture, mask: ArrayLike) -> Picture:
    """Draw the outlines of a mask and its holes: a white line with a dark border, visible on any
    picture.

    Args:
        picture: (H, W, 3) uint8 RGB.
        mask: (h, w) bool of any size; resized to the picture's size, with smooth outlines.

    Returns:
        (H, W, 3) uint8 RGB, a new array. The line's width is about 1/200 of the picture's shorter
        side.

    Raises:
        ValueError: the picture or the mask is not a valid array.
    """
    check_picture(picture)
    height, width = picture.shape[:2]
    inside = resample(np.asarray(mask, dtype=np.bool_), (height, width), method="bilinear") > 0.5
    outlines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    line = max(1, round(min(height, width) / 200))
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
        captions: up to three, from the left; empty for no captions. A caption has up to three
            lines; what does not fit is left out of its middle.
        height: height of the tiles in pixels, with the picture's aspect ratio; None for the
            picture's height.

    Returns:
        (height + captions, 3 * width + 2 * gutter, 3) uint8 RGB; tiles with captions are at least
        `NARROWEST` letters wide.

    Raises:
        ValueError: picture, map or mask is not a valid array, there are more than three captions,
            or the height is below 1.
    """
    if len(captions) > 3:
        raise ValueError(f"a panel has three tiles; got {len(captions)} captions")
    photo = picture if height is None else with_height(picture, height)
    rows, columns = photo.shape[:2]
    heatmap = colorize(relevance, style, shape=(rows, columns))
    tiles = [photo, heatmap, overlay(photo, relevance, style, mask=mask)]
    if captions:
        tiles = _captioned(tiles, [*captions, *[""] * (3 - len(captions))])
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
    columns = min(columns, len(tiles))
    gutter = max(2, round(GUTTER * height))
    rows = []
    for first in range(0, len(tiles), columns):
        row = tiles[first : first + columns]
        resized = [with_height(picture, height) for picture, _ in row]
        cells = _captioned(resized, [caption for _, caption in row])
        cells += [np.full_like(cells[0], WHITE)] * (columns - len(cells))
        border = ((0, gutter), (0, gutter), (0, 0))
        rows.append(np.hstack([np.pad(cell, border, constant_values=255) for cell in cells]))
    return np.ascontiguousarray(np.vstack(rows)[:, :-gutter])


def encoded(rgb: Picture, ending: str = ".png") -> bytes:
    """The bytes of a picture file.

    Args:
        rgb: (H, W, 3) uint8 RGB.
        ending: a key of `ENDINGS`.

    Raises:
        ValueError: the array is not a picture, or too large for the format.
    """
    check_picture(rgb)
    try:
        parameters = list(ENDINGS[ending])
        written, data = cv2.imencode(ending, np.ascontiguousarray(rgb[:, :, ::-1]), parameters)
    except cv2.error as error:
        raise ValueError(f"{rgb.shape[1]} x {rgb.shape[0]} pixels: {error.err}") from error
    if not written:
        raise ValueError(f"{rgb.shape[1]} x {rgb.shape[0]} pixels are no {ending} file")
    return bytes(data.tobytes())


def png(rgb: Picture) -> bytes:
    """The bytes of a PNG file of a picture, (H, W, 3) uint8 RGB."""
    return encoded(rgb)


def write_png(path: str | Path, rgb: Picture, *, force: bool = False) -> None:
    """Write a picture as a PNG file; where that fails, no partial file is left.

    Raises:
        OutputExistsError: the file exists and `force` is not set.
        OutputError: its folder is missing, or it cannot be written.
        ValueError: the array is not a picture.
    """
    write_bytes(Path(path), png(rgb), force=force)


def check_ending(path: Path) -> str:
    """The ending of a picture file that can be written, a key of `ENDINGS`.

    Raises:
        OutputError: the name ends otherwise.
    """
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise OutputError(f"{path}: a picture's name ends in {', '.join(ENDINGS)}")
    return ending


def write_picture(path: str | Path, rgb: Picture, *, force: bool = False) -> None:
    """Write a picture as the kind of file that its name says: PNG, JPEG or WebP.

    Raises:
        OutputExistsError: the file exists and `force` is not set.
        OutputError: the name ends otherwise, the picture is too large for the format, the folder is
            missing, or the file cannot be written.
        ValueError: the array is not a picture.
    """
    target = Path(path)
    ending = check_ending(target)
    check_picture(rgb)
    try:
        data = encoded(rgb, ending)
    except ValueError as error:
        raise OutputError(f"{target} cannot be written as {ending}: {error}") from error
    write_bytes(target, data, force=force)


def check_picture(picture: Picture) -> None:
    """Raise ValueError unless `picture` is a non-empty (H, W, 3) uint8 array."""
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0 or picture.dtype != np.uint8:
        raise ValueError(
            f"a picture is (H, W, 3) uint8 RGB; got {picture.dtype} of shape {picture.shape}"
        )


def _scaled(
    relevance: ArrayLike, scale: Scale, style: RenderStyle, shape: tuple[int, int] | None
) -> NDArray[np.float32]:
    """Return the map scaled for its colours, then resampled."""
    scaled = flat(scale(relevance))
    if shape is None and np.ndim(relevance) == 1:
        shape = (ROW, scaled.shape[1])
    return resample(scaled, shape, method=style.interpolation) if shape else scaled


def _vivid(scaled: NDArray[np.float32]) -> NDArray[np.float32]:
    """Move values away from the dark end of the colours.

    Over a photo, opacity alone shows how strong relevance is.
    """
    return np.asarray(
        np.sign(scaled) * (VIVID[0] + (VIVID[1] - VIVID[0]) * np.abs(scaled)), dtype=np.float32
    )


WIDEST = 2048
"""Width in pixels up to which a flat picture is enlarged."""


def height_within(rgb: Picture, height: int) -> int:
    """`height`, or less, at least 1, where the picture would be wider than `WIDEST` with it."""
    rows, columns = rgb.shape[:2]
    widest: int = WIDEST * rows // columns
    return max(1, min(height, widest))


def with_height(picture: Picture, height: int) -> Picture:
    """Return the picture resized to `height`, with the same aspect ratio."""
    check_picture(picture)
    check_whole("height", height, least=1)
    rows, columns = picture.shape[:2]
    width = max(1, round(columns * height / rows))
    method = cv2.INTER_AREA if height < rows else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (width, height), interpolation=method), dtype=np.uint8)


def _captioned(tiles: Sequence[Picture], captions: Sequence[str]) -> list[Picture]:
    """Tiles of one height, all of the same size with their captions below."""
    size = max(SMALLEST_TEXT, round(CAPTION * tiles[0].shape[0]))
    width = max(NARROWEST * size, *(tile.shape[1] for tile in tiles))
    strips = [
        text_block([Line(caption)], width, size, align="centre", margin=size // 2)
        for caption in captions
    ]
    height = max(strip.shape[0] for strip in strips)
    return [
        np.vstack([widened(tile, width), lengthened(strip, height)])
        for tile, strip in zip(tiles, strips, strict=True)
    ]


def widened(picture: Picture, width: int) -> Picture:
    """The picture in the middle of a white one that is `width` pixels wide."""
    free = width - picture.shape[1]
    sides = ((0, 0), (free // 2, free - free // 2), (0, 0))
    return np.pad(picture, sides, constant_values=255)


def lengthened(picture: Picture, height: int) -> Picture:
    """The picture at the top of a white one that is `height` pixels high."""
    return np.pad(picture, ((0, height - picture.shape[0]), (0, 0), (0, 0)), constant_values=255)
