"""Pixel-wise differences, of images with any number of axes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def l1_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference, in fp32 under autocast too."""
    return F.l1_loss(predicted.float(), target.float())


def mse_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference, in fp32 under autocast too."""
    return F.mse_loss(predicted.float(), target.float())


def psnr(predicted: Tensor, target: Tensor, *, peak: float = 1.0) -> float:
    """Peak signal-to-noise ratio in dB over all pixels; infinite where both are equal."""
    error = F.mse_loss(predicted.double(), target.double())
    return float("inf") if error == 0 else float(10 * (peak**2 / error).log10())
