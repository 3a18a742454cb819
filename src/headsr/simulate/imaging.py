"""What a scanner adds to the signal of a head: a smooth bias field, Rician noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def bias_field(shape: tuple[int, int, int], *, strength: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """A smooth positive field (X, Y, Z) between 1 - ``strength`` and 1 + ``strength``: trilinear, with a bump.

    Low-order cosines, as receive coils give; the extremes are reached exactly.
    """
    waves = [np.stack([np.cos(np.pi * k * (np.arange(n) + 0.5) / n) for k in range(3)]) for n in shape]
    order = np.indices((3, 3, 3)).sum(axis=0)
    weights = np.where((order > 0) & (order < 4), rng.standard_normal((3, 3, 3)), 0) / (1 + order) ** 2
    field = np.einsum("abc,ax,by,cz->xyz", weights, *waves, optimize=True)
    return (1 + strength * (2 * (field - field.min()) / np.ptp(field) - 1)).astype(np.float32)


def add_rician_noise(signal: NDArray[np.float32], *, sigma: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Magnitude of a complex signal with Gaussian noise of standard deviation ``sigma`` in both channels."""
    real, imaginary = rng.standard_normal((2, *signal.shape), dtype=np.float32) * np.float32(sigma)
    return np.hypot(signal + real, imaginary)


def smooth_field(shape: tuple[int, ...], *, sigma: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """White noise smoothed over ``sigma`` voxels and scaled to unit standard deviation."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap", truncate=3)
    return field / field.std()
