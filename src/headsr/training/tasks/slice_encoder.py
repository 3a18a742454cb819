"""The slice encoder: what is known of a crop without labels is asked of its features."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headsr.networks.slice_encoder import SliceEncoder
from headsr.training.task import OneNetwork

_MEASURED_BATCHES, _MEASURED_BATCH = 16, 32


class SliceEncoderTask(OneNetwork):
    """Losses of the answers on plane, position and degradation; how often and how nearly they are right."""

    @torch.no_grad()
    def begin(self, networks: Mapping[str, nn.Module]) -> None:
        """Give the features the spread that the answers need: without it the first hundreds of steps find no way."""
        network = networks["network"]
        self._measure(network, network.first_mean, network.first_deviation)

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
        """Give the embedding unit spread."""
        self._measure(network, network.last_mean, network.last_deviation)
        return {}

    def _measure(self, network: SliceEncoder, mean: Tensor, deviation: Tensor) -> None:
        """Set the mean and deviation of each feature over some hundred training crops, clean and degraded.

        A feature that hardly varies there is not blown up: whatever else moved it would be all that counts.
        """
        crops = (self.setting.train.batch(step, _MEASURED_BATCH).images for step in range(_MEASURED_BATCHES))
        pooled = torch.cat([network.pooled(images).double() for images in crops])
        spread = pooled.std(dim=0)
        mean.copy_(pooled.mean(dim=0))
        deviation.copy_(spread.maximum(0.1 * spread.mean()).clamp_min(1e-6))
