"""A field that agrees with the scans at every whole scale: the mean over a head voxel is its projected value.

    g = network + U carried,   rendered = g + B (projected - D g)

D is the mean over the s x s x s voxels that a head voxel is rendered as, U an interpolation that keeps means and B a
bump within the voxel (``headsr.fields.means``). ``carried`` is what the network's own means lack; they are taken once,
over 2 x 2 x 2 voxels, so that U needs no value of the network in neighbouring voxels. What they miss at other scales is
little, and B adds it. So A of a render is A of the projected volume, and a tile needs the network in its own head
voxels alone. At scale 1 the render is the projected volume itself.

On a grid of which no whole number of voxels fits into a head voxel there is no D: g it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headsr.fields.lattice import positions_in, whole_scales
from headsr.fields.means import REACH, block_means, interpolated, places_at, places_within, set_means
from headsr.volumes import SCANNER, Forms, Grid, axis_positions

_SAMPLED = (2, 2, 2)  # voxels of a head voxel over which the network's means are taken once
_SLAB = 2**18  # voxels whose means are set at once: they stay in the processor's cache
_SLABS_HELD = 12  # arrays of a slab at once, at most
# Seconds of a core for each voxel, beside the network: measured at scales 2 and 3.
_COPYING, _CORRECTING = 3e-9, 2e-8


class Network(Protocol):
    """A continuous function on the head's ``grid``; dense grids, sines and hash grids are such."""

    grid: Grid
    arithmetic: str
    tensors: dict[str, NDArray[np.float32]]
    description: dict[str, Any]

    def evaluate(self, grid: Grid) -> NDArray[np.float32]:
        """Values (X, Y, Z) at the voxel centres of a grid; a voxel's do not depend on the others."""
        ...

    def evaluation_bytes(self, shape: tuple[int, int, int]) -> int:
        """Memory that evaluating a block of this shape takes beside the network, at most."""
        ...

    def seconds_per_voxel(self) -> float:
        """About how long one voxel takes on one core."""
        ...


