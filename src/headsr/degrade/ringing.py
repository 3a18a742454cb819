"""Gibbs ringing: k-space cut off at a share of its width, with or without a window that apodises it.

The cut is made on the cosine transform (k-space of the mirrored image), so that a crop's borders do not ring against
each other; ringing at edges inside the image is that of a Cartesian k-space truncation.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from headsr.degrade.fourier import irfft, rfft


def truncate_columns(images: Tensor, cutoff: Tensor, taper: Tensor | None = None) -> Tensor:
    """Keep the lowest ``cutoff`` (N,) in (0, 1] of the frequencies along the columns of images (N, R, W).

    The last ``taper`` (N,) of what is kept, a share, falls off as half a cosine (a Tukey window); none by default.
    """
    return _truncate(images, cutoff, taper, 2)


def truncate_both(images: Tensor, cutoff: Tensor, taper: Tensor | None = None) -> Tensor:
    """Keep the lowest ``cutoff`` (N,) of the frequencies along the columns and along the rows of images (N, R, W)."""
    return _truncate(_truncate(images, cutoff, taper, 2), cutoff, taper, 1)


@lru_cache(maxsize=64)
def cosine_basis(n: int) -> Tensor:
    """The orthonormal cosine transform (DCT-II) as a matrix (n, n), one frequency per row."""
    frequency, sample = np.arange(n)[:, None], np.arange(n)[None, :]
    basis = np.cos(np.pi * (sample + 0.5) * frequency / n) * np.sqrt(2.0 / n)
    basis[0] = np.sqrt(1.0 / n)
    return torch.as_tensor(basis, dtype=torch.float32)


def _truncate(images: Tensor, cutoff: Tensor, taper: Tensor | None, axis: int) -> Tensor:
    n = images.shape[axis]
    spectrum = rfft(torch.cat([images, images.flip(axis)], axis), dim=axis)
    window = _window(n, cutoff, torch.zeros_like(cutoff) if taper is None else taper)
    spectrum.mul_(window.unsqueeze(3 - axis))
    return irfft(spectrum, n=2 * n, dim=axis).narrow(axis, 0, n)


def _window(n: int, cutoff: Tensor, taper: Tensor) -> Tensor:
    """Weights (N, n + 1) of the frequencies 0 .. n of the mirrored image; the mean is always kept."""
    share = torch.arange(n + 1, device=cutoff.device) / (cutoff[:, None] * n)
    fallen = ((share - 1 + taper[:, None]) / taper[:, None].clamp(min=1e-6)).clamp(0, 1)
    return (share < 1) * (0.5 + 0.5 * torch.cos(torch.pi * fallen))
