import numpy as np
import pytest

from headsr.volumes import Grid, Volume


def ellipsoid(points, centre, radii):
    return (((points - np.array(centre)) / np.array(radii)) ** 2).sum(axis=-1) < 1


def head_at(points):
    """A head of ellipsoids at mm points (..., 3), another on every side: scalp, dark bone, brain, ventricles."""
    signal = np.zeros(points.shape[:-1], dtype=np.float32)
    parts = [
        ((0, 0, 0), (78, 96, 84), 1.0),
        ((0, 0, 0), (72, 90, 78), 0.05),
        ((0, 0, 2), (64, 82, 70), 0.6),
        ((-26, 30, 16), (22, 26, 30), 0.9),
        ((30, -34, 24), (18, 28, 20), 0.85),
        ((14, 6, -30), (26, 44, 12), 0.8),
        ((10, 8, 8), (8, 26, 9), 0.2),
    ]
    for centre, radii, value in parts:
        signal[ellipsoid(points, centre, radii)] = value
    return signal


def points_of(grid):
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
    return index @ grid.affine[:3, :3].T + grid.affine[:3, 3]


@pytest.fixture(scope="package")
def make_head():
    """A function that images the ellipsoid head on a grid of given voxels, moved by a 4 x 4 matrix (mm, RAS+)."""

    def make(size=(4.0, 4.0, 4.0), to_scan=None, noise=0.01, origin=(-90.0, -110.0, -98.0), box=(180.0, 220.0, 196.0)):
        affine = np.diag([*size, 1.0])
        affine[:3, 3] = np.array(origin) + np.array(size) / 2
        grid = Grid(tuple(round(b / s) for b, s in zip(box, size, strict=True)), affine)
        back = np.linalg.inv(np.eye(4) if to_scan is None else to_scan)
        signal = head_at(points_of(grid) @ back[:3, :3].T + back[:3, 3])
        rng = np.random.default_rng(0)
        return Volume((signal + noise * np.abs(rng.standard_normal(grid.shape))).astype(np.float32), grid)

    return make


@pytest.fixture(scope="package")
def brain_alone():
    """A function that strips a head which make_head imaged: what is left is what lies inside the bone."""

    def strip(head, to_scan=None, left_mm=(64.0, 82.0, 70.0)):
        back = np.linalg.inv(np.eye(4) if to_scan is None else to_scan)
        points = points_of(head.grid) @ back[:3, :3].T + back[:3, 3]
        return Volume(head.data * ellipsoid(points, (0, 0, 2), left_mm), head.grid)

    return strip
