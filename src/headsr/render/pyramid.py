"""The pyramid of a volume: each level is the 2 x 2 x 2 mean of the one below, down to 64 voxels a side.

Levels are averages, never samples: a field sampled coarsely would alias. Voxels are cells, so a level's first centre
lies half a fine voxel further inside (``Grid.thick``). A size that is odd is rounded up, and the last cell is the mean
of what lies inside.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from headsr.render.tiles import Tile, Triple
from headsr.volumes import Grid

SMALLEST = 64  # voxels a side of the coarsest level, at most
_PLANES = 32  # averaged at once: of a whole chunk, intensities and their means take more than evaluating one does
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


def below(block: Tile, shape: Triple) -> Tile:
    """The box of the level below (of ``shape``) that a block of a level is the mean of."""
    # An axis of one voxel is not halved, and then both levels have that one voxel.
    start = tuple(2 * a for a in block.start)
    stop = tuple(min(2 * b, n) for b, n in zip(block.stop, shape, strict=True))
    return Tile(start, tuple(b - a for a, b in zip(start, stop, strict=True)))


def mean_of_below(
    block: Tile, shape: Triple, piece: Triple, read: Callable[[Tile], NDArray], decode: Callable[[NDArray], NDArray]
) -> NDArray[np.float32]:
    """One block (X, Y, Z) of a level from the level below (of ``shape``), a ``piece`` at a time.

    ``read`` gives a piece as it is stored, ``decode`` makes intensities (float32) of some of its planes. ``piece`` is
    even along every axis that is longer, so that no mean is of voxels of two pieces.
    """
    source = below(block, shape)
    data = np.empty(block.shape, np.float32, order="F")
    for part in source.blocks(piece):
        # An axis of one voxel starts at 0, so that halving its start is right as well.
        start = tuple((a - o) // 2 for a, o in zip(part.start, source.start, strict=True))
        _halve_into(data, start, read(part), decode)
    return data


def _halve_into(
    data: NDArray[np.float32], start: Triple, stored: NDArray, decode: Callable[[NDArray], NDArray]
) -> None:
    x, y, z = start
    for plane in range(0, stored.shape[2], _PLANES):
        mean = halve(decode(stored[:, :, plane : plane + _PLANES]))
        data[Tile((x, y, z + plane // 2), mean.shape).slices] = mean


def _halved(grid: Grid) -> Grid:
    for axis in range(3):
        if grid.shape[axis] > 1:
            grid = grid.thick(axis, 2)
    return grid
