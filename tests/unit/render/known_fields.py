"""Fields whose value is known everywhere, to render in tests: a function of position in mm."""

import numpy as np

from headsr.volumes import Grid

AFFINE = np.diag([0.5, 0.75, 1.0, 1.0])
AFFINE[:3, 3] = [-10, 4, -7]


class Waves:
    """Something everywhere: sin(x) + cos(y) sin(z / 3), in scan units times 100 and plus 5."""

    scale, offset, arithmetic = 100.0, 5.0, "numpy"

    def __init__(self, shape, affine=AFFINE):
        self.grid, self.record = Grid(shape, affine), {"method": "waves", "source_key": "none"}

    def evaluate(self, grid):
        # Along the head's axes, so that an oblique grid is as good; a voxel's value is that of its place alone.
        index = np.linalg.inv(self.grid.affine) @ grid.affine
        axes = [np.rint(1024 * (index[i, i] * np.arange(n) + index[i, 3])) / 2048 for i, n in enumerate(grid.shape)]
        x, y, z = (a.astype(np.float32) for a in np.meshgrid(*axes, indexing="ij", sparse=True))
        return self.at(x, y, z).astype(np.float32)

    def at(self, x, y, z):
        return np.sin(x) + np.cos(y) * np.sin(z / 3)

    def evaluation_bytes(self, shape):
        return 5 * 4 * int(np.prod(shape))

    def seconds_per_voxel(self):
        return 1e-8


class Noise(Waves):
    """The worst that there is to compress."""

    def at(self, x, y, z):
        wild = np.sin(12.9898 * x.astype(np.float64) + 78.233 * y + 37.719 * z) * 43758.5453
        return wild - np.floor(wild)

    def evaluation_bytes(self, shape):
        return 4 * 8 * int(np.prod(shape))
