"""Lossy compression as JPEG does it to one channel: quantised 8 x 8 cosine coefficients.

The luminance table of ITU-T T.81, table K.1. Intensity 1.0 is level 255, nothing is clipped or rounded to 8 bits, and
a block's mean is kept as it is: scans are stored with more grey levels than 256.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from headsr.degrade.resample import mirrored, take_rows
from headsr.degrade.ringing import cosine_basis

BLOCK = 8
# fmt: off
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
# fmt: on


def compress(images: Tensor, rows: Tensor, *, quality: Tensor, offset: Tensor) -> Tensor:
    """Compress images (N, R, W) at ``quality`` (N,) in 1..95; only the first ``rows`` (N,) of an image are looked at.

    ``offset`` (N, 2), whole numbers 0..7, is where in a block the first row and column lie: a crop is not cut along the
    blocks. Borders are mirrored. The rows beyond ``rows`` of the result hold nothing of use.
    """
    shape = images.shape[-2:]
    padded = [-(-(size + BLOCK - 1) // BLOCK) * BLOCK for size in shape]
    row, column = (torch.arange(n, device=images.device) - offset[:, i, None] for i, n in enumerate(padded))
    row, column = mirrored(row, rows[:, None]), mirrored(column, shape[1])
    blocks = _take(images, row, column).unflatten(2, (-1, BLOCK)).unflatten(1, (-1, BLOCK)).transpose(2, 3)
    decoded = (
        _quantise(blocks.flatten(3), quality).unflatten(3, (BLOCK, BLOCK)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    )
    inside = [torch.arange(size, device=images.device) + offset[:, i, None] for i, size in enumerate(shape)]
    return _take(decoded, *inside)


def _quantise(blocks: Tensor, quality: Tensor) -> Tensor:
    """Blocks (N, a, b, 64) as they come back from quantised coefficients."""
    basis = _block_basis().to(blocks.device)
    factor = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
    step = (factor[:, None] * torch.tensor(LUMINANCE, device=blocks.device).flatten() / 255)[:, None, None]
    coefficients = blocks @ basis.T
    mean = coefficients[..., 0].clone()
    quantised = coefficients.div_(step).round_().mul_(step)
    quantised[..., 0] = mean
    return quantised @ basis


@lru_cache(maxsize=1)
def _block_basis() -> Tensor:
    """The cosine transform of a whole block as one matrix (64, 64): far faster than two of 8 x 8."""
    return torch.kron(cosine_basis(BLOCK), cosine_basis(BLOCK))


def _take(images: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Pixels of images (N, R, W) at ``row`` (N, r) and ``column`` (N, c): (N, r, c)."""
    return take_rows(images, row).gather(2, column[:, None, :].expand(-1, row.shape[1], -1))
