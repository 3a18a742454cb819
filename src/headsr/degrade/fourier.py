"""Fourier transforms of a batch whose bits do not depend on how many images are in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def rfft(images: Tensor, *, dim: int) -> Tensor:
    """``torch.fft.rfft`` of images (N, H, W) along one axis."""
    return _in_company(torch.fft.rfft, images, dim=dim)


def irfft(spectrum: Tensor, *, n: int, dim: int) -> Tensor:
    """``torch.fft.irfft`` of spectra (N, H, W) along one axis."""
    return _in_company(torch.fft.irfft, spectrum, n=n, dim=dim)


def rfft2(images: Tensor) -> Tensor:
    """``torch.fft.rfft2`` of images (N, ..., H, W)."""
    return _in_company(torch.fft.rfft2, images)


def irfft2(spectrum: Tensor, *, shape: tuple[int, int]) -> Tensor:
    """``torch.fft.irfft2`` of spectra (N, ..., H, W/2 + 1) to images of ``shape``."""
    return _in_company(torch.fft.irfft2, spectrum, s=shape)


def _in_company(transform: Callable[..., Tensor], batch: Tensor, **how: Any) -> Tensor:
    """A lone image is transformed beside a copy: with AVX-512 the library rounds it otherwise than one of several."""
    if len(batch) > 1:
        return transform(batch, **how)
    return transform(torch.cat([batch, batch]), **how)[:1]
