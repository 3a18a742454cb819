"""What a scanner makes of a head: intensities per tissue, a smooth bias field, Rician noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from headsr.simulate.anatomy import TISSUES, Anatomy

# Signal per tissue in the order of its brightness in real scans; the brightest brain tissue is about 0.85.
SIGNAL = {
    "T1w": dict(
        white=0.85, grey=0.60, csf=0.20, bone=0.07, marrow=0.50, fat=1.00, muscle=0.42, skin=0.50, vitreous=0.18
    ),
    "T2w": dict(
        white=0.40, grey=0.58, csf=0.95, bone=0.04, marrow=0.30, fat=0.62, muscle=0.28, skin=0.36, vitreous=0.92
    ),
}
_TEXTURE_SIGN = {"T1w": 0.85, "T2w": -0.6}  # bright detail on T1 is dark on T2
_SIGNAL_SPREAD = 0.04  # relative spread of a tissue's signal between heads


def tissue_signal(anatomy: Anatomy, *, suffix: str, rng: np.random.Generator | None = None) -> NDArray[np.float32]:
    """Noise-free signal (X, Y, Z) of the anatomy; with ``rng`` the tissues' brightness varies as between people."""
    signal = np.array([SIGNAL[suffix][tissue] for tissue in TISSUES], dtype=np.float32)
    if rng is not None:
        signal *= (1 + _SIGNAL_SPREAD * np.clip(rng.standard_normal(len(signal)), -2, 2)).astype(np.float32)
    mixed = (signal @ anatomy.fractions.reshape(len(signal), -1)).reshape(anatomy.grid.shape)
    return np.maximum(mixed + np.float32(_TEXTURE_SIGN[suffix]) * anatomy.texture, 0)


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
