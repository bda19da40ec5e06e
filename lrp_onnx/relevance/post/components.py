"""Connected components of masks, as operators that are exact for every mask.

Pixels are gathered in blocks whose foreground is connected in itself: 2 x 2 pixels where corners
connect, 1 x 2 where only edges do. What is computed is which blocks belong together.

- Where a runtime has Loop, the largest number of a pixel spreads over its component until nothing
  changes; blocks with the same number belong together.
- Elsewhere, the matrix of neighbouring blocks is squared until it spans the longest path.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.errors import RuleError
from lrp_onnx.maps.resample import Matrix
from lrp_onnx.relevance.graph.builder import POSITIVE, Value
from lrp_onnx.relevance.graph.loop import repeat_until_still
from lrp_onnx.relevance.post.grid import LIMIT, Grid, indicator, larger, smaller, transposed, where

STEPS = 8
"""Steps of spreading in one iteration of a Loop: a step costs less than an iteration does."""
LARGEST = 64
"""The largest side of masks without a Loop: the matrix of blocks grows with its fourth power."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """How the pixels of square masks are gathered."""

    side: int
    """Rows and columns of the masks."""
    connectivity: int
    """8 or 4."""

    @property
    def height(self) -> int:
        """Rows of a block; its width is 2."""
        return 2 if self.connectivity == 8 else 1

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of blocks."""
        return -(-self.side // self.height), -(-self.side // 2)

    @property
    def number(self) -> int:
        """How many blocks there are."""
        return self.grid[0] * self.grid[1]

    def members(self, axis: int, place: int | None = None) -> Matrix:
        """(blocks, pixels) along an axis: 1 where the pixel is in the block, only for the
        block's pixel at `place` if that is given.
        """
        step = (self.height, 2)[axis]
        pixel, block = np.arange(self.side), np.arange(self.grid[axis])
        inside = pixel // step == block[:, None]
        if place is not None:
            inside &= pixel % step == place
        return np.asarray(inside, np.float64)

    def sums(self, maps: Grid) -> Grid:
        """The sum of every block."""
        return maps.times(self.members(0), self.members(1))

    def tops(self, maps: Grid) -> Grid:
        """The maximum of every block."""
        builder = maps.value.builder
        ends = zip(self.grid, self.steps, strict=True)
        spare = [blocks * step - self.side for blocks, step in ends]
        pooled = builder.node(
            "MaxPool",
            maps.value.reshape(-1, 1, *maps.size),
            attributes={"kernel_shape": self.steps, "strides": self.steps, "pads": [0, 0, *spare]},
            sign=maps.value.sign,
        )
        return Grid(pooled.reshape(-1, *self.grid), self.grid)

    @property
    def steps(self) -> list[int]:
        """(rows, columns) of a block."""
        return [self.height, 2]

    def spread(self, blocks: Grid) -> Grid:
        """Every block's value for each of its pixels."""
        return blocks.times(self.members(0).T, self.members(1).T)


def raster(size: tuple[int, ...]) -> NDArray[np.float32]:
    """(rows, columns): a number for every pixel, the larger the earlier it comes in raster order;
    1 for the last.
    """
    return np.arange(size[0] * size[1], 0, -1, dtype=np.float32).reshape(size)


def component(mask: Grid, connectivity: int, peak: Value | None = None) -> Grid:
    """One component of each 0/1 mask, as a 0/1 mask; nothing of an empty one.

    Args:
        mask: (N, side, side), square.
        connectivity: 8 or 4.
        peak: maps in which the component of the highest pixel is taken; None for the component
            of most pixels. Of equal ones the first in raster order is taken.
    """
    blocks = Blocks(mask.size[0], connectivity)
    together = _together(mask, blocks)
    builder = mask.value.builder
    order = mask.of(mask.value * builder.array(raster(mask.size)))
    if peak is None:
        counts = blocks.sums(mask).flat(blocks.number, 1)
        areas = builder.node("MatMul", together, counts).reshape(-1, *blocks.grid)
        area = Grid(areas, blocks.grid)
        candidates = indicator("Equal", areas, area.largest())
        first = Grid(candidates * blocks.tops(order).value, blocks.grid)
    else:
        heights = mask.of(where(mask.value, peak, builder.value(-LIMIT)))
        candidates = indicator("Equal", heights.value, heights.largest())
        first = blocks.tops(mask.of(candidates * order.value))
    chosen = indicator("Equal", first.value, first.largest()) * smaller(
        first.value, builder.value(1.0)
    )
    column = chosen.reshape(-1, blocks.number, 1)
    members = builder.node("MatMul", together, column).reshape(-1, *blocks.grid)
    return mask.of(blocks.spread(Grid(members, blocks.grid)).value * mask.value)


def outside(mask: Grid) -> Grid:
    """What the frame around each mask reaches over edges, not crossing the mask, as a 0/1 mask."""
    builder = mask.value.builder
    rows, columns = mask.size
    wide = (rows + 2, columns + 2)
    shift = np.eye(rows + 2, rows, -1)
    free = Grid(mask.times(shift, np.eye(columns + 2, columns, -1)).value * -1.0 + 1.0, wide)
    corner = np.zeros(wide, np.float32)
    corner[0, 0] = 1
    if builder.emission.loops:
        reached = _flooded(free, free.value * builder.array(corner), 4)
    else:
        blocks = Blocks(wide[0], 4)
        together = _together(free, blocks)
        first = np.zeros((blocks.number, 1), np.float32)
        first[0] = 1
        row = builder.node("MatMul", together, builder.array(first)).reshape(-1, *blocks.grid)
        reached = free.of(blocks.spread(Grid(row, blocks.grid)).value * free.value)
    return reached.times(shift.T, np.eye(columns, columns + 2, 1))


def _together(mask: Grid, blocks: Blocks) -> Value:
    """(N, blocks, blocks): 1 where the foreground of both blocks is in one component, 0 where it
    is not; the rows and columns of blocks without foreground mean nothing or are 0.
    """
    builder = mask.value.builder
    if builder.emission.loops:
        numbers = mask.value * builder.array(raster(mask.size))
        labels = blocks.tops(_flooded(mask, numbers, blocks.connectivity))
        column, row = labels.flat(blocks.number, 1), labels.flat(1, blocks.number)
        return indicator("Equal", column, row)
    if blocks.side > LARGEST + 2:
        raise RuleError(
            f"a region of {mask.size[0]}x{mask.size[1]} pixels needs operators that the runtime "
            f"lacks: choose a size of at most {LARGEST}, or --optimize-for cpu"
        )
    return _closure(_neighbours(mask, blocks), blocks.number)


def _flooded(mask: Grid, seeds: Value, connectivity: int) -> Grid:
    """For every pixel of the mask the largest of the seeds that are connected with it."""
    shape = (1, *mask.size)

    def once(values: Value, inside: Value) -> Value:
        return _widened(values, connectivity) * inside

    def step(values: Value, inside: Value) -> Value:
        for _ in range(STEPS):
            values = once(values, inside)
        return values

    most = -(-mask.size[0] * mask.size[1] // STEPS)
    start, inside = seeds.reshape(-1, *shape), mask.value.reshape(-1, *shape)
    name = str(connectivity)
    last = repeat_until_still(start, inside, step, shape=shape, most=most, name=name)
    return mask.shaped(last)


def _widened(values: Value, connectivity: int) -> Value:
    """The largest value among every pixel and its neighbours."""

    def pooled(rows: int, columns: int) -> Value:
        pads = [rows // 2, columns // 2] * 2
        attributes = {"kernel_shape": [rows, columns], "strides": [1, 1], "pads": pads}
        return values.builder.node("MaxPool", values, attributes=attributes, sign=POSITIVE)

    return pooled(3, 3) if connectivity == 8 else larger(pooled(3, 1), pooled(1, 3))


def _neighbours(mask: Grid, blocks: Blocks) -> Value:
    """(N, blocks, blocks): above 0 where both blocks have foreground pixels that touch, and where
    a block with foreground meets itself.

    The pairs of every direction lie on one diagonal of the matrix. All diagonals are written side
    by side, one column too many in every row, so that cutting the rows anew shears them into place.
    """
    builder = mask.value.builder
    rows, columns = blocks.grid
    number = blocks.number
    below, right = np.eye(rows, rows, 1), np.eye(columns, columns, 1)
    left = right.T
    pixels = {
        (i, j): mask.times(blocks.members(0, i), blocks.members(1, j))
        for i in range(blocks.height)
        for j in range(2)
    }
    stay_row, stay_column = np.eye(rows), np.eye(columns)
    bottom = blocks.height - 1

    def joined(one: Grid, other: Grid) -> Grid:
        return one if one.value.name == other.value.name else one.of(larger(one.value, other.value))

    def met(here: Grid, there: Grid, down: Matrix, across: Matrix) -> Value:
        return here.value * there.times(down, across).value

    lefts, rights = joined(pixels[0, 0], pixels[bottom, 0]), joined(pixels[0, 1], pixels[bottom, 1])
    diagonals = {0: [joined(lefts, rights).value], 1: [met(rights, lefts, stay_row, right)]}
    if blocks.connectivity == 8:
        tops = joined(pixels[0, 0], pixels[0, 1])
        bottoms = joined(pixels[1, 0], pixels[1, 1])
        pairs = [
            (columns, met(bottoms, tops, below, stay_column)),
            (columns + 1, met(pixels[1, 1], pixels[0, 0], below, right)),
            (columns - 1, met(pixels[1, 0], pixels[0, 1], below, left)),
        ]
    else:
        pairs = [(columns, met(pixels[0, j], pixels[0, j], below, stay_column)) for j in range(2)]
    for offset, value in pairs:
        diagonals.setdefault(offset, []).append(value)
    entries = [
        (offset, value)
        for offset, values in diagonals.items()
        for value in values
        if offset < number
    ]
    place = np.zeros((len(entries), number + 1), np.float32)
    for row, (offset, _) in enumerate(entries):
        place[row, offset] = 1
    stacked = builder.concat([value.reshape(-1, number, 1) for _, value in entries], axis=2)
    sheared = builder.node("MatMul", stacked, builder.array(place)).reshape(
        -1, number * (number + 1)
    )
    cut = builder.node(
        "Slice",
        sheared,
        builder.integers((0,)),
        builder.integers((number * number,)),
        builder.integers((1,)),
    ).reshape(-1, number, number)
    return cut + transposed(cut)


def _closure(touching: Value, number: int) -> Value:
    """1 where a path leads from one block to the other: the matrix squared until it spans the
    longest path.
    """
    builder = touching.builder
    reached = smaller(touching, builder.value(1.0))
    for _ in range(max(1, math.ceil(math.log2(max(number - 1, 1))))):
        reached = smaller(builder.node("MatMul", reached, reached), builder.value(1.0))
    return reached
