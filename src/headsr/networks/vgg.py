"""What VGG-19 (Simonyan 2015, table 1, E) sees in images, where ESRGAN and Real-ESRGAN compare them."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headsr.networks.blocks import conv3

LEVELS = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)  # widths of the convolutions between two poolings
_SHARES = (0.1, 0.1, 1.0, 1.0, 1.0)  # of the levels in the loss (Wang 2021, section 4.1)
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's channels, which it was trained with


class Vgg19(nn.Module):
    """Images (N, 1, H, W) in [0, 1], 16 pixels a side and more, to features; 20,024,384 parameters.

    Grey is shown as red, green and blue alike, in the units of ImageNet. The classifier is left out.
    """

    def __init__(self) -> None:
        super().__init__()
        inputs = [3, *(width for level in LEVELS for width in level)]
        convolutions = iter([conv3(*pair) for pair in pairwise(inputs)])
        self.levels = nn.ModuleList([nn.ModuleList([next(convolutions) for _ in level]) for level in LEVELS])
        for name, values in (("mean", _MEAN), ("deviation", _DEVIATION)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def features(self, images: Tensor) -> list[Tensor]:
        """conv1_2, conv2_2, conv3_4, conv4_4 and conv5_4 before their ReLU, each times its share and their number.

        So the mean over their differences is the sum weighted by .1, .1, 1, 1, 1 of Real-ESRGAN.
        """
        hidden, maps = (images.expand(-1, 3, -1, -1) - self.mean) / self.deviation, []
        for number, level in enumerate(self.levels):
            hidden = F.max_pool2d(hidden, 2) if number else hidden
            for convolution in level[:-1]:
                hidden = F.relu(convolution(hidden))
            maps.append(level[-1](hidden))
            hidden = F.relu(maps[-1])
        return [len(_SHARES) * share * one for share, one in zip(_SHARES, maps, strict=True)]
