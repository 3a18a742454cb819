"""A smooth multiplicative field over a slice, as receive coils leave it and a bias correction leaves part of it."""

from __future__ import annotations

import torch
from torch import Tensor

# Waves per axis, and how many half periods a field has over the image at most, both axes together.
WAVES = 4
_MOST = 3


def bias_field(shape: tuple[int, int], *, weights: Tensor, strength: Tensor) -> Tensor:
    """Fields (N, H, W) between 1 - ``strength`` and 1 + ``strength`` (N,); both extremes are reached.

    Sums of low cosines with ``weights`` (N, WAVES, WAVES), rows first, of which only the smooth ones count.
    """
    order = torch.arange(WAVES, device=weights.device)
    order = order[:, None] + order
    smooth = torch.where((order > 0) & (order <= _MOST), weights, 0) / (1 + order) ** 2
    rows, columns = (_waves(n, weights.device) for n in shape)
    field = rows.T @ smooth @ columns
    low, high = field.amin((1, 2), keepdim=True), field.amax((1, 2), keepdim=True)
    return 1 + strength[:, None, None] * (2 * (field - low) / (high - low) - 1)


def _waves(n: int, device: torch.device) -> Tensor:
    """The cosines (WAVES, n) of 0 .. WAVES - 1 half periods."""
    place = (torch.arange(n, device=device) + 0.5) / n
    return torch.cos(torch.pi * torch.arange(WAVES, device=device)[:, None] * place)
