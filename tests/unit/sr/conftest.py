import json

import numpy as np
import pytest
from scipy import ndimage

from headsr.volumes import Grid, save_volume

SPACING = 4.0


def head(shape, size):
    """A head of 200 to 900 units with a skull that is dark and some detail, in air of noise, as slices average it."""
    across = int(np.argmax(size))
    thin = round(size[across])
    fine = [n * thin if axis == across else n for axis, n in enumerate(shape)]
    steps = [1.0 if axis == across else s for axis, s in enumerate(size)]
    x, y, z = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * s for n, s in zip(fine, steps, strict=True)], indexing="ij")
    radius = np.sqrt((x / 0.9) ** 2 + y**2 + (z / 0.95) ** 2)
    data = np.where(radius < 18, 600 + 150 * np.sin(x / 3) * np.sin(y / 4 + 1) * np.sin(z / 5 + 2), 0.0)
    for place, level in (((5, -6, 3), 250), ((-7, 4, -5), 850), ((2, 9, 8), 300)):
        data[(x - place[0]) ** 2 + (y - place[1]) ** 2 + (z - place[2]) ** 2 < 20] = level
    data[(radius > 20) & (radius < 22)] = 900
    data = ndimage.gaussian_filter(data, 0.5)
    split = [*shape[:across], shape[across], thin, *shape[across + 1 :]]
    data = data.reshape(split).mean(across + 1)
    noise = np.random.default_rng(0).normal(0, 8, (2, *shape))
    return np.hypot(data + noise[0], noise[1]).astype(np.float32)


@pytest.fixture
def scan(tmp_path):
    """Write a scan of thick slices, with a sidecar where ``metadata`` is one; returns its path."""

    def write(
        name="sub-01_T1w.nii.gz", *, shape=(48, 50, 12), size=(1, 1, SPACING), axes="RAS", metadata=None, data=None
    ):
        affine = np.diag([*size, 1.0])
        affine[:3, 3] = (1 - np.array(shape)) * size / 2 + [3.0, -2.0, 5.0]
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = head(shape, size) if data is None else data
        save_volume(path, data, Grid(shape, affine), axes=axes)
        if metadata is not None:
            path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json").write_text(
                json.dumps(metadata)
            )
        return path

    return write
