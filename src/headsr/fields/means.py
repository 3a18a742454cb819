"""Means over a head's voxels, and how to change them smoothly: what makes a render of any size the same measurement.

A head voxel is rendered as s x s x s voxels, s whole. Their mean is D; ``interpolated`` is a U with D U = I, so it
gives voxels back as the means of a smooth function. Both are separable and local, and sum element-wise in one order: a
voxel's value is the same, bit for bit, however a grid is cut into tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

REACH = 2  # how many head voxels on either side the interpolation within one depends on


class Places(NamedTuple):
    """Where positions lie along one axis of a head: in which voxel, and where in it, from -0.5 to 0.5.

    ``scale`` is how many positions each voxel has, at equal distances; None where they are no whole number.
    """

    voxel: NDArray[np.intp]
    within: NDArray[np.float64]
    scale: int | None

    def part(self, rows: slice) -> Places:
        """Some of them."""
        return Places(self.voxel[rows], self.within[rows], self.scale)


def places_within(voxels: slice, scale: int) -> Places:
    """All positions in these voxels of the head."""
    voxel = np.arange(voxels.start, voxels.stop)
    return Places(np.repeat(voxel, scale), np.tile(_within(scale), len(voxel)), scale)


def places_at(positions: NDArray[np.float64], scale: int | None) -> Places:
    """These positions (head indices)."""
    voxel = np.floor(positions + 0.5).astype(np.intp)
    return Places(voxel, positions - voxel, scale)


def interpolated(voxels: NDArray[np.float32], places: Sequence[Places]) -> NDArray[np.float32]:
    """A smooth function whose mean over every voxel is the voxel, at separable places: (X, Y, Z) float32.

    Along each axis a parabola per voxel. Neighbours meet at (7 (b + c) - (a + d)) / 12, where a, b | c, d lie around
    the face between them (Colella and Woodward, J. Comput. Phys. 54, 1984, eq. 1.9, without their limits): continuous,
    and of fourth order. Beyond the outermost voxels these go on.
    """
    data = voxels[np.ix_(*(_around(along, n) for along, n in zip(places, voxels.shape, strict=True)))]
    for axis in (2, 1, 0):
        data = _parabolas(data, axis, places[axis])
    return data


def block_means(values: NDArray[np.float32], scales: Sequence[int]) -> NDArray[np.float64]:
    """Means over blocks of so many voxels: D. (X, Y, Z), contiguous -> (X / s, Y / s, Z / s)."""
    total = values
    for axis, scale in enumerate(scales):
        parts = total.reshape(*total.shape[:axis], -1, scale, *total.shape[axis + 1 :])
        total = parts.take(0, axis + 1).astype(np.float64)
        for k in range(1, scale):
            total += parts[(slice(None),) * (axis + 1) + (k,)]
        total /= scale
    return total


def set_means(values: NDArray[np.float32], means: NDArray[np.float32], scales: Sequence[int], *, signed: bool) -> None:
    """Let ``values`` (X, Y, Z; contiguous) have these means over blocks of ``scales`` voxels, in place.

    What a mean lacks is spread as a bump that is nothing on the block's faces. Without ``signed``, values below zero
    become zero and the rest of their block is scaled to the mean; no mean is below zero then.
    """
    lacking = (means - block_means(values, scales)).astype(np.float32)
    values += _spread(lacking, [_bump(scale) for scale in scales])
    if not signed:
        np.maximum(values, 0, out=values)
        above = block_means(values, scales)
        share = np.divide(np.maximum(means, 0), above, out=np.zeros_like(above), where=above > 0)
        values *= _spread(share.astype(np.float32), [np.ones(scale, np.float32) for scale in scales])


def _around(along: Places, voxels: int) -> NDArray[np.intp]:
    """The voxels that the interpolation at these places depends on; the outermost ones again for those beyond."""
    first, last = int(along.voxel.min()), int(along.voxel.max())
    return np.clip(np.arange(first - REACH, last + REACH + 1), 0, voxels - 1)


def _parabolas(data: NDArray[np.float32], axis: int, along: Places) -> NDArray[np.float32]:
    """``data`` with REACH more voxels at both ends of an axis -> the parabolas' values at the places along it."""

    def part(start: int, stop: int | None) -> NDArray[np.float32]:
        return data[(slice(None),) * axis + (slice(start, stop or None),)]

    def at_places(array: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.take(array, along.voxel - along.voxel.min(), axis=axis)

    faces = (np.float32(7) * (part(1, -2) + part(2, -1)) - (part(0, -3) + part(3, 0))) / np.float32(12)
    low, high = (faces[(slice(None),) * axis + (side,)] for side in (slice(None, -1), slice(1, None)))
    centre = part(REACH, -REACH)
    slope, bend = (_along(weight, axis) for weight in _weights(along))
    values = at_places(high - low)
    values *= slope
    bent = at_places(np.float32(0.5) * (low + high) - centre)
    bent *= bend
    values += bent
    values += at_places(centre)
    return values


def _weights(along: Places) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What the rise over a voxel, and the mean of its two faces beyond its own, count for at each place.

    Both have the mean 0 over a voxel's places, and 1/2 and 1 on its upper face.
    """
    bend = (along.within**2 - _moment(along.scale)) / (0.25 - _moment(along.scale))
    return along.within.astype(np.float32), bend.astype(np.float32)


def _within(scale: int) -> NDArray[np.float64]:
    return (np.arange(scale) + 0.5) / scale - 0.5


def _moment(scale: int | None) -> float:
    """The mean square distance from a voxel's centre: of its places, or of all that is in it."""
    return (1 if scale is None else 1 - scale**-2) / 12


def _bump(scale: int) -> NDArray[np.float32]:
    """A parabola at a voxel's places: of mean 1, and nothing on its faces."""
    return ((1 - 4 * _within(scale) ** 2) / (1 - 4 * _moment(scale))).astype(np.float32)


def _spread(voxels: NDArray[np.float32], shapes: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Every voxel times a separable shape on its places."""
    for axis in (2, 1, 0):
        count = voxels.shape[axis]
        voxels = np.repeat(voxels, len(shapes[axis]), axis=axis)
        voxels *= _along(np.tile(shapes[axis], count), axis)
    return voxels


def _along(weights: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    return weights.reshape([-1 if i == axis else 1 for i in range(3)])
