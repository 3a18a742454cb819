"""Gibbs ringing: k-space cut off at a share of its width.

The cut is made on the cosine transform (k-space of the mirrored image), so that a crop's borders do not ring against
each other; ringing at edges inside the image is that of a Cartesian k-space truncation.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


def truncate_columns(images: Tensor, cutoff: Tensor) -> Tensor:
    """Keep the lowest ``cutoff`` (N,) in (0, 1] of the frequencies along the columns of images (N, R, W)."""
    basis = cosine_basis(images.shape[-1]).to(images.device)
    return ((images @ basis.T) * _kept(images.shape[-1], cutoff)[:, None, :]) @ basis


def truncate_rows(images: Tensor, n: int, cutoff: Tensor) -> Tensor:
    """Keep the lowest ``cutoff`` (N,) of the frequencies along the first ``n`` rows of images (N, R, W)."""
    result = images.clone()
    result[:, :n] = truncate_columns(images[:, :n].mT, cutoff).mT
    return result


@lru_cache(maxsize=64)
def cosine_basis(n: int) -> Tensor:
    """The orthonormal cosine transform (DCT-II) as a matrix (n, n), one frequency per row."""
    frequency, sample = np.arange(n)[:, None], np.arange(n)[None, :]
    basis = np.cos(np.pi * (sample + 0.5) * frequency / n) * np.sqrt(2.0 / n)
    basis[0] = np.sqrt(1.0 / n)
    return torch.as_tensor(basis, dtype=torch.float32)


def _kept(n: int, cutoff: Tensor) -> Tensor:
    return (torch.arange(n, device=cutoff.device) < cutoff[:, None] * n).float()
