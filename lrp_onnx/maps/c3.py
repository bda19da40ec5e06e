"""C3, "contour and component choice", and C1C, "component choice", for relevance maps.

Source: Doublet, Otsuki, Iida, Sugiura, JSAI 2024, 4Q1-IS-2c-03, Eq. 3-4 (C3); Iida et al. 2023
(C1C).

    coarse  = R reduced to 28 x 28
    C1      = the largest contour of {coarse > threshold}, filled
    C2      = the largest connected component of {coarse > threshold}
    C3      = C1 AND C2                                            (C1C: C2 alone)
    map     = coarse where C3, 0 elsewhere; expanded to (h, w)

The papers do not define the following details. We read them so:

- the threshold is the map's mean, as in C1C's released code;
- the contour is filled, and its size is the number of filled pixels (the area of its polygon would
  be 0 for a blob one pixel wide);
- components are 8-connected;
- the kinds of reduction and expansion are options, see `C3Options`;
- an empty AND is an option, see `C3Options.empty`.

One consequence: outer contours are traced 8-connected and filled. A connected C2 therefore lies
completely inside C1 or completely outside, and the AND is C2 or empty. Holes of C2 are filled in C1
but not in C2, so they stay out. C3 can differ from C1C with the same options only where the AND is
empty.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import ArrayLike

from lrp_onnx.maps.options import check_choice, check_whole
from lrp_onnx.maps.resample import Map, Mask, as_map, resample

REDUCTIONS = ("area", "antialiased", "nearest")
EXPANSIONS = ("nearest", "bilinear")
OUTSIDES = ("zero", "rank")
RANK_MARGIN = 1 / 1024
"""How far below the lowest value inside everything outside lies at least, as a part of the largest
magnitude: far above float32's rounding, and too little to be seen. For ``outside="rank"``.
"""


def parse_threshold(threshold: str | float) -> tuple[str, float]:
    """Read a threshold as (kind, number): ``("mean", 0)``, ``("quantile", q)`` or ``("value", v)``.

    Raises:
        ValueError: `threshold` is none of these.
    """
    if threshold == "mean":
        return "mean", 0.0
    kind, number = "value", threshold
    if isinstance(threshold, str):
        kind, _, number = threshold.partition(":")
    try:
        parsed = float(number)
    except (TypeError, ValueError):
        parsed = math.nan
    if kind == "quantile" and 0 <= parsed <= 1:
        return "quantile", parsed
    if kind == "value" and abs(parsed) <= float(np.finfo(np.float32).max):
        return "value", parsed
    raise ValueError(
        "threshold must be 'mean', 'quantile:q' with q in 0..1, or a finite number; "
        f"got {threshold!r}"
    )


@dataclass(frozen=True, slots=True)
class C3Options:
    """Options of C3 and C1C; any value that is not listed here raises ValueError."""

    size: int = 28
    """Side of the coarse grid in pixels, at least 1; 28 in the paper."""
    threshold: str | float = "mean"
    """Pixels strictly above it are foreground: the coarse map's ``mean``, its ``quantile:q`` with q
    from 0 to 1, or a number in the map's units.
    """
    component: str = "area"
    """Which component is C2: ``area``, the one with the most pixels (the paper), or ``peak``, the
    one with the highest value (C1C's released code). Of equal ones the first in raster order is
    taken.
    """
    connectivity: int = 8
    """Connectivity of components, 8 or 4. Contours are always traced 8-connected."""
    reduction: str = "area"
    """From the map to the coarse grid: ``area``, the mean over every coarse pixel; ``antialiased``,
    a Gaussian, then linear; ``nearest``, one sample.
    """
    expansion: str = "nearest"
    """From the coarse grid to the result: ``nearest`` or ``bilinear``."""
    outside: str = "zero"
    """The values outside the mask. ``zero`` (the papers): all 0; negative values inside then rank
    below the zeros outside. ``rank`` (ours): the values outside are lowered by one number, so that
    all rank below the pixels inside and keep their differences: metrics of ranks see few ties.
    """
    empty: str = "component"
    """The mask of C3 where the largest contour and the chosen component are different blobs and
    their AND is empty: the ``component``, the ``contour``, or ``nothing``. The paper does not
    define it.
    """

    def __post_init__(self) -> None:
        check_whole("size", self.size, least=1)
        parse_threshold(self.threshold)
        check_choice("component", self.component, ("area", "peak"))
        check_choice("connectivity", self.connectivity, (8, 4))
        check_choice("reduction", self.reduction, REDUCTIONS)
        check_choice("expansion", self.expansion, EXPANSIONS)
        check_choice("outside", self.outside, OUTSIDES)
        check_choice("empty", self.empty, ("component", "contour", "nothing"))


@dataclass(frozen=True, slots=True, eq=False)
class C3Result:
    """The result of C3 or C1C. `size` below is `C3Options.size`."""

    map: Map
    """(h, w) float32: relevance inside the mask, in the input's units; outside as
    `C3Options.outside` has it.
    """
    mask: Mask
    """(size, size) bool: the pixels that are kept. Empty where no pixel is above the threshold, as
    in a constant map.
    """
    coarse: Map
    """(size, size) float32: the reduced map, before masking."""
    contour: Mask
    """(size, size) bool: C1, the largest contour, filled."""
    component: Mask
    """(size, size) bool: C2, the chosen component."""
    fallback: bool
    """Whether C1 AND C2 was empty although both are not, so that `C3Options.empty` decided. False
    for C1C.
    """


C3_DEFAULTS = C3Options()
C1C_DEFAULTS = C3Options(component="peak")


def c3(
    relevance: ArrayLike, options: C3Options = C3_DEFAULTS, *, shape: tuple[int, int] | None = None
) -> C3Result:
    """Keep the relevance where the largest contour and the chosen component agree.

    Formula and source: the module's docstring; Doublet et al., JSAI 2024, Eq. 3-4.

    Args:
        relevance: (H, W), summed over channels; taken as float32, any scale and sign.
        options: the details that the paper does not define.
        shape: (h, w) of the result; None for (H, W).

    Returns:
        The map and its masks. Where no pixel is above the threshold (as in a constant map), the
        mask is empty, and the map is zero; with ``outside="rank"`` it is the coarse map.

    Raises:
        ValueError: the map is not a finite, non-empty (H, W) array of numbers.
    """
    return _choose(relevance, options, shape, _contour_and_component)


def c1c(
    relevance: ArrayLike, options: C3Options = C1C_DEFAULTS, *, shape: tuple[int, int] | None = None
) -> C3Result:
    """Keep the relevance in one connected component (Iida et al. 2023).

    The contour is not used, but `C3Result.contour` holds it for comparison. Arguments, result and
    errors are those of `c3`; the default component is the one with the highest value.
    """
    return _choose(
        relevance, options, shape, lambda contour, component, empty: (component.copy(), False)
    )


def largest_contour(foreground: Mask) -> Mask:
    """Return the outer contour that encloses the most pixels, filled with its holes and what is in
    them.

    The size counts all filled pixels, including the contour itself. Of equal ones the contour whose
    first pixel comes first in raster order is taken, in whatever order OpenCV lists them.

    Args:
        foreground: (h, w) bool.

    Returns:
        (h, w) bool, a new array; all False where the foreground is empty.
    """
    outlines, _ = cv2.findContours(
        foreground.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    best = np.zeros(foreground.shape, dtype=np.bool_)
    best_key = (0, 0)
    for outline in outlines:
        canvas = np.zeros(foreground.shape, dtype=np.uint8)
        cv2.drawContours(canvas, [outline], -1, 1, cv2.FILLED)
        key = (int(canvas.sum()), -int(canvas.argmax()))
        if key > best_key:
            best, best_key = canvas.astype(np.bool_), key
    return best


def choose_component(
    foreground: Mask, coarse: Map, *, component: str = "area", connectivity: int = 8
) -> Mask:
    """Return one connected component of the foreground.

    Args:
        foreground: (h, w) bool.
        coarse: (h, w) float32, used only for ``component="peak"``.
        component: ``area`` or ``peak``, see `C3Options.component`.
        connectivity: 8 or 4.

    Returns:
        (h, w) bool, a new array; all False where the foreground is empty.
    """
    if not foreground.any():
        return np.zeros(foreground.shape, dtype=np.bool_)
    _, components = cv2.connectedComponents(foreground.astype(np.uint8), connectivity=connectivity)
    numbers = np.asarray(components)
    if component == "peak":
        peak = np.where(foreground, coarse, -np.inf).argmax()
        chosen = numbers.flat[peak]
    else:
        values, first, sizes = np.unique(numbers[foreground], return_index=True, return_counts=True)
        by_size = np.lexsort((first, -sizes))
        chosen = values[by_size[0]]
    return np.asarray(numbers == chosen)


def _choose(
    relevance: ArrayLike,
    options: C3Options,
    shape: tuple[int, int] | None,
    combine: Callable[[Mask, Mask, str], tuple[Mask, bool]],
) -> C3Result:
    values = as_map(relevance)
    if values.ndim != 2:
        raise ValueError(f"C3 and C1C are for maps (H, W); this one has shape {values.shape}")
    coarse = resample(values, (options.size, options.size), method=options.reduction)
    foreground = _above(coarse, options.threshold)
    contour = largest_contour(foreground)
    component = choose_component(
        foreground, coarse, component=options.component, connectivity=options.connectivity
    )
    mask, fallback = combine(contour, component, options.empty)
    height, width = shape or values.shape
    expanded = _OUTSIDE[options.outside](coarse, mask, (height, width), options.expansion)
    return C3Result(expanded, mask, coarse, contour, component, fallback)


def _contour_and_component(contour: Mask, component: Mask, empty: str) -> tuple[Mask, bool]:
    """Return (C1 AND C2 as in Eq. 3, False).

    Where the AND is empty although C2 is not: (the mask that `empty` names, True).
    """
    both = contour & component
    if both.any() or not component.any():
        return both, False
    masks = {"component": component, "contour": contour, "nothing": both}
    return masks[empty].copy(), True


def _above(coarse: Map, threshold: str | float) -> Mask:
    """Return (size, size) bool: the pixels strictly above the threshold.

    Compared in float64, as the mean is rarely a float32 number.
    """
    kind, number = parse_threshold(threshold)
    exact = coarse.astype(np.float64)
    if kind == "mean":
        level = float(exact.mean())
    elif kind == "quantile":
        level = float(np.quantile(exact, number))
    else:
        # Rounded like the map, so that a pixel equal to the threshold is not above it.
        level = float(np.float32(number))
    return np.asarray(exact > level)


def _zero_outside(coarse: Map, mask: Mask, shape: tuple[int, int], expansion: str) -> Map:
    """Eq. 4: mask the coarse map, then expand it; bilinear expansion softens the mask's edge."""
    return resample(np.where(mask, coarse, np.float32(0)), shape, method=expansion)


def _rank_outside(coarse: Map, mask: Mask, shape: tuple[int, int], expansion: str) -> Map:
    """Expand, then lower the values outside below the lowest value inside.

    All are lowered by ``max(0, max outside - min inside + m)`` with m = `RANK_MARGIN` · max |map|,
    as far as float32 reaches. Their order stays; values that are closer than float32 resolves after
    the shift become equal.
    """
    expanded = resample(coarse, shape, method=expansion)
    inside = resample(mask, shape, method="nearest") > 0
    if not inside.any() or inside.all():
        return expanded
    exact = expanded.astype(np.float64)
    margin = RANK_MARGIN * float(np.abs(exact).max())
    shift = max(0.0, float(exact[~inside].max()) - float(exact[inside].min()) + margin)
    lowered = (exact - shift).clip(float(np.finfo(np.float32).min))
    return np.where(inside, expanded, lowered.astype(np.float32))


_OUTSIDE: MappingProxyType[str, Callable[[Map, Mask, tuple[int, int], str], Map]] = (
    MappingProxyType({"zero": _zero_outside, "rank": _rank_outside})
)
