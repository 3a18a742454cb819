"""Fixtures shared by the unit tests."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from headsr.acquisition.measurement import Protocol, save_measurement
from headsr.acquisition.operator import Acquisition
from headsr.volumes import AXES, Grid

SCALE = 800.0


@pytest.fixture(params=["pipe", "device"])
def endless(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Path]:
    """A function that puts what never ends, a pipe or a device, where a file of some name is looked for."""

    def put(name: str) -> Path:
        path = tmp_path / name
        if request.param == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero")
        return path

    return put


@pytest.fixture(scope="session")
def tiny_head() -> tuple[np.ndarray, Grid]:
    """A head-like truth (18, 21, 16), normalised intensities, on an oblique grid of 2.5 mm voxels."""
    shape, rng = (18, 21, 16), np.random.default_rng(3)
    x, y, z = (np.linspace(-1.2, 1.2, n).reshape([-1 if i == a else 1 for i in range(3)]) for a, n in enumerate(shape))
    radius = np.sqrt(x**2 + y**2 + z**2)
    folds = ndimage.gaussian_filter(rng.standard_normal(shape), 1.0) > 0.05
    truth = np.where(radius < 0.8, 0.5 + 0.4 * folds, 0.0) + 0.9 * ((radius > 0.95) & (radius < 1.1))
    turn = np.deg2rad(7.0)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    affine[:3, :3] *= 2.5
    affine[:3, 3] = (-20.7, -31.13, 4.9)
    return ndimage.gaussian_filter(truth, 0.5).astype(np.float32), Grid(shape, affine)


@pytest.fixture
def measure(tiny_head: tuple[np.ndarray, Grid], tmp_path: Path) -> Callable[..., list[Path]]:
    """A function that writes thick scans of the tiny head, with noise, and returns their paths."""

    def write(views: Sequence[str], *, factor: float = 4, noise: float = 0.01) -> list[Path]:
        truth, grid = tiny_head
        paths = []
        for index, view in enumerate(views):
            scan = grid.thick(AXES[view], factor)
            clean = Acquisition(grid, scan, axis=AXES[view]).forward(torch.from_numpy(truth))
            noisy = clean + noise * torch.randn(clean.shape, generator=torch.Generator().manual_seed(index))
            protocol = Protocol(
                view=view,
                profile="box",
                thickness=2.5 * factor,
                noise=noise,
                head_shape=grid.shape,
                head_affine=tuple(map(tuple, grid.affine.tolist())),
                scale=SCALE,
                offset=0.0,
                degradation="tiny",
                source_key="SHA256E-s1--00.nii.gz",
            )
            paths.append(tmp_path / f"sub-01_desc-{view}_T1w.nii.gz")
            save_measurement(paths[-1], noisy, scan, protocol, np.ones(scan.shape, bool))
        return paths

    return write


@pytest.fixture
def psnr_of(tiny_head: tuple[np.ndarray, Grid]) -> Callable[[np.ndarray], float]:
    """A function that gives the PSNR in dB (peak 1.0) of a volume against the tiny head."""
    return lambda volume: float(-10 * np.log10(np.mean((volume - tiny_head[0]) ** 2)))
