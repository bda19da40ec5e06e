"""Procedural pictures: one textured object of ten kinds on
a cluttered background, with its exact mask.

Only the silhouette tells the kind: colours, textures, size,
place and rotation are drawn independently of it.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Points = NDArray[np.float64]

SUPERSAMPLING = 3
"""Silhouettes are drawn this much larger and averaged down: smooth edges."""
RADIUS = (0.17, 0.31)
"""Radius of an object, as a share of the picture's side."""


def _regular(corners: int, phase: float = 0.0) -> Points:
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False) + phase
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def _radial(radius: Callable[[Points], Points], samples: int = 180) -> Points:
    angles = np.linspace(0, 2 * np.pi, samples, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles)], 1) * radius(angles)[:, None]


def _star() -> list[Points]:
    points = _regular(10)
    points[1::2] *= 0.42
    return [points]


def _cross() -> list[Points]:
    a = 0.34
    return [
        np.array(
            [
                (-a, -1),
                (a, -1),
                (a, -a),
                (1, -a),
                (1, a),
                (a, a),
                (a, 1),
                (-a, 1),
                (-a, a),
                (-1, a),
                (-1, -a),
                (-a, -a),
            ]
        )
    ]


def _heart() -> list[Points]:
    t = np.linspace(0, 2 * np.pi, 160, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [np.stack([x, -y], 1) / 17.0]


def _crescent() -> list[Points]:
    outer = _regular(120)
    inner = _regular(120) * 0.82 + np.array([0.5, 0.0])
    kept = outer[np.hypot(*(outer - [0.5, 0.0]).T) > 0.82]
    start = int(np.argmax(np.hypot(*np.diff(kept, axis=0, append=kept[:1]).T)))
    kept = np.roll(kept, -start - 1, axis=0)
    bite = inner[np.hypot(*inner.T) < 1.0]
    start = int(np.argmax(np.hypot(*np.diff(bite, axis=0, append=bite[:1]).T)))
    return [np.concatenate([kept, np.roll(bite, -start - 1, axis=0)[::-1]])]


def _arrow() -> list[Points]:
    return [
        np.array(
            [
                (1, 0),
                (0.15, -0.75),
                (0.15, -0.28),
                (-1, -0.28),
                (-1, 0.28),
                (0.15, 0.28),
                (0.15, 0.75),
            ]
        )
    ]


SHAPES: dict[str, Callable[[], list[Points]]] = {
    "arrow": _arrow,
    "crescent": _crescent,
    "cross": _cross,
    "disc": lambda: [_regular(120) * 0.92],
    "gear": lambda: [
        _radial(lambda a: 0.8 + 0.2 * np.sign(np.sin(9 * a)), 360),
        _regular(60) * 0.32,
    ],
    "heart": _heart,
    "ring": lambda: [_regular(120), _regular(120) * 0.58],
    "square": lambda: [_regular(4, np.pi / 4)],
    "star": _star,
    "triangle": lambda: [_regular(3)],
}
"""Kind → outlines in the unit circle; where outlines overlap the even-odd rule makes holes."""

KINDS = tuple(SHAPES)


def make_picture(
    kind: str, rng: np.random.Generator, size: int = 96, radii: tuple[float, float] = RADIUS
) -> tuple[Picture, Mask]:
    """One picture of `kind` and where the object is.

    Args:
        kind: one of `KINDS`.
        rng: every random choice comes from it.
        size: side in pixels; the same generator state gives the same scene only at the same size.
        radii: least and largest radius of the object, as shares of the picture's side.

    Returns:
        (size, size, 3) uint8 RGB, and (size, size) bool, true on the object.
    """
    return _placed(_background(rng, size), kind, rng, radii)


def put_object(
    picture: Picture,
    kind: str,
    rng: np.random.Generator,
    radii: tuple[float, float] = RADIUS,
    surface: Points | None = None,
) -> tuple[Picture, Mask]:
    """The picture with one more object upon it, and where that is; as for `make_picture`.

    `surface`, (size, size, 3) from 0 to 1, is what the object looks like; None for a random one.
    """
    return _placed(picture / 255.0, kind, rng, radii, surface)


def background(rng: np.random.Generator, size: int = 96) -> Picture:
    """A picture without an object, (size, size, 3) uint8."""
    return (_background(rng, size) * 255).round().astype(np.uint8)


def _placed(
    scene: NDArray[np.float64],
    kind: str,
    rng: np.random.Generator,
    radii: tuple[float, float],
    surface: Points | None = None,
) -> tuple[Picture, Mask]:
    size = scene.shape[0]
    radius = size * rng.uniform(*radii)
    centre = rng.uniform(radius * 1.04, size - radius * 1.04, 2)
    alpha = _silhouette(SHAPES[kind](), centre, radius, rng.uniform(0, 2 * np.pi), size)
    shift = np.array([[1, 0, 0.12 * radius], [0, 1, 0.16 * radius]], np.float32)
    shadow = cv2.GaussianBlur(cv2.warpAffine(alpha, shift, (size, size)), (0, 0), 0.12 * radius)
    scene *= 1.0 - 0.45 * shadow[:, :, None]
    if surface is None:
        surface = _surface(rng, size, around=scene[alpha > 0.5].mean(0))
    scene = scene * (1 - alpha[:, :, None]) + surface * alpha[:, :, None]
    scene += rng.normal(0, 0.012, scene.shape)
    return (np.clip(scene, 0, 1) * 255).round().astype(np.uint8), alpha > 0.5


def _silhouette(
    outlines: list[Points], centre: Points, radius: float, angle: float, size: int
) -> NDArray[np.float32]:
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    placed = [
        np.round((o @ turn * radius + centre) * SUPERSAMPLING * 16).astype(np.int32)
        for o in outlines
    ]
    canvas = np.zeros((size * SUPERSAMPLING, size * SUPERSAMPLING), np.uint8)
    cv2.fillPoly(canvas, placed, 255, lineType=cv2.LINE_8, shift=4)
    small = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    return (small / np.float32(255)).astype(np.float32)


def _colour(rng: np.random.Generator) -> Points:
    """A pleasant random colour: any hue, not too pale and not too dark."""
    hsv = np.array([[[rng.uniform(0, 180), rng.uniform(70, 220), rng.uniform(90, 245)]]], np.uint8)
    colour: Points = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0] / 255.0
    return colour


