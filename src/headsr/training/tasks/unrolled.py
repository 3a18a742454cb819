"""The operator-aware network: studies in, heads and the spread of their errors out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from headsr.losses.pixel import psnr
from headsr.networks.blocks import in_full_precision
from headsr.networks.unrolled import Refined
from headsr.training.data.studies import StudyBatch
from headsr.training.task import OneNetwork

_STUDIES, _CALIBRATION = 12, 40  # of the validation heads, one head each
_EXPECTATION = 200  # studies of the training heads
_LEAST_ERROR = 3e-3  # of the range: from here on an error of the start is no measure of how hard a study is
_LESION = 15.0  # what a voxel of lesion counts more: they are 3 in 1,000, and what a reader looks for


class UnrolledTask(OneNetwork):
    """Image losses relative to the error that least squares starts with, and the likelihood of what is left.

    Every stage is to come as near as it can (Putzky and Welling 2017, equation 8), the last one counts as much as all
    before it.
    """

    @torch.no_grad()
    def begin(self, networks: Mapping[str, nn.Module]) -> None:
        """Measure how far least squares is off in studies of every kind, for the network to work in units of that."""
        traits, errors = [], []
        for step in range(1, _EXPECTATION + 1):
            batch = self.setting.train.batch(step, 1)
            error = (batch.evidence.start - batch.heads).square().mean().sqrt().clamp_min(_LEAST_ERROR)
            traits.append(batch.evidence.traits()[0])
            errors.append((error / batch.evidence.grain.flatten()[0]).log())
        networks["network"].expect(torch.stack(traits), torch.stack(errors))

    def terms(self, turn: str, networks: Mapping[str, nn.Module], step: int) -> dict[str, Tensor]:
        """Losses of one batch of studies: every study counts by the share of its error that is left."""
        batch = self.setting.train.batch(step)
        refined = networks["network"](batch.evidence, keep_earlier=True)
        with in_full_precision(batch.heads.device):
            worth = _worth(batch)
            stages = [*refined.earlier, *[refined.volume] * max(1, len(refined.earlier))]
            estimates = torch.cat([worth * stage for stage in stages])
            truths = (worth * batch.heads).repeat(len(stages), 1, 1, 1, 1)
            error = (refined.volume - batch.heads).detach()
            return self.setting.losses({"images": (estimates, truths), "spreads": (refined.log_spread, error)})

    @torch.no_grad()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Mean PSNR in dB (peak 1.0, whole blocks) over fixed studies, of the network and of what it starts from, and
        the mean logarithm of the Laplace likelihood."""
        found = [
            (psnr(refined.volume, batch.heads), psnr(batch.evidence.start, batch.heads), _likelihood(refined, batch))
            for batch, refined in self._refined(network, _STUDIES)
        ]
        means = [sum(values) / len(values) for values in zip(*found, strict=True)]
        return dict(zip(("val_psnr", "val_psnr_start", "val_log_likelihood"), means, strict=True))

    @torch.no_grad()
    def finish(self, network: nn.Module) -> dict[str, float]:
        """Calibrate the spreads: how wide the interval must be that holds 90 % of the errors of validation heads."""
        spreads, errors = [], []
        for batch, refined in self._refined(network, _CALIBRATION):
            spreads.append(refined.log_spread.flatten())
            errors.append((refined.volume - batch.heads).abs().flatten())
        return {"val_coverage_uncalibrated": network.calibrate(torch.cat(spreads), torch.cat(errors))}

    def _refined(self, network: nn.Module, number: int) -> Iterator[tuple[StudyBatch, Refined]]:
        for study in range(number):
            batch = self.setting.held_out.batch(study, 1)
            yield batch, network(batch.evidence)


def _worth(batch: StudyBatch) -> Tensor:
    """What an error counts in each voxel, (N, 1, X, Y, Z) or (N, 1, 1, 1, 1)."""
    worth = 1 / _start_error(batch)
    return worth if batch.lesions is None else worth * (1 + _LESION * batch.lesions)


def _start_error(batch: StudyBatch) -> Tensor:
    """The root mean square error that each head starts with, (N, 1, 1, 1, 1)."""
    error = (batch.evidence.start - batch.heads).square().mean(dim=(1, 2, 3, 4), keepdim=True).sqrt()
    return error.clamp_min(_LEAST_ERROR)


def _likelihood(refined: Refined, batch: StudyBatch) -> float:
    spread = refined.log_spread
    return float(-(spread + math.log(2) + (refined.volume - batch.heads).abs() * (-spread).exp()).mean())
