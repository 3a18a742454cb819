"""Fields whose value is known everywhere, to render in tests; in a module that other processes can import."""

import numpy as np

from headsr.volumes import SCANNER, Grid

AFFINE = np.diag([0.5, 0.75, 1.0, 1.0])
AFFINE[:3, 3] = [-10, 4, -7]
RECORD = {"method": "waves", "source_key": "none"}


class Waves:
    """Something everywhere: sin(x) + cos(y) sin(z / 3), in scan units times 100 and plus 5.

    x, y and z are mm from the first voxel along the head's axes. ``calls`` counts the evaluations; the one of the
    number ``fail_at`` is interrupted.
    """

    scale, offset, signed, arithmetic, forms = 100.0, 5.0, True, "numpy", SCANNER

    def __init__(self, shape, affine=AFFINE, *, fail_at=None):
        self.grid, self.record = Grid(shape, affine), RECORD
        self.calls, self.fail_at = 0, fail_at

    def evaluate(self, grid):
        self.calls += 1
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        return self.at(*distances(self.grid, grid)).astype(np.float32)

    def at(self, x, y, z):
        return np.sin(x) + np.cos(y) * np.sin(z / 3)

    @property
    def projected(self):
        """What a voxel's mean would be if it were its value."""
        return self.at(*distances(self.grid, self.grid)).astype(np.float32)

    def evaluation_bytes(self, grid):
        return 5 * 4 * int(np.prod(grid.shape))

    def seconds_per_voxel(self, grid):
        return 1e-8


class Ball(Waves):
    """Waves inside an ellipsoid that fills the box, and nothing around it."""

    def at(self, x, y, z):
        sizes = self.grid.voxel_size * self.grid.shape
        radius = [(2 * p + one) / size - 1 for p, one, size in zip((x, y, z), self.grid.voxel_size, sizes, strict=True)]
        return np.where(sum(r**2 for r in radius) < 0.8, 4 + np.sin(x) * np.cos(y) + 0 * z, 0)


class Noise(Waves):
    """The worst that there is to compress."""

    def at(self, x, y, z):
        wild = np.sin(12.9898 * x.astype(np.float64) + 78.233 * y + 37.719 * z) * 43758.5453
        return wild - np.floor(wild)

    def evaluation_bytes(self, grid):
        return 4 * 8 * int(np.prod(grid.shape))


def distances(head, grid):
    """Distances (mm) from the head's first voxel along each of its axes, to the last bit wherever a block starts."""
    index = np.linalg.inv(head.affine) @ grid.affine
    axes = []
    for axis, n in enumerate(grid.shape):
        step = index[axis, axis]
        first = np.rint(index[axis, 3] / step * 2**12) / 2**12
        axes.append((head.voxel_size[axis] * step * (first + np.arange(n))).astype(np.float32))
    return np.meshgrid(*axes, indexing="ij", sparse=True)
