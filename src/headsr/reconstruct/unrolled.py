"""The operator-aware network on a study: any scans, wherever they lie, through their own operators."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from headsr.acquisition.evidence import Evidence
from headsr.acquisition.measurement import Study
from headsr.devices import choose_precision
from headsr.networks.unrolled import Refined
from headsr.recipes import Unrolled
from headsr.reconstruct.estimate import Estimate
from headsr.volumes import Grid

if TYPE_CHECKING:
    from headsr.weights import TrainedModel

# Corrected at once where nothing else is said: what bytes_per_voxel of so many allows. A halo of 36 voxels around a
# tile costs more than a small tile, so they are as large as they may be.
_AT_ONCE = 12_000_000
_LEAST_AT_ONCE = 1_500_000  # halos would be most of smaller tiles
# Bytes (docs/results/sr.md): of each voxel of the head, of what is loaded, and of each voxel that is corrected at once.
HELD, LOADED, _CORRECTED = 120, 700_000_000, {None: 560, torch.bfloat16: 300}


def unrolled(
    study: Study, method: Unrolled, models: Mapping[str, TrainedModel], *, memory: int | None = None
) -> Estimate:
    """The estimate of a trained operator-aware network (recipes.Unrolled) and half of its 90 % interval."""
    model = models[method.model]
    refined = refine(study, model, at_once=_AT_ONCE if memory is None else _fitting(study, model, memory))
    half = model.module.half_interval(refined.log_spread)
    return Estimate(refined.volume[0, 0].cpu().numpy(), uncertainty=half[0, 0].cpu().numpy())


def least_bytes(head: Grid) -> int:
    """What a head takes at least, in small tiles."""
    voxels = math.prod(head.shape)
    return LOADED + voxels * HELD + min(voxels, _LEAST_AT_ONCE) * _CORRECTED[None]


def _fitting(study: Study, model: TrainedModel, memory: int) -> int:
    """How many voxels may be corrected at once in so much memory."""
    precision = choose_precision(model.precision, study.scans[0].data.device)
    room = memory - LOADED - math.prod(study.head.shape) * HELD
    return max(_LEAST_AT_ONCE, room // _CORRECTED[precision])


@torch.no_grad()
def refine(study: Study, model: TrainedModel, *, at_once: int | None) -> Refined:
    """What the network makes of a study, (1, 1, X, Y, Z), correcting ``at_once`` voxels at most (None: all)."""
    device = study.scans[0].data.device
    precision = choose_precision(model.precision, device)
    operators = [scan.operator for scan in study.scans]
    evidence = Evidence(operators, [scan.data[None, None] for scan in study.scans], [s.noise for s in study.scans])
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision is not None):
        return model.module(evidence, at_once=at_once)
