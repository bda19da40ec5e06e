"""One photo of the HTML report: its map in 8 bits, the outline of its region, and its markup."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lrp_onnx.maps.heatmap import normalize
from lrp_onnx.maps.resample import Map as Heatmap
from lrp_onnx.maps.resample import Mask, as_map, resample
from lrp_onnx.report.colors import ENTRIES, TABLES
from lrp_onnx.report.entry import Entry, Map
from lrp_onnx.report.render import STYLE, VIVID
from lrp_onnx.report.words import class_name, markup, place, value_text
from lrp_onnx.runtime.images import Picture

LEVELS = 127
"""A map's bytes are 0 to 254: `LEVELS` is zero, 254 the strongest relevance for the class."""
MAP_SIDE = 112
"""Longest side of a map in the page, in pixels."""
STILL_SIDE = 48
"""Longest side of the drawn map that is shown where no script runs."""
PHOTO_SIDE, PHOTO_QUALITY = 480, 82
"""Longest side of a photo in pixels, and its JPEG quality."""
FULL_SIDE, FULL_QUALITY = 1600, 88
"""The same for ``full_size``."""
FINE = 8
"""Points of a region's outline per side of one of its cells."""
ROUNDING = 20
"""How far from its ends a side of the outline is straight, in thousandths of the picture."""
SOFT = 0.35
"""Blur of a region before its outline is drawn, in cells; from 0.37 a single cell would vanish."""


def colors_over_photo() -> NDArray[np.uint8]:
    """(255, 4) uint8 RGBA: the colour of every byte of a map; opacity grows with relevance."""
    values = np.arange(-LEVELS, LEVELS + 1) / LEVELS
    vivid = np.sign(values) * (VIVID[0] + (VIVID[1] - VIVID[0]) * np.abs(values))
    places = np.rint((vivid + 1) / 2 * (ENTRIES - 1)).astype(np.int64)
    opacity = np.rint(255 * np.abs(values) ** STYLE.gamma).astype(np.uint8)
    return np.concatenate([TABLES["diverging"][places], opacity[:, None]], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """The maps of a photo on one scale."""

    values: tuple[Heatmap, ...]
    """(h, w) each, -1 to 1."""
    scale: float
    """The relevance that gets the full colour."""

    @classmethod
    def of(cls, heatmaps: Iterable[Heatmap]) -> Drawn:
        """Maps (H, W) of any scale and at least one pixel."""
        maps = [_at_most(as_map(heatmap), MAP_SIDE) for heatmap in heatmaps]
        everything = np.concatenate([values.ravel() for values in maps])[None]
        scaled = normalize(everything, percentile=STYLE.percentile)[0]
        magnitudes = np.abs(everything)
        scale = float(np.percentile(magnitudes, STYLE.percentile)) or float(magnitudes.max())
        ends = np.cumsum([values.size for values in maps])[:-1]
        parts = np.split(scaled, ends)
        shaped = (part.reshape(m.shape) for part, m in zip(parts, maps, strict=True))
        return cls(tuple(shaped), scale)


def map_bytes(values: Heatmap) -> bytes:
    """A map of -1 to 1, row by row, one byte a pixel (see `LEVELS`)."""
    return (np.rint(values * LEVELS) + LEVELS).astype(np.uint8).tobytes()


def outline_path(region: Mask) -> str:
    """The region's outline and its holes as an SVG path over 1000 × 1000, with rounded corners.

    Args:
        region: (s, t) bool; nothing of it gives an empty path.
    """
    rows, columns = region.shape
    fine = resample(region, (rows * FINE, columns * FINE), method="bilinear")
    blurred = cv2.GaussianBlur(fine, (0, 0), SOFT * FINE, borderType=cv2.BORDER_REPLICATE)
    padded = np.pad(blurred > 0.5, 1).astype(np.uint8)
    lines, _ = cv2.findContours(padded, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    extent = np.array([columns * FINE, rows * FINE], np.float64)
    return "".join(
        # Half a pixel off: the border of the outermost pixels is the border of the picture.
        _rounded((cv2.approxPolyDP(line, 0.5, closed=True)[:, 0] - 0.5) / extent * 1000)
        for line in lines
        if len(line) > 2
    )


def _rounded(corners: NDArray[np.float64]) -> str:
    """A polygon (n, 2) as a closed SVG path with rounded corners, in whole numbers."""

    def towards(neighbours: NDArray[np.float64]) -> NDArray[np.float64]:
        sides = neighbours - corners
        lengths = np.linalg.norm(sides, axis=1, keepdims=True).clip(1e-9)
        return np.asarray(corners + sides * np.minimum(ROUNDING / lengths, 0.5))

    before, after = towards(np.roll(corners, 1, axis=0)), towards(np.roll(corners, -1, axis=0))
    rows = np.rint(np.concatenate([before, corners, after], axis=1)).clip(0, 1000)
    turns = "L".join("{:g} {:g}Q{:g} {:g} {:g} {:g}".format(*row) for row in rows)
    return f"M{turns}Z"


def photo_url(photo: Picture, *, full_size: bool) -> str:
    """The photo as a JPEG in a ``data:`` address, made smaller where it is large."""
    side, quality = (FULL_SIDE, FULL_QUALITY) if full_size else (PHOTO_SIDE, PHOTO_QUALITY)
    height, width = photo.shape[:2]
    share = side / max(height, width)
    if share < 1:
        size = max(1, round(width * share)), max(1, round(height * share))
        photo = np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), np.uint8)
    rgb = np.ascontiguousarray(photo[:, :, ::-1])
    _, encoded = cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return f"data:image/jpeg;base64,{b64encode(encoded.tobytes()).decode()}"


