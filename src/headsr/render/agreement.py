"""Whether a finished render says what the scans say: its means over the head's voxels, read back from its store.

At a whole scale they are the projected volume, and A of the render is A of that volume. At any other a voxel lies in
two of the head's, so the means are other numbers: the scans' residuals are measured on them, or said to be unknown.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from headsr.acquisition.profile import profile_matrix
from headsr.acquisition.protocol import read_protocol
from headsr.fields.field import Field
from headsr.fields.lattice import whole_scales
from headsr.render import store as stores
from headsr.render.ahead import Lanes
from headsr.render.plan import PlannedVolume, averaged_at_once, is_whole
from headsr.render.source import in_scan_units
from headsr.render.tiles import Tile
from headsr.volumes import Grid, axis_positions

Scans = Sequence[str | os.PathLike[str]]

_TOUCHES = 1e-6  # of a voxel: a smaller share of it is rounding


def agreement_of(
    field: Field, volume: PlannedVolume, store: Path, *, scans: Scans, workers: int
) -> dict[str, dict[str, Any]]:
    """What a sidecar says of a render whose shards are all there: ``means`` and, where it is its own, ``consistency``.

    ``means`` are the largest differences of its means over the head's voxels from the projected volume, in scan units:
    where all was rendered, and where chunks were left out as air; None where there is no such voxel. ``consistency``
    are the residuals of the low-resolution ``scans`` (their paths) at a scale that is not whole.
    """
    head, grid = field.grid, volume.grids[0]
    planes = means_over(head, volume, store, workers=workers)
    if None not in whole_scales(head, grid):
        return {"means": {"whole_scale": True, **_differences(field, volume, planes)}}
    means = np.zeros(head.shape, np.float32)
    said = _differences(field, volume, _kept(planes, means))
    return {"means": {"whole_scale": False, **said}, "consistency": _consistency(field, grid, means, scans)}


def refuse_other_scans(field: Field, scans: Scans) -> None:
    """Raise ValueError where a low-resolution scan is not of the head that a field was fitted to."""
    for scan in scans:
        said = read_protocol(scan)
        if not said.head.same_as(field.grid) or (said.scale, said.offset) != (field.scale, field.offset):
            raise ValueError(f"{scan}: is not of the head that the field was fitted to: another grid or scale")


def means_over(
    head: Grid, volume: PlannedVolume, store: Path, *, workers: int = 1
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """The means of a stored volume over the head's voxels that it reaches, in scan units: some planes at a time.

    Yields which planes along z, in order, and their means (X, Y, planes), nothing where it does not reach across z. Air
    that was left out counts as what it reads as. Sums have one order, whatever the number of ``workers``.
    """
    array, grid, layout = stores.open_level(store), volume.grids[0], volume.layouts[0]
    size = averaged_at_once(volume)

    def averaged(block: Tile) -> tuple[tuple[slice, ...], NDArray[np.float64]]:
        part = grid.block(block.start, block.shape)
        voxels = _reached(head, part)
        data = volume.storage.decode(array[block.slices[::-1]].T).T  # (z, y, x), as it lies in memory
        for axis, weights in enumerate(reversed(_shares(head, part, voxels))):
            data = _averaged(data, axis, weights)
        return voxels, data.T

    means, first = np.zeros((*head.shape[:2], 0), np.float32), _reached(head, grid)[2].start
    for row in layout.whole.blocks((*layout.shape[:2], size[2])):
        reached = _reached(head, grid.block(row.start, row.shape))[2]
        done = reached.start - first
        yield slice(first, reached.start), means[:, :, :done]
        begun, means = means[:, :, done:], np.zeros((*head.shape[:2], reached.stop - reached.start), np.float32)
        means[:, :, : begun.shape[2]], first = begun, reached.start
        for (x, y, z), sums in Lanes(workers).in_order(averaged, row.blocks(size)):
            means[x, y, z.start - first : z.stop - first] += sums
    yield slice(first, first + means.shape[2]), means


def _reached(head: Grid, block: Grid) -> tuple[slice, ...]:
    """The head's voxels that a block reaches."""
    sizes, voxels = head.voxel_size / block.voxel_size, []
    for centres, size, n in zip(axis_positions(head, block), sizes, block.shape, strict=True):
        inside = np.flatnonzero(np.abs(centres - (n - 1) / 2) < (n + size) / 2 - _TOUCHES * size)
        voxels.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(voxels)


