"""Thick slices along the rows of an image, and their spline interpolation back onto the fine rows.

Both are matrices, made by the same functions that sample and interpolate real scans (``acquisition.profile`` and
``volumes.spline_matrix``), so what a network learns to undo is what it meets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from headsr.acquisition.profile import profile_matrix
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
    down = profile_matrix(n, centres, thick.factor, thick.profile)
    up = spline_matrix((np.arange(n) - centres[0]) / thick.factor, len(centres))
    return torch.as_tensor(down, dtype=torch.float32), torch.as_tensor(up, dtype=torch.float32)


def sample_thick(images: Tensor, n: int, thick: Sequence[ThickSlices]) -> Tensor:
    """Sample the first ``n`` rows of images (N, R, W), each by its own thick slices; the rows left over are zero."""
    weights = torch.zeros(len(thick), images.shape[1], n)
    for weight, slices in zip(weights, thick, strict=True):
        down, _ = matrices(n, slices)
        weight[: len(down)] = down
    return weights.to(images.device) @ images[:, :n]


def interpolate_rows(images: Tensor, n: int, thick: Sequence[ThickSlices]) -> Tensor:
    """Interpolate thick slices (N, R, W) back onto ``n`` fine rows by cubic splines; the rows left over are zero."""
    weights = torch.zeros(len(thick), images.shape[1], images.shape[1])
    for weight, slices in zip(weights, thick, strict=True):
        _, up = matrices(n, slices)
        weight[:n, : up.shape[1]] = up
    return weights.to(images.device) @ images


def mirrored(index: Tensor, size: Tensor | int) -> Tensor:
    """Indices folded back into 0 .. size - 1 at both ends, with the outermost sample repeated; sizes broadcast."""
    index = index % (2 * size)
    return torch.minimum(index, 2 * size - 1 - index)


def take_rows(images: Tensor, index: Tensor) -> Tensor:
    """Rows of images (N, R, W) at ``index`` (N, r), each image at its own: (N, r, W)."""
    first = torch.arange(len(images), device=images.device)[:, None] * images.shape[1]
    return images.flatten(0, 1).index_select(0, (index + first).flatten()).unflatten(0, index.shape)
