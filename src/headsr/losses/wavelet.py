"""Differences of frequencies in the Haar wavelet basis, of images with any number of axes."""

from __future__ import annotations

from itertools import product

from torch import Tensor


def stationary_haar(images: Tensor, *, dilation: int = 1) -> list[Tensor]:
    """Undecimated orthonormal Haar bands of images (N, C, ...): the decimated ones, at every shift.

    Every spatial axis is ``dilation`` shorter. A band takes sums or differences along each axis; they come in the order
    of binary numbers, the last axis counting fastest: low-low, details along columns, along rows, along both.
    """
    axes = images.ndim - 2
    ends = {0: slice(None, -dilation), 1: slice(dilation, None)}
    corners = [(corner, images[(..., *(ends[i] for i in corner))]) for corner in product((0, 1), repeat=axes)]
    return [_signed_sum(band, corners) / 2 ** (axes / 2) for band in product((0, 1), repeat=axes)]


def wavelet_loss(predicted: Tensor, target: Tensor, *, levels: int = 2) -> Tensor:
    """Mean absolute value of the error's detail bands, summed over bands and averaged over levels.

    L1 and details only: squares with equal weights on all bands would be the plain mean squared error (Parseval).
    """
    low = predicted.float() - target.float()
    total = low.new_zeros(())
    for level in range(levels):
        low, *details = stationary_haar(low, dilation=2**level)
        total = total + sum(band.abs().mean() for band in details)
    return total / levels


def low_band_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """What the coarse band has of the mean squared error.

    With ``detail_bands_loss`` of the same weight it is the mean squared error itself (Parseval), but for the outermost
    pixels: to which the loss that Diffusion-4K's code computes comes down (Zhang et al. 2025).
    """
    low, *_ = _squares_by_band(predicted, target)
    return low


def detail_bands_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """What the bands of details have of the mean squared error: see low_band_loss."""
    _, *details = _squares_by_band(predicted, target)
    return sum(details)


def _squares_by_band(predicted: Tensor, target: Tensor) -> list[Tensor]:
    """Each band's part of the mean squared error, in fp32 under autocast too: at every shift, as a loss has no grid."""
    bands = stationary_haar(predicted.float() - target.float())
    return [band.square().mean() / len(bands) for band in bands]


def _signed_sum(band: tuple[int, ...], corners: list[tuple[tuple[int, ...], Tensor]]) -> Tensor:
    """The corners of every cell, those along which the band takes differences with a minus."""
    total = corners[0][1]
    for corner, values in corners[1:]:
        odd = sum(i and j for i, j in zip(band, corner, strict=True)) % 2
        total = total - values if odd else total + values
    return total
