"""What a denoiser is told of slices, beside their noisy latents."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Condition(NamedTuple):
    """What scans say of N slices, and how these lie in the head.

    ``image`` (N, 1, H, W) is what they show in normalised intensities, one scan's interpolation or least squares over
    all, and ``shown`` (N, 1, H, W) how many scans show each pixel; both are 0 where none does. ``plane`` (N,) is the
    array axis across the slices, ``pixel_mm`` (N, 2) the spacing of their rows and columns, ``thickness_mm`` (N,) how
    thick the thickest of the scans' own slices are along the rows, and 0 where nothing is shown.
    """

    image: Tensor
    shown: Tensor
    plane: Tensor
    pixel_mm: Tensor
    thickness_mm: Tensor

    def of(self, chosen: Tensor) -> Condition:
        """The same of some of the slices, by their numbers."""
        return Condition(*(tensor[chosen] for tensor in self))

    def without(self, dropped: Tensor) -> Condition:
        """The same with nothing shown of the slices that are ``dropped`` (N,; bool): what is left is how they lie."""
        kept = (~dropped).to(self.image)
        whole = kept[:, None, None, None]
        return self._replace(image=self.image * whole, shown=self.shown * whole, thickness_mm=self.thickness_mm * kept)

    @staticmethod
    def of_one_scan(image: Tensor, plane: Tensor, pixel_mm: Tensor, thickness_mm: Tensor) -> Condition:
        """Of slices (N, 1, H, W) that one scan shows all over."""
        return Condition(image, torch.ones_like(image), plane, pixel_mm, thickness_mm)