def _shares(head: Grid, block: Grid, voxels: Sequence[slice]) -> list[NDArray[np.float64]]:
    """Per axis, what each of a block's voxels counts for in the means of these voxels of the head."""
    axes = zip(axis_positions(head, block), head.voxel_size / block.voxel_size, block.shape, voxels, strict=True)
    return [profile_matrix(n, centres[part], size, "box") for centres, size, n, part in axes]


def _averaged(data: NDArray, axis: int, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted sums along an axis, product after product: no matrix product, whose order its library chooses."""
    first = np.moveaxis(data, axis, 0)
    sums = sparse.csr_array(weights) @ first.reshape(len(first), -1)
    return np.moveaxis(sums.reshape(-1, *first.shape[1:]), 0, axis)


def _inside(head: Grid, grid: Grid) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of the head's voxels lie in a grid whole: of those across z (X, Y, 1), and along it (Z,)."""
    sizes = head.voxel_size / grid.voxel_size
    x, y, z = (
        np.abs(centres - (n - 1) / 2) < (n - size) / 2 + _TOUCHES * size
        for centres, size, n in zip(axis_positions(head, grid), sizes, grid.shape, strict=True)
    )
    return x[:, None, None] & y[:, None], z


def _left_out(head: Grid, volume: PlannedVolume) -> NDArray[np.bool_]:
    """Which of the head's voxels (X, Y, Z) a chunk of air that was left out reaches."""
    reached, layout = np.zeros(head.shape, bool), volume.layouts[0]
    for block in layout.whole.blocks(layout.chunk):
        if volume.is_empty(0, block):
            reached[_reached(head, volume.grids[0].block(block.start, block.shape))] = True
    return reached


def _kept(
    parts: Iterator[tuple[slice, NDArray[np.float32]]], whole: NDArray[np.float32]
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    for planes, means in parts:
        whole[:, :, planes] = means
        yield planes, means


def _differences(
    field: Field, volume: PlannedVolume, parts: Iterator[tuple[slice, NDArray[np.float32]]]
) -> dict[str, float | None]:
    (across, along), left_out = _inside(field.grid, volume.grids[0]), _left_out(field.grid, volume)
    largest = {"largest_difference": -1.0, "largest_difference_in_air_left_out": -1.0}
    for planes, means in parts:
        difference = np.abs(means - in_scan_units(field, field.projected[:, :, planes].copy()))
        inside, air = across & along[planes], left_out[:, :, planes]
        for name, where in zip(largest, (inside & ~air, inside & air), strict=True):
            largest[name] = float(np.max(difference, where=where, initial=largest[name]))
    return {name: None if value < 0 else value for name, value in largest.items()}


def _consistency(field: Field, grid: Grid, means: NDArray[np.float32], scans: Scans) -> dict[str, Any]:
    """The residuals of the scans, or why there are none: never those of the projected volume, which is another."""
    if not is_whole(grid, field.grid):
        return {"outcome": "not measured", "reason": "a box of the head is not what a scan sees"}
    if not scans:
        return {"outcome": "not measured", "reason": "no whole scale, and rendered without its scans (--scans)"}
    return {"outcome": "measured on this volume", "views": _residuals(field, means, scans)}


def _residuals(field: Field, means: NDArray[np.float32], scans: Scans) -> list[dict[str, Any]]:
    """Of each scan its noise and its rms residual over the head and everywhere, normalised."""
    import torch  # 1 s, which renders at whole scales do without

    from headsr.acquisition.measurement import load_study

    head = torch.from_numpy((means - np.float32(field.offset)) / np.float32(field.scale))
    views = []
    for scan in load_study(scans).scans:
        residual = scan.operator.forward(head) - scan.data
        rms = {"rms": scan.rms(residual), "rms_everywhere": scan.rms_everywhere(residual)}
        views.append({"view": scan.view, "noise": scan.noise, **rms})
    return views
