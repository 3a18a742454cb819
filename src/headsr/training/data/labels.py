"""Label maps shown in a contrast that is drawn at random, on the device of a training.

After SynthSeg (Billot et al. 2023, Medical Image Analysis 86:102789) and SynthSR (Iglesias et al. 2023, Science
Advances 9:eadd3607): every label has an intensity with a mean and a deviation of its own, drawn anew for every image,
under a smooth bias field. Numbers are drawn on the CPU from the seed of a block, so that every device shows the same up
to rounding. Widths are in voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from headsr.devices import generator_of

_LABELS = 2**16
_MOST_DEVIATION = 0.1
# What surrounds a head is dark, though not black: at most so much of what another label may have.
_BACKGROUND = 0.1
_TEXTURE, _BLUR = (0.0, 1.5), (0.3, 0.8)
_BIAS, _BIAS_CELLS = 0.3, (4, 4, 4)


@torch.no_grad()
def paint(labels: Tensor, seeds: Sequence[int]) -> Tensor:
    """Images (N, 1, X, Y, Z), float32 from 0 up, of label maps (N, 1, X, Y, Z), int64 of 0 to 65535; one seed for each.

    Label 0 is what surrounds a head. The blur of 0.3 to 0.8 voxels stands for partial volume.
    """
    images = [_painted(one, generator_of("paint", seed)) for one, seed in zip(labels[:, 0], seeds, strict=True)]
    return torch.stack(images)[:, None]


def _painted(labels: Tensor, generator: torch.Generator) -> Tensor:
    """One image (X, Y, Z) of a label map."""
    means, deviations = draw_contrast(generator).to(labels.device)
    texture = draw_texture(labels.shape, generator, labels.device)
    image = means[labels] + deviations[labels] * texture
    image = _smoothed(image, _uniform(_BLUR, generator), norm=1)
    return (image * draw_bias(labels.shape, generator, labels.device)).clamp_(min=0)


def draw_contrast(generator: torch.Generator) -> Tensor:
    """Mean in [0, 1] and deviation in [0, 0.1] of every label (2, 65536); a tenth of that for label 0."""
    contrast = torch.rand(2, _LABELS, generator=generator) * torch.tensor([[1.0], [_MOST_DEVIATION]])
    contrast[:, 0] *= _BACKGROUND
    return contrast


def draw_texture(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
    """Noise (X, Y, Z) of mean 0 and deviation 1 in every voxel, smoothed by a Gaussian of 0 to 1.5 voxels."""
    sigma = _uniform(_TEXTURE, generator)
    return _smoothed(torch.randn(tuple(shape), generator=generator).to(device), sigma, norm=2)


def draw_bias(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
    """Smooth factors (X, Y, Z) in [0.7, 1.3], linear between the centres of few large cells."""
    cells = 1 + _BIAS * (2 * torch.rand(1, 1, *_BIAS_CELLS, generator=generator) - 1)
    return functional.interpolate(cells.to(device), size=tuple(shape), mode="trilinear")[0, 0]


def _smoothed(image: Tensor, sigma: float, *, norm: int) -> Tensor:
    """An image (X, Y, Z) under a Gaussian that ends at the borders.

    With ``norm`` 1 its weights sum to 1, which keeps a constant; with 2 their squares do, which keeps the deviation of
    white noise.
    """
    for axis, length in enumerate(image.shape):
        places = torch.arange(length, dtype=torch.float64)
        weights = torch.exp(-0.5 * ((places[:, None] - places) / max(sigma, 1e-3)) ** 2)
        weights = functional.normalize(weights, p=norm).to(image)
        image = torch.movedim(torch.movedim(image, axis, -1) @ weights.T, -1, axis)
    return image


def _uniform(between: tuple[float, float], generator: torch.Generator) -> float:
    low, high = between
    return low + (high - low) * torch.rand((), generator=generator).item()
