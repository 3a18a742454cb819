"""Difference of high frequencies in the Haar wavelet basis."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Bands(NamedTuple):
    """The four bands of one level: low-low, and the details along columns, rows and both."""

    low: Tensor
    columns: Tensor
    rows: Tensor
    both: Tensor


def stationary_haar(images: Tensor, *, dilation: int = 1) -> Bands:
    """Undecimated orthonormal Haar bands (N, C, H - d, W - d): the decimated ones, at every shift."""
    d = dilation
    a, b, c, e = images[..., :-d, :-d], images[..., :-d, d:], images[..., d:, :-d], images[..., d:, d:]
    return Bands((a + b + c + e) / 2, (a - b + c - e) / 2, (a + b - c - e) / 2, (a - b - c + e) / 2)


def wavelet_loss(predicted: Tensor, target: Tensor, *, levels: int = 2) -> Tensor:
    """Mean absolute value of the error's detail bands, summed over bands and averaged over levels.

    L1 and details only: squares with equal weights on all bands would be the plain mean squared error (Parseval).
    """
    low = predicted.float() - target.float()
    total = low.new_zeros(())
    for level in range(levels):
        bands = stationary_haar(low, dilation=2**level)
        low = bands.low
        total = total + sum(band.abs().mean() for band in bands[1:])
    return total / levels
