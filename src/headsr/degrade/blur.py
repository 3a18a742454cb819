"""Blur by kernels given in mm, one per image: Gaussian, generalised Gaussian, plateau-shaped, and circular low-pass.

Every kernel is a radial profile stretched and turned by a covariance S in mm^2, so its transfer function is a radial
one of sqrt(f^T S f) with frequency f in cycles per mm: exp(-2 pi^2 f^T S f) for a Gaussian, the Hankel transform of the
profile for the others. Applied that way, a width far below a pixel is as exact as one of many pixels. The profiles are
those of Wang et al. (2021), Real-ESRGAN, after Liu et al. (2020) for the generalised and plateau-shaped ones.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy.fft import next_fast_len
from scipy.special import j0
from torch import Tensor

from headsr.degrade.fourier import irfft2, rfft2
from headsr.degrade.resample import mirrored, take_rows

# Generalised and plateau-shaped kernels end at this many widths: the tail of a plateau has no finite mass.
REACH = 6.0
# Pixels of mirrored border: at least and, where the image is large, at most.
_BORDER = (16, 32)
# A profile is known at so many radii within its reach, its transform at frequencies up to 24 cycles per reach.
_RADII = 512
_STEPS_PER_CYCLE, _CYCLES = 64, 24


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
    scaled = covariance_mm / (pixel_mm[:, :, None] * pixel_mm[:, None, :])
    return _filter(images, rows, torch.exp_(_squared_frequency(images.shape[-2:], scaled).mul_(-2 * torch.pi**2)))


def radial_blur(images: Tensor, rows: Tensor, *, pixel_mm: Tensor, covariance_mm: Tensor, spectra: Tensor) -> Tensor:
    """Blur as ``gaussian_blur`` does, by kernels whose profiles have the ``spectra`` (N, K) of ``radial_spectra``.

    ``covariance_mm`` is that of the profile's reach: the width's, times the square of the reach in widths.
    """
    scaled = covariance_mm / (pixel_mm[:, :, None] * pixel_mm[:, None, :])
    cycles = _squared_frequency(images.shape[-2:], scaled).clamp_(min=0).sqrt_()
    return _filter(images, rows, _look_up(spectra, cycles.mul_(_STEPS_PER_CYCLE)))


def low_pass(images: Tensor, rows: Tensor, *, cutoff: Tensor, radius_px: Tensor) -> Tensor:
    """Keep the circle of frequencies below ``cutoff`` (N,), a share of Nyquist, with the ringing that this makes.

    The kernel of an ideal circle is a jinc, J1(r) / r; it fades to its end at ``radius_px`` (N,), so the circle's edge
    is soft. Cut off abruptly, as Wang et al. do, it raises part of what it keeps by up to 60 %: that would sharpen.
    """
    reach = torch.diag_embed((radius_px**2)[:, None].expand(-1, 2))
    spectra = radial_spectra(jinc_profiles(torch.pi * cutoff * radius_px))
    return radial_blur(images, rows, pixel_mm=torch.ones_like(reach[:, 0]), covariance_mm=reach, spectra=spectra)


def generalised_profiles(beta: Tensor) -> Tensor:
    """exp(-r^(2 beta) / 2) for ``beta`` (N,), r up to ``REACH`` widths: 1 is a Gaussian, more is like a box."""
    return torch.exp(-0.5 * (REACH * _radii(beta.device)) ** (2 * beta[:, None]))


def plateau_profiles(beta: Tensor) -> Tensor:
    """1 / (1 + r^(2 beta)) for ``beta`` (N,), r up to ``REACH`` widths: flat on top, with a long tail."""
    return 1 / (1 + (REACH * _radii(beta.device)) ** (2 * beta[:, None]))


def jinc_profiles(reach: Tensor) -> Tensor:
    """J1(r) / r, r up to ``reach`` (N,): pi times the cut-off (share of Nyquist) times the radius in pixels.

    It fades as a quarter of a cosine.
    """
    share = _radii(reach.device)
    radius = reach[:, None] * share
    return torch.special.bessel_j1(radius) / radius * torch.cos(torch.pi / 2 * share)


def radial_spectra(profiles: Tensor) -> Tensor:
    """Transforms (N, K) of radial profiles (N, R) over their reach, in steps of 1/64 cycle per reach.

    A transform begins with 1, whatever the scale of its profile: the kernel's sum.
    """
    mass = profiles * _radii(profiles.device)
    # One by one: a product with several columns adds up in another order, and a sample's result is its own.
    spectra = torch.stack([_hankel(profiles.device) @ one for one in mass])
    return spectra / spectra[:, :1]


def _radii(device: torch.device) -> Tensor:
    return (torch.arange(_RADII, device=device) + 0.5) / _RADII


@lru_cache(maxsize=2)
def _hankel(device: torch.device) -> Tensor:
    cycles = np.arange(_CYCLES * _STEPS_PER_CYCLE) / _STEPS_PER_CYCLE
    weights = j0(2 * np.pi * cycles[:, None] * (np.arange(_RADII) + 0.5) / _RADII)
    return torch.as_tensor(weights, dtype=torch.float32).to(device)


def _look_up(tables: Tensor, position: Tensor) -> Tensor:
    """Interpolate tables (N, K) linearly at fractional positions (N, H, W); beyond its end a table is zero."""
    last = tables.shape[1]
    flat = torch.nn.functional.pad(tables, (0, 2))
    position = position.flatten(1).clamp_(max=last)
    below = position.long()
    low, high = flat.gather(1, below), flat.gather(1, below + 1)
    return torch.lerp(low, high, position - below)


def _filter(images: Tensor, rows: Tensor, transfer: Tensor) -> Tensor:
    """Multiply the spectra of images (N, R, W) with mirrored borders by transfer functions on ``rfft2``'s grid."""
    height, width = images.shape[-2:]
    (top, tall), (left, wide) = (_around(size) for size in (height, width))
    spectrum = rfft2(_extended(images, rows, (top, tall), (left, wide)))
    spectrum.mul_(transfer.reshape(spectrum.shape))
    return irfft2(spectrum, shape=(tall, wide))[:, top : top + height, left : left + width]


