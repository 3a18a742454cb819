import json
import shutil
from functools import partial

import numpy as np
import pytest
from scipy import ndimage

from headsr import cli
from headsr.files import sidecar_of
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


def write(
    folder, name="sub-01_T1w.nii.gz", *, shape=(48, 50, 12), size=(1, 1, SPACING), axes="RAS", metadata=None, data=None
):
    affine = np.diag([*size, 1.0])
    affine[:3, 3] = (1 - np.array(shape)) * size / 2 + [3.0, -2.0, 5.0]
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    save_volume(path, head(shape, size) if data is None else data, Grid(shape, affine), axes=axes)
    if metadata is not None:
        sidecar_of(path).write_text(json.dumps(metadata))
    return path


@pytest.fixture
def scan(tmp_path):
    """Write a scan of thick slices, with a sidecar where ``metadata`` is one; returns its path."""
    return partial(write, tmp_path)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    write(folder, "bids/sub-01/anat/sub-01_T1w.nii.gz", metadata={"SliceThickness": 4.0})
    assert cli.main(["sr", str(folder / "bids"), str(folder / "out"), "--method", "spline"]) == 0
    return folder


@pytest.fixture
def made(made_once, tmp_path):
    """A folder of derivatives of one scan, by spline, in ``out`` beside ``bids``."""
    shutil.copytree(made_once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "out"