def _clouds(rng: np.random.Generator, size: int, cells: int) -> NDArray[np.float32]:
    """Smooth noise in [0, 1]."""
    coarse = rng.uniform(0, 1, (cells, cells)).astype(np.float32)
    return np.clip(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), 0, 1)


def _pattern(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """A texture in [0, 1]: stripes, checks, dots, gradient or clouds."""
    rows, columns = np.mgrid[0:size, 0:size] / size
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.05, 0.16)
    u = rows * np.cos(angle) + columns * np.sin(angle)
    v = columns * np.cos(angle) - rows * np.sin(angle)
    kind = rng.integers(5)
    values: Points | NDArray[np.float32]
    if kind == 0:
        values = 0.5 + 0.5 * np.tanh(4 * np.sin(2 * np.pi * u / period))
    elif kind == 1:
        values = 0.5 + 0.5 * np.tanh(
            6 * np.sin(2 * np.pi * u / period) * np.sin(2 * np.pi * v / period)
        )
    elif kind == 2:
        values = 1 / (
            1 + np.exp(9 * (0.35 - np.cos(2 * np.pi * u / period) * np.cos(2 * np.pi * v / period)))
        )
    elif kind == 3:
        values = (u - u.min()) / np.ptp(u)
    else:
        values = _clouds(rng, size, int(rng.integers(6, 16)))
    return values.astype(np.float32)


def _surface(rng: np.random.Generator, size: int, around: Points) -> NDArray[np.float64]:
    """A two-coloured texture whose first colour differs
    from its surroundings, with a little light from above.
    """
    first = _colour(rng)
    while np.abs(first - around).sum() < 0.55:
        first = _colour(rng)
    second = np.clip(first + rng.uniform(-0.35, 0.35, 3), 0, 1)
    values = _pattern(rng, size)[:, :, None]
    light = np.linspace(1.08, 0.9, size)[:, None, None]
    return (first * (1 - values) + second * values) * light


def _background(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Two colours mixed by clouds, a faint texture, and clutter: lines and soft blobs."""
    mix = _clouds(rng, size, int(rng.integers(3, 7)))[:, :, None]
    scene = _colour(rng) * (1 - mix) + _colour(rng) * mix
    scene = scene + rng.uniform(0.0, 0.16) * (_pattern(rng, size)[:, :, None] - 0.5)
    for _ in range(int(rng.integers(2, 7))):
        canvas = np.zeros((size, size), np.float32)
        ends = rng.uniform(-0.1, 1.1, (2, 2)) * size
        width = max(1, round(size * rng.uniform(0.008, 0.03)))
        start, end = (tuple(int(c) for c in point) for point in ends)
        cv2.line(canvas, start, end, 1.0, width, cv2.LINE_AA)
        scene = scene + canvas[:, :, None] * (_colour(rng) - scene) * rng.uniform(0.3, 0.9)
    for _ in range(int(rng.integers(1, 5))):
        canvas = np.zeros((size, size), np.float32)
        centre = tuple(int(c) for c in rng.uniform(0, size, 2))
        axes = tuple(int(a) for a in size * rng.uniform(0.04, 0.14, 2))
        cv2.ellipse(canvas, centre, axes, rng.uniform(0, 180), 0, 360, 1.0, -1, cv2.LINE_AA)
        blob = cv2.GaussianBlur(canvas, (0, 0), size * rng.uniform(0.012, 0.04))
        scene = scene + blob[:, :, None] * (_colour(rng) - scene) * rng.uniform(0.3, 0.8)
    return np.clip(scene, 0, 1)
