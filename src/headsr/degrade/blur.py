"""Gaussian blur given in mm, isotropic or anisotropic, with one kernel per image.

The kernel is applied by its transfer function, exp(-2 pi^2 f^T S f) with covariance S in mm^2 and frequency f in cycles
per mm, so a width far below a pixel is as exact as one of many pixels and no kernel is cut off.
"""

from __future__ import annotations

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from headsr.degrade.resample import mirrored, take_rows

# Pixels of mirrored border at least: where the image has as many, that is several widths of the widest kernel.
_BORDER = 16


def covariance(sigma_mm: Tensor, angle: Tensor) -> Tensor:
    """Covariances (N, 2, 2) in mm^2, rows first, of widths ``sigma_mm`` (N, 2) turned by ``angle`` (N,) in radians."""
    cos, sin = torch.cos(angle), torch.sin(angle)
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    return turn @ torch.diag_embed(sigma_mm**2) @ turn.mT


def gaussian_blur(images: Tensor, rows: Tensor, *, pixel_mm: Tensor, covariance_mm: Tensor) -> Tensor:
    """Blur images (N, R, W), each with its own kernel; only the first ``rows`` (N,) of an image are looked at.

    ``pixel_mm`` (N, 2) is row and column spacing, ``covariance_mm`` (N, 2, 2). Borders are mirrored. The rows beyond
    ``rows`` of the result hold nothing of use.
    """
    height, width = images.shape[-2:]
    (top, row), (left, column) = (_around(size, images.device) for size in (height, width))
    extended = take_rows(images.index_select(2, mirrored(column, width)), mirrored(row, rows[:, None]))
    transfer = _transfer(extended.shape[-2:], pixel_mm, covariance_mm)
    blurred = torch.fft.irfft2(torch.fft.rfft2(extended) * transfer, s=extended.shape[-2:])
    return blurred[:, top : top + height, left : left + width]


def _around(size: int, device: torch.device) -> tuple[int, Tensor]:
    """The mirrored border's width and the indices from its beginning to its end, as many as are fast to transform."""
    border = min(size // 2, max(_BORDER, size // 4))
    return border, torch.arange(next_fast_len(size + 2 * border, real=True), device=device) - border


def _transfer(shape: tuple[int, int], pixel_mm: Tensor, covariance_mm: Tensor) -> Tensor:
    """The transfer functions (N, H, W // 2 + 1) of the kernels on the frequencies of ``rfft2``."""
    scaled = covariance_mm / (pixel_mm[:, :, None] * pixel_mm[:, None, :])
    rows = torch.fft.fftfreq(shape[0], device=pixel_mm.device)[:, None]
    columns = torch.fft.rfftfreq(shape[1], device=pixel_mm.device)[None, :]
    a, b, c = (scaled[:, i, j, None, None] for i, j in ((0, 0), (0, 1), (1, 1)))
    return torch.exp(-2 * torch.pi**2 * (a * rows**2 + 2 * b * rows * columns + c * columns**2))
