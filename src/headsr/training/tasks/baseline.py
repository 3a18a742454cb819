"""The 2-D baseline: degraded slices in, clean slices out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

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
        return {"val_psnr": psnr(network(degraded), clean), "val_psnr_spline": psnr(degraded, clean)}