def still_url(values: Heatmap) -> str:
    """A map of -1 to 1 in its colours, as a small PNG with opacity."""
    small = _at_most(values, STILL_SIDE)
    index = np.rint(small * LEVELS).astype(np.int64) + LEVELS
    rgba = colors_over_photo()[index].astype(np.float32)
    rgba[:, :, 3] *= STYLE.opacity
    bgra = np.rint(rgba[:, :, [2, 1, 0, 3]]).astype(np.uint8)
    _, encoded = cv2.imencode(".png", np.ascontiguousarray(bgra))
    return f"data:image/png;base64,{b64encode(encoded.tobytes()).decode()}"


def json_text(data: Any) -> str:
    """JSON that may stand in a script element: nothing in it can end the element."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def card(entry: Entry, number: int, *, full_size: bool) -> str:
    """The markup of one photo, number `number` of the page from 0."""
    drawn = Drawn.of(shown.heatmap for shown in entry.maps)
    height, width = entry.photo.shape[:2]
    box = entry.box
    data = {
        "size": [width, height],
        "box": [box.left, box.top, box.width, box.height],
        "maps": [
            {
                "size": [values.shape[1], values.shape[0]],
                "values": b64encode(map_bytes(values)).decode(),
            }
            for values in drawn.values
        ],
    }
    best, label = entry.top5[0], entry.label
    text = [entry.name, class_name(*best[:2]), *(class_name(m.target, m.name) for m in entry.maps)]
    text += [] if label is None else [class_name(label, entry.label_name)]
    facts = {
        "name": entry.name,
        "text": " ".join(text).casefold(),
        "says": best[0],
        "class": class_name(*best[:2]),
        "value": f"{best[2]:.9g}",
        "is": "" if label is None else label,
        "right": {None: "", True: "1", False: "0"}[entry.right],
    }
    attributes = " ".join(f'data-{name}="{markup(str(value))}"' for name, value in facts.items())
    figures = "".join(
        _figure(entry, shown, drawn, place_in, full_size=full_size)
        for place_in, shown in enumerate(entry.maps)
    )
    several = ' class="several"' if len(entry.maps) > 1 else ""
    return (
        f'<li {attributes}><article{several} aria-labelledby="p{number}">'
        f'<h3 id="p{number}"><bdi>{markup(entry.name)}</bdi></h3>'
        f"{_verdict(entry)}{_choice(entry, number)}"
        f'<div class="maps">{figures}</div>{_table(entry)}'
        f'<script type="application/json">{json_text(data)}</script></article></li>\n'
    )


def _verdict(entry: Entry) -> str:
    """What the model says, and whether it is right."""
    index, name, value = entry.top5[0]
    says = (
        f"<b><bdi>{markup(class_name(index, name))}</bdi></b> {value_text(value, entry.scores_are)}"
    )
    if entry.label is None:
        return f'<p class="verdict">{says}</p>'
    if entry.right:
        return f'<p class="verdict">{says} <span class="badge right">✓ right</span></p>'
    label = markup(class_name(entry.label, entry.label_name))
    badge = f'<span class="badge wrong">✗ wrong: it is <bdi>{label}</bdi></span>'
    return f'<p class="verdict">{says} {badge}</p>'


def _choice(entry: Entry, number: int) -> str:
    """Buttons that choose one of several maps; nothing for one map."""
    if len(entry.maps) == 1:
        return ""
    buttons = "".join(
        f'<label><input type="radio" name="m{number}" value="{place_in}"'
        f"{' checked' if place_in == 0 else ''}>"
        f"<span><bdi>{markup(class_name(shown.target, shown.name))}</bdi></span></label>"
        for place_in, shown in enumerate(entry.maps)
    )
    return f'<fieldset class="choice scripted"><legend>Map for</legend>{buttons}</fieldset>'


def _figure(entry: Entry, shown: Map, drawn: Drawn, place_in: int, *, full_size: bool) -> str:
    """The photo with one map. Only the first holds the photo; the script copies it to others."""
    height, width = entry.photo.shape[:2]
    box, values = entry.box, drawn.values[place_in]
    alt = markup(describe(entry, shown, values))
    if place_in == 0:
        url = photo_url(entry.photo, full_size=full_size)
        photo = f'<img src="{url}" width="{width}" height="{height}" alt="{alt}" decoding="async">'
        still = (
            f'<image class="still" x="{box.left}" y="{box.top}" width="{box.width}" '
            f'height="{box.height}" preserveAspectRatio="none" href="{still_url(values)}"/>'
        )
    else:
        photo, still = "", ""
    frame = f"M{box.left} {box.top}h{box.width}v{box.height}h-{box.width}z"
    outside = f'<path class="outside" d="M0 0h{width}v{height}h-{width}z{frame}"/>'
    if (box.width, box.height) == (width, height):
        outside = ""
    line = ""
    if shown.region is not None and (path := outline_path(shown.region)):
        move = f"translate({box.left} {box.top}) scale({box.width / 1000:g} {box.height / 1000:g})"
        line = f'<g class="outline" transform="{move}"><path d="{path}"/><path d="{path}"/></g>'
    against = bool(values.min() * LEVELS < -0.5)
    caption = _caption(entry, shown, drawn, values, against=against)
    return (
        f'<figure{" hidden" if place_in else ""}><div class="stage" data-alt="{alt}">{photo}'
        f'<svg viewBox="0 0 {width} {height}" preserveAspectRatio="none" aria-hidden="true">'
        f'{still}{outside}<path class="frame" d="{frame}"/>{line}</svg></div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _caption(entry: Entry, shown: Map, drawn: Drawn, values: Heatmap, *, against: bool) -> str:
    """Class, colour bar with words, the place of the strongest relevance, and the scale."""
    name = f"<b><bdi>{markup(class_name(shown.target, shown.name))}</bdi></b>"
    value = value_text(shown.score, entry.scores_are)
    bar, low = ("both", "against") if against else ("for", "none")
    where = place(values)
    where = f"Strongest: {where}. " if where else ""
    full = f"Full colour from {drawn.scale:.3g}." if drawn.scale else "The map is zero everywhere."
    return (
        f'<p>Relevance for {name}{f" {value}" if value else ""}</p><p class="scale">{low} '
        f'<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<use href="#bar-{bar}"/></svg> for</p>'
        f'<p class="quiet">{where}{full}</p>'
    )


def describe(entry: Entry, shown: Map, values: Heatmap) -> str:
    """The photo and a map (-1 to 1) for somebody who does not see them."""
    index, name, value = entry.top5[0]
    says = f"{class_name(index, name)} {value_text(value, entry.scores_are)}"
    verdict = {None: "", True: ", which is right", False: ", which is wrong"}[entry.right]
    where, against = place(values), place(-values)
    target = class_name(shown.target, shown.name)
    sentences = [f"Photo {entry.name}. The model says {says}{verdict}."]
    of = "the part that the model saw"
    sentences.append(
        f"Relevance for {target} in {of} is strongest: {where or 'nowhere'}"
        + (f"; against it: {against}." if against else ".")
    )
    return " ".join(sentences)


def _table(entry: Entry) -> str:
    """The best classes with their values."""
    largest = max((value for _, _, value in entry.top5), default=0)
    most = 1.0 if entry.scores_are == "probability" else max(largest, 1e-30)
    rows = "".join(
        f'<tr><th scope="row"><bdi>{markup(class_name(index, name))}</bdi></th>'
        f'<td><svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{100 * min(max(value / most, 0), 1):.4g}" height="8"/></svg></td>'
        f"<td>{value_text(value, entry.scores_are)}</td></tr>"
        for index, name, value in entry.top5
    )
    return f"<table><caption>Best classes</caption>{rows}</table>"


def _at_most(values: Heatmap, side: int) -> Heatmap:
    """A map with a longest side of at most `side` pixels."""
    height, width = values.shape
    share = side / max(height, width)
    if share >= 1:
        return values
    return resample(values, (max(1, round(height * share)), max(1, round(width * share))))
