"""Text in pictures: measured, wrapped, shortened and drawn, with the letters that OpenCV has.

OpenCV 5 draws any script with a font of its own. Earlier releases draw ASCII alone: accents are
left out there, and every other letter is a question mark.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB."""

WHITE = (255, 255, 255)
INK = (40, 40, 40)
UNICODE = hasattr(cv2, "FontFace")
"""Whether this OpenCV draws more than ASCII."""
LINE = 1.4
"""Distance of the lines of a text, as a multiple of its size."""
FONT = cv2.FONT_HERSHEY_SIMPLEX
FONT_SIZE = 36.0
"""The size in pixels that `FONT` has at scale 1, to look like the other font."""
ALIGNED = {"left": 0.0, "centre": 0.5, "right": 1.0}
"""Alignment → the share of the free width that is left of a text."""
SIGNS = "-+_/,)="
"""After these a word may be broken."""
LONGEST = 1000
"""Letters of a text; longer ones lose their middle before anything is measured."""
IN_ASCII = str.maketrans(
    {"–": "-", "—": "-", "×": "x", "·": "-", "≥": ">=", "≤": "<=", "→": "->", "−": "-"}
    | {"ß": "ss", "æ": "ae", "Æ": "AE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d"}
    | {"ε": "epsilon", "γ": "gamma", "α": "alpha", "β": "beta", "’": "'", "‘": "'"}
    | {"“": '"', "”": '"', "œ": "oe", "Œ": "OE"}
)


@dataclass(frozen=True, slots=True)
class Line:
    """A text that may be wrapped."""

    text: str
    bold: bool = False
    most: int = 3
    """The most lines that it may take; what does not fit is left out of its middle."""


def drawable(text: str, *, unicode: bool | None = None) -> str:
    """The text as it can be drawn: on one line, without control characters.

    Args:
        text: anything.
        unicode: whether more than ASCII can be drawn; None for what this OpenCV can.
    """
    printed = "".join(
        " " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c)[0] != "C"
    )
    one_line = " ".join(printed.split())
    if UNICODE if unicode is None else unicode:
        return unicodedata.normalize("NFC", one_line)
    apart = unicodedata.normalize("NFKD", one_line.translate(IN_ASCII))
    letters = "".join(c for c in apart if not unicodedata.combining(c))
    return letters.encode("ascii", errors="replace").decode()


def class_label(index: int, name: str, *, unicode: bool | None = None) -> str:
    """A class in words: its name, and its index too where the name is missing or letters of it
    cannot be drawn.
    """
    shown = drawable(name, unicode=unicode)
    if not shown:
        return f"class {index}"
    lost = shown.count("?") > name.count("?")
    if not lost:
        return shown
    if any(c.isalnum() for c in shown):
        return f"class {index} ({shown})"
    return f"class {index} (name not in Latin letters)"


def width_of(text: str, size: int, *, bold: bool = False) -> int:
    """The width in pixels of a drawable text.

    Args:
        text: what `drawable` gives.
        size: of the font in pixels, from one line's top to its bottom.
        bold: whether the letters are heavy.
    """
    if UNICODE:
        face, weight = cv2.FontFace("sans"), 700 if bold else 400
        return int(cv2.getTextSize((0, 0), text, (0, 0), face, size, weight)[2])
    return int(cv2.getTextSize(text, FONT, size / FONT_SIZE, _stroke(size, bold))[0][0])


def write(
    picture: Picture,
    text: str,
    place: tuple[int, int],
    size: int,
    *,
    bold: bool = False,
    ink: tuple[int, int, int] = INK,
) -> None:
    """Write a drawable text into a picture, from (x, y), the left end of its base line.

    `size` and `bold` are those of `width_of`; `ink` is RGB.
    """
    if UNICODE:
        face, weight = cv2.FontFace("sans"), 700 if bold else 400
        cv2.putText(picture, text, place, ink, face, size, weight)
    else:
        scale, stroke = size / FONT_SIZE, _stroke(size, bold)
        cv2.putText(picture, text, place, FONT, scale, ink, stroke, cv2.LINE_AA)


def shortened(text: str, width: int, size: int, *, bold: bool = False) -> str:
    """The text, without so much of its middle that it is at most `width` pixels wide; may be
    empty.
    """
    return _longest(text, lambda t: width_of(t, size, bold=bold) <= width)


def wrapped(line: Line, width: int, size: int) -> list[str]:
    """The line as drawable texts that are at most `width` pixels wide, one below the other."""

    def fits(text: str) -> bool:
        return width_of(text, size, bold=line.bold) <= width

    text = drawable(line.text)
    if len(text) > LONGEST:
        dots = drawable("…")
        text = f"{text[: LONGEST // 2]}{dots}{text[-LONGEST // 2 :]}"
    broken = _broken(text, fits)
    if len(broken) > line.most:
        whole = _longest(text, lambda t: len(_broken(t, fits)) <= line.most)
        broken = _broken(whole, fits)
    return broken


def text_block(
    lines: Sequence[Line], width: int, size: int, *, align: str = "left", margin: int = 0
) -> Picture:
    """A white strip with lines of text, wrapped.

    Args:
        lines: from the top.
        width: of the strip in pixels.
        size: of the font in pixels.
        align: ``left``, ``centre`` or ``right``.
        margin: free pixels at the left and at the right.

    Returns:
        (h, width, 3) uint8 RGB.
    """
    room = max(1, width - 2 * margin)
    texts = [(text, line.bold) for line in lines for text in wrapped(line, room, size)]
    strip = np.full((round(size * LINE * len(texts)) + size // 2, width, 3), WHITE, np.uint8)
    for row, (text, bold) in enumerate(texts):
        free = max(0, room - width_of(text, size, bold=bold))
        place = (margin + round(ALIGNED[align] * free), round(size * (LINE * row + 1.2)))
        write(strip, text, place, size, bold=bold)
    return strip


def _broken(text: str, fits: Callable[[str], bool]) -> list[str]:
    """The text in lines that fit, broken at spaces, else after signs, else where it must be."""
    lines: list[str] = []
    rest = text
    while rest:
        count = _count(rest, fits)
        if count < len(rest):
            space = rest.rfind(" ", 0, count + 1)
            sign = max(rest.rfind(sign, 0, count) for sign in SIGNS) + 1
            count = next((place for place in (space, sign) if place > 0), count)
        lines.append(rest[:count].rstrip())
        rest = rest[count:].lstrip()
    return lines


def _count(text: str, fits: Callable[[str], bool]) -> int:
    """How many letters fit on a line, at least one."""
    return max(1, _most(len(text), lambda count: fits(text[:count])))


def _longest(text: str, fits: Callable[[str], bool]) -> str:
    """The text, without so much of its middle that it fits; may be empty."""
    if fits(text):
        return text
    dots = drawable("…")

    def cut(length: int) -> str:
        head, tail = length - length // 2, length // 2
        return f"{text[:head].rstrip()}{dots}{text[len(text) - tail :].lstrip()}"

    length = _most(len(text) - 1, lambda length: fits(cut(length)))
    return cut(length) if length else ""


def _most(limit: int, holds: Callable[[int], bool]) -> int:
    """The largest number up to `limit` for which something holds that holds for all below; or 0."""
    least = 0
    while least < limit:
        middle = (least + limit + 1) // 2
        if holds(middle):
            least = middle
        else:
            limit = middle - 1
    return least


def _stroke(size: int, bold: bool) -> int:
    return max(2, round(size / 9)) if bold else max(1, round(size / 18))
