"""One picture for a report: the whole photo, what the model sees of it, and why it decided so."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from lrp_onnx.contract import SINGLE
from lrp_onnx.report.colors import Scale, ground
from lrp_onnx.report.legend import BAR, beside, color_bar
from lrp_onnx.report.marks import with_marks
from lrp_onnx.report.render import (
    STYLE,
    RenderStyle,
    check_picture,
    lengthened,
    overlay,
)
from lrp_onnx.report.text import INK, WHITE, Line, class_label, text_block
from lrp_onnx.runtime.explanation import (
    WITHOUT_PROBABILITIES,
    Explanation,
    measure_of,
    probabilities_of,
)
from lrp_onnx.runtime.images import Picture
from lrp_onnx.runtime.preprocess import Box

SMALLEST, LARGEST = 288, 2048
"""The least and the most pixels of the longer side of a photo in a figure; in between it is drawn
at its own resolution.
"""
TOGETHER = 4096
"""The most pixels of all photos that are side by side."""
PER_ROW = 4
WIDE = 2.0
"""Width over height from which photos are drawn one below the other."""
LETTERS, SMALLEST_TEXT = 64, 15
"""Letters' sizes in a figure's width, and the least size of letters in pixels."""
NARROWEST = 16
"""The least width of a photo's place, in sizes of letters."""
OUTSIDE = 0.55
"""Brightness of the ground outside of what the model sees."""
BEST = 3
STARTS = {
    "logit": "the logit of the class",
    "probability": "the probability of the class",
    "one": "1 for the class",
    "contrastive": "the logit of the class against the others",
    "similarity": "the products of the output's values with the reference's",
}


