"""Thick slices along the rows of an image, resizing, and the spline interpolation of both back onto the fine grid.

All are matrices, made by the same functions that sample and interpolate real scans (``acquisition.profile`` and
``volumes.spline_matrix``), so what a network learns to undo is what it meets. Pixels are cells: pixel i of m lies at
(i + 0.5) n / m - 0.5 among n, in every mode. Nothing is shifted by half a pixel, and a size is what was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headsr.acquisition.profile import profile_matrix
from headsr.recipes.data import RESIZE_MODES
from headsr.volumes import spline_matrix

# Factor and phase are drawn in steps of 1/8, so that a training meets the same few hundred matrices again and again.
STEPS = 8


@dataclass(frozen=True)
class ThickSlices:
    """Thick slices ``factor`` rows apart and as thick as that; ``phase`` is the share of the first one above row 0."""

    factor: float
    phase: float
    profile: str

    def rows(self, n: int) -> int:
        """How many thick slices cover ``n`` rows."""
        return int(np.ceil(n / self.factor + self.phase - 1e-9))

    def centres(self, n: int) -> np.ndarray:
        """Where the thick slices' centres lie, in rows of the fine image."""
        return (np.arange(self.rows(n)) + 0.5 - self.phase) * self.factor - 0.5


@lru_cache(maxsize=1024)
def matrices(n: int, thick: ThickSlices) -> tuple[Tensor, Tensor]:
    """Sampling (m, n) from n fine rows to m thick slices, and cubic spline interpolation (n, m) back."""
    centres = thick.centres(n)
    down = _inside(profile_matrix(n, centres, thick.factor, thick.profile))
    up = spline_matrix((np.arange(n) - centres[0]) / thick.factor, len(centres))
    return torch.as_tensor(down, dtype=torch.float32), torch.as_tensor(up, dtype=torch.float32)


def sample_thick(images: Tensor, rows: int, thick: Sequence[ThickSlices]) -> Tensor:
    """Sample images (N, H, W), each by its own thick slices: (N, rows, W), the rows left over being zero."""
    n = images.shape[1]
    return _stacked([matrices(n, slices)[0] for slices in thick], (rows, n), images.device) @ images


def interpolate_rows(images: Tensor, n: int, thick: Sequence[ThickSlices]) -> Tensor:
    """Interpolate thick slices (N, R, W) back onto ``n`` fine rows by cubic splines."""
    return _stacked([matrices(n, slices)[1] for slices in thick], (n, images.shape[1]), images.device) @ images


def resize_columns(images: Tensor, width: int, modes: Sequence[str]) -> Tensor:
    """Resize images (N, R, W) along their columns to ``width``, each in its own mode of ``RESIZE_MODES``."""
    weights = torch.stack([resize_matrix(images.shape[2], width, mode) for mode in modes])
    return images @ weights.to(images.device).mT


def resize_rows(images: Tensor, height: int, modes: Sequence[str]) -> Tensor:
    """Resize images (N, H, W) along their rows to ``height``, each in its own mode of ``RESIZE_MODES``."""
    return torch.stack([resize_matrix(images.shape[1], height, mode) for mode in modes]).to(images.device) @ images


@lru_cache(maxsize=1024)
def resize_matrix(n: int, m: int, mode: str) -> Tensor:
    """Weights (m, n) of n pixels in each of m; every row sums to one.

    area is the mean over the new pixel's cell; bilinear, bicubic (Keys 1981) and spline (through all pixels)
    interpolate at its centre, without a filter against aliasing; nearest takes the pixel in whose cell the centre lies.
    """
    centres = (np.arange(m) + 0.5) * n / m - 0.5
    if mode == "spline":
        weights = spline_matrix(centres, n)
    elif mode == "area":
        weights = _inside(profile_matrix(n, centres, n / m, "box"))
    elif mode == "bicubic":
        weights = _inside(profile_matrix(n, centres, 1.0, "cubic"))
    elif mode == "bilinear":
        weights = np.clip(1 - np.abs(np.clip(centres, 0, n - 1)[:, None] - np.arange(n)), 0, None)
    elif mode == "nearest":
        weights = np.eye(n)[np.floor(centres + 0.5).astype(int)]
    else:
        raise ValueError(f"unknown resize mode {mode!r}; choose one of {', '.join(RESIZE_MODES)}")
    return torch.as_tensor(weights, dtype=torch.float32)


def _inside(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights that sum to one: beyond a crop's border there is more of the head, so what lies inside stands for it."""
    return weights / weights.sum(axis=1, keepdims=True)


def _stacked(matrices: Sequence[Tensor], shape: tuple[int, int], device: torch.device) -> Tensor:
    """Matrices of several sizes as one tensor (N, *shape), filled up with zeros."""
    stacked = torch.zeros(len(matrices), *shape)
    for target, matrix in zip(stacked, matrices, strict=True):
        target[: matrix.shape[0], : matrix.shape[1]] = matrix
    return stacked.to(device)


def mirrored(index: Tensor, size: Tensor | int) -> Tensor:
    """Indices folded back into 0 .. size - 1 at both ends, with the outermost sample repeated; sizes broadcast."""
    index = index % (2 * size)
    return torch.minimum(index, 2 * size - 1 - index)


def take_rows(images: Tensor, index: Tensor) -> Tensor:
    """Rows of images (N, R, W) at ``index`` (N, r), each image at its own: (N, r, W)."""
    first = torch.arange(len(images), device=images.device)[:, None] * images.shape[1]
    return images.flatten(0, 1).index_select(0, (index + first).flatten()).unflatten(0, index.shape)
