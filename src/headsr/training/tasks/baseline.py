"""The 2-D baseline: degraded slices in, clean slices out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from headsr.degrade.resample import resize_columns, resize_rows
from headsr.losses.pixel import psnr
from headsr.training.task import OneNetwork


class BaselineTask(OneNetwork):
    """Image losses of the network on degraded crops; PSNR of the network and of its spline-interpolated input."""

    def terms(self, turn: str, networks: Mapping[str, nn.Module], step: int) -> dict[str, Tensor]:
        """Image losses of one batch."""
        pairs = self.setting.train.batch(step)
        return self.setting.losses({"images": (networks["network"](pairs.degraded), pairs.clean)})

    @torch.no_grad()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """PSNR in dB (peak 1.0, whole crops)."""
        clean, degraded, _ = self.setting.validation
        made = psnr(network(degraded), clean)
        return {"val_psnr": made, "val_psnr_spline": psnr(_enlarged(degraded, self.setting.recipe.scale), clean)}


def _enlarged(images: Tensor, scale: int) -> Tensor:
    """Slices (N, 1, H, W) interpolated by cubic splines to ``scale`` times as many pixels a side."""
    if scale == 1:
        return images
    height, width = (scale * n for n in images.shape[-2:])
    modes = ["spline"] * len(images)
    return resize_rows(resize_columns(images[:, 0], width, modes), height, modes)[:, None]