@dataclass(frozen=True, eq=False)
class ConsistentField:
    """Normalised intensities on the ``grid`` of its network; times ``scale`` plus ``offset`` they are in scan units.

    ``projected`` and ``carried`` are (X, Y, Z), float32. Without ``signed`` intensities are magnitudes, never below
    zero. ``record`` is plain JSON, ``forms`` what headers say that its places are in.
    """

    network: Network
    projected: NDArray[np.float32]
    carried: NDArray[np.float32]
    scale: float
    offset: float
    signed: bool = False
    record: dict[str, Any] = field(default_factory=dict)
    forms: Forms = SCANNER

    def __post_init__(self) -> None:
        for name, array in {"projected": self.projected, "carried": self.carried}.items():
            if array.shape != self.grid.shape or array.dtype != np.float32:
                raise ValueError(f"{name} voxels are {self.grid.shape}, float32, not {array.shape}, {array.dtype}")

    @classmethod
    def of(
        cls, network: Network, projected: NDArray[np.float32], *, scale: float, offset: float, signed: bool
    ) -> ConsistentField:
        """The field whose means over the head's voxels are ``projected``, and whose shape within them the network's."""
        return cls(network, projected, projected - _means_of(network), scale, offset, signed)

    @property
    def grid(self) -> Grid:
        """The head's."""
        return self.network.grid

    @property
    def arithmetic(self) -> str:
        """What the bits of a value follow from beside the field itself."""
        return self.network.arithmetic

    @property
    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """What a file keeps, by name."""
        return {"projected": self.projected, "carried": self.carried, **self.network.tensors}

    def evaluate(self, grid: Grid) -> NDArray[np.float32]:
        """Normalised intensities (X, Y, Z) at the voxel centres of ``grid``, any block of any size of voxel.

        The axes of ``grid`` must be parallel to the head's (ValueError). Outside the head's box the field continues
        with its value at the nearest voxel inside.
        """
        scales = whole_scales(self.grid, grid)
        if None in scales:
            return self._points(grid, scales)
        fine = list(_fine_voxels(self.grid, grid, scales))
        cells = [slice(along.min() // s, along.max() // s + 1) for along, s in zip(fine, scales, strict=True)]
        values = self.projected[tuple(cells)] if scales == (1, 1, 1) else self._whole(cells, scales)
        return values[np.ix_(*(along - cell.start * s for along, cell, s in zip(fine, cells, scales, strict=True)))]

    def evaluation_bytes(self, grid: Grid) -> int:
        """The most memory in bytes that evaluating a block as large as ``grid`` takes in a thread, beside the field."""
        scales = whole_scales(self.grid, grid)
        if scales == (1, 1, 1):
            return 8 * math.prod(grid.shape)
        shape = _with_whole_voxels(self.grid, grid, scales)
        # A slab is at least the planes of one head voxel with those around it, and of points all of the head's across.
        planes = (scales[0] or 1) + 2 * REACH
        across = shape[1] * shape[2] if None not in scales else math.prod(n + 2 * REACH for n in self.grid.shape[1:])
        slab = min(max(_SLAB, planes * max(across, shape[1] * shape[2])), 2 * math.prod(shape) + planes * across)
        after = max(4 * _SLABS_HELD * slab, 4 * math.prod(grid.shape))
        return max(self.network.evaluation_bytes(shape), 4 * math.prod(shape) + after)

    def seconds_per_voxel(self, grid: Grid) -> float:
        """About how long one core takes for a voxel of a block as large as ``grid``."""
        scales = whole_scales(self.grid, grid)
        if scales == (1, 1, 1):
            return _COPYING
        larger = math.prod(_with_whole_voxels(self.grid, grid, scales)) / math.prod(grid.shape)
        return larger * (self.network.seconds_per_voxel() + _CORRECTING)

    def _whole(self, cells: Sequence[slice], scales: tuple[int, int, int]) -> NDArray[np.float32]:
        """All voxels that these head voxels are rendered as."""
        values = self.network.evaluate(_rendered(self.grid, cells, scales))
        planes = values.reshape(-1, scales[0], *values.shape[1:])
        across = [places_within(cell, scale) for cell, scale in zip(cells[1:], scales[1:], strict=True)]
        for slab in _cut(cells[0], max(1, _SLAB // planes[0].size)):
            part = planes[slab.start - cells[0].start : slab.stop - cells[0].start].reshape(-1, *values.shape[1:])
            part += interpolated(self.carried, [places_within(slab, scales[0]), *across])
            set_means(part, self.projected[slab, *cells[1:]], scales, signed=self.signed)
        return values

    def _points(self, grid: Grid, scales: Sequence[int | None]) -> NDArray[np.float32]:
        """The field at single points, with no mean to keep."""
        along, *across = (places_at(p, s) for p, s in zip(positions_in(self.grid, grid), scales, strict=True))
        values = self.network.evaluate(grid)
        # What interpolating a row takes: its voxels, or the head's around it.
        around = [int(np.ptp(places.voxel)) + 2 * REACH + 1 for places in (along, *across)]
        row = max(values[0].size, math.prod(around) // len(values))
        for rows in _cut(slice(0, len(values)), max(1, _SLAB // row)):
            values[rows] += interpolated(self.carried, [along.part(rows), *across])
        return values if self.signed else np.maximum(values, 0, out=values)


def _means_of(network: Network) -> NDArray[np.float32]:
    """The network's means over the head's voxels, (X, Y, Z)."""
    x, y, z = network.grid.shape
    means = np.empty((x, y, z), np.float32)
    for slab in _cut(slice(0, x), max(1, _SLAB // (y * z))):
        finer = _rendered(network.grid, (slab, slice(0, y), slice(0, z)), _SAMPLED)
        means[slab] = block_means(network.evaluate(finer), _SAMPLED)
    return means


def _cut(whole: slice, size: int) -> Iterator[slice]:
    for first in range(whole.start, whole.stop, size):
        yield slice(first, min(first + size, whole.stop))


def _rendered(head: Grid, cells: Sequence[slice], scales: Sequence[int]) -> Grid:
    """The voxels that some of the head's voxels are rendered as."""
    finer = head.resized(tuple(n * s for n, s in zip(head.shape, scales, strict=True)))
    start = tuple(c.start * s for c, s in zip(cells, scales, strict=True))
    return finer.block(start, tuple((c.stop - c.start) * s for c, s in zip(cells, scales, strict=True)))


def _fine_voxels(head: Grid, grid: Grid, scales: Sequence[int]) -> Iterator[NDArray[np.intp]]:
    """Per axis, which of all voxels that the head is rendered as are those of ``grid``; outside, the nearest ones."""
    for place, n, scale in zip(axis_positions(grid, head), head.shape, scales, strict=True):
        yield np.clip(np.rint((place + 0.5) * scale - 0.5).astype(np.intp), 0, n * scale - 1)


def _with_whole_voxels(head: Grid, grid: Grid, scales: Sequence[int | None]) -> tuple[int, int, int]:
    """The most that is evaluated for a block as large as ``grid``, wherever in the head it lies."""
    if None in scales:
        return grid.shape
    first = [along.min() for along in _fine_voxels(head, grid, scales)]
    # Blocks of one grid follow each other: where one has whole head voxels alone, all do.
    whole = [n + (0 if n % s == a % s == 0 else 2 * (s - 1)) for n, s, a in zip(grid.shape, scales, first, strict=True)]
    return tuple(min(w, n * s) for w, n, s in zip(whole, head.shape, scales, strict=True))
