"""The slice encoder: what is known of a crop without labels is asked of its features."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headsr.networks.slice_encoder import SliceEncoder
from headsr.training.task import Setting

_EMBEDDING_BATCHES, _EMBEDDING_BATCH = 16, 32  # crops behind the embedding's mean and deviation


class SliceEncoderTask:
    """Losses of the answers on plane, position and degradation; how often and how nearly they are right."""

    turns = ("network",)

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def networks(self) -> dict[str, nn.Module]:
        """The encoder alone."""
        return {"network": self.setting.build(self.setting.recipe.network)}

    def begin(self, networks: Mapping[str, nn.Module]) -> None:
        """Nothing is known before."""

    def terms(self, turn: str, networks: Mapping[str, nn.Module], step: int) -> dict[str, Tensor]:
        """Losses of one batch."""
        images, *known = self.setting.train.batch(step)
        answers = networks["network"](images)
        names = ("planes", "positions", "degradations")
        return self.setting.losses({name: pair for name, *pair in zip(names, answers, known, strict=True)})

    @torch.no_grad()
    def validate(self, network: SliceEncoder) -> dict[str, float]:
        """Share of planes that are right; mean absolute errors of positions and of the parts of the degradation."""
        images, planes, positions, degradations = self.setting.validation
        answers = network(images)
        errors = (answers.degradations.float() - degradations).abs().mean(dim=0).tolist()
        return {
            "val_plane_accuracy": float((answers.planes.argmax(dim=1) == planes).float().mean()),
            "val_position_error": float(F.l1_loss(answers.positions.float(), positions)),
            **{f"val_{part}_error": error for part, error in zip(("blur", "thickness", "noise"), errors, strict=True)},
        }

    @torch.no_grad()
    def finish(self, network: SliceEncoder) -> dict[str, float]:
        """Set the embedding's mean and deviation from some hundred training crops, clean and degraded."""
        crops = [self.setting.train.batch(step, _EMBEDDING_BATCH).images for step in range(_EMBEDDING_BATCHES)]
        pooled = torch.cat([network.pooled(images).double() for images in crops])
        network.embedding_mean.copy_(pooled.mean(dim=0))
        network.embedding_deviation.copy_(pooled.std(dim=0).clamp_min(1e-6))
        return {}
