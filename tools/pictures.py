"""Pictures drawn by chance: one textured object of ten kinds on a cluttered background, with its exact mask.

The kind decides the outline and nothing else. Size, place, rotation, colour, texture, shadow and lighting are drawn from the same
distributions for every kind, and for the distractors that lie behind the object, so that only the outline tells the class: an
explanation of a good classifier should lie on the object.

``python tools/pictures.py models`` writes the sample pictures and their masks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Floats = NDArray[np.float32]
"""A picture (H, W, 3) RGB or one plane (H, W), float32 in 0..1."""
Contours = list[NDArray[np.float64]]
"""Closed polygons (P, 2) of x and y, filled by the even-odd rule, so that one inside another is a hole."""

SUPERSAMPLING = 4
"""Outlines are filled on a grid this much finer and averaged: exact coverage, thus smooth edges."""
AREA = (0.10, 0.32)
"""Fraction of the picture that the object covers; less where the outline would not fit into the frame."""
MARGIN = 0.03
"""Least distance of the object from the frame, as a fraction of the side."""
CONTRAST = 38.0
"""Least difference (CIELAB) between the object's mean colour and the background's under it."""
SAMPLE_SIZE = 288
"""Side of the sample pictures in pixels: larger than the model's input, so that overlays look good."""
SAMPLES = {"star": 1, "fish": 2, "gear": 3, "leaf": 4}
"""Kind → seed of the sample pictures."""


