"""ESRGAN's generator: residual blocks of densely connected convolutions (Wang 2018, sections 3.1 and 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headsr.networks.blocks import Checkpointed, channels_last, conv3, enlarged, padded, zeroed

_SLOPE = 0.2  # of the leaky ReLUs
_SHARE = 0.2  # of a block's change that is added: deep chains stay stable (section 3.2, residual scaling)
_FIRST = 0.1  # times Kaiming's deviation: smaller numbers to begin with, for the same reason
_TAIL = 4  # the tail makes each side four times as large


class DenseBlock(nn.Module):
    """Five 3 x 3 convolutions, each of which sees the outputs of all before it: (N, C, H, W) to (N, C, H, W)."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        widths = [growth] * 4 + [channels]
        self.convolutions = nn.ModuleList([conv3(channels + i * growth, width) for i, width in enumerate(widths)])
        for convolution in self.convolutions:
            nn.init.kaiming_normal_(convolution.weight)
            nn.init.zeros_(convolution.bias)
            with torch.no_grad():
                convolution.weight.mul_(_FIRST)

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape."""
        seen = [features]
        for convolution in self.convolutions[:-1]:
            seen.append(F.leaky_relu(convolution(torch.cat(seen, dim=1)), _SLOPE))
        return features + _SHARE * self.convolutions[-1](torch.cat(seen, dim=1))


class ResidualDenseBlock(Checkpointed):
    """Three dense blocks and a skip around them (RRDB): (N, C, H, W) to (N, C, H, W)."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*[DenseBlock(channels, growth) for _ in range(3)])

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape."""
        return features + _SHARE * self.blocks(features)


class ResidualDenseNetwork(nn.Module):
    """Slices (N, 1, H, W) to slices ``scale`` times as large: 1 (on one grid), 2 or 4.

    With the sizes that are the defaults 16,695,681 parameters at scale 4 and 16,704,321 on one grid. There, and at
    scale 2, pixels are rearranged to channels first, so that the tail is the same (Real-ESRGAN, Wang 2021, section
    3.3). ``skip`` adds the input, interpolated, to a last layer that starts at zero: training starts from that and not
    from noise. Without it the network is that of the papers, whose weights it then takes.
    """

    def __init__(
        self, *, channels: int = 64, blocks: int = 23, growth: int = 32, scale: int = 1, skip: bool = True
    ) -> None:
        super().__init__()
        if scale not in (1, 2, 4):
            raise ValueError(f"scale {scale}: the network makes slices 1, 2 or 4 times as large")
        self.scale, self.unshuffle, self.skip = scale, _TAIL // scale, skip
        self.first = conv3(self.unshuffle**2, channels)
        self.body = nn.Sequential(*[ResidualDenseBlock(channels, growth) for _ in range(blocks)])
        self.after = conv3(channels, channels)
        self.enlarging = nn.ModuleList([conv3(channels, channels) for _ in range(2)])
        self.fine, self.last = conv3(channels, channels), conv3(channels, 1)
        if skip:
            zeroed(self.last)

    def forward(self, images: Tensor) -> Tensor:
        """Super-resolved slices in the intensities of the input."""
        features = channels_last(self.first(F.pixel_unshuffle(padded(images, self.unshuffle), self.unshuffle)))
        features = features + self.after(self.body(features))
        for convolution in self.enlarging:
            features = F.interpolate(features, scale_factor=2.0, mode="nearest")
            features = F.leaky_relu(convolution(features), _SLOPE)
        made = self.last(F.leaky_relu(self.fine(features), _SLOPE))
        height, width = (self.scale * n for n in images.shape[-2:])
        made = made[..., :height, :width]
        return made + enlarged(images, self.scale) if self.skip else made
