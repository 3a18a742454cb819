"""Fields that are known functions of position, in a module that other processes can import."""

from __future__ import annotations

import numpy as np

from headsr.volumes import Grid

AFFINE = np.diag([0.5, 0.75, 1.0, 1.0])
AFFINE[:3, 3] = [-10, 4, -7]
RECORD = {"method": "waves", "source_key": "none"}


class Waves:
    """A smooth function of position in mm."""

    scale, offset, arithmetic = 100.0, 5.0, "numpy"

    def __init__(self, shape, fail_at=None):
        self.record = RECORD
        self.grid = Grid(shape, AFFINE)
        self.calls, self.fail_at = 0, fail_at

    def evaluate(self, grid):
        self.calls += 1
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        return self.at(*positions(grid, self.grid))

    def at(self, x, y, z):
        return np.sin(x) + np.cos(y) * z

    def evaluation_bytes(self, shape):
        return 20 * int(np.prod(shape))

    def seconds_per_voxel(self):
        return 1e-8


class Ball(Waves):
    """Waves inside an ellipsoid that fills the box, and nothing around it."""

    def at(self, x, y, z):
        low, high = self.grid.corners.min(0), self.grid.corners.max(0)
        radius = [(2 * p - a - b) / (b - a) for p, a, b in zip((x, y, z), low, high, strict=True)]
        return np.where(sum(r**2 for r in radius) < 0.8, 4 + np.sin(x) * np.cos(y) + 0 * z, 0).astype(np.float32)


def positions(grid, head):
    """Positions in mm along each axis, which do not depend, to the last bit, on where a block starts."""
    steps = grid.voxel_size / head.voxel_size
    first = (grid.affine[:3, 3] - head.affine[:3, 3]) / grid.voxel_size
    axes = []
    for axis, n in enumerate(grid.shape):
        index = np.round((first[axis] + np.arange(n)) * 2**12) / 2**12 * steps[axis]
        axes.append((head.affine[axis, axis] * index + head.affine[axis, 3]).astype(np.float32))
    return np.meshgrid(*axes, indexing="ij", sparse=True)
