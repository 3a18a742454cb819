"""Difference of what a frozen network makes of two images."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from headsr.losses.pixel import l1_loss


class FeatureMaker(Protocol):
    """A network whose features are compared: slice encoders, autoencoders and networks of photographs are."""

    def features(self, images: Tensor) -> list[Tensor]:
        """Feature maps of images (N, 1, H, W), one for every depth that counts."""


def perceptual_loss(predicted: Tensor, target: Tensor, companion: FeatureMaker) -> Tensor:
    """Mean absolute difference of the companion's features, averaged over their depths."""
    pairs = list(zip(companion.features(predicted), companion.features(target.detach()), strict=True))
    return sum(l1_loss(made, true) for made, true in pairs) / len(pairs)
