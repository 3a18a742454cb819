"""Noise of scans: Rician and Gaussian, white or spatially correlated, and the counting noise of X-rays.

A magnitude is |x + n1 + i n2| with n1, n2 ~ N(0, sigma^2): in air a Rayleigh distribution, in tissue nearly Gaussian.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from headsr.degrade.fourier import irfft2, rfft2


def add_rician(images: Tensor, noise: Tensor) -> Tensor:
    """The magnitude of images (N, ...) with complex noise (N, 2, ...) added."""
    return torch.hypot(images + noise[:, 0], noise[:, 1])


def white_noise(seeds: Sequence[int], shape: tuple[int, ...], device: torch.device | str) -> Tensor:
    """Complex noise (N, 2, *shape) of unit standard deviation, each sample from its own seed, drawn on the device."""
    generator = torch.Generator(device=device)
    noise = torch.empty(len(seeds), 2, *shape, device=device)
    for sample, seed in zip(noise, seeds, strict=True):
        sample.normal_(generator=generator.manual_seed(seed))
    return noise


def correlate(noise: Tensor, width_px: Tensor) -> Tensor:
    """Smooth noise (N, 2, R, W) by Gaussians ``width_px`` (N, 2), rows and columns, and keep its variance.

    A width of zero leaves a direction white.
    """
    shape = noise.shape[-2:]
    squared = 2 * torch.pi**2 * width_px**2
    rows = torch.fft.fftfreq(shape[0], device=noise.device)
    whole, half = (f(shape[1], device=noise.device) for f in (torch.fft.fftfreq, torch.fft.rfftfreq))
    along_rows = torch.exp(-squared[:, :1] * rows**2)
    along, along_half = (torch.exp(-squared[:, 1:] * columns**2) for columns in (whole, half))
    # White noise through a filter g has variance mean(g^2); g is separable, so the means multiply.
    gain = torch.rsqrt((along_rows**2).mean(1) * (along**2).mean(1))
    transfer = (gain[:, None] * along_rows)[:, :, None] * along_half[:, None, :]
    return irfft2(rfft2(noise) * transfer[:, None], shape=shape)


def add_poisson(images: Tensor, photons: Tensor, seeds: Sequence[int]) -> Tensor:
    """Count images (N, R, W) in photons, ``photons`` (N,) of them at intensity 1: the variance is x / photons.

    Nothing is counted below zero; there the image stays as it is.
    """
    light = images.clamp(min=0)
    scale = photons[:, None, None]
    return images - light + _counts(light * scale, seeds) / scale


def add_transmission(images: Tensor, photons: Tensor, depth: Tensor, seeds: Sequence[int]) -> Tensor:
    """Count the photons that pass images (N, R, W) of attenuation, ``photons`` (N,) before and exp(-depth x) after.

    ``depth`` (N,) is the optical depth of intensity 1. What is dense is noisy: the variance is about
    exp(depth x) / (photons depth^2). A ray that no photon passes counts as half a one.
    """
    scale, depth = photons[:, None, None], depth[:, None, None]
    counts = _counts(scale * torch.exp(-depth * images), seeds)
    return -torch.log(counts.clamp_(min=0.5) / scale) / depth


def _counts(expected: Tensor, seeds: Sequence[int]) -> Tensor:
    """Poisson counts of expected ones (N, R, W), each sample from its own seed, drawn on the device."""
    generator = torch.Generator(device=expected.device)
    counts = [
        torch.poisson(mean, generator=generator.manual_seed(seed)) for mean, seed in zip(expected, seeds, strict=True)
    ]
    return torch.stack(counts)
