"""One simulated scan: an anatomy in one person's shape, seen by a scanner."""

from __future__ import annotations

from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headsr.seeds import seed_of
from headsr.simulate.imaging import add_rician_noise, bias_field
from headsr.simulate.labelmap import LabelMap
from headsr.simulate.scene import Anatomy, Sampler
from headsr.simulate.warp import Warp, random_warp
from headsr.volumes import Grid, Volume, cell_average

UNITS = 1000.0  # scanner units of a signal of 1
NOISE, BIAS = 0.01, 0.2
_BLOCK_SAMPLES = 6e6  # that are held at a time: some 50 bytes each

Blocks = list[tuple[slice, slice, slice]]


def simulate_head(
    anatomy: Anatomy,
    *,
    suffix: str,
    voxel_mm: float | tuple[float, float, float],
    seed: int,
    lesions: str = "none",
    noise: float = NOISE,
) -> Volume:
    """One scan of one person, in scanner units: voxels of ``voxel_mm`` (one number, or one per axis) over the head.

    ``suffix`` is T1w, T2w, PDw, FLAIR or random, ``seed`` the person, ``lesions`` their degree (none, mild, moderate,
    severe), ``noise`` the Rician noise as part of 1000 units. The bias field is +-20 %. One person at two voxel sizes
    is one head: but for noise, the coarse scan is the average of the fine one.
    """
    grid = anatomy.field_of_view.grid(voxel_mm)
    rng = np.random.default_rng(seed_of("scan", seed, suffix))
    fine = samples_per_voxel(anatomy, grid)
    look = anatomy.imaged(suffix, seed=seed, lesions=lesions, rng=rng, spacing_mm=grid.voxel_size / fine)
    signal = averaged(look, head_warp(anatomy, seed=seed), grid, fine)
    signal = signal * bias_field(grid.shape, strength=BIAS, rng=rng)
    return Volume(UNITS * add_rician_noise(signal, sigma=noise, rng=rng), grid)


class Truth(NamedTuple):
    """What is known of a simulated scan, on its grid: the table's labels, and the mask (uint8) of its lesions."""

    labels: Volume
    lesions: Volume


def head_truth(
    anatomy: LabelMap, *, voxel_mm: float | tuple[float, float, float], seed: int, lesions: str = "none"
) -> Truth:
    """The truth of the scans that ``simulate_head`` makes of the same arguments.

    A voxel has the label of its centre; it is lesion where lesions fill half of it or more.
    """
    grid, warp = anatomy.field_of_view.grid(voxel_mm), head_warp(anatomy, seed=seed)
    fine = samples_per_voxel(anatomy, grid)
    spacing = grid.voxel_size / fine
    labels = averaged(anatomy.labelled(spacing), warp, grid, np.ones(3, dtype=int), blocks=_blocks(grid.shape, fine))
    part = averaged(anatomy.lesioned(seed=seed, degree=lesions, spacing_mm=spacing), warp, grid, fine)
    return Truth(Volume(labels.astype(np.int32), grid), Volume((part >= 0.5).astype(np.uint8), grid))


def head_warp(anatomy: Anatomy, *, seed: int) -> Warp:
    """The shape of the person that ``seed`` stands for; the same for every scan of that person."""
    rng = np.random.default_rng(seed_of("head", seed))
    return random_warp(anatomy.field_of_view.grid(1.0), scales_mm=anatomy.scales_mm, rng=rng)


def samples_per_voxel(anatomy: Anatomy, grid: Grid) -> NDArray[np.intp]:
    """How many samples along each axis make a voxel: two, and more where they would be too far apart."""
    return np.maximum(2, np.ceil(grid.voxel_size / anatomy.sample_mm - 1e-6)).astype(int)


def averaged(
    sampler: Sampler, warp: Warp, grid: Grid, fine: NDArray[np.intp], *, blocks: Blocks | None = None
) -> NDArray[np.float32]:
    """What an anatomy's sampler gives in a person's scan, averaged over voxel cells (X, Y, Z), block by block.

    ``blocks`` tile the scan; a sampler that works finer than ``fine`` needs smaller ones.
    """
    image = np.empty(grid.shape, dtype=np.float32)
    for box in blocks or _blocks(grid.shape, fine):
        shape = tuple(s.stop - s.start for s in box)
        block = grid.block(tuple(s.start for s in box), shape)
        positions = warp.positions(block.resized(tuple(shape * fine)))
        image[box] = cell_average(sampler(positions), shape)
    return image


def _blocks(shape: tuple[int, int, int], fine: NDArray[np.intp]) -> Blocks:
    """Boxes of voxels that tile a volume, near to cubes of samples, none with more than _BLOCK_SAMPLES."""
    if np.prod(shape * fine) <= _BLOCK_SAMPLES:
        return [tuple(slice(0, n) for n in shape)]
    edge = np.maximum(1, int(_BLOCK_SAMPLES ** (1 / 3)) // fine)
    cuts = [np.linspace(0, n, int(np.ceil(n / size)) + 1).astype(int) for n, size in zip(shape, edge, strict=True)]
    return list(product(*([slice(a, b) for a, b in pairwise(cut)] for cut in cuts)))
