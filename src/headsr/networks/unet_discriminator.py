"""A discriminator that judges every pixel: Real-ESRGAN's U-Net with spectral norm (Wang 2021, section 3.3)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from headsr.networks.blocks import channels_last, conv3, padded
from headsr.networks.spectral_norm import spectrally_normed

_SLOPE = 0.2  # of the leaky ReLUs
_LEVELS = 3


class UnetDiscriminator(nn.Module):
    """Verdicts (N, 1, H, W) on each pixel of images (N, 1, H, W), as logits. With 64 channels 4,375,745 parameters.

    No convolution but the first and the last stretches anything by more than 1 (spectral norm, Miyato 2018).
    """

    def __init__(self, *, channels: int = 64) -> None:
        super().__init__()
        widths = [channels * 2**level for level in range(_LEVELS + 1)]
        self.first = conv3(1, channels)
        self.down = nn.ModuleList([_halving(wide, 2 * wide) for wide in widths[:-1]])
        self.up = nn.ModuleList([_keeping(2 * wide, wide) for wide in reversed(widths[:-1])])
        self.fine = nn.ModuleList([_keeping(channels, channels) for _ in range(2)])
        self.last = conv3(channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Positive where a pixel looks real."""
        features = [F.leaky_relu(channels_last(self.first(padded(images, 2**_LEVELS))), _SLOPE)]
        for convolution in self.down:
            features.append(F.leaky_relu(convolution(features[-1]), _SLOPE))
        judged = features.pop()
        for convolution in self.up:
            judged = F.interpolate(judged, scale_factor=2.0, mode="bilinear", align_corners=False)
            judged = F.leaky_relu(convolution(judged), _SLOPE) + features.pop()
        for convolution in self.fine:
            judged = F.leaky_relu(convolution(judged), _SLOPE)
        return self.last(judged)[..., : images.shape[-2], : images.shape[-1]]


def _halving(inputs: int, outputs: int) -> nn.Module:
    return spectrally_normed(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False))


def _keeping(inputs: int, outputs: int) -> nn.Module:
    return spectrally_normed(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))
