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

if TYPE_CHECKING:
    from headsr.weights import TrainedModel

# Heads of more voxels are corrected in tiles: what bytes_per_voxel of so many allows. A halo of 32 voxels around a tile
# costs more than the tile, so it is as large as it may be.
_WHOLE, _TILE = 12_000_000, 160


def unrolled(study: Study, method: Unrolled, models: Mapping[str, TrainedModel]) -> Estimate:
    """The estimate of a trained operator-aware network (recipes.Unrolled) and half of its 90 % interval."""
    model = models[method.model]
    refined = refine(study, model, tile=_TILE if math.prod(study.head.shape) > _WHOLE else None)
    half = model.module.half_interval(refined.log_spread)
    return Estimate(refined.volume[0, 0].cpu().numpy(), uncertainty=half[0, 0].cpu().numpy())


@torch.no_grad()
def refine(study: Study, model: TrainedModel, *, tile: int | None) -> Refined:
    """What the network makes of a study, (1, 1, X, Y, Z), in tiles of ``tile`` voxels a side (None: at once)."""
    device = study.scans[0].data.device
    precision = choose_precision(model.precision, device)
    operators = [scan.operator for scan in study.scans]
    evidence = Evidence(operators, [scan.data[None, None] for scan in study.scans], [s.noise for s in study.scans])
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision is not None):
        return model.module(evidence, tile=tile)
