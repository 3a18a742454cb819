"""The pyramid of a volume: each level is the 2 x 2 x 2 mean of the one below, down to 64 voxels a side.

Levels are averages, never samples: a field sampled coarsely would alias. Voxels are cells, so a level's first centre
lies half a fine voxel further inside (``Grid.thick``). A size that is odd is rounded up, and the last cell is the mean
of what lies inside.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headsr.render.tiles import Layout, Tile
from headsr.volumes import Grid

SMALLEST = 64  # voxels a side of the coarsest level, at most
PREVIEW = 512  # voxels a side of the NIfTI preview, at most


def level_grids(grid: Grid) -> list[Grid]:
    """The grid of every level, the finest first, until no side is longer than 64 voxels."""
    levels = [grid]
    while max(levels[-1].shape) > SMALLEST:
        levels.append(_halved(levels[-1]))
    return levels


def preview_level(grids: list[Grid]) -> int:
    """The first level that is at most 512 voxels a side: what the NIfTI preview holds."""
    return next(i for i, grid in enumerate(grids) if max(grid.shape) <= PREVIEW)


def halve(data: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over 2 x 2 x 2 voxels (X, Y, Z) -> (ceil(X/2), ceil(Y/2), ceil(Z/2)); an axis of one voxel stays."""
    for axis in range(3):
        if data.shape[axis] > 1:
            pairs = np.moveaxis(data, axis, 0)
            mean = pairs[0::2].astype(np.float32)
            odd = pairs[1::2]
            mean[: len(odd)] += odd
            mean[: len(odd)] *= np.float32(0.5)
            data = np.moveaxis(mean, 0, axis)
    return data


def below(block: Tile, shape: tuple[int, int, int]) -> Tile:
    """The box of the level below (of ``shape``) that a block of a level is the mean of."""
    # An axis of one voxel is not halved, and then both levels have that one voxel.
    start = tuple(2 * a for a in block.start)
    stop = tuple(min(2 * b, n) for b, n in zip(block.stop, shape, strict=True))
    return Tile(start, tuple(b - a for a, b in zip(start, stop, strict=True)))


def tile_of_level(finer: object, tile: Tile, layout: Layout) -> NDArray[np.float32]:
    """One tile of a level, from the array of the level below, chunk by chunk: a tile and eight chunks in memory.

    ``finer`` is an array on disk in the order (z, y, x). Returns (x, y, z) float32.
    """
    data = np.empty(tile.shape, np.float32, order="F")
    shape = finer.shape[::-1]
    for block in tile.blocks(layout.chunk):
        source = below(block, shape)
        inside = tuple(slice(a - o, b - o) for a, b, o in zip(block.start, block.stop, tile.start, strict=True))
        data[inside] = halve(finer[source.slices[::-1]].T)
    return data


def _halved(grid: Grid) -> Grid:
    for axis in range(3):
        if grid.shape[axis] > 1:
            grid = grid.thick(axis, 2)
    return grid
