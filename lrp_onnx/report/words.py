"""Texts of the report: names made harmless, values, places, rules and preprocessing in words."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping
from colorsys import rgb_to_hsv
from html import escape
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.contract import Preprocessing
from lrp_onnx.maps.resample import Map, resample

KEPT = "\u200c\u200d"
"""Format characters that words of some scripts need: the non-joiner and the joiner."""
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Unicode categories that are not shown as they are: control codes, characters that turn the
direction of text, lone surrogates (bytes of a file name that are no text), line separators.
"""
SPREAD = 1.35
"""Relevance counts as spread out where no ninth of a map has this many times its even share."""
PLACES = (
    ("upper left", "upper middle", "upper right"),
    ("middle left", "centre", "middle right"),
    ("lower left", "lower middle", "lower right"),
)
TIMES = ("first third", "middle third", "last third")
"""Parts of a signal."""

HUES = (
    (18, "red"),
    (48, "orange"),
    (70, "yellow"),
    (165, "green"),
    (260, "blue"),
    (335, "purple"),
    (361, "red"),
)
"""The end of a range of hues in degrees, and its name."""

STARTS: Mapping[str, str] = MappingProxyType(
    {
        "logit": "the class's score before softmax (its logit)",
        "probability": "the class's probability",
        "one": "1, whatever the score",
        "contrastive": "what sets the class apart: its score against a mean of the other classes'",
        "similarity": "the products of the output's values with those of the reference",
    }
)
"""Kind of start → what relevance starts from."""

RULES: Mapping[str, str] = MappingProxyType(
    {
        "epsilon": "shares relevance in proportion to what every input added to the result",
        "gamma": "as epsilon, with more weight on inputs that raised the result",
        "z-plus": "shares relevance among the inputs that raised the result",
        "alpha-beta": "shares out what raised and what lowered the result with two fixed weights",
        "w-square": "shares relevance by the weights alone, whatever the input's values",
        "flat": "shares relevance evenly over all that a place sees",
        "z-box": "as epsilon, measured from the lowest and highest values that a pixel can have",
        "spread": "hands the relevance of a place also to its neighbours that the layer skips",
        "pass": "passes relevance on unchanged",
        "layer-norm": "as epsilon, with the size of a normalisation's input as a constant",
        "norm": "shares relevance in proportion to the values that are added or averaged",
        "gradient": "passes on what the gradient passes on",
        "route": "relevance moves with the values that the layer moves",
        "winner-take-all": "the largest value of every window takes its relevance",
        "average": "treats max pooling as an average of the window",
        "guided-relu": "passes on positive relevance where the unit was active",
        "deconv-relu": "passes on positive relevance",
        "block": "treats a whole residual block as one layer of the epsilon rule",
        "ratio": "a shortcut and its block share relevance by the size of their values",
        "symmetric": "a shortcut and its block get the same share",
        "main-only": "the block gets all relevance, its shortcut none",
        "skip-only": "the shortcut gets all relevance, its block none",
        "signed": "a shortcut and its block share relevance in proportion to their values",
        "z-plus-join": "a shortcut and its block share relevance by what each raised the sum",
        "gradient-join": "a shortcut and its block both get all relevance, as with the gradient",
        "gate": "the signal takes all relevance, its gate none; two signals get half each",
        "gradient-product": "both factors get what the gradient gives them",
        "parts": "every joined part keeps the relevance of its place",
        "halves": "both factors get half of the relevance, as attention and what it attends to",
        "values": "what is attended to takes all relevance, the attention none",
        "softmax": "an attention's weights hand relevance on to the scores that raised them",
    }
)
"""Name of a rule → what it does."""


def plain(text: str) -> str:
    r"""`text` with invisible and direction-turning characters written out as ``\u202e``."""
    return "".join(
        character
        if character in KEPT or unicodedata.category(character) not in HIDDEN
        else character.encode("unicode_escape").decode()
        for character in text
    )


def markup(text: str) -> str:
    """`text` for HTML, in elements and in quoted attributes."""
    return escape(plain(text), quote=True)


def class_name(index: int, name: str) -> str:
    """The class's name, or its number where it has none."""
    return name or f"class {index}"


def value_text(value: float | None, scores_are: str) -> str:
    """A class's value: ``80.1 %``, ``mean 0.12``, or nothing."""
    if value is None:
        return ""
    if scores_are == "probability":
        return f"{value:.1%}"
    return f"{scores_are} {value:.4g}"


def place(heatmap: Map) -> str:
    """Where a map's positive relevance is strongest: ``upper left``, or nothing for none.

    The map (H, W) is compared in ninths, that of a signal, (1, L), in thirds.
    """
    rows = 1 if len(heatmap) == 1 else 3
    parts = resample(heatmap.clip(0, None), (rows, 3), method="area").astype(np.float64)
    total = float(parts.sum())
    if total <= 0:
        return ""
    row, column = divmod(int(parts.argmax()), 3)
    name = TIMES[column] if rows == 1 else PLACES[row][column]
    if float(parts.max()) * parts.size < SPREAD * total:
        return f"{name}, but spread over the whole"
    return name


def color_name(rgb: NDArray[np.uint8]) -> str:
    """The name of a colour (3,) uint8 or of its opaque part."""
    red, green, blue = (float(value) / 255 for value in rgb[:3])
    hue, _, _ = rgb_to_hsv(red, green, blue)
    return next(name for end, name in HUES if 360 * hue < end)


def rules_in_words(rules: Mapping[str, str]) -> dict[str, str]:
    """Rule → on how many layers it is used and what it does.

    Args:
        rules: node name → rule as text (`Contract.rules`).
    """
    words = {}
    for rule, count in Counter(rules.values()).most_common():
        does = RULES.get(rule.partition("(")[0].strip(), "")
        layers = f"{count} {'layer' if count == 1 else 'layers'}"
        words[rule] = f"{layers}: {does}" if does else layers
    return words


def preprocessing_in_words(spec: Preprocessing) -> str:
    """One sentence on how a picture becomes the model's input."""
    part = "" if spec.crop_fraction == 1 else f"{spec.crop_fraction:.4g} of "
    shape = (
        f"{part}the whole picture stretched to the input's size"
        if spec.resize == "stretch"
        else f"the largest centred part of the input's shape{f', {part}it' if part else ''}"
    )
    steps = [shape, f"{spec.interpolation} resizing", spec.channels]
    if spec.divisor != 1:
        steps.append(f"divided by {spec.divisor:g}")
    if any(spec.mean):
        steps.append(f"minus {_listed(spec.mean)}")
    if any(value != 1 for value in spec.std):
        steps.append(f"divided by {_listed(spec.std)}")
    return ", ".join(steps)


def _listed(values: tuple[float, ...]) -> str:
    """``0.5`` of equal values, ``(0.485, 0.456, 0.406)`` of others."""
    texts = [f"{value:g}" for value in values]
    return texts[0] if len(set(texts)) == 1 else f"({', '.join(texts)})"
