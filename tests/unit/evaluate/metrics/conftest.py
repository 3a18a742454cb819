"""A head-like truth, and what thick slices make of it."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from headsr.evaluate.metrics.comparison import Comparison

FACTOR = 4


@pytest.fixture(scope="package")
def truth() -> np.ndarray:
    """Large and small blobs with edges of sigma 0.7 voxels, and texture: (64, 56, 72)."""
    rng = np.random.default_rng(1)
    shape = (64, 56, 72)
    large, small, texture = (ndimage.gaussian_filter(rng.standard_normal(shape), s) for s in (4.0, 1.5, 0.5))
    blobs = 0.5 * (large > 0) + 0.25 * (small > small.std())
    return (0.3 + ndimage.gaussian_filter(blobs, 0.7) + 0.03 * texture).astype(np.float32)


@pytest.fixture(scope="package")
def mask(truth: np.ndarray) -> np.ndarray:
    """An ellipsoid inside the volume."""
    axes = np.meshgrid(*(np.linspace(-1.1, 1.1, n) for n in truth.shape), indexing="ij", sparse=True)
    return sum(x**2 for x in axes) < 1


@pytest.fixture(scope="package")
def compare(truth: np.ndarray, mask: np.ndarray) -> Callable[..., Comparison]:
    """A function that compares a volume with the truth, as made from scans that are thick along the last axis."""

    def comparison(volume: np.ndarray, **changed: object) -> Comparison:
        given = {"truth": truth, "mask": mask, "voxel_mm": (1.0, 1.0, 1.0), "spacings": (1.0, 1.0, float(FACTOR))}
        return Comparison(volume.astype(np.float32), data_range=1.0, **{**given, **changed})

    return comparison


@pytest.fixture(scope="package")
def volumes(truth: np.ndarray) -> dict[str, np.ndarray]:
    """Interpolations of the truth's slices of four voxels, and the truth with noise."""
    slices = truth.reshape(*truth.shape[:2], -1, FACTOR).mean(axis=3)
    at = (np.arange(truth.shape[2]) + 0.5) / FACTOR - 0.5
    return {
        "noisy": truth + 0.02 * np.random.default_rng(2).standard_normal(truth.shape),
        "spline": _interpolated(slices, at, 3),
        "linear": _interpolated(slices, at, 1),
        "nearest": np.repeat(slices, FACTOR, axis=2),
    }


def _interpolated(slices: np.ndarray, at: np.ndarray, order: int) -> np.ndarray:
    knots = ndimage.spline_filter1d(slices, order, axis=2, mode="mirror") if order > 1 else slices
    places = np.meshgrid(np.arange(slices.shape[0]), np.arange(slices.shape[1]), at, indexing="ij")
    return ndimage.map_coordinates(knots, places, order=order, prefilter=False, mode="mirror")
