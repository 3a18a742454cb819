"""Differences between what a network says of images and what is known of them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean cross entropy in nats of scores (N, classes) and true classes (N,), in fp32 under autocast too."""
    return F.cross_entropy(predicted.float(), target)


def smooth_l1(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean of |d| - 0.05 and, below 0.1, of 5 d² (Girshick 2015, equation 3, with its bend at 0.1)."""
    return F.smooth_l1_loss(predicted.float(), target.float(), beta=0.1)
