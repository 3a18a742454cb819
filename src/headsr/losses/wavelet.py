"""Difference of high frequencies in the Haar wavelet basis, of images with any number of axes."""

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


def _signed_sum(band: tuple[int, ...], corners: list[tuple[tuple[int, ...], Tensor]]) -> Tensor:
    """The corners of every cell, those along which the band takes differences with a minus."""
    total = corners[0][1]
    for corner, values in corners[1:]:
        odd = sum(i and j for i, j in zip(band, corner, strict=True)) % 2
        total = total - values if odd else total + values
    return total
