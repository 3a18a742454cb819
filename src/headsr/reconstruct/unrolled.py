"""The operator-aware network on a study: any scans, wherever they lie, through their own operators."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from headsr.acquisition.evidence import Evidence
from headsr.acquisition.measurement import Study
from headsr.devices import choose_precision
from headsr.networks.unrolled import Refined, in_tiles
from headsr.recipes import Unrolled
from headsr.reconstruct.estimate import Estimate
from headsr.render.progress import RenderProgress
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
    study: Study, method: Unrolled, models: Mapping[str, TrainedModel], *, memory: int | None = None, label: str = ""
) -> Estimate:
    """The estimate of a trained operator-aware network (recipes.Unrolled) and half of its 90 % interval."""
    model = models[method.model]
    at_once = _AT_ONCE if memory is None else fitting(study.head, model, memory)
    with _shown(label, model.module, study.head, at_once):
        refined = refine(study, model, at_once=at_once)
    half = model.module.half_interval(refined.log_spread)
    return Estimate(refined.volume[0, 0].cpu().numpy(), uncertainty=half[0, 0].cpu().numpy())


def least_bytes(head: Grid) -> int:
    """What a head takes at least, in small tiles."""
    voxels = math.prod(head.shape)
    return LOADED + voxels * HELD + min(voxels, _LEAST_AT_ONCE) * _CORRECTED[None]


def fitting(head: Grid, model: TrainedModel, memory: int) -> int:
    """How many voxels of a head may be corrected at once in so much memory."""
    precision = choose_precision(model.precision, next(model.module.parameters()).device)
    room = memory - LOADED - math.prod(head.shape) * HELD
    return max(_LEAST_AT_ONCE, room // _CORRECTED[precision])


def tiles_of(head: Grid, module: nn.Module, at_once: int | None) -> list[int]:
    """How many voxels each tile of a head has, its halo too, where ``at_once`` are corrected at most (None: all).

    Every stage corrects all of them.
    """
    voxels = []

    def count(tile: Tensor) -> Tensor:
        voxels.append(math.prod(tile.shape[2:]))
        return tile

    in_tiles(count, [torch.empty(1, 1, *head.shape, device="meta")], at_once=at_once, halo=module.corrections[0].halo)
    return voxels


@contextmanager
def _shown(label: str, module: nn.Module, head: Grid, at_once: int) -> Iterator[None]:
    """Say in the block how far its corrections are, and how long they will still take; with no label nothing."""
    if not label:
        yield
        return
    tiles, stages = tiles_of(head, module, at_once), module.corrections
    pieces = f"{len(stages)} stages of {len(tiles)} tile{'s' * (len(tiles) > 1)}"
    progress = RenderProgress(f"{label}, {pieces}", len(stages) * sum(tiles))
    hooks = [
        stage.register_forward_hook(lambda _, inputs, __: progress.add(math.prod(inputs[0].shape[2:])))
        for stage in stages
    ]
    try:
        yield
    finally:
        progress.end()
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def refine(study: Study, model: TrainedModel, *, at_once: int | None) -> Refined:
    """What the network makes of a study, (1, 1, X, Y, Z), correcting ``at_once`` voxels at most (None: all)."""
    device = study.scans[0].data.device
    precision, evidence = choose_precision(model.precision, device), Evidence.of(study)
    # Bf16 is for the network: what the scans show is found in full precision.
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision is not None):
        return model.module(evidence, at_once=at_once)
