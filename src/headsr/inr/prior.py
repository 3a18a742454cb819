"""A frozen 2-D latent diffusion model as the prior of a fit: what slices through the volume should look like."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from headsr.acquisition.evidence import Evidence
from headsr.acquisition.measurement import Measurement, Study
from headsr.devices import choose_precision, generator_of
from headsr.diffusion.sample import predict_clean
from headsr.diffusion.schedule import SCHEDULE
from headsr.networks.autoencoder import decode, encode
from headsr.networks.blocks import padded
from headsr.networks.condition import Condition
from headsr.recipes import Fit
from headsr.reconstruct.interpolate import spline_of
from headsr.reconstruct.slicewise import slice_orders
from headsr.reconstruct.study_planes import StudyPlanes
from headsr.volumes import Grid
from headsr.weights import TrainedModel

_HEAD_LEVEL, _HEAD_SHARE = 0.1, 0.05  # a slice is asked about if this share of it is brighter than this


class _Family(NamedTuple):
    """The slices of one plane, what one scan or all of them say of all of these, and which show head."""

    condition: Condition
    order: tuple[int, int, int]
    shown: Tensor

    @classmethod
    def of(cls, condition: Condition, order: tuple[int, int, int]) -> _Family:
        """The slices that a condition is of, those that show head by its image."""
        share = (condition.image > _HEAD_LEVEL).float().mean(dim=(1, 2, 3))
        return cls(condition, order, torch.nonzero(share >= _HEAD_SHARE).flatten().cpu())


class SlicePrior:
    """Pulls a volume towards what the denoiser makes of its slices.

    The two routes of methods e.3 in one: each visit moves a few slices x to x + (D(z0) - D(z)), z = E(x), z0 the clean
    latent that the model expects behind z with noise at a random time; the difference of two decodings cancels what the
    autoencoder itself loses. The visited targets are kept, and the fit regresses on them in every step ("sample, then
    fit"), each with RED-diff's weight min(s/a, 1) of its noise. The slices are those that show what scans leave out.
    Of them the model is told what it was told in its training: of slices through one scan (``slice_orders``) that
    scan's interpolation, or of slices through the head least squares over all scans (``StudyPlanes``).

    The pull is stronger the more the scans leave open: the recipe's weight times the unknowns per measured number
    beyond one, 3 for one scan of factor 4 and 1/3 for three. A model that sees one scan at a time knows less than three
    scans together: the pull that gave one scan 1.6 dB cost three scans 0.3 to 0.7 dB.
    """

    def __init__(self, model: TrainedModel, study: Study, *, fit: Fit) -> None:
        device = study.scans[0].data.device
        self.model, self.fit, self.source_key = model.module, fit, study.source_key
        self.precision = choose_precision(model.precision, device)
        self.families = _of_study(study) if model.told == "least_squares" else _of_scans(study, device)
        self.total = torch.zeros(study.head.shape, device=device)
        self.weight = torch.zeros(study.head.shape, device=device)
        self.visits = 0
        measured = sum(scan.data.numel() for scan in study.scans)
        self.strength = fit.prior_weight * max(0.0, self.total.numel() / measured - 1)

    @torch.no_grad()
    def visit(self, volume: Tensor) -> float:
        """Ask the model about the next slices of ``volume`` (X, Y, Z); returns the rms change that it wants there.

        Families take turns and each goes through its slices in a random order that depends on the seed and the scan.
        """
        family, chosen, turn = self._next_slices()
        slices = volume.permute(family.order)[chosen]
        change, share = self._change(slices, family.condition.of(chosen), turn)
        self.total.permute(family.order)[chosen] += share * (slices + change)
        self.weight.permute(family.order)[chosen] += share
        return float(change.square().mean().sqrt())

    def penalty(self, volume: Tensor) -> Tensor:
        """strength/2 sum_v w_v (x_v - target_v)^2 over the voxels visited so far, w_v at most 1."""
        target = self.total / self.weight.clamp_min(1e-12)
        return 0.5 * self.strength * (self.weight.clamp_max(1.0) * (volume - target) ** 2).sum()

    def _next_slices(self) -> tuple[_Family, Tensor, int]:
        turn, which = divmod(self.visits, len(self.families))
        self.visits += 1
        family = self.families[which]
        count = min(self.fit.prior_slices, len(family.shown))
        visits_per_round = -(-len(family.shown) // count)
        round_number, place = divmod(turn, visits_per_round)
        generator = generator_of(self.fit.seed, self.source_key, "prior slices", which, round_number)
        shuffled = family.shown[torch.randperm(len(family.shown), generator=generator)]
        return family, shuffled[place * count : (place + 1) * count], turn

    def _change(self, slices: Tensor, condition: Condition, turn: int) -> tuple[Tensor, Tensor]:
        """D(z0) - D(z) of slices (N, H, W), and RED-diff's weight (N, 1, 1) of each."""
        plane = int(condition.plane[0])
        generator = generator_of(self.fit.seed, self.source_key, "prior noise", plane, self.visits, turn)
        height, width = slices.shape[1:]
        model, factor = self.model, self.model.autoencoder.factor
        low, high = (SCHEDULE.timestep_at(fraction) for fraction in self.fit.prior_noise)
        times = torch.randint(low, high + 1, (len(slices),), generator=generator).to(slices.device)
        with torch.autocast(slices.device.type, dtype=torch.bfloat16, enabled=self.precision is not None):
            latents = encode(model.autoencoder, padded(slices[:, None], factor)).float()
            noise = torch.randn(latents.shape, generator=generator).to(latents)
            noisy = SCHEDULE.add_noise(latents, noise, times)
            fitting = condition._replace(image=padded(condition.image, factor), shown=padded(condition.shown, factor))
            clean = predict_clean(model.unet, noisy, times, fitting).float()
            change = decode(model.autoencoder, clean).float() - decode(model.autoencoder, latents).float()
        signal, deviation = SCHEDULE.signal_and_noise(times, latents)
        return change[:, 0, :height, :width], (deviation / signal).clamp_max(1.0)[:, :, 0]


def _of_study(study: Study) -> list[_Family]:
    """The slices in every plane that shows what the scans leave out, with what all of them say."""
    planes = StudyPlanes(Evidence.of(study), study.head.voxel_size)
    found = [_Family.of(planes.condition(plane), planes.order(plane)) for plane in planes.telling]
    return [family for family in found if len(family.shown)]


def _of_scans(study: Study, device: torch.device) -> list[_Family]:
    """The slices through each scan that show what it leaves out, with what that scan says."""
    families = []
    for scan in study.scans:
        interpolated = torch.as_tensor(spline_of(scan, study.head), device=device)
        for order in slice_orders(scan.operator):
            slices = interpolated.permute(order).contiguous()
            families.append(_Family.of(_condition(scan, study.head, slices, order), order))
    return [family for family in families if len(family.shown)]


def _condition(scan: Measurement, head: Grid, slices: Tensor, order: tuple[int, int, int]) -> Condition:
    """What a scan says of slices (N, H, W) of its interpolation, whose rows lie across its own thick ones."""
    size, numbers = head.voxel_size, slices.new_ones(len(slices))
    return Condition.of_one_scan(
        slices[:, None],
        torch.full((len(slices),), order[0], device=slices.device),
        numbers[:, None] * torch.tensor([size[order[1]], size[order[2]]]).to(slices),
        numbers * max(scan.operator.extents),
    )