def _extended(images: Tensor, rows: Tensor, vertical: tuple[int, int], horizontal: tuple[int, int]) -> Tensor:
    (top, tall), (left, wide), width = vertical, horizontal, images.shape[-1]
    # Columns by pieces: picking them one by one costs more than the transforms. Rows differ from image to image.
    right = wide - left - width
    widened = torch.cat([images[:, :, :left].flip(2), images, images[:, :, width - right :].flip(2)], 2)
    row = torch.arange(tall, device=images.device) - top
    return take_rows(widened, mirrored(row, rows[:, None]))


def _around(size: int) -> tuple[int, int]:
    """The mirrored border's width, and the size with borders, which is one that is fast to transform."""
    least, most = _BORDER
    border = min(size // 2, max(least, min(size // 4, most)))
    return border, next_fast_len(size + 2 * border, real=True)


def _squared_frequency(shape: tuple[int, int], scaled: Tensor) -> Tensor:
    """f^T S f on the frequencies of ``rfft2`` of the extended image, for covariances ``scaled`` (N, 2, 2) in pixels."""
    (_, tall), (_, wide) = (_around(size) for size in shape)
    row, column = torch.fft.fftfreq(tall, device=scaled.device), torch.fft.rfftfreq(wide, device=scaled.device)
    a, b, c = (scaled[:, i, j, None] for i, j in ((0, 0), (0, 1), (1, 1)))
    along_rows = torch.stack([a * row**2, 2 * b * row, torch.ones_like(a * row)], 2)
    along_columns = torch.stack([torch.ones_like(c * column), column.expand(len(c), -1), c * column**2], 1)
    return along_rows @ along_columns