def _circle(radius: float, start: float = 0.0, stop: float = 2 * np.pi, x: float = 0.0) -> NDArray[np.float64]:
    angles = np.linspace(start, stop, 72)
    return np.stack([x + radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _mirrored(half: list[tuple[float, float]]) -> NDArray[np.float64]:
    """The polygon whose one half is given, mirrored on the x axis."""
    upper = np.array(half, dtype=np.float64)
    return np.concatenate([upper, upper[::-1] * (1, -1)])


def _polar(radii: NDArray[np.float64], angles: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _arrow(rng: Generator) -> Contours:
    neck, width = rng.uniform(-0.05, 0.2), rng.uniform(0.22, 0.3)
    return [_mirrored([(1.0, 0.0), (neck, 0.72), (neck, width), (-0.95, width)])]


def _bolt(rng: Generator) -> Contours:
    kink = rng.uniform(-0.05, 0.05)
    points = [(0.30, 1.0), (-0.62, -0.12 + kink), (-0.06, -0.12 + kink)]
    return [np.array(points + [(-x, -y) for x, y in points], dtype=np.float64)]


def _crescent(rng: Generator) -> Contours:
    radius, shift = rng.uniform(0.76, 0.84), rng.uniform(0.42, 0.50)
    x = (1 - radius**2 + shift**2) / (2 * shift)  # where the two circles meet
    outer, inner = np.arccos(x), np.arccos((x - shift) / radius)
    return [np.concatenate([_circle(1, outer, 2 * np.pi - outer), _circle(radius, 2 * np.pi - inner, inner, shift)])]


def _cross(rng: Generator) -> Contours:
    w = rng.uniform(0.28, 0.38)
    return [np.array([(1, w), (w, w), (w, 1), (-w, 1), (-w, w), (-1, w), (-1, -w), (-w, -w), (-w, -1), (w, -1), (w, -w), (1, -w)])]


def _fish(rng: Generator) -> Contours:
    height, tail = rng.uniform(0.46, 0.56), rng.uniform(0.46, 0.56)
    body = [(0.3 + 0.7 * np.cos(a), height * np.sin(a)) for a in np.linspace(0, 0.92 * np.pi, 40)]
    return [_mirrored([*body, (-0.95, tail), (-0.78, 0.0)])]


def _gear(rng: Generator) -> Contours:
    teeth, depth = int(rng.integers(7, 10)), rng.uniform(0.72, 0.78)
    steps = (np.arange(teeth)[:, None] + np.array([0.0, 0.10, 0.40, 0.50])).ravel() * 2 * np.pi / teeth
    return [_polar(np.tile([depth, 1.0, 1.0, depth], teeth), steps), _circle(rng.uniform(0.28, 0.36))]


def _heart(rng: Generator) -> Contours:
    t = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [np.stack([np.sin(t) ** 3, -(y + 2.5) / 16 * rng.uniform(0.95, 1.1)], axis=1)]


def _leaf(rng: Generator) -> Contours:
    width, stalk = rng.uniform(0.40, 0.50), 0.055
    blade = [(1 - 1.6 * t, width * np.sin(np.pi * t**0.9)) for t in np.linspace(0, 1, 40)]
    return [_mirrored([*(p for p in blade if p[0] > 0 or p[1] > stalk), (-0.62, stalk), (-1.0, stalk)])]


def _ring(rng: Generator) -> Contours:
    return [_circle(1), _circle(rng.uniform(0.50, 0.66))]


def _star(rng: Generator) -> Contours:
    return [_polar(np.tile([1.0, rng.uniform(0.42, 0.50)], 5), np.arange(10) * np.pi / 5)]


OUTLINES: dict[str, Callable[[Generator], Contours]] = {
    "arrow": _arrow,
    "bolt": _bolt,
    "crescent": _crescent,
    "cross": _cross,
    "fish": _fish,
    "gear": _gear,
    "heart": _heart,
    "leaf": _leaf,
    "ring": _ring,
    "star": _star,
}
KINDS = tuple(OUTLINES)
"""The kinds of object, in the order of the model's logits."""


def _distractor(rng: Generator) -> Contours:
    """An outline that is none of the kinds: a disc, a rectangle, a triangle, a bar or a ragged lump."""
    form = rng.integers(5)
    if form == 0:
        return [_circle(1)]
    if form in (1, 3):
        h = rng.uniform(0.5, 1.0) if form == 1 else rng.uniform(0.12, 0.25)
        return [np.array([(1, h), (-1, h), (-1, -h), (1, -h)], dtype=np.float64)]
    if form == 2:
        return [_polar(np.ones(3), np.arange(3) * 2 * np.pi / 3 + rng.uniform(-0.3, 0.3, 3))]
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    waves = sum(rng.normal(0, 0.22 / k) * np.cos(k * angles + rng.uniform(0, 2 * np.pi)) for k in range(1, 5))
    return [_polar(np.clip(1 + np.asarray(waves), 0.4, None), angles)]


def _area(contours: Contours) -> float:
    """Area inside the first contour and outside the others."""
    areas = [cv2.contourArea(contour.astype(np.float32)) for contour in contours]
    return areas[0] - sum(areas[1:])


def _turned(contours: Contours, rng: Generator) -> Contours:
    """The contours turned by any angle, squeezed a little, and scaled to an area of 1."""
    turn, axis, squeeze = rng.uniform(0, 2 * np.pi), rng.uniform(0, np.pi), rng.uniform(0.87, 1.0)
    matrix = _rotation(axis) @ np.diag([1.0, squeeze]) @ _rotation(turn - axis)
    turned = [contour @ matrix.T for contour in contours]
    return [contour / np.sqrt(_area(turned)) for contour in turned]


def _rotation(angle: float) -> NDArray[np.float64]:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _placed(contours: Contours, fraction: float, rng: Generator, margin: float) -> Contours:
    """Contours of area 1 scaled to `fraction` and put anywhere in the unit square, `margin` from its sides."""
    low, high = contours[0].min(axis=0), contours[0].max(axis=0)
    scale = min(np.sqrt(fraction), (1 - 2 * margin) / (high - low).max())
    corner = rng.uniform(margin, np.maximum(1 - margin - scale * (high - low), margin + 1e-9))
    return [(contour - low) * scale + corner for contour in contours]


def _coverage(contours: Contours, size: int) -> Floats:
    """How much of each pixel the contours (in the unit square) cover: (size, size) float32 in 0..1."""
    fine = np.zeros((size * SUPERSAMPLING,) * 2, dtype=np.uint8)
    cv2.fillPoly(fine, [np.round(c * size * SUPERSAMPLING * 16).astype(np.int32) for c in contours], 255, shift=4)
    return cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _noise(rng: Generator, cells: int, size: int, planes: int = 1) -> Floats:
    """Smooth noise with `cells` cells along a side: (size, size) or (size, size, planes), about 0..1."""
    grid = rng.uniform(0, 1, (cells, cells, planes)).astype(np.float32)
    return np.clip(cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC), 0, 1)


def _pattern(rng: Generator, size: int) -> Floats:
    """A texture of one plane, (size, size) in 0..1: plain, gradient, stripes, checks, dots, waves or noise."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    turn, period = rng.uniform(0, np.pi), rng.uniform(0.05, 0.16)
    u = np.cos(turn) * axis[None] + np.sin(turn) * axis[:, None]
    v = np.cos(turn) * axis[:, None] - np.sin(turn) * axis[None]
    a, b = (np.sin(2 * np.pi * (w / period + rng.uniform())) for w in (u, v))
    edge = np.float32(period * size / 3)  # contrast that leaves edges about a pixel wide
    form = rng.integers(7)
    if form == 0:
        return np.full((size, size), 0.5, dtype=np.float32)
    if form == 1:
        return np.asarray((u - u.min()) / np.ptp(u), dtype=np.float32)
    if form == 6:
        return _noise(rng, int(rng.integers(8, 28)), size)
    wave = [a, a * b, a * a + b * b - 1.2, np.sin(2 * np.pi * u / period + 1.5 * b)][form - 2]
    return np.asarray(np.clip(0.5 + edge * wave, 0, 1), dtype=np.float32)


def _colour(rng: Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Floats:
    """A colour of any hue, (3,) RGB float32 in 0..1."""
    hsv = np.array([[[rng.uniform(0, 360), rng.uniform(*saturation), rng.uniform(*value)]]], dtype=np.float32)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0]


def _lab(colour: Floats) -> Floats:
    return cv2.cvtColor(colour.reshape(1, 1, 3), cv2.COLOR_RGB2LAB)[0, 0]


def _surface(rng: Generator, size: int, first: Floats, spread: float) -> Floats:
    """A texture (size, size, 3) between `first` and a colour that differs from it by about `spread`."""
    second = np.clip(first + rng.uniform(-1, 1) * spread + rng.uniform(-0.5, 0.5, 3) * spread, 0, 1).astype(np.float32)
    pattern = _pattern(rng, size)[:, :, None]
    return first + (second - first) * pattern


def _lay(canvas: Floats, surface: Floats, alpha: Floats, rng: Generator) -> Floats:
    """`surface` laid on `canvas` where `alpha` is, with a soft shadow and light from the upper left: (size, size, 3)."""
    size = len(canvas)
    depth = rng.uniform(0.015, 0.035) * size
    shift = np.array([[1, 0, depth], [0, 1, depth]], dtype=np.float32)
    shadow = cv2.GaussianBlur(cv2.warpAffine(alpha, shift, (size, size)), (0, 0), 0.02 * size)[:, :, None]
    soft = cv2.GaussianBlur(alpha, (0, 0), 0.022 * size)
    relief = cv2.Sobel(soft, cv2.CV_32F, 1, 0) + cv2.Sobel(soft, cv2.CV_32F, 0, 1)
    light = 1 + rng.uniform(0.010, 0.022) * size * relief[:, :, None]
    alpha = alpha[:, :, None]
    return canvas * (1 - 0.45 * shadow) * (1 - alpha) + np.clip(surface * light, 0, 1) * alpha


def _background(rng: Generator, size: int) -> Floats:
    """Clutter (size, size, 3): a texture under drifting colours, lines, and distractors lit like the object."""
    muted = {"saturation": (0.1, 0.55), "value": (0.35, 0.95)}
    canvas = _surface(rng, size, _colour(rng, **muted), rng.uniform(0.1, 0.35))
    drift = _noise(rng, int(rng.integers(3, 7)), size, planes=3)
    canvas = canvas + rng.uniform(0.2, 0.55) * (drift - 0.5)
    for _ in range(rng.integers(2, 6)):
        contours = _placed(_turned(_distractor(rng), rng), rng.uniform(0.01, 0.12), rng, margin=-0.15)
        surface = _surface(rng, size, _colour(rng, (0.15, 0.8), (0.35, 0.95)), rng.uniform(0.0, 0.5))
        canvas = _lay(canvas, surface, _coverage(contours, size), rng)
    for _ in range(rng.integers(0, 7)):
        ends = np.round(rng.uniform(-0.1, 1.1, (2, 2)) * size * 16).astype(int).tolist()
        width = max(1, round(rng.uniform(0.004, 0.02) * size))
        line = cv2.line(np.zeros((size, size), np.uint8), *ends, 255, width, cv2.LINE_AA, shift=4)
        alpha = (line / np.float32(255))[:, :, None] * np.float32(rng.uniform(0.4, 1.0))
        canvas = canvas * (1 - alpha) + _colour(rng, **muted) * alpha
    return np.clip(canvas, 0, 1).astype(np.float32)


def _object_colour(rng: Generator, under: Floats) -> Floats:
    """A lively colour (3,) that stands out from the mean colour `under` the object."""
    for _ in range(40):
        colour = _colour(rng, (0.3, 0.9), (0.45, 1.0))
        if np.linalg.norm(_lab(colour) - _lab(under)) >= CONTRAST:
            break
    return colour


def make_picture(kind: str, rng: Generator, size: int = 96) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw one picture of a `kind` of `KINDS`, of `size` pixels a side; every length in it scales with `size`.

    Returns the picture (size, size, 3) uint8 RGB and the object's mask (size, size) bool: pixels at least half covered.
    """
    canvas = _background(rng, size)
    contours = _placed(_turned(OUTLINES[kind](rng), rng), rng.uniform(*AREA), rng, MARGIN)
    alpha = _coverage(contours, size)
    mask = alpha >= 0.5
    colour = _object_colour(rng, canvas[mask].mean(axis=0))
    canvas = _lay(canvas, _surface(rng, size, colour, rng.uniform(0.1, 0.4)), alpha, rng)
    grain = _noise(rng, 128, size) - 0.5
    picture = np.clip(canvas + rng.uniform(0, 0.06) * grain[:, :, None], 0, 1)
    return np.round(picture * 255).astype(np.uint8), mask


def write_samples(folder: Path) -> None:
    """Write `SAMPLES` as ``samples/<kind>.png`` and their masks (0 or 255) as ``masks/<kind>.png`` under `folder`."""
    for name in ("samples", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for kind, seed in SAMPLES.items():
        picture, mask = make_picture(kind, np.random.default_rng(seed), SAMPLE_SIZE)
        cv2.imwrite(str(folder / "samples" / f"{kind}.png"), picture[:, :, ::-1])
        cv2.imwrite(str(folder / "masks" / f"{kind}.png"), mask.astype(np.uint8) * 255)


if __name__ == "__main__":
    write_samples(Path(sys.argv[1]))
