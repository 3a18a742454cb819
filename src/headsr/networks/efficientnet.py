"""What EfficientNet-Lite0 sees in images: inverted bottlenecks (Tan 2019, table 1) without squeeze and excitation.

The lite networks (Tan 2020, of the same equations) have ReLU6 in place of SiLU, and stem and head of one size in all.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

# Of each stage: channels, how many times as many inside a block, the kernel's side, stride of the first block, blocks.
STAGES = (
    (16, 1, 3, 1, 1),
    (24, 6, 3, 2, 2),
    (40, 6, 5, 2, 2),
    (80, 6, 3, 2, 3),
    (112, 6, 5, 1, 3),
    (192, 6, 5, 2, 4),
    (320, 6, 3, 1, 1),
)
_STEM = 32
_MEAN, _DEVIATION = 127 / 255, 128 / 255  # of a channel, as the networks for small devices are trained
_EPSILON = 1e-3  # of the norms


class NormedConvolution(nn.Module):
    """A convolution without bias, then a norm: (N, inputs, H, W) to (N, outputs, H / stride, W / stride), rounded up.

    Zeros are added as TensorFlow's SAME does, of an odd number the more below and to the right.
    """

    def __init__(self, inputs: int, outputs: int, side: int = 1, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, side, stride=stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=_EPSILON)
        self.side, self.stride = side, stride

    def forward(self, features: Tensor) -> Tensor:
        """Normed features."""
        (above, below), (left, right) = (self._added(n) for n in features.shape[-2:])
        return self.norm(self.convolution(F.pad(features, (left, right, above, below))))

    def _added(self, n: int) -> tuple[int, int]:
        """How many zeros before and after n pixels."""
        total = max(0, (-(-n // self.stride) - 1) * self.stride + self.side - n)
        return total // 2, total - total // 2


class Bottleneck(nn.Module):
    """Widened, filtered channel by channel, narrowed, and added to what it was where the shape is the same."""

    def __init__(self, inputs: int, outputs: int, expansion: int, side: int, stride: int) -> None:
        super().__init__()
        wide = expansion * inputs
        self.widen = NormedConvolution(inputs, wide) if expansion > 1 else None
        self.filter = NormedConvolution(wide, wide, side, stride=stride, groups=wide)
        self.narrow = NormedConvolution(wide, outputs)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, outputs, H / stride, W / stride)."""
        hidden = features if self.widen is None else F.relu6(self.widen(features))
        hidden = self.narrow(F.relu6(self.filter(hidden)))
        return features + hidden if self.skip else hidden


class EfficientNetLite0(nn.Module):
    """Images (N, 1, H, W) in [0, 1] to features; 2,958,848 parameters.

    Grey is shown as red, green and blue alike. Its last convolution and the classifier are left out. Norms have the
    statistics that they were trained to, also where what compares the features is in training.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = NormedConvolution(3, _STEM, 3, stride=2), nn.ModuleList()
        inputs = _STEM
        for outputs, expansion, side, stride, number in STAGES:
            for i in range(number):
                self.blocks.append(Bottleneck(inputs, outputs, expansion, side, stride if i == 0 else 1))
                inputs = outputs
        self.eval()

    def train(self, mode: bool = True) -> EfficientNetLite0:
        """Nothing: statistics of other images than those of its training would be other features."""
        return super().train(False)

    def features(self, images: Tensor) -> list[Tensor]:
        """The last features 2, 4, 8, 16 and 32 times smaller than the image: of 16, 24, 40, 112 and 320 channels."""
        hidden, maps = F.relu6(self.stem((images.expand(-1, 3, -1, -1) - _MEAN) / _DEVIATION)), []
        for block in self.blocks:
            if block.filter.stride > 1:
                maps.append(hidden)
            hidden = block(hidden)
        return [*maps, hidden]