def figure(
    explanations: Sequence[Explanation],
    style: RenderStyle = STYLE,
    *,
    method: str,
    outlined: bool = True,
) -> Picture:
    """Draw a photo beside the maps of one class or of several, on one scale, with what they mean.

    The photo is whole and at its own resolution (but see `SMALLEST`, `LARGEST`, `TOGETHER`), with a
    dashed frame around what the model sees. Below the maps are class, probability and how much
    speaks for and against; at the bottom a colour bar, method and scale in words.

    Args:
        explanations: at least one, all of the same photo.
        style: colours and opacity.
        method: how relevance was computed, in words.
        outlined: whether the region of C3 is drawn as a line, where there is one.

    Returns:
        (H, W, 3) uint8 RGB, on white.

    Raises:
        ValueError: there are no explanations, or they are of several photos or parts of them.
    """
    first = _checked(explanations)
    scale = style.scale([explanation.heatmap for explanation in explanations])
    per_row = _per_row(1 + len(explanations), first.photo)
    photo, box = _fitted(first, per_row)
    place = max(photo.shape[1], NARROWEST * SMALLEST_TEXT)
    size = max(SMALLEST_TEXT, round(place * per_row / LETTERS))
    tiles = [with_marks(_framed(photo, box), box, first)]
    captions = [_of_photo(first)]
    for explanation in explanations:
        region = explanation.region if outlined else None
        drawn = _over(photo, box, explanation.heatmap, region, style, scale)
        tiles.append(with_marks(_framed(drawn, box), box, explanation))
        captions.append(_of_class(explanation, scale))
    cells = _cells(tiles, captions, max(photo.shape[1], NARROWEST * size), size)
    body = _rows(cells, per_row, size)
    regions = [e.region for e in explanations if outlined and e.region is not None]
    words = [*_words(explanations, style, scale, method), *_lines(regions, photo, box)]
    if first.marked is not None:
        words.append(Line("White box: the place of what is explained of the output."))
    if first.mask is not None:
        words.append(Line("White line in the photo: the pixels whose class is explained."))
    words += _resolution(first.photo, photo)
    foot = _foot(explanations, style, scale, words, body.shape[1], size)
    space = np.full((size // 2, body.shape[1], 3), WHITE, np.uint8)
    whole = np.vstack([body, space, foot])
    return np.pad(whole, ((size, size // 2), (size, size), (0, 0)), constant_values=255)


def _checked(explanations: Sequence[Explanation]) -> Explanation:
    """The first explanation, if all are of one photo."""
    if not explanations:
        raise ValueError("a figure needs at least one explanation")
    first = explanations[0]
    check_picture(first.photo)
    for other in explanations[1:]:
        if (other.path, other.box, other.photo.shape) != (first.path, first.box, first.photo.shape):
            raise ValueError(
                f"a figure is of one photo; got {first.path} and {other.path}, or other parts of it"
            )
    return first


def _per_row(count: int, photo: Picture) -> int:
    """How many photos are side by side."""
    rows, columns = photo.shape[:2]
    if columns > WIDE * rows:
        return 1
    return math.ceil(count / math.ceil(count / PER_ROW))


def _fitted(explanation: Explanation, per_row: int) -> tuple[Picture, Box]:
    """The photo at the size of the figure, and the part of it that the model sees."""
    photo, box = explanation.photo, explanation.box
    rows, columns = photo.shape[:2]
    longer = max(rows, columns)
    factor = min(max(longer, SMALLEST), LARGEST) / longer
    factor = min(factor, TOGETHER / per_row / columns)
    width, height = max(1, round(columns * factor)), max(1, round(rows * factor))
    if (width, height) != (columns, rows):
        method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        photo = np.asarray(cv2.resize(photo, (width, height), interpolation=method), np.uint8)
    across, down = width / columns, height / rows
    left, top = min(round(box.left * across), width - 1), min(round(box.top * down), height - 1)
    right, bottom = round((box.left + box.width) * across), round((box.top + box.height) * down)
    return photo, Box(left, top, max(1, right - left), max(1, bottom - top))


def _over(
    photo: Picture,
    box: Box,
    heatmap: NDArray[np.float32],
    region: NDArray[np.bool_] | None,
    style: RenderStyle,
    scale: Scale,
) -> Picture:
    """The map over the photo, which is dark outside of what the model sees."""
    drawn = np.asarray(cv2.convertScaleAbs(ground(photo), alpha=OUTSIDE), np.uint8)
    seen = overlay(np.ascontiguousarray(box.cut(photo)), heatmap, style, mask=region, scale=scale)
    drawn[box.top : box.top + box.height, box.left : box.left + box.width] = seen
    return drawn


def _framed(photo: Picture, box: Box) -> Picture:
    """The picture with a dashed frame around the part that the model sees, if it is a part."""
    height, width = photo.shape[:2]
    if (box.width, box.height) == (width, height):
        return photo
    framed = photo.copy()
    line = max(1, round(min(height, width) / 250))
    left, top, right, bottom = box.left, box.top, box.left + box.width - 1, box.top + box.height - 1
    cv2.rectangle(framed, (left, top), (right, bottom), INK, 3 * line)
    dash = 6 * line
    for x in range(left, right + 1, 2 * dash):
        for y in (top, bottom):
            cv2.line(framed, (x, y), (min(x + dash, right), y), WHITE, line)
    for y in range(top, bottom + 1, 2 * dash):
        for x in (left, right):
            cv2.line(framed, (x, y), (x, min(y + dash, bottom)), WHITE, line)
    return framed


def _cells(
    tiles: Sequence[Picture], captions: Sequence[Sequence[Line]], width: int, size: int
) -> list[Picture]:
    """Pictures with their captions below, all of the same size."""
    texts = [text_block(lines, width, size) for lines in captions]
    height = max(text.shape[0] for text in texts)
    return [
        np.vstack([_lined_up(tile, width), lengthened(text, height)])
        for tile, text in zip(tiles, texts, strict=True)
    ]


def _lined_up(picture: Picture, width: int) -> Picture:
    """The picture at the left of a white one that is `width` pixels wide."""
    sides = ((0, 0), (0, width - picture.shape[1]), (0, 0))
    return np.pad(picture, sides, constant_values=255)


def _rows(cells: Sequence[Picture], per_row: int, gutter: int) -> Picture:
    """The cells in rows, the last one filled up with white."""
    filled = [*cells, *[np.full_like(cells[0], WHITE)] * (-len(cells) % per_row)]
    apart = [np.pad(c, ((0, 0), (0, gutter), (0, 0)), constant_values=255) for c in filled]
    rows = [np.hstack(apart[i : i + per_row]) for i in range(0, len(apart), per_row)]
    together: Picture = np.vstack(rows)[:, :-gutter]
    return together


def _of_photo(explanation: Explanation) -> list[Line]:
    """The caption of the photo: its name, and the most probable classes."""
    best = explanation.top5[:BEST]
    texts = [
        f"{rank}. {class_label(index, name)}, {_value(explanation.kind, value)}"
        for rank, (index, name, value) in enumerate(best, 1)
    ]
    return [Line(explanation.path.name, bold=True, most=2), *(Line(t, most=2) for t in texts)]


def _of_class(explanation: Explanation, scale: Scale) -> list[Line]:
    """The caption of a map: class, probability, and how much speaks for and against."""
    scores = probabilities_of(explanation.kind, explanation.scores[None])[0]
    value = _value(explanation.kind, float(scores[explanation.target]))
    name = class_label(explanation.target, explanation.target_name)
    return [Line(f"{name}, {value}", bold=True), *_balance(explanation, scale)]


def _balance(explanation: Explanation, scale: Scale) -> Iterator[Line]:
    """How much of the relevance is for the class and how much against it.

    C3 gives what it does not keep values of its own, which are no relevance: then only the map
    before it can tell.
    """
    known = explanation.heatmap_raw
    if known is None and explanation.region is None:
        known = explanation.heatmap
    if known is None:
        return
    values = known.astype(np.float64)
    towards, against = float(values.clip(0, None).sum()), float(-values.clip(None, 0).sum())
    total = towards + against
    if total == 0:
        yield Line("no relevance at all")
    elif against < 0.0005 * total:
        yield Line("all relevance is for the class")
    else:
        yield Line(f"{_percent(towards / total)} of relevance for the class")
        hidden = " (not drawn)" if scale.scheme == "sequential" else ""
        yield Line(f"{_percent(against / total)} against it{hidden}")


def _value(kind: str, value: float) -> str:
    if kind in WITHOUT_PROBABILITIES:
        return f"{measure_of(kind)} {value:.3g}"
    return _percent(value)


def _percent(share: float) -> str:
    """A share as percent, without a claim of 0 % or 100 % that is not exact."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    decimals = 0 if 0.1 <= round(share, 3) <= 0.9 or share in (0, 1) else 1
    return f"{100 * share:.{decimals}f} %"


def _words(
    explanations: Sequence[Explanation], style: RenderStyle, scale: Scale, method: str
) -> Iterator[Line]:
    """Method and scale."""
    yield Line(f"Method: {method}.", most=4)
    for why in dict.fromkeys(one.nothing for one in explanations if one.nothing):
        yield Line(f"The map explains nothing: {why}.", bold=True)
    if scale.full == 0:
        zero = not any(one.heatmap.any() for one in explanations)
        values = "every value of the map is zero" if zero else "no value of the map is above zero"
        yield Line(f"Scale: {values}.")
        return
    start = explanations[0].start
    if start == "contrastive" and explanations[0].kind in ("sigmoids", *SINGLE):
        start = "logit"  # a class with a sigmoid of its own has no rivals, nor has one number
    whole = f"relevance of {scale.full:.2g} or more has the full colour"
    if style.percentile < 100:
        whole += f" (percentile {style.percentile:g})"
    shared = "" if len(explanations) == 1 else f", in all {len(explanations)} maps alike"
    origin = f" Relevance starts from {STARTS.get(start, start)}." if start else ""
    yield Line(f"Scale: {whole}{shared}.{origin}", most=4)


def _lines(regions: Sequence[NDArray[np.bool_]], photo: Picture, box: Box) -> Iterator[Line]:
    """What the lines in the pictures mean."""
    if regions:
        share = " / ".join(_percent(float(region.mean())) for region in regions)
        yield Line(f"White line: the region that C3 keeps, {share} of what the model sees.")
    if (box.height, box.width) != photo.shape[:2]:
        yield Line("Dashed frame: what the model sees; it knows nothing of the rest.")


def _resolution(original: Picture, drawn: Picture) -> Iterator[Line]:
    if original.shape != drawn.shape:
        sizes = [f"{picture.shape[1]} × {picture.shape[0]}" for picture in (original, drawn)]
        yield Line(f"Photo of {sizes[0]} pixels, drawn at {sizes[1]}.")


def _foot(
    explanations: Sequence[Explanation],
    style: RenderStyle,
    scale: Scale,
    words: Sequence[Line],
    width: int,
    size: int,
) -> Picture:
    """Colour bar and words, side by side where there is room."""
    first = explanations[0]
    name = "the class"
    if len(explanations) == 1:
        name = class_label(first.target, first.target_name)
    full = f"{scale.full:.2g}" if scale.full else ""
    ends, ticks = ("no relevance", f"for {name}"), ["0", full]
    if scale.scheme == "diverging":
        ends, ticks = (f"against {name}", f"for {name}"), [f"−{full}" if full else "", "0", full]
    bar = color_bar(scale.scheme, min(width, BAR * size), size, ends=ends, ticks=ticks, style=style)
    return beside(bar, words, width, size)
