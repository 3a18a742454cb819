"""Difference of image gradients: what keeps edges from being averaged away."""

from __future__ import annotations

from torch import Tensor


def gradient_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the first differences along rows and columns, (N, C, H, W), blind to an offset."""
    error = predicted.float() - target.float()
    return error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
