"""The lattice that fields are read on: where voxels lie in a head, and the nodes of its feature grids around them.

Node i of a level of cell c lies at head index (i + 0.5) c - 0.5. Positions are snapped, so that a voxel's value is the
same, bit for bit, however a grid is cut into tiles.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headsr.volumes import Grid, axis_positions

# Positions are snapped to 2^-16 head voxels. The shift keeps the rounding edges away from all positions that simple
# scale factors give, whose last bits depend on where a tile starts.
_LATTICE = 2.0**16
_SHIFT = 0.5 + 0.0618033988749895
# Of a voxel size and of a place in voxels: beyond, a grid's voxels are no whole part of the head's.
_WHOLE_SIZE, _WHOLE_PLACE = 1e-9, 1e-3
_PRIMES = (1, 2654435761, 805459861)  # of Mueller et al., ACM TOG 41(4), 2022


def positions_in(head: Grid, grid: Grid) -> list[NDArray[np.float64]]:
    """Where a field is read for the voxel centres of ``grid``, in head indices on each axis, snapped to the lattice.

    No farther out than the head's outermost voxel centres: beyond them no fit has seen a field. Raises ValueError when
    the axes are not parallel.
    """
    places = zip(axis_positions(grid, head), head.shape, strict=True)
    return [np.clip(np.floor(p * _LATTICE + _SHIFT) / _LATTICE, 0, n - 1) for p, n in places]


def whole_scales(head: Grid, grid: Grid) -> tuple[int | None, int | None, int | None]:
    """Of how many voxels of ``grid`` every head voxel is made, per axis; None where it is not made of whole ones.

    The same for every block of a grid. Raises ValueError when the axes are not parallel.
    """
    scales = []
    for place, size, whole in zip(axis_positions(grid, head), grid.voxel_size, head.voxel_size, strict=True):
        scale = max(1, round(whole / size))
        first = (place[0] + 0.5) * scale - 0.5
        fits = abs(whole / size / scale - 1) < _WHOLE_SIZE and abs(first - round(first)) < _WHOLE_PLACE
        scales.append(scale if fits else None)
    return tuple(scales)


def boxes(shape: Sequence[int], *, voxels: int, plane: int) -> Iterator[tuple[slice, ...]]:
    """Cut a block into boxes of at most ``voxels`` voxels, ``plane`` of them in y and z, the first one the largest."""
    z = min(shape[2], 64)
    y = min(shape[1], plane // z)
    z = min(shape[2], plane // y)
    x = min(shape[0], voxels // (y * z))
    starts = [range(0, n, size) for n, size in zip(shape, (x, y, z), strict=True)]
    for start in itertools.product(*starts):
        yield tuple(slice(a, min(a + size, n)) for a, size, n in zip(start, (x, y, z), shape, strict=True))


def level_shape(shape: Sequence[int], cell: float) -> tuple[int, ...]:
    """Nodes per axis of the feature grid of one cell size: enough cells to cover the head."""
    return tuple(int(-(-n // cell)) for n in shape)


def linear_nodes(
    positions: NDArray[np.float64], cell: float, nodes: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """The two nodes beside each position (head index) along one axis, and the share of the second."""
    place = np.clip((positions + 0.5) / cell - 0.5, 0, nodes - 1)
    below = np.minimum(place.astype(np.intp), max(nodes - 2, 0))
    return below, np.minimum(below + 1, nodes - 1), (place - below).astype(np.float32)


def touched_nodes(
    positions: NDArray[np.float64], cell: float, nodes: int
) -> tuple[slice | NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """The nodes of an axis that the positions lie between, and ``linear_nodes`` counted among these alone."""
    below, above, share = linear_nodes(positions, cell, nodes)
    first, last = int(below.min()), int(above.max())
    if last - first <= len(below):
        return slice(first, last + 1), below - first, above - first, share
    touched = np.unique(np.concatenate([below, above]))
    return touched, np.searchsorted(touched, below), np.searchsorted(touched, above), share


class Stencil(NamedTuple):
    """Where one level is read on a tile.

    ``nodes``: the nodes that are touched per axis, ascending. ``between``: per axis and voxel the two nodes beside it,
    as places among ``nodes``, and the share of the second.
    """

    nodes: tuple[NDArray[np.intp], ...]
    between: tuple[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]], ...]

    @classmethod
    def of(cls, positions: Sequence[NDArray[np.float64]], cell: float, shape: Sequence[int]) -> Stencil:
        """For a level of ``shape`` nodes at separable positions (head indices)."""
        touched = [touched_nodes(place, cell, n) for place, n in zip(positions, shape, strict=True)]
        nodes = tuple(np.arange(n)[axis[0]] for axis, n in zip(touched, shape, strict=True))
        return cls(nodes, tuple(axis[1:] for axis in touched))

    def hashed(self, size: int) -> list[NDArray[np.int32]]:
        """What each axis' nodes contribute to their place in a table of ``size``, a power of two."""
        hashes = zip(self.nodes, _PRIMES, strict=True)
        return [((nodes * prime) & (size - 1)).astype(np.int32) for nodes, prime in hashes]
