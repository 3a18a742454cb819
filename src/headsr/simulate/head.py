"""One simulated scan: an anatomy in one person's shape, seen by a scanner."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from headsr.seeds import seed_of
from headsr.simulate.anatomy import Anatomy
from headsr.simulate.imaging import add_rician_noise, bias_field, tissue_signal
from headsr.simulate.warp import Warp, random_warp
from headsr.volumes import Grid, Volume, cell_average

# The field of view in mm around the head: at 2.5 mm it is 80 x 92 x 76 voxels.
_CENTRE_MM, _SIZE_MM = (0.0, -17.0, 8.0), (200.0, 230.0, 190.0)
_FINEST_MM = 1.0  # the template has no finer detail
UNITS = 1000.0  # scanner units of a signal of 1
NOISE, BIAS = 0.01, 0.2


def scan_grid(voxel_mm: float) -> Grid:
    """The scanner's grid: cubic voxels of exactly ``voxel_mm`` over the field of view."""
    shape = tuple(int(np.ceil(size / voxel_mm - 1e-6)) for size in _SIZE_MM)
    affine = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    affine[:3, 3] = np.array(_CENTRE_MM) - voxel_mm * (np.array(shape) - 1) / 2
    return Grid(shape, affine)


def head_warp(grid: Grid, *, seed: int) -> Warp:
    """The shape of the person that ``seed`` stands for; the same for every scan of that person."""
    return random_warp(grid, rng=np.random.default_rng(seed_of("head", seed)))


def warped(image: NDArray, anatomy: Anatomy, warp: Warp, grid: Grid) -> NDArray[np.float32]:
    """An image of the anatomy as it lies in a person's scan: sampled up to twice finer, averaged over voxel cells."""
    fine = 2 if grid.voxel_size.min() >= 1.5 * _FINEST_MM else 1
    target = grid.resized(tuple(fine * n for n in grid.shape))
    index = warp.positions(target) - anatomy.grid.affine[:3, 3].astype(np.float32)[:, None, None, None]
    sampled = ndimage.map_coordinates(image.astype(np.float32, copy=False), index, order=1, mode="nearest")
    return cell_average(sampled, grid.shape)


def simulate_head(anatomy: Anatomy, *, suffix: str, voxel_mm: float, seed: int) -> Volume:
    """One scan (T1w or T2w) of one person, in scanner units, with a bias field of +-20 % and 1 % Rician noise."""
    grid = scan_grid(voxel_mm)
    rng = np.random.default_rng(seed_of("scan", seed, suffix))
    signal = warped(tissue_signal(anatomy, suffix=suffix, rng=rng), anatomy, head_warp(grid, seed=seed), grid)
    signal = signal * bias_field(grid.shape, strength=BIAS, rng=rng)
    return Volume(UNITS * add_rician_noise(signal, sigma=NOISE, rng=rng), grid)
